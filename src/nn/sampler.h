#pragma once
// From a row of logits to a token. One row at a time, on one thread; rows go to the workers as tasks.
//
// Order of operations (vLLM's): raw log probabilities are taken; then allowed ids, minimum length,
// bad words, logit bias, penalties, temperature, min-p, top-k, top-p; then processed
// log probabilities are taken. The draw is Philox(seed, stream 0,
// position of the new token), so neither the batch nor the layout of ranks can change it.
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kernels/device.h"

namespace cadre::nn {

/// What log probabilities are reported of; vLLM's names.
enum class LogprobsMode : uint8_t {
  kRawLogprobs,        ///< of the model's own distribution
  kProcessedLogprobs,  ///< of the one that the token is drawn from; what cannot be drawn has -inf
  kRawLogits,          ///< the logits themselves
  kProcessedLogits,    ///< after penalties and temperature; -inf as above
};

/// How the next token is chosen; ranges have been validated. temperature 0 is greedy (lowest id on ties).
struct SamplingOptions {
  double temperature = 1.0;
  double top_p = 1.0;
  int top_k = 0;  ///< 0: all
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_token_ids;       ///< empty: all
  std::vector<std::vector<int32_t>> bad_words;  ///< token sequences that must not be completed
  uint64_t seed = 0;  ///< always set: the session draws one where the client gave none
  LogprobsMode logprobs_mode = LogprobsMode::kRawLogprobs;
  std::optional<int> logprobs;  ///< k >= 0: the chosen token's and the k best; -1: the whole vocabulary
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
  int32_t rank = 0;  ///< 1 = most likely
};

/// The chosen (or given) token first, then the best ones in falling order (the chosen one may come again).
using Logprobs = std::vector<TokenLogprob>;

struct SamplerInput {
  const SamplingOptions* options = nullptr;
  std::span<const int32_t> tokens;  ///< prompt, then what was generated so far
  int64_t num_prompt_tokens = 0;
  std::span<const int32_t> forbidden_tokens;  ///< end and stop tokens while min_tokens is not reached
};

struct Sampled {
  int32_t token = 0;
  Logprobs logprobs;  ///< empty unless asked for
};

/// Scratch of one worker; kept between calls so that the hot path does not allocate.
struct SamplerScratch {
  std::vector<float> logits, probabilities;
  std::vector<int32_t> selected;
  std::vector<std::pair<float, int32_t>> candidates;
};

/// Chooses one token. `logits` [V] f32 is not changed. A greedy request without options that change logits
/// costs one pass; sampling costs four passes, and one over the likelier tokens. `device` names the
/// instruction set only: the work is the calling thread's.
Sampled SampleToken(const kernels::Device& device, std::span<const float> logits, const SamplerInput& input,
                    SamplerScratch& scratch);

/// The log probability and rank of `token` and the `num_best` likeliest tokens (-1: all) under
/// softmax(logits); with `as_logits` their logits.
Logprobs ComputeLogprobs(const kernels::Device& device, std::span<const float> logits, int32_t token,
                         int num_best, SamplerScratch& scratch, bool as_logits = false);

}  // namespace cadre::nn
