#include "link/engine_server.h"

#include <map>
#include <mutex>

#include "base/log.h"
#include "link/outbox.h"
#include "link/wire.h"
#include "sys/sockets.h"

namespace cadre::link {
namespace {

constexpr size_t kMaxFrame = 1 << 30;
constexpr TimePoint kNever = TimePoint::max();
constexpr auto kStatsInterval = std::chrono::milliseconds(50);

uint32_t Number(MessageKind kind) {
  return static_cast<uint32_t>(kind);
}

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(engine::Engine& engine, sys::Fd fd) : engine_(engine), fd_(std::move(fd)), outbox_(fd_.get()) {}

  Status Serve() {
    outbox_.Put(Number(MessageKind::kReady), Encode(ReadyMessage{.model_info = engine_.model_info()}));
    while (true) {
      auto frame = sys::RecvFrame(fd_.get(), kMaxFrame, kNever);
      if (!frame && frame.error().code == Code::kDataLoss) return std::unexpected(frame.error());
      if (!frame) {  // the front has gone: nobody wants the answers
        engine_.Drain(Now());
        return {};
      }
      CADRE_ASSIGN(const bool drained, Handle(static_cast<MessageKind>(frame->kind), frame->body));
      if (drained) return {};
    }
  }

  void Send(MessageKind kind, std::string body) { outbox_.Put(Number(kind), std::move(body)); }
  void SendFinish(int64_t id, std::vector<engine::GeneratedToken> last_tokens, engine::Finish finish) {
    {
      const std::lock_guard lock(mutex_);
      handles_.erase(id);
    }
    Send(MessageKind::kFinish, Encode(FinishMessage{id, std::move(last_tokens), std::move(finish)}));
    SendStats();
  }
  // At most every kStatsInterval: metrics want no more, and the front counts its own requests.
  void SendStats() {
    {
      const std::lock_guard lock(mutex_);
      if (Now() - last_stats_ < kStatsInterval) return;
      last_stats_ = Now();
    }
    Send(MessageKind::kStats, Encode(engine_.Stats().front()));
  }

 private:
  class Sink;

  Result<bool> Handle(MessageKind kind, std::string_view body) {
    switch (kind) {
      case MessageKind::kSubmit: {
        CADRE_ASSIGN(SubmitMessage submit, Decode<SubmitMessage>(body));
        Submit(std::move(submit));
        return false;
      }
      case MessageKind::kCancel: {
        CADRE_ASSIGN(const CancelMessage cancel, Decode<CancelMessage>(body));
        const std::lock_guard lock(mutex_);
        if (const auto it = handles_.find(cancel.id); it != handles_.end()) it->second->Cancel();
        return false;
      }
      case MessageKind::kResetPrefixCache:
        CADRE_TRY(engine_.ResetPrefixCache());
        return false;
      case MessageKind::kDrain: {
        CADRE_ASSIGN(const DrainMessage drain, Decode<DrainMessage>(body));
        engine_.Drain(Now() + std::chrono::milliseconds(drain.milliseconds));
        Send(MessageKind::kDrained, "");
        return true;
      }
      default:
        return Fail(Code::kDataLoss, "unknown message kind {} from the front", Number(kind));
    }
  }

  void Submit(SubmitMessage submit);

  engine::Engine& engine_;
  sys::Fd fd_;
  Outbox outbox_;
  std::mutex mutex_;
  std::map<int64_t, std::unique_ptr<engine::RequestHandle>> handles_;
  TimePoint last_stats_;  // under mutex_
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
    connection_->SendStats();
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
}

}  // namespace

Status ServeEngine(engine::Engine& engine, sys::Fd connection) {
  return std::make_shared<Connection>(engine, std::move(connection))->Serve();
}

}  // namespace cadre::link
