// Flags of vLLM's server itself and of its OpenAI front end.
#include "config/settings.h"

namespace cadre::config {
namespace {

constexpr std::string_view kNoGrpc = "gRPC is not built; clients use HTTP.";
constexpr std::string_view kNoUvicorn = "There is no uvicorn here; --log-level sets what is logged.";
constexpr std::string_view kOwnLimits = "The HTTP server has its own limits for headers and bodies.";
constexpr std::string_view kNoOutputsLog = "Logging answers is not built.";

void StatsOff(const Targets& targets, const Json& value) {
  if (auto* api = std::get<ApiOptions*>(targets); api && !value.is_null()) api->log_stats = !value.AsBool();
}

constexpr Setting kServer[] = {
    Works("shutdown-timeout", Type::kInt, "", Into<&HttpOptions::shutdown_timeout_s>,
          "Seconds that running requests may go on after SIGTERM; 0 ends them at once. 30 if unset.")
        .Range(0),
    Works("disable-log-stats", Type::kTrue, "false", StatsOff,
          "Leave out the periodic line with throughput and queue."),
    Works("enable-log-requests", Type::kBool, "false", Into<&ApiOptions::enable_log_requests>,
          "Log one line a request, never its text."),
    Works("fail-on-environ-validation", Type::kBool, "false", Into<&ServeOptions::fail_on_environ_validation>,
          "Refuse to start if the environment holds an unknown VLLM_ variable, instead of warning."),
    Works("api-server-count", Type::kInt, "", Into<&ParallelOptions::api_server_count>,
          "Processes that answer HTTP on the port, each with its own tokenizer, and share all ranks; above 1 "
          "the "
          "engine leaves the server process. 1 if unset: one process keeps up with several thousand tokens a "
          "second, and CPUs are for the ranks.")
        .Short("asc")
        .Range(0, 256),
    NotBuilt("grpc", Type::kTrue, "false", kNoGrpc),
    NoEffect("aggregate-engine-logging", Type::kTrue, "false",
             "The line with statistics is one for all ranks."),
    NoEffect("disable-log-requests", Type::kTrue, "false",
             "Requests are not logged unless --enable-log-requests asks for it."),
    NoEffect("gdn-prefill-backend", Type::kString, "", kNoMamba)
        .Choices("flashinfer,triton,cutedsl,aiter_flydsl"),
    NoEffect("kda-prefill-backend", Type::kString, "", kNoMamba)
        .Choices("auto,triton,flashkda,flashinfer,fused"),
    NoEffect("kda-decode-backend", Type::kString, "", kNoMamba).Choices("auto,native,flashinfer,triton"),
};

constexpr Setting kFront[] = {
    Works("host", Type::kString, "", Into<&HttpOptions::host>, "Address to listen on; all if unset."),
    Works("port", Type::kInt, "8000", Into<&HttpOptions::port>, "Port to listen on; 0 takes any free one.")
        .Range(0, 65535),
    Works("uds", Type::kString, "", Into<&HttpOptions::uds>,
          "Unix socket to listen on instead of host and port."),
    Works("api-key", Type::kStrings, "", Into<&HttpOptions::api_keys>,
          "Keys of which requests under /v1 must bring one; VLLM_API_KEY if unset."),
    Works("ssl-keyfile", Type::kString, "", Into<&HttpOptions::ssl_keyfile>, "Private key for TLS, PEM."),
    Works("ssl-certfile", Type::kString, "", Into<&HttpOptions::ssl_certfile>,
          "Certificate chain for TLS, PEM."),
    Works("ssl-ca-certs", Type::kString, "", Into<&HttpOptions::ssl_ca_certs>,
          "Authorities that clients' certificates are checked against, PEM."),
    Works("ssl-cert-reqs", Type::kInt, "0", Into<&HttpOptions::ssl_cert_reqs>,
          "Client certificates: 0 not asked for, 1 optional, 2 required.")
        .Range(0, 2),
    Works("ssl-ciphers", Type::kString, "", Into<&HttpOptions::ssl_ciphers>,
          "Ciphers for TLS 1.2, as OpenSSL writes them."),
    NotBuilt("enable-ssl-refresh", Type::kBool, "false", "Restart the server when its certificate changes."),
    Works("allow-credentials", Type::kBool, "false", Into<&HttpOptions::allow_credentials>,
          "CORS: allow credentials."),
    Works("allowed-origins", Type::kJsonList, "[]", Into<&HttpOptions::allowed_origins>,
          R"(CORS: allowed origins, ["*"] for any; no CORS headers if empty.)"),
    Works("allowed-methods", Type::kJsonList, R"(["*"])", Into<&HttpOptions::allowed_methods>,
          "CORS: allowed methods."),
    Works("allowed-headers", Type::kJsonList, R"(["*"])", Into<&HttpOptions::allowed_headers>,
          "CORS: allowed headers."),
    Works("enable-request-id-headers", Type::kBool, "false", Into<&HttpOptions::enable_request_id_headers>,
          "Answer with X-Request-Id."),
    Works("chat-template", Type::kString, "", Into<&ApiOptions::chat_template>,
          "File of a chat template, or the template itself; the model's own if unset."),
    Works("chat-template-content-format", Type::kString, "auto",
          Into<&ApiOptions::chat_template_content_format>,
          "How message contents reach the template: string, openai (a list of parts), or auto.")
        .Choices("auto,openai,string"),
    Works("trust-request-chat-template", Type::kBool, "false", Into<&ApiOptions::trust_request_chat_template>,
          "Let requests bring their own chat_template."),
    Works("default-chat-template-kwargs", Type::kJson, "", Into<&ApiOptions::default_chat_template_kwargs>,
          "Variables for the chat template that requests may override."),
    Works("response-role", Type::kString, "assistant", Into<&ApiOptions::response_role>, "Role of answers."),
    Works("return-tokens-as-token-ids", Type::kBool, "false", Into<&ApiOptions::return_tokens_as_token_ids>,
          "Write tokens in logprobs as token_id:N."),
    Works("exclude-tools-when-tool-choice-none", Type::kBool, "false",
          Into<&ApiOptions::exclude_tools_when_tool_choice_none>,
          "Hide tools from the template when tool_choice is none."),
    NoEffect("enable-prompt-tokens-details", Type::kBool, "true",
             "Usage always says how many prompt tokens came from the prefix cache."),
    Works("enable-force-include-usage", Type::kBool, "false", Into<&ApiOptions::enable_force_include_usage>,
          "Send usage at the end of every stream."),
    NoEffect("enable-server-load-tracking", Type::kBool, "false",
             "Running requests are always counted for /load."),
    NoEffect("max-log-len", Type::kInt, "", "Prompts and answers are never logged."),
    Works("lora-modules", Type::kStrings, "", Into<&LoraOptions::module_words>,
          "Adapters to load at the start: NAME=PATH, or {\"name\": ..., \"path\": ...}; with --enable-lora."),
    NoEffect("trust-request-mm-kwargs", Type::kBool, "false", kNoVisionTuning),
    NotBuilt("enable-auto-tool-choice", Type::kBool, "false", kLaterTools),
    NotBuilt("tool-call-parser", Type::kString, "", kLaterTools),
    NotBuilt("tool-parser-plugin", Type::kString, "", kNoPython),
    NoEffect("tool-strict-level", Type::kString, "auto", kLaterTools).Choices("auto,function,parameter"),
    NotBuilt("tool-server", Type::kString, "", "Tool servers are not built; call tools in the client."),
    NotBuilt("enable-per-request-metrics", Type::kBool, "false",
             "Metrics per request are not built; see /metrics."),
    NotBuilt("sse-keep-alive-interval", Type::kInt, "0",
             "Comments that keep an idle stream alive are not built."),
    NotBuilt("enable-tokenizer-info-endpoint", Type::kBool, "false", "/tokenizer_info is not built."),
    NotBuilt("enable-log-outputs", Type::kBool, "false", kNoOutputsLog),
    NoEffect("enable-log-deltas", Type::kBool, "true", kNoOutputsLog),
    NoEffect("cohere-is-reasoning-model", Type::kBool, "true", "The Cohere API is not built."),
    NoEffect("cohere-format", Type::kString, "cmd4", "The Cohere API is not built."),
    NoEffect("anthropic-disabled-thinking-effort", Type::kString, "auto", "The Anthropic API is not built.")
        .Choices("auto,high,low,max,medium,none,xhigh"),
    NoEffect("log-error-stack", Type::kBool, "false",
             "Errors are values with their place and cause; there are no stacks."),
    NotBuilt("tokens-only", Type::kBool, "false", "Use --skip-tokenizer-init with token-id prompts."),
    NotBuilt("enable-scale-out", Type::kBool, "false",
             "The scale-out endpoints come later; leave the flag out."),
    NoEffect("fingerprint-mode", Type::kString, "full", "Answers carry no system fingerprint.")
        .Choices("custom,full,hash,none"),
    NoEffect("fingerprint-value", Type::kString, "", "Answers carry no system fingerprint."),
    NotBuilt("grpc-port", Type::kInt, "", kNoGrpc),
    NoEffect("uvicorn-log-level", Type::kString, "info", kNoUvicorn)
        .Choices("critical,debug,error,info,trace,warning"),
    NoEffect("disable-uvicorn-access-log", Type::kBool, "false", kNoUvicorn),
    NoEffect("disable-access-log-for-endpoints", Type::kString, "", kNoUvicorn),
    NotBuilt("root-path", Type::kString, "", "Let the proxy strip its prefix before it passes requests on."),
    NotBuilt("middleware", Type::kAppended, "[]", kNoPython),
    NoEffect("disable-fastapi-docs", Type::kBool, "false", "No documentation pages are served."),
    NoEffect("enable-offline-docs", Type::kBool, "false", "No documentation pages are served."),
    NoEffect("h11-max-incomplete-event-size", Type::kInt, "4194304", kOwnLimits),
    NoEffect("h11-max-header-count", Type::kInt, "256", kOwnLimits),
    NoEffect("enable-flash-late-interaction", Type::kBool, "true", "Scoring models are not built."),
    NotBuilt("reasoning-parser", Type::kString, "", kLaterTools),
    NotBuilt("reasoning-parser-plugin", Type::kString, "", kNoPython),
    NoEffect("enable-reasoning", Type::kTrue, "false", kLaterTools),
};

}  // namespace

std::vector<Group> FrontGroups() {
  return {{"Frontend", "The HTTP door and the OpenAI API", kFront},
          {"Server", "The server process", kServer}};
}

}  // namespace cadre::config
