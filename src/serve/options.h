#pragma once
// What the HTTP front can be told; flags are mapped onto it above.
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "http/server.h"

namespace cadre::serve {

struct CorsOptions {
  bool allow_credentials = false;
  std::vector<std::string> origins;  ///< "*" for all; empty: no CORS headers
  std::vector<std::string> methods = {"*"};
  std::vector<std::string> headers = {"*"};
};

/// What one front of several has counted of its own requests.
struct FrontPart {
  int64_t num_in_flight = 0;  ///< for /load
  std::string metrics;        ///< Prometheus' text, without what the engines count
};
/// Asks the deployment's other fronts for their parts; `done` hears them once, on any thread.
using AskFronts = std::function<void(std::function<void(std::vector<FrontPart>)> done)>;

struct ServeOptions {
  http::ServerOptions http;                     ///< error_response is set by ApiServer
  std::vector<std::string> served_model_names;  ///< the first is the one that answers carry; at least one
  std::string model_root;                       ///< the folder or hub name, shown in /v1/models
  std::vector<std::string> api_keys;            ///< empty: open
  CorsOptions cors;
  std::string root_path;  ///< a proxy's prefix, taken off paths that begin with it
  std::string response_role = "assistant";
  std::string version;                                               ///< of /version
  bool enable_lora = false;                                          ///< models may be LoRA adapters
  std::vector<std::pair<std::string, std::string>> adapter_parents;  ///< adapter, the model's name for it
  bool allow_runtime_lora = false;  ///< opens /v1/load_lora_adapter and /v1/unload_lora_adapter
  int num_ranks = 1,
      tensor_parallel_size = 1;  ///< of the deployment: /get_world_size, and who receives weights
  Duration liveness_timeout = std::chrono::seconds(30);  ///< after which /liveness gives an engine up
  bool dev_mode = false;                   ///< opens the routes that only developers should reach
  bool enable_request_id_headers = false;  ///< X-Request-Id on every response
  bool echo_request_ids = false;           ///< X-Request-Id on responses to requests that bring one
  bool enable_force_include_usage = false;
  bool return_tokens_as_token_ids = false;
  bool trust_request_chat_template = false;
  bool exclude_tools_when_tool_choice_none = false;
  bool log_requests = false;    ///< one info line a request (never its text)
  int64_t stream_interval = 1;  ///< tokens per event where the request does not say
  AskFronts ask_fronts;         ///< null: this is the only front
  int num_workers = 1;          ///< threads for requests whose encoding takes long
};

}  // namespace cadre::serve
