// Network interfaces, RDMA, UCX, exchanges and GPUs of this machine.
#include <algorithm>
#include <set>

#include "a2a/algorithms.h"
#include "app/doctor.h"
#include "deploy/node_address.h"
#include "fabric/host_link.h"
#include "fabric/ucx_transports.h"
#include "sys/devices.h"
#include "sys/interfaces.h"
#include "sys/limits.h"

namespace cadre::app {
namespace {

Json Strings(const std::vector<std::string>& words) {
  Json list = Json::Array();
  for (const std::string& word : words) list.Push(word);
  return list;
}

std::string SpeedText(int64_t mbps) {
  if (mbps <= 0) return "speed not told by its driver";
  return mbps >= 1000 ? Format("{} Gbit/s", mbps / 1000) : Format("{} Mbit/s", mbps);
}

Finding Interface(const sys::NetworkDevice& device, const std::vector<std::string>& addresses) {
  Finding f{.section = "network", .name = device.name, .level = Level::kInfo};
  const bool usable = !addresses.empty() && device.state != "down";
  f.value = Format("{}, {}, {}, MTU {}{}", addresses.empty() ? "no address" : Joined(addresses),
                   device.state.empty() ? "state unknown" : device.state, SpeedText(device.speed_mbps),
                   device.mtu, device.driver.empty() ? "" : ", driver " + device.driver);
  if (device.loopback) {
    f.meaning = "Within this host only.";
  } else if (usable) {
    f.flags = "NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, VLLM_HOST_IP, --data-parallel-address";
    f.meaning = Format("Other hosts reach this one at {} if NCCL_SOCKET_IFNAME={} is set.", addresses.front(),
                       device.name);
    if (device.speed_mbps > 0 && device.speed_mbps < 10000) {
      f.level = Level::kWarning;
      f.meaning += " Below 10 Gbit/s the exchange between hosts bounds every step.";
    }
  } else {
    f.meaning = "Cannot be used: no address, or down.";
  }
  f.data = Json::Object{{"addresses", Strings(addresses)},
                        {"state", device.state},
                        {"speed_mbps", device.speed_mbps},
                        {"mtu", device.mtu},
                        {"driver", device.driver},
                        {"loopback", device.loopback},
                        {"numa_node", device.place.numa_node}};
  return f;
}

// Which of them a node would use.
Finding Choice(const config::DoctorOptions& options, const std::vector<sys::NetworkInterface>& interfaces,
               int num_usable) {
  Finding f{.section = "network",
            .name = "between nodes",
            .flags = "VLLM_HOST_IP, NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, TP_SOCKET_IFNAME"};
  const auto chosen = deploy::NodeAddresses(options.parallel, interfaces);
  if (!chosen) {
    f.level = Level::kBlocks;
    f.value = chosen.error().message;
    f.meaning = "`cadre serve` over several nodes refuses this setting.";
  } else if (chosen->empty()) {
    f.value = "the address that leads to the first node";
    f.meaning = num_usable == 0 ? "There is no network but the loopback: deployments on this host only."
                : num_usable == 1
                    ? "There is one network, so nothing needs to be set."
                    : "Several networks are there: name one, or several to be used together, if that "
                      "is not the one wanted.";
  } else {
    f.value = Joined(*chosen) + " (set by the environment)";
    f.meaning = chosen->size() > 1 ? "Large messages are split over them." : "";
  }
  const sys::PortRange ports = sys::ReadLocalPorts();
  f.meaning += Format(
      "{}A firewall between the hosts must let pass --data-parallel-rpc-port and the ports {} to {}, "
      "which the kernel hands out to ranks.",
      f.meaning.empty() ? "" : " ", ports.first, ports.last);
  f.data = Json::Object{{"addresses", Strings(chosen.value_or(std::vector<std::string>()))},
                        {"first_port", ports.first},
                        {"last_port", ports.last}};
  return f;
}

void Network(const config::DoctorOptions& options, const std::string& root, Findings& findings) {
  const auto interfaces = sys::ListInterfaces().value_or(std::vector<sys::NetworkInterface>());
  int num_usable = 0;
  for (const sys::NetworkDevice& device : sys::ListNetworkDevices(root)) {
    const auto at = std::ranges::find(interfaces, device.name, &sys::NetworkInterface::name);
    const std::vector<std::string> addresses =
        at == interfaces.end() ? std::vector<std::string>() : at->addresses;
    num_usable += !device.loopback && !addresses.empty() && device.state != "down";
    findings.push_back(Interface(device, addresses));
  }
  findings.push_back(Choice(options, interfaces, num_usable));
}

Finding Rdma(const sys::RdmaDevice& device, const Result<fabric::UcxInfo>& ucx) {
  Finding f{.section = "rdma", .name = device.name, .level = Level::kInfo};
  f.value = Format("driver {}{}", device.driver.empty() ? "unknown" : device.driver,
                   device.interfaces.empty() ? "" : ", interface " + Joined(device.interfaces));
  Json ports = Json::Array();
  for (const sys::RdmaPort& port : device.ports) {
    f.value +=
        Format("; port {}: {}, {}, {:.0f} Gbit/s", port.number, port.state, port.link_layer, port.gbit);
    ports.Push(Json::Object{{"number", port.number},
                            {"state", port.state},
                            {"link_layer", port.link_layer},
                            {"gbit", port.gbit}});
  }
  std::set<std::string> transports;
  if (ucx) {
    for (const auto& t : ucx->transports) {
      if (t.device == device.name || t.device.starts_with(device.name + ":")) transports.insert(t.transport);
    }
  }
  if (!device.active()) {
    f.level = Level::kWarning;
    f.meaning = "No port is active: look at the cable, the switch and (InfiniBand) the subnet manager.";
  } else if (transports.empty()) {
    f.level = Level::kWarning;
    f.meaning = device.efa()
                    ? "UCX does not list this EFA device (that needs a UCX with SRD): hosts talk TCP over "
                      "its Ethernet interface."
                    : "UCX does not list it: install rdma-core and libucx0, and give the container "
                      "/dev/infiniband. Until then hosts talk TCP.";
  } else {
    f.meaning =
        "UCX uses it between hosts by itself (" + Joined(transports) + "); several are used together.";
  }
  f.data = Json::Object{{"driver", device.driver},
                        {"efa", device.efa()},
                        {"ports", std::move(ports)},
                        {"interfaces", Strings(device.interfaces)},
                        {"ucx_transports", Strings({transports.begin(), transports.end()})},
                        {"numa_node", device.place.numa_node}};
  return f;
}

Finding Ucx(const Result<fabric::UcxInfo>& ucx) {
  Finding f{.section = "links", .name = "UCX", .level = Level::kInfo, .flags = "UCX_TLS, UCX_NET_DEVICES"};
  if (!ucx) {
    f.value = ucx.error().message;
    f.meaning = fabric::HasRdma() ? "There is RDMA here, which only UCX uses: install libucx0."
                                  : "Hosts talk plain TCP, which needs nothing.";
    if (fabric::HasRdma()) f.level = Level::kWarning;
    f.data = Json::Object{{"installed", false}};
    return f;
  }
  std::vector<std::string> network, local;
  Json list = Json::Array();
  for (const auto& t : ucx->transports) {
    (t.network ? network : local).push_back(t.transport + "/" + t.device);
    list.Push(Json::Object{{"transport", t.transport}, {"device", t.device}, {"network", t.network}});
  }
  f.value = Format("{}; between hosts: {}", ucx->version, network.empty() ? "nothing" : Joined(network));
  f.meaning =
      "Its transports within a host (" + Joined(local) + ") are not used: ranks of a host share memory.";
  f.data = Json::Object{{"installed", true}, {"version", ucx->version}, {"transports", std::move(list)}};
  return f;
}

Finding Link() {
  const std::vector<std::string> kinds = fabric::LinkKinds();
  Finding f{.section = "links", .name = "between hosts"};
  f.value = Format("{}, if the other hosts can do it too", kinds.front());
  f.meaning = kinds.front() == "ucx" ? "Because there is an RDMA device."
                                     : "Without RDMA plain TCP is faster than UCX; --peer measures both.";
  f.data = Json::Object{{"kinds", Strings(kinds)}};
  return f;
}

Finding Exchanges() {
  Finding f{.section = "exchange",
            .name = "back ends",
            .flags = "--all2all-backend, --prefill-all2all-backend, --decode-all2all-backend"};
  std::vector<std::string> names;
  for (const char* name : {"allgather_reducescatter", "naive", "pplx", "deepep_high_throughput",
                           "deepep_low_latency", "flashinfer_all2allv", "mori"}) {
    if (a2a::AlgorithmOf(name)) names.emplace_back(name);
  }
  f.value = Joined(names);
  f.meaning =
      "All are part of this program: neither DeepEP, pplx-kernels, FlashInfer nor MoRI needs to be installed "
      "(docs/exchange.md).";
  f.data = Json::Object{{"built_in", Strings(names)}};
  return f;
}

// The matrix of `nvidia-smi topo -m`: GPUs against GPUs and what leads to other hosts.
std::string Topology(const std::vector<sys::Gpu>& gpus, const std::vector<sys::RdmaDevice>& rdma,
                     const std::vector<sys::NetworkDevice>& networks, Json& rows) {
  std::vector<std::pair<std::string, const sys::PciPlace*>> columns;
  for (size_t i = 0; i < gpus.size(); ++i) columns.emplace_back(Format("GPU{}", i), &gpus[i].place);
  for (const auto& device : rdma) columns.emplace_back(device.name, &device.place);
  for (const auto& device : networks) {
    if (!device.place.chain.empty()) columns.emplace_back(device.name, &device.place);
  }
  std::string text = Format("{:<6}", "");
  for (const auto& [name, place] : columns) text += Format(" {:<9}", name);
  rows = Json::Array();
  for (size_t i = 0; i < gpus.size(); ++i) {
    text += Format("\n{:<6}", columns[i].first);
    Json row = Json::Object();
    for (const auto& [name, place] : columns) {
      const char* distance = sys::PciDistanceName(sys::DistanceOf(gpus[i].place, *place));
      text += Format(" {:<9}", distance);
      row.Set(name, distance);
    }
    rows.Push(std::move(row));
  }
  return text;
}

void Gpus(const std::string& root, const std::vector<sys::RdmaDevice>& rdma, Findings& findings) {
  const auto gpus = sys::ListGpus(root);
  if (gpus.empty()) {
    findings.push_back({.section = "gpu",
                        .name = "GPUs",
                        .value = "none found",
                        .meaning = "None is needed.",
                        .data = Json::Object{{"count", 0}}});
    return;
  }
  for (size_t i = 0; i < gpus.size(); ++i) {
    const sys::Gpu& gpu = gpus[i];
    findings.push_back(
        {.section = "gpu",
         .name = Format("GPU{}", i),
         .level = Level::kInfo,
         .value = Format("{} {} at {}, NUMA node {}, driver {}", gpu.vendor, gpu.device, gpu.address,
                         gpu.place.numa_node, gpu.driver.empty() ? "none" : gpu.driver),
         .meaning = "This build computes on the CPU and leaves it idle.",
         .data = Json::Object{{"vendor", gpu.vendor},
                              {"device", gpu.device},
                              {"address", gpu.address},
                              {"driver", gpu.driver},
                              {"numa_node", gpu.place.numa_node}}});
  }
  Json rows;
  const std::string matrix = Topology(gpus, rdma, sys::ListNetworkDevices(root), rows);
  findings.push_back(
      {.section = "gpu",
       .name = "topology",
       .level = Level::kInfo,
       .value = "\n" + matrix,
       .meaning = "PIX one PCI bridge, PXB several, PHB the CPU's host bridge, NODE another one of the "
                  "same NUMA node, SYS another node. NVLink is not seen in /sys.",
       .data = Json::Object{{"distances", std::move(rows)}}});
}

}  // namespace

std::vector<std::string> OwnAddresses(const config::DoctorOptions& options) {
  const auto interfaces = sys::ListInterfaces();
  if (!interfaces) return {};
  return deploy::NodeAddresses(options.parallel, *interfaces).value_or(std::vector<std::string>());
}

void ExamineDevices(const config::DoctorOptions& options, const std::string& root, Findings& findings) {
  Network(options, root, findings);
  const auto ucx = fabric::ListUcxTransports();
  const auto rdma = sys::ListRdmaDevices(root);
  if (rdma.empty()) {
    findings.push_back({.section = "rdma",
                        .name = "RDMA",
                        .value = "none found (no InfiniBand, RoCE or EFA device)",
                        .meaning = "Hosts talk TCP.",
                        .data = Json::Object{{"count", 0}}});
  }
  for (const auto& device : rdma) findings.push_back(Rdma(device, ucx));
  findings.push_back(Ucx(ucx));
  findings.push_back(Link());
  findings.push_back(Exchanges());
  Gpus(root, rdma, findings);
}

}  // namespace cadre::app
