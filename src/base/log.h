#pragma once
// Log lines. The first function that knows an error logs it; callers do not repeat it.
// info: once per start or change. debug: per request. trace: per step. Prompts and answers are not logged.
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/format.h"

namespace cadre {

enum class LogLevel { kTrace, kDebug, kInfo, kWarning, kError, kOff };

/// Sets what is printed and the tag that every line of this process carries ("" or "rank 3").
/// Call once, before threads start. `color` is used only if stderr is a terminal.
void ConfigureLog(LogLevel level, std::string_view tag, bool color);

/// "trace", "debug", "info", "warning", "error", "critical", "off" in any case; vLLM's NOTSET is trace.
Result<LogLevel> ParseLogLevel(std::string_view name);

bool LogEnabled(LogLevel level);
void WriteLog(LogLevel level, std::string_view line);

template <typename... Args>
void LogAt(LogLevel level, fmt::format_string<Args...> pattern, Args&&... args) {
  if (LogEnabled(level)) WriteLog(level, fmt::format(pattern, std::forward<Args>(args)...));
}

template <typename... Args>
void LogTrace(fmt::format_string<Args...> pattern, Args&&... args) {
  LogAt(LogLevel::kTrace, pattern, std::forward<Args>(args)...);
}
template <typename... Args>
void LogDebug(fmt::format_string<Args...> pattern, Args&&... args) {
  LogAt(LogLevel::kDebug, pattern, std::forward<Args>(args)...);
}
template <typename... Args>
void LogInfo(fmt::format_string<Args...> pattern, Args&&... args) {
  LogAt(LogLevel::kInfo, pattern, std::forward<Args>(args)...);
}
template <typename... Args>
void LogWarning(fmt::format_string<Args...> pattern, Args&&... args) {
  LogAt(LogLevel::kWarning, pattern, std::forward<Args>(args)...);
}
template <typename... Args>
void LogError(fmt::format_string<Args...> pattern, Args&&... args) {
  LogAt(LogLevel::kError, pattern, std::forward<Args>(args)...);
}

}  // namespace cadre
