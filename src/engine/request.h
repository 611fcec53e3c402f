#pragma once
// What enters and what leaves the engine. Token ids only: text ends at the session.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "engine/kv_transfer.h"
#include "engine/token_ids.h"
#include "nn/sampler.h"

namespace cadre::engine {

/// How tokens are chosen and when to stop. Names, meanings and defaults are vLLM's SamplingParams; the
/// session has validated the ranges.
struct SamplingParams : nn::SamplingOptions {
  int max_tokens = 16;  ///< >= 0; the session has filled the default. 0: only the prompt is computed
  int min_tokens = 0;   ///< end and stop tokens are masked before
  std::vector<int32_t> stop_token_ids;
  std::vector<int32_t> eos_token_ids;  ///< end-of-sequence tokens of the model
  bool ignore_eos = false;
  int64_t routed_experts_start = 0;  ///< the first token whose experts the answer tells
  std::optional<int>
      prompt_logprobs;  ///< k >= 0: the prompt token's and the k best; -1: the whole vocabulary
};

/// One sequence to generate. `n` > 1 is several requests of the session with seeds of their own, which share
/// the prompt's ids; the prefix cache makes them share what is computed of it.
struct Request {
  std::string id;   ///< for logs; need not be unique
  TokenIds prompt;  ///< 1 <= size <= max_model_len, all inside the vocabulary
  SamplingParams sampling;
  std::string cache_salt;                 ///< part of the prefix key
  std::string adapter;                    ///< name of a loaded LoRA adapter; empty: the model alone
  int priority = 0;                       ///< with --scheduling-policy priority: lower runs earlier
  std::optional<TimePoint> deadline;      ///< past it the request ends with kDeadlineExceeded
  int data_parallel_rank = -1;            ///< -1: the cluster chooses
  std::optional<KvTransfer> kv_transfer;  ///< refused by an engine without hand-off
};

using nn::Logprobs;
using nn::TokenLogprob;

struct GeneratedToken {
  int32_t token = 0;
  Logprobs logprobs;  ///< empty unless asked for
};

enum class FinishReason {
  kStop,    ///< an end or stop token
  kLength,  ///< max_tokens or max_model_len reached
  kAbort,   ///< cancelled by the caller
  kError,   ///< see `error`
};

/// When what happened, for usage and metrics; all on the steady clock of this host.
struct RequestTimes {
  TimePoint queued, scheduled, first_token, last_token;
};

/// Which experts each token had: rows of layers of top_k, from token `start` of prompt and answer on. The
/// last generated token has none: it has not been computed.
struct RoutedExperts {
  int64_t start = 0;
  int32_t num_layers = 0, top_k = 0;  ///< 0: not kept
  std::vector<uint16_t> experts;      ///< [tokens, num_layers, top_k]
};

struct Finish {
  FinishReason reason = FinishReason::kStop;
  std::optional<int32_t>
      stop_token;  ///< the stop_token_ids entry that ended it; empty for the model's own end token
  Error error;     ///< set for kError
  RequestTimes times;
  int num_preemptions = 0;
  std::optional<HeldKv> held;  ///< where Request::kv_transfer asked for it and the end was a good one
  RoutedExperts routed;        ///< with --enable-return-routed-experts, where a step ended the request
};

/// Receives what becomes of one request. Called from the engine thread: must not block and must not call the
/// engine. Order: at most one OnPrompt, then OnTokens any number of times, then exactly one OnFinish; nothing
/// after it. The tokens of the step that ends a request come with its end: one event, so that what follows
/// (a frame to another process, a wake of a thread, a chunk to a client) is one as well.
class EventSink {
 public:
  virtual ~EventSink() = default;
  /// The prompt is computed: how many of its tokens came from the prefix cache, and its logprobs if asked for
  /// (one entry a prompt token; the first is empty).
  virtual void OnPrompt(int num_cached_tokens, std::vector<Logprobs> prompt_logprobs) = 0;
  virtual void OnTokens(std::vector<GeneratedToken> tokens) = 0;
  /// `last_tokens`: of the ending step; empty where no step ended it (cancelled, failed, max_tokens 0).
  virtual void OnFinish(std::vector<GeneratedToken> last_tokens, Finish finish) = 0;
};

}  // namespace cadre::engine
