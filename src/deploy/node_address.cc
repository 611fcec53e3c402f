#include "deploy/node_address.h"

#include <algorithm>

namespace cadre::deploy {
namespace {

std::vector<std::string> SplitNames(std::string_view list) {
  std::vector<std::string> names;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (comma > 0) names.emplace_back(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return names;
}

}  // namespace

std::string InterfaceList(const std::vector<sys::NetworkInterface>& interfaces) {
  std::string text;
  for (const auto& interface : interfaces) {
    if (interface.addresses.empty()) continue;
    text += Format("{}{} ({})", text.empty() ? "" : ", ", interface.name, interface.addresses.front());
  }
  return text;
}

Result<std::vector<std::string>> NodeAddresses(const config::ParallelOptions& parallel,
                                               const std::vector<sys::NetworkInterface>& interfaces) {
  if (!parallel.host_ip.empty()) {
    const bool there = std::ranges::any_of(interfaces, [&](const auto& interface) {
      return std::ranges::find(interface.addresses, parallel.host_ip) != interface.addresses.end();
    });
    if (there) return std::vector{parallel.host_ip};
    return FailParam(Code::kNotFound, "VLLM_HOST_IP",
                     "VLLM_HOST_IP={} is no address of this machine; its interfaces are {}", parallel.host_ip,
                     InterfaceList(interfaces));
  }
  const std::pair<const char*, const std::string*> sources[] = {{"NCCL_SOCKET_IFNAME", &parallel.nccl_ifname},
                                                                {"GLOO_SOCKET_IFNAME", &parallel.gloo_ifname},
                                                                {"TP_SOCKET_IFNAME", &parallel.tp_ifname}};
  for (const auto& [source, value] : sources) {
    if (value->empty()) continue;
    const bool exact = value->front() == '=', exclude = value->front() == '^';
    const std::vector<std::string> names =
        SplitNames(std::string_view(*value).substr(exact || exclude ? 1 : 0));
    std::vector<std::string> addresses;
    for (const auto& interface : interfaces) {
      const bool named = std::ranges::any_of(names, [&](const std::string& name) {
        return exact ? interface.name == name : interface.name.starts_with(name);
      });
      const bool wanted = exclude ? !named && !interface.loopback : named;
      if (wanted && !interface.addresses.empty()) addresses.push_back(interface.addresses.front());
    }
    if (!addresses.empty()) return addresses;
    return FailParam(Code::kNotFound, source,
                     "{}={} matches no network interface with an address; there are {}", source, *value,
                     InterfaceList(interfaces));
  }
  return std::vector<std::string>();
}

}  // namespace cadre::deploy
