#pragma once
// What chat and text completions have in common on the way back: choices, usage, streaming, errors, metrics.
// On the hot path a token costs one append of a prepared frame around its text; a JSON tree is never built.
#include "serve/api.h"

namespace cadre::serve {

struct AnswerOptions {
  std::string id;     ///< "chatcmpl-...", "cmpl-..."
  std::string model;  ///< as answers carry it
  const char* object = "";
  const char* chunk_object = "";  ///< empty: an answer is "request_id" and choices, without a model

  bool stream = false, include_usage = false, continuous_usage = false;
  bool return_token_ids = false, tokens_as_ids = false;
  std::optional<int> logprobs;  ///< how many alternatives to show; -1: all that came
  bool prompt_logprobs = false;
  bool echo = false;
  std::shared_ptr<void> running_id;  ///< of RunningIds, while the request lives
};

/// One generated answer of a request.
struct Choice {
  std::string text;                // all of it, without a stream
  std::vector<int32_t> token_ids;  // all of them, if asked for and without a stream
  std::string logprobs;            // JSON fragments, by the kind of answer
  std::string tokens, token_logprobs, top_logprobs, text_offset;  // of text completions
  int64_t text_chars = 0;                                         // code points of the tokens so far
  int num_tokens = 0;
  bool begun = false, counted = false;
  const char* finish_reason = nullptr;
  session::StopReason stop_reason;
  session::PromptResult prompt;
  std::optional<engine::HeldKv> held;
  engine::RoutedExperts routed;
  TimePoint last_step{};
  RequestMetrics* metrics = nullptr;  // of the engine that serves it; known from the first delta on
};

class Answer : public session::Listener, public std::enable_shared_from_this<Answer> {
 public:
  Answer(Api& api, AnswerOptions options, WriterPtr writer);
  ~Answer() override;

  /// Submits the request and ties the generation to the client's connection.
  Status Start(session::GenerateRequest request);

  void OnAccepted(session::Accepted accepted) override;
  void OnPrompt(size_t sequence, session::PromptResult prompt) override;
  void OnDelta(size_t sequence, const session::Delta& delta, std::span<const TimePoint> step_times) override;
  void OnFailure(const Error& error) override;
  void OnBatchEnd(bool all_ended) override;

 protected:
  /// Appends the SSE events of a delta to `out`. `first`: of this choice.
  virtual void AppendChunk(std::string& out, size_t index, Choice& choice, const session::Delta& delta,
                           bool first) = 0;
  /// Keeps what the full answer needs of a delta; text and token ids are kept already.
  virtual void Keep(Choice& choice, size_t index, const session::Delta& delta, bool first) = 0;
  /// Appends the members of one choice of the full answer after "index".
  virtual void AppendChoice(std::string& out, size_t index, const Choice& choice) = 0;
  /// Appends further members of the full answer, each with a comma before it.
  virtual void AppendExtras(std::string& out) = 0;

  const std::vector<int32_t>& PromptOf(size_t index) const {
    return accepted_.prompts[index / static_cast<size_t>(accepted_.n)];
  }
  const std::string& PromptTextOf(size_t index) const {
    return accepted_.texts[index / static_cast<size_t>(accepted_.n)];
  }
  const std::string& frame() const { return frame_; }
  void AppendChunkUsage(std::string& out, size_t index, const Choice& choice) const;
  std::string TokenText(int32_t token) const;
  void AppendPromptLogprobs(std::string& out, const Choice& choice) const;

  Api& api_;
  const AnswerOptions options_;
  session::Accepted accepted_;
  std::vector<Choice> choices_;

 private:
  bool is_openai() const { return *options_.chunk_object != '\0'; }
  void AppendHead(std::string& out, const char* object) const;
  void AppendUsage(std::string& out) const;
  void Count(size_t sequence, const session::Delta& delta, std::span<const TimePoint> step_times);
  void Fail(const Error& error);
  void SendFull();

  const WriterPtr writer_;
  const TimePoint arrival_ = Now();
  const int64_t created_;
  std::string frame_;  // the start of every chunk, up to the choice's index
  std::string out_;    // chunks of this wake
  bool stream_started_ = false, failed_ = false;
  std::weak_ptr<session::Generation> generation_;
};

/// The experts as numpy's .npy file in base64, as vLLM sends them; "null" if they were not kept.
void AppendRoutedNpy(std::string& out, const engine::RoutedExperts& routed);
/// {"data" (base64), "shape", "start", "dtype"}, as prime-rl reads them; or null.
void AppendRoutedObject(std::string& out, const engine::RoutedExperts& routed);

// Pieces of JSON.
void AppendInt(std::string& out, int64_t value);
void AppendInts(std::string& out, std::span<const int32_t> values);
void AppendLogprob(std::string& out, float value);  ///< JSON knows no infinity: not below -9999, as vLLM
/// What log probabilities carry as "content": for each token the chosen one's entry with up to `num_others`
/// others (-1: all that came). append_entry(out, entry) leaves its brace open.
template <typename AppendEntry>
void AppendLogprobContent(std::string& out, std::span<const engine::GeneratedToken> tokens, int num_others,
                          const AppendEntry& append_entry) {
  for (size_t t = 0; t < tokens.size(); ++t) {
    if (t > 0) out += ',';
    const engine::Logprobs& logprobs = tokens[t].logprobs;
    append_entry(out, logprobs.empty() ? engine::TokenLogprob{tokens[t].token, 0, 0} : logprobs[0]);
    out += ",\"top_logprobs\":[";
    for (size_t k = 1; k < logprobs.size() && (num_others < 0 || k <= static_cast<size_t>(num_others)); ++k) {
      if (k > 1) out += ',';
      append_entry(out, logprobs[k]);
      out += '}';
    }
    out += "]}";
  }
}
void AppendFinish(std::string& out,
                  const session::SequenceEnd* end);  ///< ,"finish_reason":...,"stop_reason":...
const char* FinishName(engine::FinishReason reason);
void AppendStopReason(std::string& out, const session::StopReason& reason);

}  // namespace cadre::serve
