#include "link/engine_client.h"

#include <sys/socket.h>

#include <condition_variable>
#include <optional>

#include "base/log.h"
#include "link/wire.h"
#include "sys/sockets.h"

namespace cadre::link {
namespace {

constexpr size_t kMaxFrame = 1 << 30;

uint32_t Number(MessageKind kind) {
  return static_cast<uint32_t>(kind);
}

}  // namespace

// Shared with the request handles, which may outlive the client.
struct EngineClient::State {
  explicit State(sys::Fd connection)
      : fd(std::move(connection)), outbox(std::make_unique<Outbox>(fd.get())) {}

  sys::Fd fd;
  std::unique_ptr<Outbox> outbox;
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::map<int64_t, std::shared_ptr<engine::EventSink>> sinks;
  int64_t next_id = 0;
  std::map<int64_t, std::optional<Result<engine::EplbState>>> asked_eplb;  // an entry a caller that waits
  std::map<int64_t, engine::ControlDone> controls;
  std::map<int64_t, engine::PrefixDone> prefixes;
  engine::RankStats stats;
  Status health;
  bool draining = false;
  bool drained = false;

  std::shared_ptr<engine::EventSink> Find(int64_t id) const {
    const std::lock_guard lock(mutex);
    const auto it = sinks.find(id);
    return it == sinks.end() ? nullptr : it->second;
  }
  std::shared_ptr<engine::EventSink> Take(int64_t id) {
    const std::lock_guard lock(mutex);
    const auto node = sinks.extract(id);
    changed.notify_all();
    return node.empty() ? nullptr : node.mapped();
  }
};

namespace {

class Handle : public engine::RequestHandle {
 public:
  Handle(std::function<void()> cancel, int rank) : cancel_(std::move(cancel)), rank_(rank) {}
  void Cancel() override { cancel_(); }
  int rank() const override { return rank_; }

 private:
  std::function<void()> cancel_;
  int rank_;
};

/// Whether its histograms are those of this build.
bool HasOurBuckets(const engine::RankStats& stats) {
  const engine::RankStats own;
  return stats.step_sizes.counts.size() == own.step_sizes.counts.size() &&
         stats.kv_transfer.seconds.counts.size() == own.kv_transfer.seconds.counts.size() &&
         stats.kv_transfer.bytes.counts.size() == own.kv_transfer.bytes.counts.size();
}

/// What an order's answer says before the next stats do.
void TakeChanges(const engine::ControlState& state, engine::RankStats& stats) {
  stats.weight_generation = std::max(stats.weight_generation, state.generation);
  if (state.adapters.num_changes > stats.adapters.num_changes) stats.adapters = state.adapters;
}

}  // namespace

Result<std::unique_ptr<EngineClient>> EngineClient::Connect(sys::Fd connection, EngineClientOptions options,
                                                            TimePoint deadline) {
  CADRE_ASSIGN(const sys::Frame frame, sys::RecvFrame(connection.get(), kMaxFrame, deadline));
  if (frame.kind != Number(MessageKind::kReady)) {
    return cadre::Fail(Code::kDataLoss, "rank {} began with message {} instead of its announcement",
                       options.rank, frame.kind);
  }
  CADRE_ASSIGN(ReadyMessage ready, Decode<ReadyMessage>(frame.body));
  if (ready.version != kWireVersion) {
    return cadre::Fail(Code::kDataLoss,
                       "rank {} speaks version {} of the link and this process {}; start both from one build",
                       options.rank, ready.version, kWireVersion);
  }
  if (!HasOurBuckets(ready.stats))
    return cadre::Fail(Code::kDataLoss, "rank {} sent a damaged announcement", options.rank);
  return std::unique_ptr<EngineClient>(
      new EngineClient(std::move(connection), options, ready.model_info, std::move(ready.stats)));
}

EngineClient::EngineClient(sys::Fd connection, EngineClientOptions options, engine::ModelInfo model_info,
                           engine::RankStats stats)
    : options_(options), model_info_(model_info), state_(std::make_shared<State>(std::move(connection))) {
  state_->stats = std::move(stats);
  state_->stats.rank = options.rank;
  reader_ = std::thread([this] { ReadLoop(); });
}

EngineClient::~EngineClient() {
  shutdown(state_->fd.get(), SHUT_RDWR);
  if (reader_.joinable()) reader_.join();
}

Result<std::unique_ptr<engine::RequestHandle>> EngineClient::Submit(engine::Request request,
                                                                    std::shared_ptr<engine::EventSink> sink) {
  int64_t id = 0;
  {
    const std::lock_guard lock(state_->mutex);
    CADRE_TRY(state_->health);
    if (state_->draining) {
      return cadre::Fail(Code::kUnavailable, "the server is shutting down and takes no new requests");
    }
    const auto in_flight = static_cast<int64_t>(state_->sinks.size());
    if (in_flight - state_->stats.num_running >= options_.max_queued_requests) {
      return cadre::Fail(Code::kResourceExhausted,
                         "the queue of rank {} is full: {} requests (--max-num-queued-reqs)", options_.rank,
                         in_flight);
    }
    id = state_->next_id++;
    state_->sinks[id] = std::move(sink);
  }
  state_->outbox->Put(Number(MessageKind::kSubmit), Encode(SubmitMessage{id, std::move(request)}));
  return std::make_unique<Handle>(
      [state = state_, id] { state->outbox->Put(Number(MessageKind::kCancel), Encode(CancelMessage{id})); },
      options_.rank);
}

void EngineClient::ReadLoop() {
  Error error{Code::kUnavailable, Format("the connection to rank {} was closed", options_.rank), {}};
  while (true) {
    auto frame = sys::RecvFrame(state_->fd.get(), kMaxFrame, TimePoint::max());
    if (!frame) break;
    if (HandleFrame(frame->kind, frame->body)) continue;
    error = {Code::kDataLoss, Format("rank {} sent a damaged message", options_.rank), {}};
    break;
  }
  Fail(error);
}

bool EngineClient::HandleFrame(uint32_t kind, std::string_view body) {
  switch (static_cast<MessageKind>(kind)) {
    case MessageKind::kPrompt: {
      auto message = Decode<PromptMessage>(body);
      if (!message) return false;
      if (const auto sink = state_->Find(message->id)) {
        sink->OnPrompt(message->num_cached_tokens, std::move(message->logprobs));
      }
      return true;
    }
    case MessageKind::kTokens: {
      auto message = Decode<TokensMessage>(body);
      if (!message) return false;
      if (const auto sink = state_->Find(message->id)) sink->OnTokens(std::move(message->tokens));
      return true;
    }
    case MessageKind::kFinish: {
      auto message = Decode<FinishMessage>(body);
      if (!message) return false;
      if (const auto sink = state_->Take(message->id))
        sink->OnFinish(std::move(message->last_tokens), std::move(message->finish));
      return true;
    }
    case MessageKind::kStats: {
      auto stats = Decode<engine::RankStats>(body);
      if (!stats || !HasOurBuckets(*stats)) return false;
      const std::lock_guard lock(state_->mutex);
      engine::EplbStats &before = state_->stats.eplb, &now = stats->eplb;
      if (now.version == before.version &&
          now.rank_tokens.empty()) {  // they are as they were (engine_server.cc)
        now.layer_balancedness = std::move(before.layer_balancedness);
        now.rank_tokens = std::move(before.rank_tokens);
        now.expert_tokens = std::move(before.expert_tokens);
      }
      // Made before an order that has been answered already?
      if (stats->adapters.num_changes < state_->stats.adapters.num_changes)
        stats->adapters = std::move(state_->stats.adapters);
      stats->weight_generation = std::max(stats->weight_generation, state_->stats.weight_generation);
      state_->stats = std::move(*stats);
      return true;
    }
    case MessageKind::kEplb: {
      auto message = Decode<EplbMessage>(body);
      if (!message || (message->ok && !message->state.IsWhole())) return false;
      const std::lock_guard lock(state_->mutex);
      const auto it = state_->asked_eplb.find(message->id);
      if (it == state_->asked_eplb.end()) return true;  // it came too late
      if (message->ok) {
        it->second.emplace(std::move(message->state));
      } else {
        it->second.emplace(std::unexpected(std::move(message->error)));
      }
      state_->changed.notify_all();
      return true;
    }
    case MessageKind::kControlled: {
      auto message = Decode<ControlledMessage>(body);
      if (!message) return false;
      engine::ControlDone done;
      {
        const std::lock_guard lock(state_->mutex);
        if (const auto node = state_->controls.extract(message->id); !node.empty()) done = node.mapped();
        if (message->ok) TakeChanges(message->state, state_->stats);
      }
      if (!done) return true;
      message->ok ? done(message->state) : done(std::unexpected(std::move(message->error)));
      return true;
    }
    case MessageKind::kPrefixes: {
      auto message = Decode<PrefixesMessage>(body);
      if (!message) return false;
      engine::PrefixDone done;
      {
        const std::lock_guard lock(state_->mutex);
        if (const auto node = state_->prefixes.extract(message->id); !node.empty()) done = node.mapped();
      }
      if (!done) return true;
      message->ok ? done(std::move(message->changes)) : done(std::unexpected(std::move(message->error)));
      return true;
    }
    case MessageKind::kDrained: {
      const std::lock_guard lock(state_->mutex);
      state_->drained = true;
      state_->changed.notify_all();
      return true;
    }
    default:
      return false;
  }
}

void EngineClient::Fail(const Error& error) {
  std::map<int64_t, std::shared_ptr<engine::EventSink>> sinks;
  std::map<int64_t, engine::ControlDone> controls;
  std::map<int64_t, engine::PrefixDone> prefixes;
  {
    const std::lock_guard lock(state_->mutex);
    controls.swap(state_->controls);
    prefixes.swap(state_->prefixes);
    if (state_->health) state_->health = std::unexpected(error);
    sinks.swap(state_->sinks);
    state_->drained = true;
    state_->changed.notify_all();
  }
  for (const auto& [id, sink] : sinks)
    sink->OnFinish({}, {.reason = engine::FinishReason::kError, .error = error});
  for (const auto& [id, done] : controls) done(std::unexpected(error));
  for (const auto& [id, done] : prefixes) done(std::unexpected(error));
}

std::vector<engine::RankStats> EngineClient::Stats() const {
  const std::lock_guard lock(state_->mutex);
  engine::RankStats stats = state_->stats;
  stats.num_waiting = std::max<int64_t>(static_cast<int64_t>(state_->sinks.size()) - stats.num_running, 0);
  return {stats};
}

Status EngineClient::Health() const {
  const std::lock_guard lock(state_->mutex);
  CADRE_TRY(state_->health);
  if (const std::string& broken = state_->stats.broken; !broken.empty())
    return cadre::Fail(Code::kUnavailable, "{}", broken);
  return {};
}

void EngineClient::Control(engine::ControlRequest request, engine::ControlDone done) {
  int64_t id = 0;
  {
    const std::lock_guard lock(state_->mutex);
    id = state_->next_id++;
    if (state_->health) {
      state_->controls[id] = std::move(done);
      state_->outbox->Put(Number(MessageKind::kControl), Encode(ControlMessage{id, std::move(request)}));
      return;
    }
  }
  done(std::unexpected(state_->health.error()));
}

void EngineClient::Prefixes(engine::PrefixQuery query, engine::PrefixDone done) {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->health) {
      const int64_t id = state_->next_id++;
      state_->prefixes[id] = std::move(done);
      state_->outbox->Put(Number(MessageKind::kPrefixesWanted), Encode(PrefixesWantedMessage{id, query}));
      return;
    }
  }
  done(std::unexpected(state_->health.error()));
}

Result<engine::EplbState> EngineClient::Eplb(TimePoint deadline) const {
  std::unique_lock lock(state_->mutex);
  CADRE_TRY(state_->health);
  const int64_t id = state_->next_id++;
  const auto it = state_->asked_eplb.try_emplace(id).first;
  state_->outbox->Put(Number(MessageKind::kEplbWanted), Encode(EplbWantedMessage{id}));
  state_->changed.wait_until(lock, deadline, [&] { return it->second.has_value() || !state_->health; });
  const auto answer = std::move(it->second);
  state_->asked_eplb.erase(it);
  if (answer) return *answer;
  CADRE_TRY(state_->health);
  return cadre::Fail(
      Code::kUnavailable,
      "rank {} has not said in time how its experts are balanced; it may be in a long step: try again",
      options_.rank);
}

Status EngineClient::ResetPrefixCache() {
  state_->outbox->Put(Number(MessageKind::kResetPrefixCache), "");
  return {};
}

int64_t EngineClient::num_in_flight() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<int64_t>(state_->sinks.size());
}

bool EngineClient::draining() const {
  const std::lock_guard lock(state_->mutex);
  return state_->draining;
}

void EngineClient::AddFront(sys::Fd fd, std::string where) {
  state_->outbox->Put(Number(MessageKind::kAddFront), Encode(AddFrontMessage{std::move(where)}),
                      std::move(fd));
}

void EngineClient::CancelAll() {
  std::vector<int64_t> ids;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [id, sink] : state_->sinks) ids.push_back(id);
  }
  for (const int64_t id : ids) state_->outbox->Put(Number(MessageKind::kCancel), Encode(CancelMessage{id}));
}

void EngineClient::Drain(TimePoint deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Now());
  std::unique_lock lock(state_->mutex);
  state_->draining = true;
  // A rank that has been asked to abort answers within one step; five seconds are for a long one.
  const TimePoint last = deadline + std::chrono::seconds(5);
  if (options_.owns_engine) {
    state_->outbox->Put(Number(MessageKind::kDrain),
                        Encode(DrainMessage{std::max<int64_t>(left.count(), 0)}));
    state_->changed.wait_until(lock, last, [&] { return state_->drained; });
    return;
  }
  const auto ended = [&] { return state_->sinks.empty(); };
  if (state_->changed.wait_until(lock, deadline, ended)) return;
  lock.unlock();
  CancelAll();
  lock.lock();
  state_->changed.wait_until(lock, last, ended);
}

}  // namespace cadre::link
