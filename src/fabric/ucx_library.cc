#include "fabric/ucx_library.h"

#include <dlfcn.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sys/socket.h>

#include <set>

namespace cadre::fabric {

Result<UcxLibrary> UcxLibrary::Open(std::string purpose) {
  void* library = dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return Fail(Code::kUnsupported, "{}: {}; install it (libucx0) or use tcp", purpose, dlerror());
  return UcxLibrary(std::move(purpose), library);
}

void* UcxLibrary::Find(const char* name) {
  void* const found = dlsym(library_, name);
  if (found == nullptr) missing_ = name;
  return found;
}

Status UcxLibrary::Complete() const {
  if (missing_.empty()) return {};
  return Fail(Code::kUnsupported, "{}: the UCX that is installed has no {}; use tcp", purpose_, missing_);
}

std::string NetworkDevicesOf(const std::vector<std::string>& addresses) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return "";
  std::set<std::string> found, wanted(addresses.begin(), addresses.end());
  std::string devices;
  for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr) continue;
    const int family = i->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const socklen_t length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    char text[NI_MAXHOST];
    if (getnameinfo(i->ifa_addr, length, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) != 0) continue;
    if (!wanted.contains(text) || !found.insert(text).second) continue;
    if (!devices.empty()) devices += ',';
    devices += i->ifa_name;
  }
  freeifaddrs(list);
  return found.size() == wanted.size() ? devices : "";
}

}  // namespace cadre::fabric
