#pragma once
// Small files, read whole. (Not "file.h": <sys/file.h> is the C library's, and src/ is searched before it.)
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cadre::sys {

/// The bytes of a file. Errors: kNotFound, kResourceExhausted if it is longer than `max_bytes`, kUnavailable
/// if it cannot be read; each names the path and the system's reason. Files of /proc and /sys are welcome.
Result<std::string> ReadFile(const std::string& path, size_t max_bytes);

/// Makes `path` a file with these bytes, or leaves it as it was: they are written to `path`.tmp, which then
/// takes its place. Errors: kUnavailable with the system's reason (no room, no permission); nothing is left
/// behind.
Status ReplaceFile(const std::string& path, std::string_view bytes);

/// No effect where there is none.
void RemoveFile(const std::string& path);

bool FileExists(const std::string& path);
bool IsFolder(const std::string& path);

/// Names (without the folder) of everything in a folder, sorted. Errors as ReadFile.
Result<std::vector<std::string>> ListFolder(const std::string& path);

/// The system's text for an errno value.
std::string ErrnoText(int error);

}  // namespace cadre::sys
