#pragma once
// One client request on its way: its sequences in the engine, their events, and the text that comes of them.
// The engine thread only appends to a mailbox; everything that costs (detokenizing, stop strings, JSON)
// happens in Drain, on the thread that the caller's `post` names. One wake carries whatever has gathered
// since the last one.
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "engine/engine.h"
#include "session/text_model.h"
#include "text/stop.h"

namespace cadre::session {

/// Nothing, a token id of stop_token_ids, or a stop string.
using StopReason = std::variant<std::monostate, int32_t, std::string>;

struct SequenceEnd {
  engine::FinishReason reason = engine::FinishReason::kStop;
  StopReason stop_reason;
  engine::RequestTimes times;  ///< `scheduled` is unset (zero) where the engine had no say in the end
  int num_preemptions = 0;
  int num_tokens = 0;                  ///< generated, the ending one included
  Error error;                         ///< for kError
  std::optional<engine::HeldKv> held;  ///< what others can fetch of it
  engine::RoutedExperts routed;
};

/// What is new of one sequence. Views live during the call.
struct Delta {
  std::string_view text;
  std::span<engine::GeneratedToken> tokens;
  const SequenceEnd* end = nullptr;  ///< set in the sequence's last delta
  int rank = 0;                      ///< of the engine that serves the sequence
};

struct PromptResult {
  int num_cached_tokens = 0;
  std::vector<engine::Logprobs> logprobs;  ///< one a prompt token, if asked for; the first is empty
};

/// What became of a request's prompts when it was accepted.
struct Accepted {
  std::vector<std::vector<int32_t>> prompts;  ///< token ids; sequences p*n .. p*n+n-1 belong to prompt p
  std::vector<std::string> texts;  ///< the prompts as text; empty where ids came and no echo is asked for
  int64_t n = 1;
  int max_tokens = 0;  ///< the largest of the prompts
};

/// Hears a request's results, one call at a time, on the thread of `post`.
class Listener {
 public:
  virtual ~Listener() = default;
  /// Before anything else, on the thread that starts the request; the engine may still refuse after it.
  virtual void OnAccepted(Accepted accepted) = 0;
  virtual void OnPrompt(size_t sequence, PromptResult prompt) = 0;
  /// `step_times`: when the engine gave the tokens, one entry a step.
  virtual void OnDelta(size_t sequence, const Delta& delta, std::span<const TimePoint> step_times) = 0;
  /// Something failed on our side (memory ran out, most likely); the sequences are cancelled. Nothing
  /// follows.
  virtual void OnFailure(const Error& error) = 0;
  /// After the calls of one wake: the moment to write to the socket. `all_ended`: nothing follows.
  virtual void OnBatchEnd(bool all_ended) = 0;
};

using PostFunction = std::function<void(std::move_only_function<void()>)>;

struct SequenceSpec {
  engine::Request request;
  std::vector<std::string> stop;
  std::optional<text::StopMatcher>
      stop_matcher;  ///< of `stop`; the sequences of a request share one automaton
  bool include_stop = false;
  bool skip_special_tokens = true;
};

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  struct Options {
    bool stream = false;
    int64_t stream_interval = 1;
  };
  Generation(Options options, const TextModel* text, std::shared_ptr<Listener> listener, PostFunction post);

  /// Hands all sequences to the engine. On an error those already handed over are cancelled and the listener
  /// hears nothing. Call once.
  Status Start(engine::Engine& engine, std::vector<SequenceSpec> specs);

  /// The client has gone: ends all sequences; the listener hears nothing more. Any thread.
  void Cancel();

 private:
  class Sink;
  struct Pending {
    std::vector<engine::GeneratedToken> tokens;
    std::vector<TimePoint> step_times;
    std::optional<PromptResult> prompt;
    std::optional<engine::Finish> finish;
    bool listed = false;
  };
  struct Sequence {
    SequenceSpec spec;
    std::vector<int32_t> last_tokens;  // sorted: tokens that end it
    std::unique_ptr<TextStream> stream;
    std::optional<text::StopMatcher> stops;
    std::string text;                            // of the next delta
    std::vector<engine::GeneratedToken> tokens;  // of the next delta
    std::vector<TimePoint> step_times;
    TimePoint queued, first_token, last_token;
    int num_tokens = 0;
    int rank = 0;
    bool ended = false;
  };

  void Prepare(std::vector<SequenceSpec> specs);
  Status Submit(engine::Engine& engine);
  template <typename Fill>
  void Put(size_t index, bool wake, Fill fill);
  void Schedule();
  void Drain();
  void DrainMailbox();
  void Process(size_t index, Pending pending);
  bool TakeToken(Sequence& sequence, engine::GeneratedToken token, SequenceEnd& end);
  void EndByEngine(Sequence& sequence, const engine::Finish& finish, SequenceEnd& end);
  void Emit(size_t index, const SequenceEnd* end);
  void CancelSequence(size_t index);

  const Options options_;
  const TextModel* const text_;
  const PostFunction post_;
  const std::shared_ptr<Listener> listener_;
  std::vector<Sequence> sequences_;  // of the thread of post_, after Start
  size_t num_ended_ = 0;

  std::mutex mutex_;  // guards what is below
  std::vector<Pending> pending_;
  std::vector<size_t> dirty_;
  std::vector<std::unique_ptr<engine::RequestHandle>> handles_;
  bool started_ = false, scheduled_ = false, cancelled_ = false, finished_ = false, wake_wanted_ = false;
};

}  // namespace cadre::session
