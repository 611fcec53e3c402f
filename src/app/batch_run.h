#pragma once
// Runs sequences through a session in this process and notes when each got its tokens.
#include <memory>
#include <span>
#include <vector>

#include "app/local_session.h"
#include "base/clock.h"

namespace cadre::app {

/// What became of one sequence.
struct SequenceRun {
  std::vector<TimePoint> tokens;  ///< when each came
  bool ended = false;
  Error error;  ///< set if it failed
};

/// Hears all sequences of one request. With `left` (shared by several requests) a counter of what is missing.
class BatchListener : public session::Listener {
 public:
  explicit BatchListener(size_t num_sequences) : runs_(num_sequences) {}
  void OnAccepted(session::Accepted) override {}
  void OnPrompt(size_t, session::PromptResult) override {}
  void OnDelta(size_t sequence, const session::Delta& delta, std::span<const TimePoint> step_times) override;
  void OnFailure(const Error& error) override {
    for (SequenceRun& run : runs_) run.error = error;
    ended_ = true;
  }
  void OnBatchEnd(bool all_ended) override { ended_ = all_ended; }

  bool ended() const { return ended_; }
  const std::vector<SequenceRun>& runs() const { return runs_; }
  /// The first sequence's error, if one failed.
  Status status() const;

 private:
  std::vector<SequenceRun> runs_;
  bool ended_ = false;
};

/// A request for fixed numbers of random or given tokens: sampling as `vllm bench` does it (temperature 1,
/// all tokens, past the end token).
session::GenerateRequest FixedLengthRequest(std::string id, std::vector<std::vector<int64_t>> prompts,
                                            int64_t output_len, int64_t n, int64_t seed);

/// How long the two phases of a batch took.
struct Phases {
  double total_s = 0;
  double prefill_s = 0;  ///< until every sequence has its first token
  double decode_s = 0;   ///< from there until the first sequence ends, so that all take part all the time
  int64_t decode_tokens = 0;  ///< that came in that time
};
Phases PhasesOf(std::span<const SequenceRun> runs, TimePoint start, TimePoint end);

/// Runs one request to its end.
Result<Phases> RunBatch(LocalSession& local, session::GenerateRequest request);

}  // namespace cadre::app
