#pragma once
// What all commands do before their own work: parse, print help, log the notices.
#include <cstdio>
#include <string>
#include <utility>

#include "app/commands.h"
#include "app/exit_code.h"
#include "base/log.h"

namespace cadre::app {

inline const config::EngineOptions* EngineOf(const auto& options) {
  if constexpr (requires { options.engine; }) {
    return &options.engine;
  } else {
    return nullptr;
  }
}

/// Parses with `parse` and hands the options to `work`, which returns a Status.
template <typename Parse, typename Work>
int RunParsed(Parse parse, Args args, const config::Environment& env, Work work) {
  auto parsed = parse(args, env);
  if (!parsed) return Fail(parsed.error());
  if (parsed->help) {
    std::fputs(parsed->help->c_str(), stdout);
    return 0;
  }
  if (const auto* engine = EngineOf(parsed->options)) {
    StartLog(engine->log_level, engine->log_color, parsed->notices);
  } else if constexpr (requires { parsed->options.log_level; }) {
    StartLog(parsed->options.log_level, true, parsed->notices);
  }
  if constexpr (
      requires { parsed->options.engine; } && !requires { parsed->options.http; }) {
    if (!parsed->options.engine.model.served_model_names.empty())
      LogInfo("--served-model-name has no effect here: this command serves nobody");
  }
  const Status status = work(std::as_const(parsed->options));
  return status ? 0 : Fail(status.error());
}

}  // namespace cadre::app
