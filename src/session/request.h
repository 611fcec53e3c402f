#pragma once
// A generation request after the schema and before the tokenizer: what serve fills in and Session::Start
// takes.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "engine/kv_transfer.h"

namespace cadre::session {

/// What a client may say about sampling; unset fields take the model's generation_config.json, then vLLM's
/// defaults.
struct SamplingRequest {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  double presence_penalty = 0, frequency_penalty = 0;
  std::optional<int64_t> top_k, seed;
  std::optional<int64_t> max_tokens;
  std::string max_tokens_name = "max_tokens";  ///< the field it came from, for messages
  int64_t min_tokens = 0;
  int64_t n = 1;
  std::vector<std::string> stop;
  std::vector<int64_t> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  std::vector<std::pair<int64_t, double>> logit_bias;
  std::vector<int64_t> allowed_token_ids;
  std::vector<std::string> bad_words;
  std::optional<int64_t> logprobs;         ///< -1: all
  std::string logprobs_name = "logprobs";  ///< the field it came from, for messages
  std::optional<int64_t> prompt_logprobs;
};

/// A chat before its template.
struct ChatPrompt {
  Json messages;              ///< array of objects with role and content (a string, or parts of type text)
  Json tools;                 ///< array, or null
  Json documents;             ///< array, or null
  Json kwargs;                ///< object of further template variables, or null
  std::string chat_template;  ///< instead of the model's own; empty: that one
  bool add_generation_prompt = true;
  bool continue_final_message = false;
};

struct TextPrompt {
  std::string text;
};
struct TokenPrompt {
  std::vector<int64_t> ids;  ///< not yet checked against the vocabulary
};
using PromptInput = std::variant<TextPrompt, TokenPrompt, ChatPrompt>;

struct GenerateRequest {
  std::string id;
  std::vector<PromptInput> prompts;  ///< each answered n times
  bool add_special_tokens = true;
  std::optional<int64_t> truncate_prompt_tokens;  ///< -1: to what fits
  bool truncate_left = true;                      ///< drop from the front
  SamplingRequest sampling;
  std::string prompt_field = "prompt";  ///< the field the prompts came from, for messages
  bool fill_context = false;            ///< without max_tokens: as many as fit (chat), else 16
  bool cap_max_tokens = false;          ///< a too large max_tokens is cut to what fits instead of refused
  int64_t routed_experts_start = 0;     ///< the first token whose experts are wanted
  bool echo = false;
  bool stream = false;
  int64_t stream_interval = 1;  ///< tokens per delta
  std::string cache_salt;
  std::string adapter;  ///< a loaded LoRA adapter; empty: the model alone
  int priority = 0;
  int data_parallel_rank = -1;
  std::optional<engine::KvTransfer> kv_transfer;  ///< of the first sequence; the others are computed here
  /// The tokens that the source of kv_transfer has, where it told them: the fetch is of those that begin the
  /// prompt.
  std::vector<int64_t> kv_source_tokens;
};

}  // namespace cadre::session
