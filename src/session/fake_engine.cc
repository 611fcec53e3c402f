#include "session/fake_engine.h"

#include <algorithm>
#include <atomic>

namespace cadre::session {

struct FakeEngine::Job {
  engine::Request request;
  std::shared_ptr<engine::EventSink> sink;
  std::atomic<bool> cancelled{false};
  int num_tokens = 0;
  engine::RequestTimes times;
};

class FakeEngine::Handle final : public engine::RequestHandle {
 public:
  Handle(std::shared_ptr<Job> job, int rank) : job_(std::move(job)), rank_(rank) {}
  int rank() const override { return rank_; }
  void Cancel() override { job_->cancelled = true; }

 private:
  const std::shared_ptr<Job> job_;
  const int rank_;
};

namespace {

// The chosen token at -0.5, the k best in steps of a half below it; a prompt's tokens the same way.
engine::Logprobs FakeLogprobs(int32_t token, int k, int64_t vocab_size) {
  engine::Logprobs out{{token, -0.5f, 1}};
  for (int i = 0; i < k; ++i) {
    out.push_back({static_cast<int32_t>((token + i) % vocab_size), -0.5f * static_cast<float>(i + 1), i + 1});
  }
  return out;
}

bool Contains(const std::vector<int32_t>& list, int32_t id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

}  // namespace

FakeEngine::FakeEngine(FakeEngineOptions options)
    : options_(std::move(options)), thread_([this] { Loop(); }) {}

FakeEngine::~FakeEngine() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = draining_ = true;
    drain_deadline_ = Now();
  }
  wake_.notify_all();
  thread_.join();
}

Result<std::unique_ptr<engine::RequestHandle>> FakeEngine::Submit(engine::Request request,
                                                                  std::shared_ptr<engine::EventSink> sink) {
  const std::lock_guard lock(mutex_);
  if (!dead_.empty()) return Fail(Code::kUnavailable, "the engine is dead: {}", dead_);
  if (draining_) return Fail(Code::kUnavailable, "the engine is shutting down");
  if (waiting_.size() >= options_.max_waiting) {
    return Fail(Code::kResourceExhausted, "{} requests are waiting; try again later", waiting_.size());
  }
  auto job = std::make_shared<Job>();
  last_request_ = request;
  job->request = std::move(request);
  job->sink = std::move(sink);
  job->times.queued = Now();
  waiting_.push_back(job);
  wake_.notify_all();
  return std::make_unique<Handle>(std::move(job), static_cast<int>(num_submitted_++ % options_.num_ranks));
}

void FakeEngine::Loop() {
  std::vector<std::shared_ptr<Job>> running;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      num_running_ = running.size();
      if (running.empty() && waiting_.empty()) idle_.notify_all();
      wake_.wait(lock, [&] { return stop_ || !running.empty() || !waiting_.empty(); });
      if (stop_ && running.empty() && waiting_.empty()) return;
      while (running.size() < options_.max_running && !waiting_.empty()) {
        running.push_back(std::move(waiting_.front()));
        waiting_.pop_front();
        running.back()->times.scheduled = Now();
      }
      num_running_ = running.size();
    }
    if (options_.step_time > Duration::zero()) std::this_thread::sleep_for(options_.step_time);
    Step(running);
  }
}

void FakeEngine::Step(std::vector<std::shared_ptr<Job>>& running) {
  std::string dead;
  bool abort = false;
  {
    const std::lock_guard lock(mutex_);
    dead = dead_;
    abort = drain_deadline_ && Now() >= *drain_deadline_;
    ++stats_.num_steps;
  }
  int64_t prompt_tokens = 0, generated = 0, cancelled = 0;
  std::erase_if(running, [&](const std::shared_ptr<Job>& job) {
    const engine::Request& request = job->request;
    const engine::SamplingParams& sampling = request.sampling;
    if (!dead.empty())
      return Finish(*job, engine::FinishReason::kError, {Code::kUnavailable, "the engine died: " + dead, ""}),
             true;
    if (job->cancelled || abort) {
      cancelled += job->cancelled;
      return Finish(*job, engine::FinishReason::kAbort), true;
    }
    if (job->num_tokens == 0) {
      std::vector<engine::Logprobs> logprobs;
      if (sampling.prompt_logprobs) {
        for (const int32_t id : request.prompt) {
          logprobs.push_back(FakeLogprobs(id, *sampling.prompt_logprobs, options_.model.vocab_size));
        }
        logprobs[0].clear();
      }
      prompt_tokens += static_cast<int64_t>(request.prompt.size());
      job->sink->OnPrompt(options_.num_cached_tokens, std::move(logprobs));
      if (sampling.max_tokens == 0) return Finish(*job, engine::FinishReason::kLength), true;
    }
    if (job->num_tokens == options_.fail_after) {
      return Finish(*job, engine::FinishReason::kError,
                    {Code::kInternal, "the fake engine was told to fail", ""}),
             true;
    }
    const int32_t token = options_.next_token
                              ? options_.next_token(request, job->num_tokens)
                              : request.prompt[static_cast<size_t>(job->num_tokens) % request.prompt.size()];
    job->times.last_token = Now();
    if (job->num_tokens++ == 0) job->times.first_token = job->times.last_token;
    ++generated;
    std::vector<engine::GeneratedToken> tokens(1);
    tokens[0].token = token;
    if (sampling.logprobs)
      tokens[0].logprobs = FakeLogprobs(token, *sampling.logprobs, options_.model.vocab_size);
    if (!sampling.ignore_eos && Contains(sampling.eos_token_ids, token))
      return Finish(*job, engine::FinishReason::kStop, {}, {}, std::move(tokens)), true;
    if (Contains(sampling.stop_token_ids, token))
      return Finish(*job, engine::FinishReason::kStop, {}, token, std::move(tokens)), true;
    if (job->num_tokens == sampling.max_tokens)
      return Finish(*job, engine::FinishReason::kLength, {}, {}, std::move(tokens)), true;
    job->sink->OnTokens(std::move(tokens));
    return false;
  });
  const std::lock_guard lock(mutex_);
  stats_.prompt_tokens += prompt_tokens;
  stats_.prefix_cache_queries += prompt_tokens;
  stats_.prefix_cache_hits += prompt_tokens > 0 ? options_.num_cached_tokens : 0;
  stats_.generation_tokens += generated;
  if (prompt_tokens + generated > 0) stats_.step_sizes.Add(prompt_tokens + generated);
  num_cancelled_ += cancelled;
}

void FakeEngine::Finish(Job& job, engine::FinishReason reason, Error error, std::optional<int32_t> stop_token,
                        std::vector<engine::GeneratedToken> last_tokens) {
  engine::Finish finish;
  finish.reason = reason;
  finish.error = std::move(error);
  finish.stop_token = stop_token;
  finish.times = job.times;
  job.sink->OnFinish(std::move(last_tokens), std::move(finish));
  job.sink.reset();  // the handle may live on; the sink holds the caller
}

std::vector<engine::RankStats> FakeEngine::Stats() const {
  const std::lock_guard lock(mutex_);
  engine::RankStats stats = stats_;
  stats.num_running = static_cast<int64_t>(num_running_);
  stats.num_waiting = static_cast<int64_t>(waiting_.size());
  stats.eplb = options_.eplb;
  return {stats};
}

Result<engine::EplbState> FakeEngine::Eplb(TimePoint deadline) const {
  return options_.eplb_state ? options_.eplb_state(deadline) : Engine::Eplb(deadline);
}

Status FakeEngine::Health() const {
  const std::lock_guard lock(mutex_);
  if (!dead_.empty()) return Fail(Code::kUnavailable, "the engine is dead: {}", dead_);
  return {};
}

Status FakeEngine::ResetPrefixCache() {
  const std::lock_guard lock(mutex_);
  ++num_resets_;
  return {};
}

void FakeEngine::Prefixes(engine::PrefixQuery query, engine::PrefixDone done) {
  options_.prefixes ? done(options_.prefixes(query)) : Engine::Prefixes(query, std::move(done));
}

void FakeEngine::Control(engine::ControlRequest request, engine::ControlDone done) {
  done(options_.control ? options_.control(request) : engine::ControlState());
}

void FakeEngine::Drain(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  drain_deadline_ = deadline;
  idle_.wait(lock, [this] { return num_running_ == 0 && waiting_.empty(); });
}

void FakeEngine::Kill(const std::string& why) {
  const std::lock_guard lock(mutex_);
  dead_ = why;
}

int64_t FakeEngine::num_cancelled() const {
  const std::lock_guard lock(mutex_);
  return num_cancelled_;
}

int64_t FakeEngine::num_resets() const {
  const std::lock_guard lock(mutex_);
  return num_resets_;
}

engine::Request FakeEngine::last_request() const {
  const std::lock_guard lock(mutex_);
  return last_request_;
}

}  // namespace cadre::session
