#include "route/digest_feed.h"

#include <algorithm>

#include "base/log.h"
#include "route/gather.h"
#include "route/worker.h"

namespace cadre::route {
namespace {

constexpr auto kLeastGap = std::chrono::milliseconds(5);  // between two rounds of questions
constexpr Duration kShortGap = std::chrono::milliseconds(20), kLongGap = std::chrono::seconds(1);
constexpr auto kLively = std::chrono::seconds(1);     // so long after a change the next one is expected
constexpr auto kMuteTime = std::chrono::seconds(30);  // after it has said that it does not tell
constexpr auto kPatience = std::chrono::milliseconds(5000);
constexpr size_t kMaxAnswer = 4 << 20;

}  // namespace

std::vector<std::shared_ptr<HeldPrefixes>> DigestFeed::Ranks() const {
  const std::lock_guard lock(mutex_);
  return ranks_;
}

void DigestFeed::Changed(const std::shared_ptr<Worker>& worker, Timer& timer) {
  Duration wait = {};
  {
    const std::lock_guard lock(mutex_);
    const TimePoint now = Now();
    if (now < mute_until_) return;
    if (busy_) {
      again_ = true;
      return;
    }
    busy_ = true;
    changed_ = false;
    asking_ = 0;
    ++round_;
    if (asked_at_ != TimePoint::min()) wait = std::max(asked_at_ + kLeastGap - now, Duration::zero());
  }
  if (wait == Duration::zero()) return Ask(worker, timer);
  timer.After(wait, [self = shared_from_this(), worker, &timer] { self->Ask(worker, timer); });
}

void DigestFeed::Tend(const std::shared_ptr<Worker>& worker, Timer& timer) {
  {
    const std::lock_guard lock(mutex_);
    if (busy_ || (asked_at_ != TimePoint::min() && Now() - asked_at_ < kLongGap + 10 * kShortGap)) return;
  }
  if (worker->healthy()) Changed(worker, timer);
}

void DigestFeed::Ask(const std::shared_ptr<Worker>& worker, Timer& timer) {
  http::ClientRequest request;
  {
    const std::lock_guard lock(mutex_);
    if (asking_ == 0) asked_at_ = Now();
    const int rank = only_rank_ >= 0 ? only_rank_ : static_cast<int>(asking_);
    request.target = "/prefix_digest?" + ranks_[asking_]->NextQuery(rank);
  }
  request.idle_timeout = request.total_timeout = kPatience;
  if (!options_.api_key.empty()) request.headers.emplace_back("Authorization", "Bearer " + options_.api_key);
  const auto sink = std::make_shared<GatherSink>(
      kMaxAnswer, GatherSink::Beyond::kFails, [self = shared_from_this(), worker, &timer](Gathered heard) {
        self->Heard(worker, timer, heard.status.has_value(), heard.code, heard.body);
      });
  if (worker->Send(std::move(request), sink)) return;
  const std::lock_guard lock(mutex_);
  busy_ = again_ = false;
}

void DigestFeed::Heard(const std::shared_ptr<Worker>& worker, Timer& timer, bool connected, int code,
                       const std::string& body) {
  bool go_on = false, good = false, changed = false;
  {
    const std::lock_guard lock(mutex_);
    Result<HeldPrefixes::Heard> took = Fail(Code::kUnavailable, "it answers {}", code);
    if (connected && code == 200) took = ranks_[asking_]->Take(body);
    if (took) {
      const size_t num_ranks = only_rank_ >= 0 ? 1 : static_cast<size_t>(took->num_ranks);
      while (ranks_.size() < num_ranks) ranks_.push_back(std::make_shared<HeldPrefixes>());
      ranks_.resize(num_ranks);
      changed_ |= took->changed;
      asking_ = took->more ? asking_ : asking_ + 1;
      go_on = asking_ < ranks_.size();
    } else {
      for (const auto& rank : ranks_) rank->Forget();
      // Lost connections are the probe's to judge; a worker that has no such route is left in peace.
      if (connected && (code < 500 || code == 501)) {
        if (mute_until_ == TimePoint::min())
          LogInfo("{} does not tell which prefixes it holds ({}): what was sent there decides",
                  worker->name(), took.error().message);
        mute_until_ = Now() + kMuteTime;
      }
    }
    good = took.has_value();
    changed = changed_;
    if (!go_on) busy_ = false;
  }
  if (go_on) return Ask(worker, timer);
  bool again = false;
  {
    const std::lock_guard lock(mutex_);
    again = std::exchange(again_, false);
  }
  if (again) return Changed(worker, timer);
  if (good) AskLater(worker, timer, changed);
}

void DigestFeed::AskLater(const std::shared_ptr<Worker>& worker, Timer& timer, bool changed) {
  Duration gap;
  int64_t round = 0;
  {
    const std::lock_guard lock(mutex_);
    const TimePoint now = Now();
    if (changed) changed_at_ = now;
    const bool lively = changed_at_ != TimePoint::min() && now - changed_at_ < kLively;
    gap = gap_ = lively ? kShortGap : std::clamp(2 * gap_, kShortGap, kLongGap);
    round = round_;
  }
  timer.After(gap, [self = shared_from_this(), worker, &timer, round] {
    {
      const std::lock_guard lock(self->mutex_);
      if (self->round_ != round) return;  // somebody had a reason to ask before
    }
    if (!worker->leaving()) self->Changed(worker, timer);
  });
}

DigestFeed::Promise::Promise(std::shared_ptr<HeldPrefixes> rank, std::shared_ptr<const PromptTokens> prompt,
                             int32_t block_size)
    : rank_(std::move(rank)), prompt_(std::move(prompt)), block_size_(block_size) {
  rank_->Promise(prompt_->Names(block_size_));
}

DigestFeed::Promise& DigestFeed::Promise::operator=(Promise&& other) noexcept {
  Settle(false);
  rank_ = std::move(other.rank_);
  prompt_ = std::move(other.prompt_);
  block_size_ = other.block_size_;
  return *this;
}

void DigestFeed::Promise::Settle(bool kept) {
  if (const auto rank = std::exchange(rank_, nullptr)) rank->Settle(prompt_->Names(block_size_), kept);
}

DigestFeed::Promise DigestFeed::Expect(std::shared_ptr<const PromptTokens> prompt) {
  // Which of several ranks it will be the worker alone knows.
  const auto ranks = Ranks();
  const int32_t block = ranks.size() == 1 ? ranks.front()->block_size() : 0;
  if (block == 0 || !prompt) return {};
  return Promise(ranks.front(), std::move(prompt), block);
}

DigestFeed::Match DigestFeed::Of(const PromptTokens& prompt) const {
  Match best;
  for (const auto& rank : Ranks()) {
    const int32_t block = rank->block_size();
    const int64_t blocks = block > 0 ? rank->Match(prompt.Names(block)) : -1;
    if (blocks < 0) return {};
    if (blocks * block <= best.tokens) continue;
    best = {.tokens = blocks * block, .block_size = block};
  }
  return best;
}

}  // namespace cadre::route
