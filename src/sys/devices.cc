#include "sys/devices.h"

#include <limits.h>
#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/format.h"
#include "sys/cgroup.h"
#include "sys/files.h"

namespace cadre::sys {
namespace {

constexpr size_t kSmallFile = 1 << 16;

std::string Word(const std::string& path) {
  const auto text = ReadFile(path, kSmallFile);
  if (!text) return {};
  std::string word = *text;
  while (!word.empty() && (word.back() == '\n' || word.back() == ' ')) word.pop_back();
  return word;
}

int64_t Number(const std::string& path, int64_t fallback) {
  return LeadingInt(Word(path)).value_or(fallback);
}

// What a link in the end points to; "" if it leads nowhere.
std::string Resolved(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) == nullptr ? "" : std::string(buffer);
}

std::string LastName(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

// "0000:3a:00.0"
bool IsPciAddress(std::string_view name) {
  if (name.size() < 12) return false;
  const std::string_view tail = name.substr(name.size() - 8);
  return tail[0] == ':' && tail[3] == ':' && tail[6] == '.';
}

// /sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/net/eth0 -> its PCI components.
std::vector<std::string> PciChain(const std::string& resolved) {
  std::vector<std::string> chain;
  for (size_t at = 0; at < resolved.size();) {
    const size_t end = std::min(resolved.find('/', at), resolved.size());
    const std::string name = resolved.substr(at, end - at);
    if (chain.empty() ? name.starts_with("pci") && name.contains(':') : IsPciAddress(name)) {
      chain.push_back(name);
    }
    at = end + 1;
  }
  return chain;
}

// Of the device folder that `path` leads to.
PciPlace PlaceOf(const std::string& path) {
  return {.chain = PciChain(Resolved(path)), .numa_node = static_cast<int>(Number(path + "/numa_node", -1))};
}

std::vector<std::string> Names(const std::string& folder) {
  auto names = ListFolder(folder);
  return names ? *names : std::vector<std::string>{};
}

// "100 Gb/sec (4X EDR)" -> 100.
double GbitOf(const std::string& rate) {
  double gbit = 0;
  std::from_chars(rate.data(), rate.data() + rate.size(), gbit);
  return gbit;
}

RdmaPort PortOf(const std::string& folder, int number) {
  RdmaPort port{.number = number,
                .state = Word(folder + "/state"),
                .link_layer = Word(folder + "/link_layer"),
                .gbit = GbitOf(Word(folder + "/rate"))};
  // "4: ACTIVE"
  if (const size_t colon = port.state.find(": "); colon != std::string::npos) port.state.erase(0, colon + 2);
  return port;
}

std::string GpuVendor(int64_t vendor, int64_t pci_class) {
  const bool display = pci_class >> 8 == 0x0300, accelerator = pci_class >> 8 == 0x0302;
  const bool processing = pci_class >> 8 == 0x1200 || pci_class >> 8 == 0x0380;
  if (vendor == 0x10de && (display || accelerator)) return "NVIDIA";
  if (vendor == 0x1002 && (display || accelerator || processing)) return "AMD";
  if (vendor == 0x8086 && (accelerator || processing)) return "Intel";
  return {};
}

int64_t Hex(const std::string& text) {
  int64_t value = 0;
  const size_t skip = text.starts_with("0x") ? 2 : 0;
  std::from_chars(text.data() + skip, text.data() + text.size(), value, 16);
  return value;
}

}  // namespace

const char* PciDistanceName(PciDistance distance) {
  constexpr const char* kNames[] = {"X", "PIX", "PXB", "PHB", "NODE", "SYS"};
  return kNames[static_cast<size_t>(distance)];
}

PciDistance DistanceOf(const PciPlace& a, const PciPlace& b) {
  if (a.chain.empty() || b.chain.empty()) return PciDistance::kSystem;
  if (a.chain == b.chain) return PciDistance::kSame;
  const auto [in_a, in_b] = std::ranges::mismatch(a.chain, b.chain);
  const auto common = in_a - a.chain.begin();
  if (common == 0) {
    return a.numa_node >= 0 && a.numa_node == b.numa_node ? PciDistance::kNode : PciDistance::kSystem;
  }
  if (common == 1) return PciDistance::kHost;  // only the root complex
  // Down to each device from the last common bridge.
  const auto steps = std::max(a.chain.end() - in_a, b.chain.end() - in_b);
  return steps <= 1 ? PciDistance::kBridge : PciDistance::kBridges;
}

std::vector<NetworkDevice> ListNetworkDevices(const std::string& root) {
  constexpr int64_t kLoopbackType = 772;  // ARPHRD_LOOPBACK
  std::vector<NetworkDevice> devices;
  for (const std::string& name : Names(root + "/sys/class/net")) {
    const std::string folder = root + "/sys/class/net/" + name;
    if (!IsFolder(folder)) continue;  // bonding_masters is a file
    NetworkDevice device{.name = name,
                         .driver = LastName(Resolved(folder + "/device/driver")),
                         .state = Word(folder + "/operstate"),
                         // -1 where the link is down or the driver does not say
                         .speed_mbps = std::max<int64_t>(Number(folder + "/speed", 0), 0),
                         .mtu = Number(folder + "/mtu", 0),
                         .loopback = Number(folder + "/type", 0) == kLoopbackType,
                         .place = PlaceOf(folder + "/device")};
    devices.push_back(std::move(device));
  }
  return devices;
}

bool RdmaDevice::active() const {
  return std::ranges::any_of(ports, [](const RdmaPort& port) { return port.state == "ACTIVE"; });
}

std::vector<RdmaDevice> ListRdmaDevices(const std::string& root) {
  std::vector<RdmaDevice> devices;
  for (const std::string& name : Names(root + "/sys/class/infiniband")) {
    const std::string folder = root + "/sys/class/infiniband/" + name;
    RdmaDevice device{.name = name,
                      .driver = LastName(Resolved(folder + "/device/driver")),
                      .ports = {},
                      .interfaces = Names(folder + "/device/net"),
                      .place = PlaceOf(folder + "/device")};
    for (const std::string& port : Names(folder + "/ports")) {
      if (const auto number = LeadingInt(port)) {
        device.ports.push_back(PortOf(folder + "/ports/" + port, static_cast<int>(*number)));
      }
    }
    devices.push_back(std::move(device));
  }
  return devices;
}

std::vector<Gpu> ListGpus(const std::string& root) {
  std::vector<Gpu> gpus;
  for (const std::string& address : Names(root + "/sys/bus/pci/devices")) {
    const std::string folder = root + "/sys/bus/pci/devices/" + address;
    const std::string vendor = GpuVendor(Hex(Word(folder + "/vendor")), Hex(Word(folder + "/class")));
    if (vendor.empty()) continue;
    gpus.push_back({.address = address,
                    .vendor = vendor,
                    .device = Word(folder + "/device"),
                    .driver = LastName(Resolved(folder + "/driver")),
                    .place = PlaceOf(folder)});
  }
  return gpus;
}

}  // namespace cadre::sys
