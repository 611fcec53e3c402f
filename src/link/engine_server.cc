#include "link/engine_server.h"

#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "link/outbox.h"
#include "link/wire.h"
#include "sys/sockets.h"

namespace cadre::link {
namespace {

constexpr size_t kMaxFrame = 1 << 30;
constexpr TimePoint kNever = TimePoint::max();
constexpr auto kStatsInterval = std::chrono::milliseconds(50);
constexpr auto kQuietInterval = std::chrono::seconds(1);

uint32_t Number(MessageKind kind) {
  return static_cast<uint32_t>(kind);
}

// Tells all fronts the engine's figures: some time after something has happened, so that the step that it
// happened in is over, and not more often. Idle engines say nothing.
class StatsTeller {
 public:
  explicit StatsTeller(engine::Engine& engine) : engine_(engine), thread_([this] { Loop(); }) {}
  ~StatsTeller() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  void Add(Outbox* outbox) {
    const std::lock_guard lock(mutex_);
    outboxes_.push_back(outbox);
    told_version_ = -1;  // the new one has heard nothing yet
  }
  void Remove(Outbox* outbox) {
    const std::lock_guard lock(mutex_);
    std::erase(outboxes_, outbox);
  }
  /// Something has happened. Any thread; cheap.
  void Changed() {
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(dirty_, true)) return;
    }
    changed_.notify_one();
  }

 private:
  void Loop() {
    std::unique_lock lock(mutex_);
    const auto awake = [&] { return stop_ || dirty_; };
    bool again = false;  // something may have changed that no event of a request tells
    while (true) {
      if (!again) {
        changed_.wait(lock, awake);
      } else {
        changed_.wait_for(lock, kQuietInterval, awake);
      }
      const bool events = dirty_;
      if (changed_.wait_for(lock, kStatsInterval, [&] { return stop_; })) return;
      dirty_ = false;
      // After the last event once more: a rebalance may begin when the tokens of its step are out. And as
      // long as one goes on: it makes steps of its own.
      again = Tell() || events;
    }
  }

  // Whether experts are on their way.
  bool Tell() {
    engine::RankStats stats = engine_.Stats().front();
    engine::EplbStats& eplb = stats.eplb;
    if (eplb.version == std::exchange(told_version_, eplb.version)) {
      // The front keeps what it has (engine_client.cc): these may be thousands of numbers.
      eplb.layer_balancedness.clear();
      eplb.rank_tokens.clear();
      eplb.expert_tokens.clear();
    }
    const std::string body = Encode(stats);
    for (Outbox* outbox : outboxes_) outbox->Put(Number(MessageKind::kStats), body);
    return eplb.moving;
  }

  engine::Engine& engine_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Outbox*> outboxes_;
  bool dirty_ = false, stop_ = false;
  int64_t told_version_ = -1;  // of the vectors that all fronts have
  std::thread thread_;
};

// One front's requests.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(engine::Engine& engine, StatsTeller& stats, sys::Fd fd)
      : engine_(engine), stats_(stats), fd_(std::move(fd)), outbox_(fd_.get()) {
    // Before anybody else can put something there: it must come first.
    Send(MessageKind::kReady,
         Encode(ReadyMessage{.model_info = engine_.model_info(), .stats = engine_.Stats().front()}));
  }

  /// The next message, if it is none about a request; those are dealt with. Errors: those of RecvFrame.
  Result<sys::Frame> Serve() {
    stats_.Changed();  // for this front
    return Next();
  }
  Result<sys::Frame> Next() {
    while (true) {
      CADRE_ASSIGN(sys::Frame frame, sys::RecvFrame(fd_.get(), kMaxFrame, kNever));
      switch (static_cast<MessageKind>(frame.kind)) {
        case MessageKind::kSubmit: {
          CADRE_ASSIGN(SubmitMessage submit, Decode<SubmitMessage>(frame.body));
          Submit(std::move(submit));
          break;
        }
        case MessageKind::kCancel: {
          CADRE_ASSIGN(const CancelMessage cancel, Decode<CancelMessage>(frame.body));
          const std::lock_guard lock(mutex_);
          if (const auto it = handles_.find(cancel.id); it != handles_.end()) it->second->Cancel();
          break;
        }
        case MessageKind::kResetPrefixCache:
          CADRE_TRY(engine_.ResetPrefixCache());
          break;
        case MessageKind::kControl: {
          CADRE_ASSIGN(ControlMessage control, Decode<ControlMessage>(frame.body));
          Control(std::move(control));
          break;
        }
        case MessageKind::kPrefixesWanted: {
          CADRE_ASSIGN(const PrefixesWantedMessage wanted, Decode<PrefixesWantedMessage>(frame.body));
          SendPrefixes(wanted);
          break;
        }
        case MessageKind::kEplbWanted: {
          CADRE_ASSIGN(const EplbWantedMessage wanted, Decode<EplbWantedMessage>(frame.body));
          SendEplb(wanted.id);
          break;
        }
        default:
          return frame;
      }
    }
  }
  void CancelAll() {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, handle] : handles_) handle->Cancel();
  }
  void Send(MessageKind kind, std::string body) { outbox_.Put(Number(kind), std::move(body)); }
  void Close() { shutdown(fd_.get(), SHUT_RDWR); }
  Outbox& outbox() { return outbox_; }

 private:
  class Sink;
  void Submit(SubmitMessage submit);
  void Control(ControlMessage message) {
    engine_.Control(std::move(message.request),
                    [self = shared_from_this(), id = message.id](Result<engine::ControlState> state) {
                      ControlledMessage answer{.id = id, .ok = state.has_value(), .error = {}, .state = {}};
                      if (state) {
                        answer.state = *state;
                      } else {
                        answer.error = std::move(state).error();
                      }
                      self->Send(MessageKind::kControlled, Encode(answer));
                      self->stats_.Changed();
                    });
  }
  void SendPrefixes(const PrefixesWantedMessage& wanted) {
    engine_.Prefixes(
        wanted.query, [self = shared_from_this(), id = wanted.id](Result<engine::PrefixChanges> changes) {
          PrefixesMessage answer{.id = id, .ok = changes.has_value(), .error = {}, .changes = {}};
          if (changes) {
            answer.changes = std::move(*changes);
          } else {
            answer.error = std::move(changes).error();
          }
          self->Send(MessageKind::kPrefixes, Encode(answer));
        });
  }
  void SendEplb(int64_t id) {
    EplbMessage answer{.id = id, .error = {}, .state = {}};
    auto state = engine_.Eplb(Now());  // an engine of this process answers at once
    answer.ok = state.has_value();
    if (state) {
      answer.state = std::move(*state);
    } else {
      answer.error = std::move(state).error();
    }
    Send(MessageKind::kEplb, Encode(answer));
  }
  void SendFinish(int64_t id, std::vector<engine::GeneratedToken> last_tokens, engine::Finish finish) {
    {
      const std::lock_guard lock(mutex_);
      handles_.erase(id);
    }
    Send(MessageKind::kFinish, Encode(FinishMessage{id, std::move(last_tokens), std::move(finish)}));
    stats_.Changed();
  }

  engine::Engine& engine_;
  StatsTeller& stats_;
  sys::Fd fd_;
  Outbox outbox_;
  std::mutex mutex_;
  std::map<int64_t, std::unique_ptr<engine::RequestHandle>> handles_;
};

class Connection::Sink : public engine::EventSink {
 public:
  Sink(std::shared_ptr<Connection> connection, int64_t id) : connection_(std::move(connection)), id_(id) {}
  void OnPrompt(int num_cached_tokens, std::vector<engine::Logprobs> prompt_logprobs) override {
    connection_->Send(MessageKind::kPrompt,
                      Encode(PromptMessage{id_, num_cached_tokens, std::move(prompt_logprobs)}));
  }
  void OnTokens(std::vector<engine::GeneratedToken> tokens) override {
    connection_->Send(MessageKind::kTokens, Encode(TokensMessage{id_, std::move(tokens)}));
    connection_->stats_.Changed();
  }
  void OnFinish(std::vector<engine::GeneratedToken> last_tokens, engine::Finish finish) override {
    connection_->SendFinish(id_, std::move(last_tokens), std::move(finish));
  }

 private:
  std::shared_ptr<Connection> connection_;
  int64_t id_;
};

// The sink may hear the end before the handle is stored; the lock makes SendFinish come after, and erase it.
void Connection::Submit(SubmitMessage submit) {
  const std::lock_guard lock(mutex_);
  auto handle =
      engine_.Submit(std::move(submit.request), std::make_shared<Sink>(shared_from_this(), submit.id));
  if (handle) {
    handles_[submit.id] = std::move(*handle);
  } else {
    Send(MessageKind::kFinish,
         Encode(FinishMessage{
             submit.id, {}, {.reason = engine::FinishReason::kError, .error = std::move(handle).error()}}));
  }
  stats_.Changed();
}

// The first front's connection, and the threads of the others.
class Server {
 public:
  Server(engine::Engine& engine, FrontConnector connect)
      : engine_(engine), connect_(std::move(connect)), stats_(engine) {}

  Status Serve(sys::Fd fd) {
    const auto first = std::make_shared<Connection>(engine_, stats_, std::move(fd));
    stats_.Add(&first->outbox());
    Status status = ServeFirst(*first);
    if (!status) engine_.Drain(Now());
    EndOthers();
    stats_.Remove(&first->outbox());
    return status;
  }

 private:
  struct Other {
    std::mutex mutex;
    std::shared_ptr<Connection> connection;  // null before it is made
    bool closed = false;                     // wanted
    std::atomic<bool> ended = false;
    std::thread thread;
  };

  Status ServeFirst(Connection& first) {
    auto frame = first.Serve();
    for (;; frame = first.Next()) {
      if (!frame && frame.error().code == Code::kDataLoss) return std::unexpected(frame.error());
      if (!frame) {  // the front has gone: nobody wants the answers
        engine_.Drain(Now());
        return {};
      }
      if (frame->kind == Number(MessageKind::kAddFront)) {
        CADRE_ASSIGN(AddFrontMessage add, Decode<AddFrontMessage>(frame->body));
        AddOther(std::move(add.where), frame->fds.empty() ? sys::Fd() : std::move(frame->fds.front()));
        continue;
      }
      if (frame->kind != Number(MessageKind::kDrain))
        return Fail(Code::kDataLoss, "unknown message kind {} from the front", frame->kind);
      CADRE_ASSIGN(const DrainMessage drain, Decode<DrainMessage>(frame->body));
      engine_.Drain(Now() + std::chrono::milliseconds(drain.milliseconds));
      first.Send(MessageKind::kDrained, "");
      return {};
    }
  }

  void AddOther(std::string where, sys::Fd fd) {
    std::erase_if(others_, [](const auto& other) {
      if (other->ended) other->thread.join();
      return other->ended.load();
    });
    auto& other = *others_.emplace_back(std::make_unique<Other>());
    other.thread = std::thread([this, &other, where = std::move(where), fd = std::move(fd)]() mutable {
      ServeOther(other, where, std::move(fd));
      other.ended = true;
    });
  }

  void ServeOther(Other& other, const std::string& where, sys::Fd fd) {
    if (!fd && connect_) {
      auto made = connect_(where);
      if (!made) return LogWarning("cannot reach a further front: {}", made.error().message);
      fd = std::move(*made);
    }
    if (!fd) return;
    const auto connection = std::make_shared<Connection>(engine_, stats_, std::move(fd));
    {
      const std::lock_guard lock(other.mutex);
      if (other.closed) return;
      other.connection = connection;
    }
    stats_.Add(&connection->outbox());
    const auto end = connection->Serve();  // there is no message that it may send to us
    if (end) LogWarning("a front sent message {}, which only the first may send", end->kind);
    if (!end && end.error().code == Code::kDataLoss)
      LogWarning("a front is cut off: {}", end.error().message);
    stats_.Remove(&connection->outbox());
    connection->Close();
    connection->CancelAll();
  }

  // Their requests have ended with the engine; the last events get out before the connections close.
  void EndOthers() {
    for (const auto& other : others_) {
      const std::lock_guard lock(other->mutex);
      other->closed = true;
      if (other->connection) other->connection->outbox().Flush(Now() + std::chrono::seconds(1));
      if (other->connection) other->connection->Close();
    }
    for (const auto& other : others_) other->thread.join();
    others_.clear();
  }

  engine::Engine& engine_;
  FrontConnector connect_;
  StatsTeller stats_;
  std::list<std::unique_ptr<Other>> others_;  // touched by the first front's thread
};

}  // namespace

Status ServeEngine(engine::Engine& engine, sys::Fd connection, FrontConnector connect) {
  return Server(engine, std::move(connect)).Serve(std::move(connection));
}

}  // namespace cadre::link
