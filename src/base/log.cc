#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>

namespace cadre {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace: return spdlog::level::trace;
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: return spdlog::level::off;
  }
  return spdlog::level::info;
}

spdlog::logger& Logger() {
  static const auto logger = [] {
    auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
    auto made = std::make_shared<spdlog::logger>("cadre", sink);
    made->set_pattern("%H:%M:%S.%e %^%l%$ %v");
    made->set_level(spdlog::level::info);
    made->flush_on(spdlog::level::info);
    return made;
  }();
  return *logger;
}

}  // namespace

void ConfigureLog(LogLevel level, std::string_view tag, bool color) {
  const std::string mark = tag.empty() ? std::string() : Format("[{}] ", tag);
  Logger().set_pattern(color ? "%H:%M:%S.%e %^%l%$ " + mark + "%v" : "%H:%M:%S.%e %l " + mark + "%v");
  Logger().set_level(ToSpdlog(level));
}

Result<LogLevel> ParseLogLevel(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr std::array<std::pair<std::string_view, LogLevel>, 9> kNames = {{{"trace", LogLevel::kTrace},
                                                                            {"notset", LogLevel::kTrace},
                                                                            {"debug", LogLevel::kDebug},
                                                                            {"info", LogLevel::kInfo},
                                                                            {"warning", LogLevel::kWarning},
                                                                            {"warn", LogLevel::kWarning},
                                                                            {"error", LogLevel::kError},
                                                                            {"critical", LogLevel::kError},
                                                                            {"off", LogLevel::kOff}}};
  for (const auto& [known, level] : kNames) {
    if (lower == known) return level;
  }
  return Fail(Code::kInvalidArgument, "log level '{}' is unknown; use trace, debug, info, warning, error or off", name);
}

bool LogEnabled(LogLevel level) { return Logger().should_log(ToSpdlog(level)); }

void WriteLog(LogLevel level, std::string_view line) { Logger().log(ToSpdlog(level), line); }

}  // namespace cadre
