#include "sys/cgroup.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "sys/files.h"

namespace cadre::sys {
namespace {

bool ListHas(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const size_t end = std::min(list.find(','), list.size());
    if (list.substr(0, end) == name) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

}  // namespace

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::optional<int64_t> LeadingInt(std::string_view text) {
  const size_t start = text.find_first_not_of(" \t");
  if (start == std::string_view::npos) return std::nullopt;
  text.remove_prefix(start);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return std::numeric_limits<int64_t>::max();
  if (error != std::errc()) return std::nullopt;
  return value;
}

std::optional<int64_t> FindKey(std::string_view text, std::string_view key) {
  for (std::string_view line : Lines(text)) {
    if (!line.starts_with(key)) continue;
    line.remove_prefix(key.size());
    if (line.starts_with(':') || line.starts_with(' ')) return LeadingInt(line.substr(1));
  }
  return std::nullopt;
}

std::vector<CgroupFolders> FindCgroups(std::string_view controller, const std::string& root) {
  std::vector<CgroupFolders> found;
  const auto text = ReadFile(root + "/proc/self/cgroup", size_t{1} << 20);
  if (!text) return found;
  for (const std::string_view line : Lines(*text)) {
    // hierarchy-id:controllers:path; v2 has no controllers here.
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    std::string group(line.substr(second + 1));
    if (!group.starts_with('/')) continue;
    CgroupFolders groups;
    std::string mount = root + "/sys/fs/cgroup";
    if (controllers.empty()) {
      groups.v2 = true;
    } else if (ListHas(controllers, controller)) {
      mount += "/";
      mount += controller;
    } else {
      continue;
    }
    while (group.size() > 1) {
      groups.folders.push_back(mount + group + "/");
      group.resize(group.rfind('/'));
    }
    groups.folders.push_back(mount + "/");
    found.push_back(std::move(groups));
  }
  return found;
}

}  // namespace cadre::sys
