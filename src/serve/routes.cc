#include "serve/routes.h"

#include <algorithm>

namespace cadre::serve {
namespace {

constexpr Route kRoutes[] = {
    {.method = "POST", .path = "/v1/chat/completions", .async = ChatCompletions, .takes_json = true},
    {.method = "POST", .path = "/v1/completions", .async = Completions, .takes_json = true},
    {.method = "POST",
     .path = "/v1/chat/completions/tokens",
     .async = ChatCompletionsTokens,
     .takes_json = true},
    {.method = "POST",
     .path = "/chat/completions/tokens",
     .async = ChatCompletionsTokens,
     .takes_json = true},
    {.method = "POST", .path = "/inference/v1/generate", .async = GenerateTokens, .takes_json = true},
    {.method = "GET", .path = "/v1/models", .sync = Models},
    {.method = "POST", .path = "/tokenize", .sync = Tokenize, .takes_json = true},
    {.method = "POST", .path = "/detokenize", .sync = Detokenize, .takes_json = true},
    {.method = "GET", .path = "/health", .sync = Health},
    {.method = "GET", .path = "/ping", .sync = Ping},
    {.method = "POST", .path = "/ping", .sync = Ping},
    {.method = "GET", .path = "/version", .sync = Version},
    {.method = "GET", .path = "/load", .async = Load, .always = true},
    {.method = "GET", .path = "/metrics", .async = Metrics, .always = true},
    {.method = "GET", .path = "/eplb", .async = Eplb},
    {.method = "GET", .path = "/kv_transfer", .sync = KvTransferPlaces},
    {.method = "GET", .path = "/prefix_digest", .async = HeldPrefixes},
    {.method = "POST", .path = "/reset_prefix_cache", .sync = ResetPrefixCache, .dev_only = true},
    {.method = "POST", .path = "/pause", .async = Pause},
    {.method = "POST", .path = "/resume", .async = Resume},
    {.method = "GET", .path = "/is_paused", .async = IsPaused},
    {.method = "GET", .path = "/liveness", .async = Liveness},
    {.method = "POST", .path = "/update_weights", .async = UpdateWeights, .takes_json = true},
    {.method = "POST", .path = "/reload_weights", .async = ReloadWeights},
    {.method = "POST", .path = "/init_broadcaster", .async = InitBroadcaster, .takes_json = true},
    {.method = "POST",
     .path = "/init_weight_transfer_engine",
     .async = InitWeightTransferEngine,
     .takes_json = true},
    {.method = "POST", .path = "/start_weight_update", .sync = StartWeightUpdate},
    {.method = "POST", .path = "/finish_weight_update", .sync = FinishWeightUpdate},
    {.method = "GET", .path = "/get_world_size", .sync = GetWorldSize},
    {.method = "POST", .path = "/v1/load_lora_adapter", .async = LoadLoraAdapter, .takes_json = true},
    {.method = "POST", .path = "/v1/unload_lora_adapter", .async = UnloadLoraAdapter, .takes_json = true},
    {.method = "POST", .path = "/load_lora_adapter", .async = LoadLoraInPlace, .takes_json = true},
    // Not built yet.
    {.method = "POST", .path = "/abort_requests"},
    {.method = "POST", .path = "/classify"},
    {.method = "POST", .path = "/cohere/v2/chat"},
    {.method = "POST", .path = "/collective_rpc", .dev_only = true},
    {.method = "POST", .path = "/fault_tolerance/apply"},
    {.method = "GET", .path = "/fault_tolerance/status"},
    {.method = "POST", .path = "/generative_scoring"},
    {.method = "POST", .path = "/invocations"},
    {.method = "POST", .path = "/is_scaling_elastic_ep"},
    {.method = "GET", .path = "/is_sleeping", .dev_only = true},
    {.method = "GET", .path = "/kv_event_sources"},
    {.method = "POST", .path = "/pooling"},
    {.method = "POST", .path = "/release_kv_cache_memory", .dev_only = true},
    {.method = "POST", .path = "/rerank"},
    {.method = "POST", .path = "/reset_encoder_cache", .dev_only = true},
    {.method = "POST", .path = "/reset_mm_cache", .dev_only = true},
    {.method = "POST", .path = "/scale_elastic_ep"},
    {.method = "POST", .path = "/score"},
    {.method = "GET", .path = "/server_info", .dev_only = true},
    {.method = "POST", .path = "/shutdown_weight_transfer_engine"},
    {.method = "POST", .path = "/sleep", .dev_only = true},
    {.method = "POST", .path = "/start_draft_weight_update"},
    {.method = "POST", .path = "/start_profile"},
    {.method = "POST", .path = "/stop_profile"},
    {.method = "GET", .path = "/tokenizer_info"},
    {.method = "POST", .path = "/update_weight_version"},
    {.method = "POST", .path = "/v1/audio/transcriptions"},
    {.method = "POST", .path = "/v1/audio/translations"},
    {.method = "POST", .path = "/v1/chat/completions/batch"},
    {.method = "POST", .path = "/v1/chat/completions/derender"},
    {.method = "POST", .path = "/v1/chat/completions/render"},
    {.method = "POST", .path = "/v1/completions/derender"},
    {.method = "POST", .path = "/v1/completions/render"},
    {.method = "POST", .path = "/v1/embeddings"},
    {.method = "POST", .path = "/v1/messages"},
    {.method = "POST", .path = "/v1/messages/count_tokens"},
    {.method = "POST", .path = "/v1/messages/render"},
    {.method = "POST", .path = "/v1/rerank"},
    {.method = "POST", .path = "/v1/responses"},
    {.method = "POST", .path = "/v1/responses/render"},
    {.method = "GET", .path = "/v1/responses/{response_id}"},
    {.method = "POST", .path = "/v1/responses/{response_id}/cancel"},
    {.method = "POST", .path = "/v1/score"},
    {.method = "POST", .path = "/v1/systemone"},
    {.method = "POST", .path = "/v2/embed"},
    {.method = "POST", .path = "/v2/rerank"},
    {.method = "POST", .path = "/wake_up", .dev_only = true},
    {.method = "POST", .path = "/weight_checker"},
    {.method = "GET", .path = "/weight_info"},
};

bool PathFits(std::string_view pattern, std::string_view path) {
  while (true) {
    const size_t open = pattern.find('{');
    if (open == std::string_view::npos) return pattern == path;
    if (!path.starts_with(pattern.substr(0, open))) return false;
    path.remove_prefix(open);
    pattern.remove_prefix(pattern.find('}') + 1);
    const size_t slash = std::min(path.find('/'), path.size());
    if (slash == 0) return false;
    path.remove_prefix(slash);
  }
}

}  // namespace

std::span<const Route> Routes() {
  return kRoutes;
}

Result<const Route*> FindRoute(std::string_view method, std::string_view path, bool dev_mode) {
  std::string allowed;
  for (const Route& route : kRoutes) {
    if (!PathFits(route.path, path) || (route.dev_only && !dev_mode)) continue;
    if (route.method == method || (method == "HEAD" && route.method == "GET")) return &route;
    if (!allowed.empty()) allowed += ", ";
    allowed += route.method == "GET" ? "GET, HEAD" : route.method;
  }
  if (!allowed.empty()) return FailParam(Code::kInvalidArgument, "method", "{}", allowed);
  return Fail(Code::kNotFound, "Not Found: there is no route {}", Excerpt(path));
}

}  // namespace cadre::serve
