#include "session/generation.h"

#include <algorithm>

#include "base/caught.h"
#include "base/log.h"

namespace cadre::session {
namespace {

// Without a stream nobody needs the tokens before the end; still, detokenizing is spread over the run.
constexpr size_t kTokensPerWake = 512;
// More than the tokens of one character, and past any special token that ends a chat's header.
constexpr size_t kPromptTail = 8;

}  // namespace

class Generation::Sink final : public engine::EventSink {
 public:
  Sink(std::shared_ptr<Generation> generation, size_t index, bool eager)
      : generation_(std::move(generation)), index_(index), eager_(eager) {}
  void OnPrompt(int num_cached_tokens, std::vector<engine::Logprobs> logprobs) override {
    generation_->Put(index_, false, [&](Pending& p) {
      p.prompt = PromptResult{num_cached_tokens, std::move(logprobs)};
    });
  }
  void OnTokens(std::vector<engine::GeneratedToken> tokens) override {
    const TimePoint now = Now();
    waiting_ += tokens.size();
    const bool wake = eager_ || waiting_ >= kTokensPerWake;
    if (wake) waiting_ = 0;
    generation_->Put(index_, wake, [&](Pending& p) { Append(p, std::move(tokens), now); });
  }
  void OnFinish(std::vector<engine::GeneratedToken> last_tokens, engine::Finish finish) override {
    const TimePoint now = Now();
    generation_->Put(index_, true, [&](Pending& p) {
      if (!last_tokens.empty()) Append(p, std::move(last_tokens), now);
      p.finish = std::move(finish);
    });
  }

 private:
  static void Append(Pending& pending, std::vector<engine::GeneratedToken> tokens, TimePoint now) {
    pending.step_times.push_back(now);
    if (pending.tokens.empty()) {
      pending.tokens = std::move(tokens);
    } else {
      std::move(tokens.begin(), tokens.end(), std::back_inserter(pending.tokens));
    }
  }

  const std::shared_ptr<Generation> generation_;
  const size_t index_;
  const bool eager_;
  size_t waiting_ = 0;
};

Generation::Generation(Options options, const TextModel* text, std::shared_ptr<Listener> listener,
                       PostFunction post)
    : options_(options), text_(text), post_(std::move(post)), listener_(std::move(listener)) {}

Status Generation::Start(engine::Engine& engine, std::vector<SequenceSpec> specs) {
  try {
    Prepare(std::move(specs));
    return Submit(engine);
  } catch (...) {
    Cancel();  // what the engine has already
    return std::unexpected(CaughtError());
  }
}

void Generation::Prepare(std::vector<SequenceSpec> specs) {
  sequences_.resize(specs.size());
  pending_.resize(specs.size());
  handles_.resize(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    Sequence& sequence = sequences_[i];
    const engine::SamplingParams& sampling = specs[i].request.sampling;
    sequence.last_tokens = sampling.stop_token_ids;
    if (!sampling.ignore_eos) {
      sequence.last_tokens.insert(sequence.last_tokens.end(), sampling.eos_token_ids.begin(),
                                  sampling.eos_token_ids.end());
    }
    std::sort(sequence.last_tokens.begin(), sequence.last_tokens.end());
    if (text_ != nullptr) {
      const std::span<const int32_t> prompt = specs[i].request.prompt;
      sequence.stream =
          text_->NewStream(prompt.last(std::min(prompt.size(), kPromptTail)), specs[i].skip_special_tokens);
    }
    sequence.stops = std::move(specs[i].stop_matcher);
    sequence.spec = std::move(specs[i]);
    sequence.queued = Now();
  }
}

Status Generation::Submit(engine::Engine& engine) {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    SequenceSpec& spec = sequences_[i].spec;
    // The engine takes the prompt; what Process needs of the sampling stays.
    engine::Request request = std::move(spec.request);
    spec.request = {};
    spec.request.sampling.min_tokens = request.sampling.min_tokens;
    const bool eager = options_.stream || sequences_[i].stops.has_value();
    auto handle = engine.Submit(std::move(request), std::make_shared<Sink>(shared_from_this(), i, eager));
    if (!handle.has_value()) {
      Cancel();
      return std::unexpected(handle.error());
    }
    const std::lock_guard lock(mutex_);
    sequences_[i].rank = (*handle)->rank();
    handles_[i] = std::move(*handle);
  }
  bool schedule = false;
  {
    const std::lock_guard lock(mutex_);
    started_ = true;
    schedule = wake_wanted_ && !cancelled_ && !scheduled_;
    if (cancelled_) {  // the client went away meanwhile
      for (const auto& handle : handles_) handle->Cancel();
    }
    if (schedule) scheduled_ = true;
  }
  if (schedule) Schedule();
  return {};
}

// On the engine's thread, which must outlive whatever one request does.
template <typename Fill>
void Generation::Put(size_t index, bool wake, Fill fill) {
  try {
    {
      const std::lock_guard lock(mutex_);
      if (cancelled_ || finished_) return;
      Pending& pending = pending_[index];
      fill(pending);
      if (!pending.listed) dirty_.push_back(index);
      pending.listed = true;
      wake_wanted_ |= wake;
      if (!wake || !started_ || scheduled_) return;
      scheduled_ = true;
    }
    Schedule();
  } catch (...) {
    Cancel();
    try {
      const Error error = CaughtError();
      LogError("a request's tokens could not be kept: {}", error.message);
      post_([self = shared_from_this(), error] { self->listener_->OnFailure(error); });
    } catch (...) {  // not even memory to say so: the client hears of it when its connection times out
    }
  }
}

void Generation::Schedule() {
  post_([self = shared_from_this()] { self->Drain(); });
}

void Generation::Drain() {
  try {
    DrainMailbox();
  } catch (...) {
    const Error error = CaughtError();
    LogError("a request failed on its way to the client: {}", error.message);
    Cancel();
    listener_->OnFailure(error);
  }
}

void Generation::DrainMailbox() {
  std::vector<std::pair<size_t, Pending>> work;
  {
    const std::lock_guard lock(mutex_);
    scheduled_ = wake_wanted_ = false;
    if (cancelled_ || finished_) return;
    work.reserve(dirty_.size());
    for (const size_t index : dirty_) work.emplace_back(index, std::exchange(pending_[index], {}));
    dirty_.clear();
  }
  for (auto& [index, pending] : work) Process(index, std::move(pending));
  const bool all_ended = num_ended_ == sequences_.size();
  if (all_ended) {  // the engine may still report the end of what a stop string has ended
    const std::lock_guard lock(mutex_);
    finished_ = true;
  }
  listener_->OnBatchEnd(all_ended);
}

void Generation::Process(size_t index, Pending pending) {
  Sequence& sequence = sequences_[index];
  if (sequence.ended) return;
  if (pending.prompt) listener_->OnPrompt(index, std::move(*pending.prompt));
  const bool was_first = sequence.num_tokens == 0;
  if (!pending.step_times.empty()) {
    if (was_first) sequence.first_token = pending.step_times.front();
    sequence.last_token = pending.step_times.back();
  }
  if (sequence.step_times.empty()) {
    sequence.step_times = std::move(pending.step_times);
  } else {
    sequence.step_times.insert(sequence.step_times.end(), pending.step_times.begin(),
                               pending.step_times.end());
  }
  SequenceEnd end;
  for (engine::GeneratedToken& token : pending.tokens) {
    if (!TakeToken(sequence, std::move(token), end)) continue;
    // A stop string: the engine does not know yet.
    sequence.ended = true;
    end.times = {sequence.queued, {}, sequence.first_token, sequence.last_token};
    CancelSequence(index);
    break;
  }
  if (!sequence.ended && pending.finish) {
    end.routed = std::move(pending.finish->routed);
    EndByEngine(sequence, *pending.finish, end);
  }
  const bool due =
      sequence.ended || was_first || static_cast<int64_t>(sequence.tokens.size()) >= options_.stream_interval;
  if (sequence.ended) ++num_ended_;
  end.num_tokens = sequence.num_tokens;
  if (due && (sequence.ended || !sequence.tokens.empty())) Emit(index, sequence.ended ? &end : nullptr);
}

// True if a stop string ended the sequence at this token.
bool Generation::TakeToken(Sequence& sequence, engine::GeneratedToken token, SequenceEnd& end) {
  ++sequence.num_tokens;
  const int32_t id = token.token;
  sequence.tokens.push_back(std::move(token));
  if (sequence.stream == nullptr) return false;
  const bool is_last = std::binary_search(sequence.last_tokens.begin(), sequence.last_tokens.end(), id);
  if (is_last && !sequence.spec.include_stop) return false;  // an ending token is not shown
  const std::string piece = sequence.stream->Push(id);
  if (!sequence.stops) {
    sequence.text += piece;
    return false;
  }
  sequence.text +=
      sequence.stops->Push(piece, sequence.num_tokens > sequence.spec.request.sampling.min_tokens);
  if (!sequence.stops->match()) return false;
  end.reason = engine::FinishReason::kStop;
  end.stop_reason = sequence.spec.stop[sequence.stops->match()->index];
  return true;
}

void Generation::EndByEngine(Sequence& sequence, const engine::Finish& finish, SequenceEnd& end) {
  sequence.ended = true;
  end.reason = finish.reason;
  if (finish.stop_token) end.stop_reason = *finish.stop_token;
  end.times = finish.times;
  end.num_preemptions = finish.num_preemptions;
  end.error = finish.error;
  end.held = finish.held;
  if (sequence.stream == nullptr) return;
  const std::string rest = sequence.stream->Flush();
  if (!sequence.stops) {
    sequence.text += rest;
    return;
  }
  sequence.text += sequence.stops->Push(rest);
  if (sequence.stops->match()) {
    end.reason = engine::FinishReason::kStop;
    end.stop_reason = sequence.spec.stop[sequence.stops->match()->index];
  } else {
    sequence.text += sequence.stops->Flush();
  }
}

void Generation::Emit(size_t index, const SequenceEnd* end) {
  Sequence& sequence = sequences_[index];
  listener_->OnDelta(index, {sequence.text, sequence.tokens, end, sequence.rank}, sequence.step_times);
  sequence.text.clear();
  sequence.tokens.clear();
  sequence.step_times.clear();
}

void Generation::CancelSequence(size_t index) {
  const std::lock_guard lock(mutex_);
  if (handles_[index]) handles_[index]->Cancel();
}

void Generation::Cancel() {
  const std::lock_guard lock(mutex_);
  if (std::exchange(cancelled_, true)) return;
  for (const auto& handle : handles_) {
    if (handle) handle->Cancel();
  }
  pending_.clear();
  dirty_.clear();
}

}  // namespace cadre::session
