#include "serve/openai/request.h"

#include <algorithm>
#include <charconv>

#include "base/random.h"
#include "serve/openai/schema.h"

namespace cadre::serve {
namespace {

constexpr size_t kMaxStops = 4;  // vLLM 0.32
constexpr size_t kMaxIdBytes = 256;

std::optional<double> GetNumber(const Json& body, std::string_view name) {
  const Json* value = GetField(body, name);
  return value == nullptr ? std::nullopt : std::optional(value->AsDouble());
}

std::optional<int64_t> GetWhole(const Json& body, std::string_view name) {
  const Json* value = GetField(body, name);
  return value == nullptr ? std::nullopt : std::optional(value->AsInt());
}

std::vector<int64_t> GetInts(const Json& body, std::string_view name) {
  std::vector<int64_t> out;
  if (const Json* value = GetField(body, name)) {
    for (const Json& entry : value->AsArray()) out.push_back(entry.AsInt());
  }
  return out;
}

std::vector<std::string> GetStrings(const Json& body, std::string_view name) {
  const Json* value = GetField(body, name);
  if (value == nullptr) return {};
  if (value->is_string()) return {value->AsString()};
  std::vector<std::string> out;
  for (const Json& entry : value->AsArray()) out.push_back(entry.AsString());
  return out;
}

Status FillLogitBias(const Json& body, std::vector<std::pair<int64_t, double>>& out) {
  const Json* bias = GetField(body, "logit_bias");
  if (bias == nullptr) return {};
  for (const auto& [key, value] : bias->AsObject()) {
    int64_t id = 0;
    const auto [end, ec] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (ec != std::errc() || end != key.data() + key.size()) {
      return FailParam(Code::kInvalidArgument, "logit_bias",
                       "logit_bias has the key '{}'; keys must be token ids", Excerpt(key));
    }
    if (!value.is_number()) {
      return FailParam(Code::kInvalidArgument, "logit_bias",
                       "logit_bias of token {} must be a number, found {}", id, value.TypeName());
    }
    out.emplace_back(id, value.AsDouble());
  }
  return {};
}

// A client's id goes into headers and logs: short and printable, or one of ours.
std::string RequestId(const Json& body, const http::Request& http) {
  std::string id;
  if (const std::string* header = http.Header("X-Request-Id")) id = *header;
  if (id.empty()) id = GetString(body, "request_id");
  if (id.size() > kMaxIdBytes) id.resize(kMaxIdBytes);
  const bool printable = std::all_of(id.begin(), id.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (!id.empty() && printable) return id;
  return Format("{:016x}{:016x}", EntropySeed(), EntropySeed());
}

}  // namespace

bool IsServedName(const Api& api, const std::string& name) {
  return std::ranges::count(api.options.served_model_names, name) > 0;
}

Result<std::string> AdapterOf(const Api& api, const Json& body) {
  const std::string model = GetString(body, "model");
  if (GetField(body, "model") == nullptr || IsServedName(api, model)) return std::string();
  if (api.options.enable_lora && !model.empty()) return model;
  return FailParam(Code::kNotFound, "model", "The model `{}` does not exist.", Excerpt(model));
}

Status CheckModel(const Api& api, const Json& body) {
  CADRE_ASSIGN(const std::string adapter, AdapterOf(api, body));
  if (adapter.empty()) return {};
  for (const engine::RankStats& stats : api.session.engine().Stats())
    if (stats.adapters.Find(adapter) != nullptr) return {};
  return FailParam(Code::kNotFound, "model", "The model `{}` does not exist.", Excerpt(adapter));
}

Status FillRequest(const Api& api, const Json& body, const http::Request& http,
                   session::GenerateRequest& out) {
  session::SamplingRequest& s = out.sampling;
  s.temperature = GetNumber(body, "temperature");
  s.top_p = GetNumber(body, "top_p");
  s.min_p = GetNumber(body, "min_p");
  s.repetition_penalty = GetNumber(body, "repetition_penalty");
  s.presence_penalty = GetNumber(body, "presence_penalty").value_or(0);
  s.frequency_penalty = GetNumber(body, "frequency_penalty").value_or(0);
  s.top_k = GetWhole(body, "top_k");
  s.seed = GetWhole(body, "seed");
  s.max_tokens = GetWhole(body, "max_tokens");
  s.min_tokens = GetInt(body, "min_tokens", 0);
  s.n = GetInt(body, "n", 1);
  s.stop = GetStrings(body, "stop");
  if (s.stop.size() > kMaxStops) {
    return FailParam(Code::kInvalidArgument, "stop", "stop has {} strings; at most {} are allowed",
                     s.stop.size(), kMaxStops);
  }
  s.stop_token_ids = GetInts(body, "stop_token_ids");
  s.include_stop_str_in_output = GetBool(body, "include_stop_str_in_output", false);
  s.ignore_eos = GetBool(body, "ignore_eos", false);
  s.skip_special_tokens = GetBool(body, "skip_special_tokens", true);
  CADRE_TRY(FillLogitBias(body, s.logit_bias));
  s.allowed_token_ids = GetInts(body, "allowed_token_ids");
  if (GetField(body, "allowed_token_ids") != nullptr && s.allowed_token_ids.empty()) {
    return FailParam(Code::kInvalidArgument, "allowed_token_ids",
                     "allowed_token_ids is an empty list: nothing could be said");
  }
  s.bad_words = GetStrings(body, "bad_words");
  s.prompt_logprobs = GetWhole(body, "prompt_logprobs");

  out.stream = GetBool(body, "stream", false);
  if (out.stream && s.prompt_logprobs && *s.prompt_logprobs != 0) {
    return FailParam(Code::kInvalidArgument, "prompt_logprobs",
                     "`prompt_logprobs` are not available when `stream=True`.");
  }
  out.echo = GetBool(body, "echo", false);
  out.stream_interval = GetInt(body, "stream_interval", std::max<int64_t>(1, api.options.stream_interval));
  out.truncate_prompt_tokens = GetWhole(body, "truncate_prompt_tokens");
  if (out.truncate_prompt_tokens == 0) {
    return FailParam(Code::kInvalidArgument, "truncate_prompt_tokens",
                     "truncate_prompt_tokens must be -1 or at least 1, got 0");
  }
  const std::string side = GetString(body, "truncation_side");
  if (!side.empty() && side != "left" && side != "right") {
    return FailParam(Code::kInvalidArgument, "truncation_side",
                     "truncation_side must be 'left' or 'right', got '{}'", Excerpt(side));
  }
  out.truncate_left = side != "right";
  out.cache_salt = GetString(body, "cache_salt");
  if (GetField(body, "cache_salt") != nullptr && out.cache_salt.empty()) {
    return FailParam(Code::kInvalidArgument, "cache_salt",
                     "cache_salt must be a non-empty string if it is given");
  }
  out.routed_experts_start = GetInt(body, "routed_experts_prompt_start", 0);
  out.priority = static_cast<int>(GetInt(body, "priority", 0));
  if (const std::string* rank = http.Header("X-data-parallel-rank")) {
    const auto [end, ec] = std::from_chars(rank->data(), rank->data() + rank->size(), out.data_parallel_rank);
    if (ec != std::errc() || end != rank->data() + rank->size() || out.data_parallel_rank < 0) {
      return FailParam(Code::kInvalidArgument, "X-data-parallel-rank",
                       "the header X-data-parallel-rank must be a rank's number, got '{}'", Excerpt(*rank));
    }
  }
  return {};
}

Status FillAnswer(const Api& api, const Json& body, const http::Request& http, const char* prefix,
                  AnswerOptions& out) {
  out.id = prefix + RequestId(body, http);
  out.model = api.options.served_model_names.front();
  out.stream = GetBool(body, "stream", false);
  if (const Json* options = GetField(body, "stream_options")) {
    if (!out.stream) {
      return FailParam(Code::kInvalidArgument, "stream_options",
                       "Stream options can only be defined when `stream=True`.");
    }
    for (const auto& [name, target] : {std::pair{"include_usage", &out.include_usage},
                                       std::pair{"continuous_usage_stats", &out.continuous_usage}}) {
      const Json* value = GetField(*options, name);
      if (value == nullptr) continue;
      if (!value->is_bool()) {
        return FailParam(Code::kInvalidArgument, Format("stream_options.{}", name),
                         "stream_options.{} must be a boolean, found {}", name, value->TypeName());
      }
      *target = value->AsBool();
    }
  }
  out.include_usage |= api.options.enable_force_include_usage;
  out.return_token_ids = GetBool(body, "return_token_ids", false);
  out.tokens_as_ids = GetBool(body, "return_tokens_as_token_ids", api.options.return_tokens_as_token_ids);
  out.echo = GetBool(body, "echo", false);
  out.prompt_logprobs = GetField(body, "prompt_logprobs") != nullptr;
  return {};
}

Result<session::ChatPrompt> ChatOf(const Api& api, const Json& body) {
  session::ChatPrompt out;
  const Json* messages = GetField(body, "messages");
  if (messages == nullptr)
    return FailParam(Code::kInvalidArgument, "messages", "messages is required: a list of messages");
  out.messages = *messages;
  if (const Json* tools = GetField(body, "tools")) out.tools = *tools;
  if (const Json* documents = GetField(body, "documents")) out.documents = *documents;
  out.kwargs = Json::Object();
  if (const std::string effort = GetString(body, "reasoning_effort"); !effort.empty()) {
    out.kwargs.Set("reasoning_effort", effort);
  }
  if (const Json* kwargs = GetField(body, "chat_template_kwargs")) {
    for (const auto& [key, value] : kwargs->AsObject()) out.kwargs.Set(key, value);
  }
  out.chat_template = GetString(body, "chat_template");
  if (!out.chat_template.empty() && !api.options.trust_request_chat_template) {
    return FailParam(
        Code::kInvalidArgument, "chat_template",
        "Chat template is passed with request, but --trust-request-chat-template is not set. Refused chat "
        "template with untrusted source.");
  }
  out.add_generation_prompt = GetBool(body, "add_generation_prompt", true);
  out.continue_final_message = GetBool(body, "continue_final_message", false);
  return out;
}

}  // namespace cadre::serve
