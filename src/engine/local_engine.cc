#include "engine/local_engine.h"

#include <time.h>

#include <algorithm>
#include <new>

#include "base/log.h"
#include "engine/eplb_state.h"
#include "engine/inbox.h"
#include "kv/layout.h"

namespace cadre::engine {
namespace {

// vLLM's words: an adapter is asked for as a model.
Error NoSuchModel(const std::string& adapter) {
  return {Code::kNotFound, Format("The model `{}` does not exist.", Excerpt(adapter)), "model"};
}

bool Contains(const std::vector<int32_t>& tokens, int32_t token) {
  return std::ranges::find(tokens, token) != tokens.end();
}

}  // namespace

class LocalEngine::Handle : public RequestHandle {
 public:
  Handle(std::shared_ptr<Inbox> inbox, SeqId id, int rank) : inbox_(std::move(inbox)), id_(id), rank_(rank) {}
  int rank() const override { return rank_; }
  void Cancel() override {
    const std::lock_guard lock(inbox_->mutex);
    if (inbox_->ended) return;
    inbox_->cancelled.push_back(id_);
    inbox_->Wake();
  }

 private:
  std::shared_ptr<Inbox> inbox_;
  SeqId id_;
  int rank_;
};

LocalEngine::LocalEngine(LocalEngineOptions options, std::unique_ptr<Runner> runner,
                         std::unique_ptr<StepGate> gate)
    : options_(std::move(options)),
      runner_(std::move(runner)),
      gate_(std::move(gate)),
      prefixes_(options_.model_info.block_size, options_.scheduler.enable_prefix_caching),
      scheduler_(options_.scheduler, options_.model_info.num_kv_blocks, options_.model_info.block_size),
      inbox_(std::make_shared<Inbox>()),
      pace_(options_.max_step_seconds) {
  if (options_.agent != nullptr)
    scheduler_.Attach(hand_off_.emplace(*options_.agent, scheduler_.pool(), options_.hand_off));
  scheduler_.pool().SetListener(&prefixes_);
  inbox_->gate = gate_.get();
  inbox_->adapters = adapters_ = options_.adapters;
  stats_.rank = options_.rank;
  thread_ = std::thread([this] { Loop(); });
}

LocalEngine::~LocalEngine() {
  if (thread_.joinable()) Drain(Now());
}

Result<std::unique_ptr<RequestHandle>> LocalEngine::Submit(Request request, std::shared_ptr<EventSink> sink) {
  const int64_t length = static_cast<int64_t>(request.prompt.size()) + request.sampling.max_tokens;
  const ModelInfo& info = options_.model_info;
  if (kv::BlocksFor(std::min(length, info.max_model_len), info.block_size) > info.num_kv_blocks) {
    return Fail(Code::kInvalidArgument,
                "the request may need {} tokens of KV cache and there are {} blocks of {}; raise "
                "--gpu-memory-utilization or --kv-cache-memory-bytes, or lower max_tokens",
                length, info.num_kv_blocks, info.block_size);
  }
  if (request.kv_transfer && options_.agent == nullptr) {
    return FailParam(Code::kInvalidArgument, "kv_transfer_params",
                     "this server hands no KV blocks to others; start it with --kv-transfer-config");
  }
  const std::lock_guard lock(inbox_->mutex);
  CADRE_TRY(inbox_->health);
  CADRE_TRY(inbox_->broken);
  if (!request.adapter.empty() && inbox_->adapters.Find(request.adapter) == nullptr)
    return std::unexpected(NoSuchModel(request.adapter));
  if (inbox_->draining)
    return Fail(Code::kUnavailable, "the server is shutting down and takes no new requests");
  if (inbox_->num_waiting >= options_.max_queued_requests) {
    return Fail(Code::kResourceExhausted, "the queue is full: {} requests wait (--max-num-queued-reqs)",
                inbox_->num_waiting);
  }
  const SeqId id(next_sequence_++);
  inbox_->arrivals.push_back({id, std::move(request), std::move(sink), Now()});
  ++inbox_->num_waiting;
  inbox_->Wake();
  return std::make_unique<Handle>(inbox_, id, options_.rank);
}

std::vector<RankStats> LocalEngine::Stats() const {
  RankStats stats;
  {
    const std::lock_guard lock(stats_mutex_);
    stats = stats_;
  }
  const std::lock_guard lock(inbox_->mutex);
  stats.num_waiting = inbox_->num_waiting;
  stats.adapters = inbox_->adapters;
  return {stats};
}

Status LocalEngine::Health() const {
  const std::lock_guard lock(inbox_->mutex);
  CADRE_TRY(inbox_->health);
  return inbox_->broken;
}

Status LocalEngine::ResetPrefixCache() {
  const std::lock_guard lock(inbox_->mutex);
  inbox_->reset_prefix_cache = true;
  inbox_->Wake();
  return {};
}

void LocalEngine::Wake() {
  const std::lock_guard lock(inbox_->mutex);
  inbox_->agent_called = true;
  inbox_->Wake();
}

void LocalEngine::Control(ControlRequest request, ControlDone done) {
  {
    const std::lock_guard lock(inbox_->mutex);
    if (!inbox_->ended) {
      inbox_->calls.push_back({std::move(request), std::move(done)});
      return inbox_->Wake();
    }
  }
  done(Fail(Code::kUnavailable, "the engine has ended"));
}

void LocalEngine::Prefixes(PrefixQuery query, PrefixDone done) {
  if (query.rank != 0)
    return done(FailParam(Code::kInvalidArgument, "rank", "rank {} is out of range [0, 1)", query.rank));
  done(prefixes_.Since(query));
}

void LocalEngine::Drain(TimePoint deadline) {
  {
    std::unique_lock lock(inbox_->mutex);
    inbox_->draining = true;
    inbox_->Wake();
    if (!inbox_->finished.wait_until(lock, deadline, [&] { return inbox_->ended; })) {
      inbox_->abort = true;
      inbox_->Wake();
    }
  }
  if (thread_.joinable()) thread_.join();
}

void LocalEngine::Loop() {
  bool stop = false;
  Status status;
  while (!stop) {
    if (gate_ != nullptr) gate_->BeginTurn();
    status = GuardedTurn(stop);
    if (status) continue;
    LogError("the engine of rank {} stops: {}", options_.rank, status.error().message);
    break;
  }
  if (status) status = runner_->ReleaseFollowers();
  {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->health = status ? Status(Fail(Code::kUnavailable, "the engine has ended")) : status;
  }
  TakeInbox();  // what came in before the health said no
  const Error error = status ? Error{Code::kUnavailable, "the server is shutting down", {}} : status.error();
  EndAll(status ? FinishReason::kAbort : FinishReason::kError, error);
  desk_.RefuseAll(error);
  PublishStats();
  std::vector<ControlCall> late;
  {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->ended = true;
    inbox_->gate = nullptr;
    late.swap(inbox_->calls);
    inbox_->finished.notify_all();
  }
  for (const ControlCall& call : late) call.done(std::unexpected(error));
  if (!status && status.error().code == Code::kResourceExhausted && options_.on_out_of_memory)
    options_.on_out_of_memory(status.error());
}

// One round of the loop. Memory that runs out in it ends the engine, not the process: the state between two
// steps cannot be trusted any more, but requests can still hear why.
Status LocalEngine::GuardedTurn(bool& stop) {
  try {
    TakeInbox();
    TakeTransfers();
    PublishStats();  // a cancellation may have ended the last request before a long sleep
    Status status = Turn(stop);
    PublishStats();
    return status;
  } catch (const std::bad_alloc&) {
    return Fail(Code::kResourceExhausted,
                "rank {} has run out of memory in a step; lower --gpu-memory-utilization or "
                "--kv-cache-memory-bytes, which leaves more for steps, or --max-num-batched-tokens and "
                "--max-num-seqs, which makes steps smaller",
                options_.rank);
  }
}

// Moves what other threads have left into the scheduler.
void LocalEngine::TakeInbox() {
  std::vector<Inbox::Arrival> arrivals;
  std::vector<SeqId> cancelled;
  std::vector<ControlCall> calls;
  SeqId next;
  bool abort = false, reset = false;
  {
    const std::lock_guard lock(inbox_->mutex);
    arrivals.swap(inbox_->arrivals);
    cancelled.swap(inbox_->cancelled);
    calls.swap(inbox_->calls);
    next = SeqId(next_sequence_);
    abort = inbox_->abort;
    reset = std::exchange(inbox_->reset_prefix_cache, false);
    inbox_->agent_called = false;
    inbox_->num_waiting = scheduler_.num_waiting() + static_cast<int64_t>(arrivals.size());
  }
  for (auto& arrival : arrivals) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = arrival.id;
    sequence->tokens = arrival.request.prompt;
    sequence->request = std::move(arrival.request);
    sequence->sink = std::move(arrival.sink);
    sequence->times.queued = sequence->touched = arrival.queued;
    if (FindAdapter(*sequence)) scheduler_.Add(std::move(sequence));
  }
  for (const SeqId id : cancelled) End(id, {.reason = FinishReason::kAbort});
  EndOverdue();
  if (reset) scheduler_.pool().ForgetAll();
  if (abort) EndAll(FinishReason::kAbort, {Code::kUnavailable, "the server is shutting down", {}});
  for (ControlCall& call : calls) {
    if (call.request.kind == ControlKind::kPause && call.request.mode == PauseMode::kAbort) {
      EndAll(FinishReason::kAbort,
             {Code::kCancelled, "the server was told to pause and to end its requests", {}});
    }
    desk_.Take(std::move(call), next, scheduler_);
  }
  desk_.Advance(scheduler_);
}

// False if the sequence's adapter has been unloaded since it was queued: the request has ended then.
bool LocalEngine::FindAdapter(Sequence& sequence) {
  const std::string& name = sequence.request.adapter;
  if (name.empty()) return true;
  const AdapterInfo* const adapter = adapters_.Find(name);
  if (adapter == nullptr) {
    sequence.sink->OnFinish(
        {}, {.reason = FinishReason::kError, .error = NoSuchModel(name), .times = sequence.times});
    return false;
  }
  sequence.UseAdapter(*adapter);
  return true;
}

// What the agent has come to the end of.
void LocalEngine::TakeTransfers() {
  if (!hand_off_) return;
  for (const KvHandOff::Fetched& fetched : hand_off_->Poll()) {
    scheduler_.Fetched(fetched.id, fetched.num_tokens);
    if (fetched.status || options_.hand_off.recompute) continue;
    End(fetched.id, {.reason = FinishReason::kError, .error = fetched.status.error()});
  }
  if (scheduler_.num_waiting() == 0) return;
  for (Sequence* sequence : scheduler_.All()) {
    if (sequence->block_table.empty()) hand_off_->Touch(*sequence);
  }
}

namespace {

a2a::Phase PhaseOf(std::span<const ScheduledSequence> plan) {
  const bool decode = std::ranges::all_of(plan, [](const auto& s) { return s.num_tokens == 1; });
  return decode ? a2a::Phase::kDecode : a2a::Phase::kPrefill;
}

}  // namespace

// One turn of the loop: agree with the others, then step, sleep or stop.
Status LocalEngine::Turn(bool& stop) {
  std::vector<ScheduledSequence> plan;
  if (!desk_.paused()) plan = scheduler_.Schedule(TokenBudget());
  if (hand_off_ && plan.empty()) PublishStats();  // a fetch that has begun, before a long sleep
  const uint64_t order = desk_.NextOrder();
  bool draining = false;
  {
    const std::lock_guard lock(inbox_->mutex);
    draining = inbox_->draining && inbox_->arrivals.empty();
  }
  if (gate_ == nullptr) {
    if (order != 0) return CarryOut(order);
    if (!plan.empty()) return Step(plan, PhaseOf(plan));
    stop = draining && scheduler_.empty();
    if (!stop) WaitForWork();
    return {};
  }
  StepGate::Offer offer{.num_sequences = std::ssize(plan),
                        .order = order,
                        .generates = !desk_.paused() && Generates(),
                        .wants_step = runner_ != nullptr && runner_->wants_step(),
                        .wants_stop = draining && scheduler_.empty()};
  for (const ScheduledSequence& scheduled : plan) offer.num_tokens += scheduled.num_tokens;
  CADRE_ASSIGN(const StepGate::Turn turn, gate_->Agree(offer));
  if (turn == StepGate::Turn::kStep) return Step(plan, gate_->phase());
  if (turn == StepGate::Turn::kOrder) return CarryOut(order);
  stop = turn == StepGate::Turn::kStop;
  return stop ? Status() : gate_->Sleep(LongestSleep());
}

void LocalEngine::WaitForWork() {
  std::unique_lock lock(inbox_->mutex);
  const auto awake = [&] {
    return !inbox_->arrivals.empty() || !inbox_->cancelled.empty() || inbox_->draining || inbox_->abort ||
           inbox_->reset_prefix_cache || inbox_->agent_called || !inbox_->calls.empty();
  };
  inbox_->changed.wait_for(lock, LongestSleep(), awake);
}

// Who waits for room, which leases take, must tell its source so now and then.
Duration LocalEngine::LongestSleep() const {
  return hand_off_ && scheduler_.num_waiting() > 0 ? KvHandOff::kTouchInterval : std::chrono::hours(1);
}

bool LocalEngine::Generates() const {
  return std::ranges::any_of(
      scheduler_.All(), [](const Sequence* s) { return s->num_generated() > 0 && !s->block_table.empty(); });
}

int32_t LocalEngine::TokenBudget() const {
  const int32_t all = options_.scheduler.max_num_batched_tokens;
  const bool anybody_generates = Generates() || (gate_ != nullptr && gate_->anybody_generates());
  return anybody_generates ? pace_.Budget(all) : all;
}

Status LocalEngine::Step(std::span<const ScheduledSequence> plan, a2a::Phase phase) {
  const TimePoint start = Now();
  int64_t num_tokens = 0, num_rows_of_prompts = 0;
  for (const ScheduledSequence& scheduled : plan) {
    num_tokens += scheduled.num_tokens;
    if (scheduled.sequence->num_generated() == 0) num_rows_of_prompts += scheduled.num_tokens;
  }
  CADRE_ASSIGN(std::vector<StepOutput> outputs, runner_->Run(plan, phase));
  ++num_steps_;
  prompt_tokens_ += num_rows_of_prompts;
  pace_.Note(SecondsSince(start), gate_ == nullptr ? num_tokens : gate_->most_tokens());
  for (const ScheduledSequence& scheduled : plan) scheduler_.Computed(scheduled);
  const int64_t generated_before = generation_tokens_;
  for (StepOutput& output : outputs) {
    if (output.token) Deliver(output);
  }
  if (num_tokens > 0) step_sizes_.Add(num_rows_of_prompts + generation_tokens_ - generated_before);
  return runner_->EndStep();
}

RoutedExperts LocalEngine::RoutedOf(const Sequence& sequence) const {
  return runner_->RoutedOf(sequence, sequence.request.sampling.routed_experts_start);
}

void LocalEngine::ReportPrompt(Sequence& sequence) {
  if (std::exchange(sequence.prompt_reported, true)) return;
  sequence.sink->OnPrompt(static_cast<int>(sequence.num_cached_tokens), std::move(sequence.prompt_logprobs));
}

// Hands a new token to its sink, together with the end of the sequence if it is the last one.
void LocalEngine::Deliver(StepOutput& output) {
  Sequence& sequence = *output.sequence;
  ReportPrompt(sequence);
  // Only the prompt was wanted: what was drawn behind it never counts.
  if (sequence.request.sampling.max_tokens == 0) return EndWell(sequence, {.reason = FinishReason::kLength});
  const int32_t token = output.token->token;
  sequence.tokens.push_back(token);
  ++generation_tokens_;
  sequence.times.last_token = Now();
  if (sequence.num_generated() == 1) sequence.times.first_token = sequence.times.last_token;
  std::vector<GeneratedToken> tokens;
  tokens.push_back(std::move(*output.token));
  if (std::optional<Finish> finish = EndAfter(sequence, token)) {
    EndWell(sequence, std::move(*finish), std::move(tokens));
  } else {
    sequence.sink->OnTokens(std::move(tokens));
  }
}

// How the sequence ends with `token`, which it holds already; empty if it goes on.
std::optional<Finish> LocalEngine::EndAfter(const Sequence& sequence, int32_t token) const {
  const SamplingParams& sampling = sequence.request.sampling;
  const bool may_stop = sequence.num_generated() >= sampling.min_tokens;
  if (may_stop && !sampling.ignore_eos && Contains(sampling.eos_token_ids, token)) {
    return Finish{.reason = FinishReason::kStop};
  }
  if (may_stop && Contains(sampling.stop_token_ids, token)) {
    return Finish{.reason = FinishReason::kStop, .stop_token = token};
  }
  if (sequence.num_generated() >= sampling.max_tokens ||
      sequence.num_tokens() >= options_.model_info.max_model_len) {
    return Finish{.reason = FinishReason::kLength};
  }
  return std::nullopt;
}

// What has been computed may be wanted elsewhere.
void LocalEngine::EndWell(Sequence& sequence, Finish finish, std::vector<GeneratedToken> last_tokens) {
  finish.routed = RoutedOf(sequence);
  if (hand_off_ && sequence.request.kv_transfer && sequence.request.kv_transfer->hold) {
    finish.held = hand_off_->Describe(sequence);
    hand_off_->Hold(sequence);
  }
  End(sequence.id, std::move(finish), std::move(last_tokens));
}

void LocalEngine::End(SeqId id, Finish finish, std::vector<GeneratedToken> last_tokens) {
  const std::unique_ptr<Sequence> sequence = scheduler_.Remove(id);
  if (sequence == nullptr) return;  // ended before its cancellation was read
  finish.times = sequence->times;
  finish.num_preemptions = sequence->num_preemptions;
  sequence->sink->OnFinish(std::move(last_tokens), std::move(finish));
}

void LocalEngine::EndAll(FinishReason reason, const Error& error) {
  for (const Sequence* sequence : scheduler_.All()) End(sequence->id, {.reason = reason, .error = error});
}

void LocalEngine::EndOverdue() {
  const TimePoint now = Now();
  for (const Sequence* sequence : scheduler_.All()) {
    if (!sequence->request.deadline || *sequence->request.deadline > now) continue;
    End(sequence->id, {.reason = FinishReason::kError,
                       .error = {Code::kDeadlineExceeded, "the request's deadline has passed", {}}});
  }
}

namespace {

double CpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

Result<EplbState> LocalEngine::Eplb(TimePoint deadline) const {
  const rebalance::Rebalancer* const rebalancer = runner_ == nullptr ? nullptr : runner_->rebalancer();
  return rebalancer == nullptr ? Engine::Eplb(deadline) : EplbStateOf(*rebalancer);
}

void LocalEngine::PublishStats() {
  const auto& pool = scheduler_.pool();
  std::string broken;
  {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->num_waiting = scheduler_.num_waiting() + static_cast<int64_t>(inbox_->arrivals.size());
    if (!inbox_->broken) broken = inbox_->broken.error().message;
  }
  const std::lock_guard lock(stats_mutex_);
  stats_.num_running = scheduler_.num_running();
  stats_.kv_cache_usage =
      1.0 - static_cast<double>(pool.num_available()) / static_cast<double>(pool.num_blocks());
  stats_.num_preemptions = scheduler_.counters().num_preemptions;
  stats_.prefix_cache_queries = scheduler_.counters().prefix_cache_queries;
  stats_.prefix_cache_hits = scheduler_.counters().prefix_cache_hits;
  stats_.prompt_tokens = prompt_tokens_;
  stats_.generation_tokens = generation_tokens_;
  stats_.num_steps = num_steps_;
  if (runner_ != nullptr) {
    const a2a::ByteCounts bytes = runner_->exchange_bytes();
    stats_.dispatch_bytes = bytes.dispatch_physical;
    stats_.combine_bytes = bytes.combine_physical;
    stats_.exchange_wire_bytes = bytes.dispatch_wire + bytes.combine_wire;
  }
  if (hand_off_) stats_.kv_transfer = hand_off_->Stats();
  stats_.step_sizes = step_sizes_;
  stats_.cpu_seconds = CpuSeconds();
  stats_.paused = desk_.pausing();
  stats_.weight_generation = desk_.generation();
  stats_.broken = broken;
  const rebalance::Rebalancer* const rebalancer = runner_ == nullptr ? nullptr : runner_->rebalancer();
  if (rebalancer != nullptr && rebalancer->version() != eplb_version_) {
    eplb_version_ = rebalancer->version();
    stats_.eplb = EplbStatsOf(rebalancer->snapshot());
    stats_.eplb.version = eplb_version_;
  }
}

}  // namespace cadre::engine
