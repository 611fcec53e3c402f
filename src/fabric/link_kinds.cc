// Which kinds of links a host can make, and which is best.
#include <dirent.h>

#include "fabric/host_link.h"

namespace cadre::fabric {

bool HasRdma() {
  DIR* folder = opendir("/sys/class/infiniband");
  if (folder == nullptr) return false;
  bool found = false;
  while (const dirent* entry = readdir(folder)) found |= entry->d_name[0] != '.';
  closedir(folder);
  return found;
}

std::vector<std::string> LinkKinds() {
  if (HasRdma()) return {"ucx", "tcp"};
  return {"tcp", "ucx"};
}

Result<std::shared_ptr<HostPort>> MakePort(const std::string& kind, const PortOptions& options) {
  if (kind == "tcp") return MakeTcpPort(options);
  if (kind == "ucx") return MakeUcxPort(options);
  return Fail(Code::kUnsupported, "hosts cannot be linked by '{}'; use tcp or ucx", kind);
}

}  // namespace cadre::fabric
