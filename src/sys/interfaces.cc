#include "sys/interfaces.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace cadre::sys {
namespace {

// Text of an address that others can use; empty for other families and link-local addresses.
std::string AddressText(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address == nullptr) return {};
  if (address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text, sizeof(text));
  } else if (address->sa_family == AF_INET6) {
    const in6_addr& six = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
    if (!IN6_IS_ADDR_LINKLOCAL(&six)) inet_ntop(AF_INET6, &six, text, sizeof(text));
  }
  return text;
}

}  // namespace

Result<std::vector<NetworkInterface>> ListInterfaces() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) {
    return Fail(Code::kInternal, "cannot list the network interfaces: {}", std::strerror(errno));
  }
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, freeifaddrs);
  std::vector<NetworkInterface> interfaces;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if ((entry->ifa_flags & IFF_UP) == 0) continue;
    auto found = std::ranges::find(interfaces, entry->ifa_name, &NetworkInterface::name);
    if (found == interfaces.end()) {
      interfaces.push_back({entry->ifa_name, {}, (entry->ifa_flags & IFF_LOOPBACK) != 0});
      found = interfaces.end() - 1;
    }
    const std::string text = AddressText(entry->ifa_addr);
    if (text.empty()) continue;
    const auto at =
        text.find(':') == text.npos
            ? std::ranges::find_if(found->addresses, [](const auto& a) { return a.contains(':'); })
            : found->addresses.end();
    found->addresses.insert(at, text);
  }
  return interfaces;
}

}  // namespace cadre::sys
