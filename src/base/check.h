#pragma once
// CADRE_CHECK states what must hold whatever a request, file, socket or peer does. It stays in release builds.
// Where input could break it, return a Result instead.

namespace cadre {

/// Prints the place and the condition, then ends the process. Never returns.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace cadre

#define CADRE_CHECK(condition)                                                          \
  do {                                                                                  \
    if (!(condition)) [[unlikely]] ::cadre::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
