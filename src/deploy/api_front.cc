#include "deploy/api_front.h"

#include "session/hf_text.h"

namespace cadre::deploy {
namespace {

constexpr const char* kVersion = CADRE_VERSION;

session::ContentFormat ContentFormatOf(const std::string& name) {
  if (name == "string") return session::ContentFormat::kString;
  if (name == "openai") return session::ContentFormat::kParts;
  return session::ContentFormat::kAuto;
}

nn::LogprobsMode LogprobsModeOf(const std::string& name) {
  if (name == "processed_logprobs") return nn::LogprobsMode::kProcessedLogprobs;
  if (name == "raw_logits") return nn::LogprobsMode::kRawLogits;
  if (name == "processed_logits") return nn::LogprobsMode::kProcessedLogits;
  return nn::LogprobsMode::kRawLogprobs;
}

serve::ServeOptions ServeOptionsOf(const config::ServeOptions& options, const ModelSetup& setup) {
  serve::ServeOptions serve;
  serve.http = HttpOptionsOf(options.http);
  serve.served_model_names = options.engine.model.served_model_names;
  if (serve.served_model_names.empty()) serve.served_model_names = {options.engine.model.model};
  serve.model_root = setup.location.folder;
  serve.api_keys = options.http.api_keys;
  serve.cors = {.allow_credentials = options.http.allow_credentials,
                .origins = options.http.allowed_origins,
                .methods = options.http.allowed_methods,
                .headers = options.http.allowed_headers};
  serve.response_role = options.api.response_role;
  serve.version = kVersion;
  serve.enable_lora = options.engine.lora.enabled;
  for (const config::LoraModule& module : options.engine.lora.modules)
    if (!module.base.empty()) serve.adapter_parents.emplace_back(module.name, module.base);
  serve.allow_runtime_lora = options.api.allow_runtime_lora;
  serve.num_ranks = options.engine.parallel.expert_parallel_size();
  serve.tensor_parallel_size = options.engine.parallel.tensor_parallel_size;
  serve.dev_mode = options.api.dev_mode;
  serve.enable_request_id_headers = options.http.enable_request_id_headers;
  serve.echo_request_ids = options.engine.kv_transfer.enabled();
  serve.enable_force_include_usage = options.api.enable_force_include_usage;
  serve.return_tokens_as_token_ids = options.api.return_tokens_as_token_ids;
  serve.trust_request_chat_template = options.api.trust_request_chat_template;
  serve.exclude_tools_when_tool_choice_none = options.api.exclude_tools_when_tool_choice_none;
  serve.log_requests = options.api.enable_log_requests;
  serve.stream_interval = options.engine.scheduler.stream_interval;
  return serve;
}

}  // namespace

http::ServerOptions HttpOptionsOf(const config::HttpOptions& options) {
  http::ServerOptions http;
  http.host = options.host.value_or("0.0.0.0");
  http.port = options.port;
  http.unix_path = options.uds.value_or("");
  http.tls = {.key_file = options.ssl_keyfile.value_or(""),
              .cert_file = options.ssl_certfile.value_or(""),
              .ca_file = options.ssl_ca_certs.value_or(""),
              .cert_reqs = options.ssl_cert_reqs,
              .ciphers = options.ssl_ciphers.value_or("")};
  http.keep_alive_timeout = std::chrono::seconds(options.keep_alive_s);
  return http;
}

Result<std::shared_ptr<const session::TextModel>> LoadText(const config::ModelOptions& options,
                                                           const ModelSetup& setup,
                                                           const std::string& chat_template) {
  if (options.skip_tokenizer_init) return nullptr;
  std::string folder = setup.location.folder;
  if (options.tokenizer) {
    CADRE_ASSIGN(const auto location,
                 checkpoint::LocateModel(*options.tokenizer, options.tokenizer_revision.value_or(""),
                                         {.hf_hub_cache = options.hub_cache}));
    folder = location.folder;
  }
  return session::LoadHfText({.folder = folder, .chat_template = chat_template});
}

Result<session::SessionOptions> SessionOptionsOf(const config::EngineOptions& options,
                                                 const config::ApiOptions& api, const ModelSetup& setup) {
  session::SessionOptions session;
  if (!setup.files.generation_config.is_null()) {
    CADRE_ASSIGN(session.defaults, session::SamplingDefaults::FromJson(setup.files.generation_config));
  }
  session.eos_token_ids = setup.spec.eos_token_ids;
  session.seed = static_cast<uint64_t>(options.model.seed);
  session.logprobs_mode = LogprobsModeOf(options.model.logprobs_mode);
  session.max_logprobs = static_cast<int>(options.model.max_logprobs);
  session.content_format = ContentFormatOf(api.chat_template_content_format);
  session.chat_template_kwargs = api.default_chat_template_kwargs;
  return session;
}

Result<std::unique_ptr<ApiFront>> ApiFront::Open(const config::ServeOptions& options, const ModelSetup& setup,
                                                 SharedFront shared) {
  std::unique_ptr<ApiFront> front(new ApiFront());
  serve::ServeOptions serve = ServeOptionsOf(options, setup);
  serve.http.listener = shared.listener.Release();
  serve.http.gives_way = std::move(shared.gives_way);
  serve.ask_fronts = std::move(shared.ask_fronts);
  CADRE_ASSIGN(front->server_, serve::ApiServer::Open(std::move(serve), front->metrics_));
  CADRE_ASSIGN(front->text_, LoadText(options.engine.model, setup, options.api.chat_template.value_or("")));
  CADRE_ASSIGN(front->session_options_, SessionOptionsOf(options.engine, options.api, setup));
  return front;
}

void ApiFront::Serve(engine::Engine& engine) {
  session_ = std::make_unique<session::Session>(session_options_, engine, text_);
  server_->Serve(*session_);
}

}  // namespace cadre::deploy
