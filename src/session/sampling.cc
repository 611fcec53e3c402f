#include "session/sampling.h"

#include <algorithm>
#include <cmath>

namespace cadre::session {
namespace {

// vLLM's floor for temperatures that are not zero: below it the division overflows.
constexpr double kMinTemperature = 1e-2;
constexpr double kMaxLogitBias = 100;
constexpr size_t kMaxListLength = 1 << 20;
constexpr size_t kMaxBadWords = 128;         // vLLM 0.32
constexpr size_t kMaxBadWordsTokens = 1024;  // vLLM 0.32

Status CheckRange(const char* name, double value, double low, double high, const char* wanted) {
  if (std::isfinite(value) && value >= low && value <= high) return {};
  return FailParam(Code::kInvalidArgument, name, "{} must be {}, got {}.", name, wanted, value);
}

Result<std::vector<int32_t>> CheckTokens(const char* name, const std::vector<int64_t>& ids,
                                         int64_t vocab_size) {
  if (ids.size() > kMaxListLength) {
    return FailParam(Code::kInvalidArgument, name, "{} has {} entries; at most {} are allowed.", name,
                     ids.size(), kMaxListLength);
  }
  std::vector<int32_t> out;
  out.reserve(ids.size());
  for (const int64_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return FailParam(Code::kInvalidArgument, name,
                       "{} contains token id {}, which is outside the vocabulary of {}.", name, id,
                       vocab_size);
    }
    out.push_back(static_cast<int32_t>(id));
  }
  return out;
}

// A word is forbidden as the model would write it at the start and after a space.
Status AddBadWords(const std::vector<std::string>& words, const TextModel* text,
                   engine::SamplingParams& out) {
  if (words.empty()) return {};
  if (text == nullptr) {
    return FailParam(Code::kInvalidArgument, "bad_words",
                     "bad_words needs a tokenizer; this server runs without one.");
  }
  if (words.size() > kMaxBadWords) {
    return FailParam(Code::kInvalidArgument, "bad_words", "bad_words has {} entries; at most {} are allowed.",
                     words.size(), kMaxBadWords);
  }
  size_t num_tokens = 0;
  for (const std::string& word : words) {
    std::string bare = word;
    bare.erase(0, std::min(bare.find_first_not_of(' '), bare.size()));
    if (bare.empty())
      return FailParam(Code::kInvalidArgument, "bad_words", "bad_words cannot contain an empty string.");
    CADRE_ASSIGN(auto plain, text->Encode(bare, false));
    CADRE_ASSIGN(auto spaced, text->Encode(" " + bare, false));
    num_tokens += std::max(plain.size(), spaced.size());
    if (num_tokens > kMaxBadWordsTokens) {
      return FailParam(Code::kInvalidArgument, "bad_words", "bad_words have more than {} tokens together.",
                       kMaxBadWordsTokens);
    }
    // The spaced form counts only where the space is part of the word's first token.
    if (!spaced.empty() && !plain.empty() && spaced[0] != plain[0] && spaced.size() == plain.size()) {
      out.bad_words.push_back(std::move(spaced));
    }
    if (!plain.empty()) out.bad_words.push_back(std::move(plain));
  }
  return {};
}

Status CheckLogprobs(const std::string& name, const std::optional<int64_t>& asked, int max_logprobs,
                     int64_t vocab_size) {
  if (!asked) return {};
  if (*asked < -1)
    return FailParam(Code::kInvalidArgument, name, "{} must be non-negative or -1, got {}.", name, *asked);
  const int64_t count = *asked == -1 ? vocab_size : *asked;
  if (max_logprobs >= 0 && count > max_logprobs) {
    return FailParam(Code::kInvalidArgument, name,
                     "Requested {} of {}, which is greater than max allowed: {} (see --max-logprobs)", name,
                     count, max_logprobs);
  }
  return {};
}

Status CheckStops(const std::vector<std::string>& stops) {
  // Each sequence matches on its own, so what one body may ask for is bounded.
  constexpr size_t kMaxStopBytes = 4096;
  for (const std::string& stop : stops) {
    if (stop.empty())
      return FailParam(Code::kInvalidArgument, "stop", "stop cannot contain an empty string.");
    if (stop.size() > kMaxStopBytes) {
      return FailParam(Code::kInvalidArgument, "stop", "a stop string must have at most {} bytes, got {}.",
                       kMaxStopBytes, stop.size());
    }
  }
  return {};
}

Status CheckCounts(const SamplingRequest& request, const engine::SamplingParams& out,
                   const SamplingLimits& limits) {
  if (request.n < 1)
    return FailParam(Code::kInvalidArgument, "n", "n must be at least 1, got {}.", request.n);
  if (request.n > limits.max_sequences) {
    return FailParam(Code::kInvalidArgument, "n", "n must be at most {}, got {}.", limits.max_sequences,
                     request.n);
  }
  if (out.temperature == 0 && request.n > 1) {
    return FailParam(Code::kInvalidArgument, "n", "n must be 1 when using greedy sampling, got {}.",
                     request.n);
  }
  CADRE_TRY(CheckStops(request.stop));
  if (static_cast<int64_t>(request.stop_token_ids.size()) > limits.vocab_size) {
    return FailParam(Code::kInvalidArgument, "stop_token_ids",
                     "stop_token_ids must have at most {} entries, got {}.", limits.vocab_size,
                     request.stop_token_ids.size());
  }
  if (request.max_tokens && *request.max_tokens < 0) {
    return FailParam(Code::kInvalidArgument, request.max_tokens_name, "{} must be at least 1, got {}.",
                     request.max_tokens_name, *request.max_tokens);
  }
  if (request.min_tokens < 0) {
    return FailParam(Code::kInvalidArgument, "min_tokens",
                     "min_tokens must be greater than or equal to 0, got {}.", request.min_tokens);
  }
  if (request.max_tokens && request.min_tokens > *request.max_tokens) {
    return FailParam(Code::kInvalidArgument, "min_tokens",
                     "min_tokens must be less than or equal to max_tokens={}, got {}.", *request.max_tokens,
                     request.min_tokens);
  }
  return {};
}

}  // namespace

Result<SamplingDefaults> SamplingDefaults::FromJson(const Json& config) {
  SamplingDefaults out;
  const auto bad = [](const char* key, const Json& value) {
    return FailParam(Code::kInvalidArgument, key, "generation config: '{}' must be a number, found {}", key,
                     value.TypeName());
  };
  for (const auto& [key, target] :
       {std::pair{"temperature", &out.temperature}, std::pair{"top_p", &out.top_p},
        std::pair{"min_p", &out.min_p}, std::pair{"repetition_penalty", &out.repetition_penalty}}) {
    const Json* value = config.Find(key);
    if (value == nullptr || value->is_null()) continue;
    if (!value->is_number()) return bad(key, *value);
    *target = value->AsDouble();
  }
  for (const auto& [key, target] :
       {std::pair{"top_k", &out.top_k}, std::pair{"max_new_tokens", &out.max_new_tokens}}) {
    const Json* value = config.Find(key);
    if (value == nullptr || value->is_null()) continue;
    if (!value->is_int()) return bad(key, *value);
    *target = value->AsInt();
  }
  if (const Json* eos = config.Find("eos_token_id"); eos != nullptr && !eos->is_null()) {
    const Json::Array list = eos->is_array() ? eos->AsArray() : Json::Array{*eos};
    for (const Json& id : list) {
      if (!id.is_int()) return bad("eos_token_id", id);
      out.eos_token_ids.push_back(static_cast<int32_t>(id.AsInt()));
    }
  }
  return out;
}

Result<engine::SamplingParams> ResolveSampling(const SamplingRequest& request,
                                               const SamplingDefaults& defaults, const SamplingLimits& limits,
                                               const TextModel* text) {
  engine::SamplingParams out;
  out.temperature = request.temperature.value_or(defaults.temperature.value_or(1.0));
  out.top_p = request.top_p.value_or(defaults.top_p.value_or(1.0));
  out.min_p = request.min_p.value_or(defaults.min_p.value_or(0.0));
  out.repetition_penalty = request.repetition_penalty.value_or(defaults.repetition_penalty.value_or(1.0));
  out.presence_penalty = request.presence_penalty;
  out.frequency_penalty = request.frequency_penalty;
  const int64_t top_k = request.top_k.value_or(defaults.top_k.value_or(0));

  CADRE_TRY(CheckRange("temperature", out.temperature, 0, 1e6, "non-negative"));
  CADRE_TRY(CheckRange("top_p", out.top_p, std::nextafter(0.0, 1.0), 1, "in (0, 1]"));
  CADRE_TRY(CheckRange("min_p", out.min_p, 0, 1, "in [0, 1]"));
  CADRE_TRY(CheckRange("repetition_penalty", out.repetition_penalty, 1e-6, 1e6, "greater than zero"));
  CADRE_TRY(CheckRange("presence_penalty", out.presence_penalty, -2, 2, "in [-2, 2]"));
  CADRE_TRY(CheckRange("frequency_penalty", out.frequency_penalty, -2, 2, "in [-2, 2]"));
  if (top_k < -1) {
    return FailParam(Code::kInvalidArgument, "top_k", "top_k must be 0 (disable), or at least 1, got {}.",
                     top_k);
  }
  out.top_k = static_cast<int>(std::clamp<int64_t>(top_k, 0, limits.vocab_size));
  if (out.temperature > 0) out.temperature = std::max(out.temperature, kMinTemperature);

  CADRE_TRY(CheckCounts(request, out, limits));
  out.min_tokens = static_cast<int>(std::min<int64_t>(request.min_tokens, INT32_MAX));
  CADRE_TRY(CheckLogprobs(request.logprobs_name, request.logprobs, limits.max_logprobs, limits.vocab_size));
  CADRE_TRY(
      CheckLogprobs("prompt_logprobs", request.prompt_logprobs, limits.max_logprobs, limits.vocab_size));
  if (request.logprobs) out.logprobs = static_cast<int>(*request.logprobs);
  if (request.prompt_logprobs) out.prompt_logprobs = static_cast<int>(*request.prompt_logprobs);

  if (!request.stop.empty() && text == nullptr) {
    return FailParam(Code::kInvalidArgument, "stop",
                     "stop strings are only supported with a tokenizer; this server runs without one.");
  }
  CADRE_ASSIGN(out.stop_token_ids, CheckTokens("stop_token_ids", request.stop_token_ids, limits.vocab_size));
  CADRE_ASSIGN(out.allowed_token_ids,
               CheckTokens("allowed_token_ids", request.allowed_token_ids, limits.vocab_size));
  if (static_cast<int64_t>(request.logit_bias.size()) > limits.vocab_size) {
    return FailParam(Code::kInvalidArgument, "logit_bias", "logit_bias must have at most {} entries, got {}.",
                     limits.vocab_size, request.logit_bias.size());
  }
  for (const auto& [id, bias] : request.logit_bias) {
    if (id < 0 || id >= limits.vocab_size) {
      return FailParam(Code::kInvalidArgument, "logit_bias",
                       "token_id {} in logit_bias contains out-of-vocab token id", id);
    }
    if (!std::isfinite(bias)) {
      return FailParam(Code::kInvalidArgument, "logit_bias",
                       "logit_bias of token {} must be a finite number, got {}.", id, bias);
    }
    out.logit_bias.emplace_back(static_cast<int32_t>(id),
                                static_cast<float>(std::clamp(bias, -kMaxLogitBias, kMaxLogitBias)));
  }
  CADRE_TRY(AddBadWords(request.bad_words, text, out));
  out.ignore_eos = request.ignore_eos;
  return out;
}

Status CheckSampling(const SamplingRequest& request) {
  for (const std::string& word : request.bad_words) {
    if (word.find_first_not_of(' ') == word.npos)
      return FailParam(Code::kInvalidArgument, "bad_words", "bad_words cannot contain an empty string.");
  }
  CADRE_TRY(CheckStops(request.stop));
  if (request.max_tokens && *request.max_tokens < 1) {
    return FailParam(Code::kInvalidArgument, request.max_tokens_name, "{} must be at least 1, got {}.",
                     request.max_tokens_name, *request.max_tokens);
  }
  SamplingRequest rest = request;  // words need a tokenizer
  rest.bad_words.clear();
  rest.stop.clear();
  const SamplingLimits widest{.vocab_size = INT32_MAX, .max_logprobs = -1};
  if (auto resolved = ResolveSampling(rest, {}, widest, nullptr); !resolved)
    return std::unexpected(std::move(resolved).error());
  return {};
}

Result<int> FitMaxTokens(const GenerateRequest& request, const SamplingDefaults& defaults,
                         int64_t num_prompt_tokens, int64_t max_model_len, bool cap) {
  const SamplingRequest& sampling = request.sampling;
  const std::string& shorter = request.prompt_field;
  const int64_t room = max_model_len - num_prompt_tokens;
  const bool only_prompt = request.echo && sampling.max_tokens == 0;
  if (room < (only_prompt ? 0 : 1)) {
    return FailParam(
        Code::kInvalidArgument, shorter,
        "This model's maximum context length is {} tokens. However, your request has {} input tokens. "
        "Please reduce the length of the input {}.",
        max_model_len, num_prompt_tokens, shorter);
  }
  if (sampling.max_tokens && *sampling.max_tokens < (request.echo ? 0 : 1)) {
    return FailParam(Code::kInvalidArgument, sampling.max_tokens_name, "{} must be at least 1, got {}.",
                     sampling.max_tokens_name, *sampling.max_tokens);
  }
  if (sampling.max_tokens && *sampling.max_tokens > room && !cap) {
    return FailParam(
        Code::kInvalidArgument, sampling.max_tokens_name,
        "'{}' is too large: {}. This model's maximum context length is {} tokens and your request has {} "
        "input tokens ({} > {} - {}). Ask for fewer tokens or shorten the input.",
        sampling.max_tokens_name, *sampling.max_tokens, max_model_len, num_prompt_tokens,
        *sampling.max_tokens, max_model_len, num_prompt_tokens);
  }
  int64_t fit = sampling.max_tokens.value_or(request.fill_context ? room : 16);
  fit = std::min(fit, room);
  // A server-wide ceiling, as in vLLM.
  if (defaults.max_new_tokens && *defaults.max_new_tokens > 0) fit = std::min(fit, *defaults.max_new_tokens);
  return static_cast<int>(std::min<int64_t>(fit, INT32_MAX));
}

}  // namespace cadre::session
