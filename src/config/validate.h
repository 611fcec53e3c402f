#pragma once
// Rules between settings, in vLLM's words where it has them.
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/serve_options.h"

namespace cadre::config {

Status CheckEngine(const EngineOptions& engine);
Status CheckHttp(const HttpOptions& http);

/// VLLM_CPU_OMP_THREADS_BIND: "auto", "nobind", or CPU lists of the local ranks: "0-15|16,17,18-31".
Status ParseBinding(std::string_view text, CpuOptions& cpu);

}  // namespace cadre::config
