#pragma once
// The control groups around this process.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::sys {

/// Folders of the controller's groups, from the process's own group up to the mount. Some may not exist:
/// inside a container the group's path is often not visible under the mount.
struct CgroupFolders {
  bool v2 = false;
  std::vector<std::string> folders;  ///< each with a slash at the end
};

/// Every hierarchy that may hold `controller` ("memory", "cpu"): v2 first if mounted. Empty without control
/// groups.
std::vector<CgroupFolders> FindCgroups(std::string_view controller, const std::string& root);

/// Lines of a text, without their ends.
std::vector<std::string_view> Lines(std::string_view text);
/// The first integer of `text` after blanks; nullopt for "max" and other words. Saturates.
std::optional<int64_t> LeadingInt(std::string_view text);
/// The value behind "key " or "key:" at the start of a line.
std::optional<int64_t> FindKey(std::string_view text, std::string_view key);

}  // namespace cadre::sys
