#pragma once
// From what a client asked for to what the engine does: defaults, ranges, token lists. Messages follow
// vLLM's.
#include "base/error.h"
#include "engine/request.h"
#include "session/request.h"
#include "session/text_model.h"

namespace cadre::session {

/// What generation_config.json (or its override) presets, as vLLM reads it.
struct SamplingDefaults {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k, max_new_tokens;
  std::vector<int32_t> eos_token_ids;

  /// Reads the known keys; others are left alone. Errors: kInvalidArgument naming the key.
  static Result<SamplingDefaults> FromJson(const Json& generation_config);
};

struct SamplingLimits {
  int64_t vocab_size = 0;
  int max_logprobs = 20;         ///< -1: the whole vocabulary
  int64_t max_sequences = 1024;  ///< prompts times n of one request
};

/// Checks and completes everything but max_tokens (see FitMaxTokens) and the seed of each sequence.
/// `text` may be null (no tokenizer): then stop strings and bad words are refused.
/// Errors: kInvalidArgument with the field.
Result<engine::SamplingParams> ResolveSampling(const SamplingRequest& request,
                                               const SamplingDefaults& defaults, const SamplingLimits& limits,
                                               const TextModel* text);

/// As much of ResolveSampling as needs no model: for who wants to hear of a wrong value when it is written.
Status CheckSampling(const SamplingRequest& request);

/// The number of tokens to generate after a prompt of that length. `cap`: a too large max_tokens is cut to
/// what fits instead of refused. Errors: kInvalidArgument with vLLM's words about the context length.
Result<int> FitMaxTokens(const GenerateRequest& request, const SamplingDefaults& defaults,
                         int64_t num_prompt_tokens, int64_t max_model_len, bool cap);

}  // namespace cadre::session
