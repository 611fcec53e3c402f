#include "sys/gpus.h"

#include "sys/files.h"

namespace cadre::sys {

GpuFinding FindGpus(const std::string& root) {
  GpuFinding found;
  const auto add = [&](const std::string& name) {
    ++found.count;
    found.where += (found.where.empty() ? "/dev/" : ", /dev/") + name;
  };
  for (const std::string& name : ListFolder(root + "/dev").value_or(std::vector<std::string>())) {
    const bool numbered = name.starts_with("nvidia") && name.size() > 6 &&
                          name.find_first_not_of("0123456789", 6) == std::string::npos;
    if (numbered || name == "kfd") add(name);
  }
  if (found.count == 0) found.where = "no /dev/nvidia0, no /dev/kfd";
  return found;
}

}  // namespace cadre::sys
