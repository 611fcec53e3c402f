#pragma once
// Between text and tokens: the last place that knows text on the way down, the first on the way up.
#include <atomic>

#include "session/chat.h"
#include "session/generation.h"
#include "session/request.h"
#include "session/sampling.h"
#include "session/text_model.h"

namespace cadre::session {

struct SessionOptions {
  SamplingDefaults defaults;  ///< of generation_config.json; see SamplingDefaults::FromJson
  std::vector<int32_t>
      eos_token_ids;  ///< of config.json; joined with the tokenizer's and generation_config's
  uint64_t seed = 0;  ///< of the seeds that requests without one draw, in turn
  int max_logprobs = 20;
  int64_t max_sequences = 1024;  ///< prompts times n of one request
  nn::LogprobsMode logprobs_mode = nn::LogprobsMode::kRawLogprobs;
  bool cap_max_tokens = false;  ///< too large max_tokens are cut instead of refused
  ContentFormat content_format = ContentFormat::kAuto;
  Json chat_template_kwargs;  ///< --default-chat-template-kwargs: object or null
};

/// Immutable after construction; any thread.
class Session {
 public:
  /// `text` null: no tokenizer (--skip-tokenizer-init); prompts must be token ids then.
  Session(SessionOptions options, engine::Engine& engine, std::shared_ptr<const TextModel> text);

  const TextModel* text() const { return text_.get(); }
  const engine::ModelInfo& model() const { return engine_.model_info(); }
  engine::Engine& engine() const { return engine_; }
  const SessionOptions& options() const { return options_; }

  /// Renders, encodes, checks and submits. The caller keeps the result to cancel it. Cost: the encoding,
  /// about 0.1 us a byte of text; call it where that may block. Errors: kInvalidArgument and kUnsupported
  /// with the field; what Engine::Submit says.
  Result<std::shared_ptr<Generation>> Start(GenerateRequest request, std::shared_ptr<Listener> listener,
                                            PostFunction post) const;

  /// The ids of one prompt, without looking at the context length.
  Result<std::vector<int32_t>> Tokenize(const PromptInput& prompt, bool add_special_tokens,
                                        std::string* rendered = nullptr) const;
  /// Checks ids against the vocabulary.
  Result<std::vector<int32_t>> CheckIds(const std::vector<int64_t>& ids, const char* field) const;

 private:
  Result<std::shared_ptr<Generation>> Begin(GenerateRequest request, std::shared_ptr<Listener> listener,
                                            PostFunction post) const;
  uint64_t DrawSeed() const;
  Status Truncate(const GenerateRequest& request, std::vector<int32_t>& ids) const;

  const SessionOptions options_;
  engine::Engine& engine_;
  const std::shared_ptr<const TextModel> text_;
  std::vector<int32_t> eos_token_ids_;
  mutable std::atomic<uint64_t> num_drawn_seeds_{0};
};

}  // namespace cadre::session
