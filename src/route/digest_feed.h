#pragma once
// Keeps up with what the ranks of one worker hold: asks again when the worker has answered somebody here, and
// often for a second after each change (others ask the worker too); then the time between two questions
// doubles, up to a second.
#include <memory>
#include <mutex>
#include <vector>

#include "route/held_prefixes.h"
#include "route/prompt_tokens.h"
#include "route/timer.h"

namespace cadre::route {

class Worker;
struct Options;

/// Any thread. One question is under way at a time, for one rank after the other.
class DigestFeed : public std::enable_shared_from_this<DigestFeed> {
 public:
  /// `rank`: the only one that is of interest; -1: all. The worker and the options outlive the feed's use.
  DigestFeed(int rank, const Options& options) : only_rank_(rank), options_(options) {}

  /// Something has changed there: asks soon.
  void Changed(const std::shared_ptr<Worker>& worker, Timer& timer);
  /// Now and then: begins, and begins again after a failure.
  void Tend(const std::shared_ptr<Worker>& worker, Timer& timer);

  /// A prompt on its way to the worker: is held there from now on as far as others are concerned, and no more
  /// when this goes without Keep.
  class Promise {
   public:
    Promise() = default;
    Promise(std::shared_ptr<HeldPrefixes> rank, std::shared_ptr<const PromptTokens> prompt,
            int32_t block_size);
    Promise(Promise&& other) noexcept = default;
    Promise& operator=(Promise&& other) noexcept;
    ~Promise() { Settle(false); }
    void Keep() { Settle(true); }  ///< the worker has computed it

   private:
    void Settle(bool kept);
    std::shared_ptr<HeldPrefixes> rank_;  // null: there is none
    std::shared_ptr<const PromptTokens> prompt_;
    int32_t block_size_ = 0;
  };
  Promise Expect(std::shared_ptr<const PromptTokens> prompt);
  struct Match {
    int64_t tokens = -1;     ///< held of the prompt's beginning, by the rank that holds most; -1: not known
    int32_t block_size = 1;  ///< of that rank
  };
  Match Of(const PromptTokens& prompt) const;

 private:
  void AskLater(const std::shared_ptr<Worker>& worker, Timer& timer, bool changed);
  void Ask(const std::shared_ptr<Worker>& worker, Timer& timer);
  void Heard(const std::shared_ptr<Worker>& worker, Timer& timer, bool connected, int code,
             const std::string& body);
  std::vector<std::shared_ptr<HeldPrefixes>> Ranks() const;

  const int only_rank_;
  const Options& options_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<HeldPrefixes>> ranks_{std::make_shared<HeldPrefixes>()};  // guarded by mutex_
  size_t asking_ = 0;  // the index of the rank that is asked; guarded by mutex_, as all below
  bool busy_ = false, again_ = false, changed_ = false;
  int64_t round_ = 0;  // of questions to all ranks
  Duration gap_ = {};  // until the next one
  TimePoint asked_at_ = TimePoint::min(), mute_until_ = TimePoint::min(), changed_at_ = TimePoint::min();
};

}  // namespace cadre::route
