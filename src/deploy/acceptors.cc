#include "deploy/acceptors.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/log.h"
#include "base/metrics_merge.h"
#include "deploy/acceptor_protocol.h"
#include "deploy/api_front.h"
#include "deploy/own_words.h"
#include "deploy/peer_connections.h"
#include "fabric/wire.h"
#include "http/server.h"
#include "sys/process.h"
#include "sys/sockets.h"

namespace cadre::deploy {
namespace {

using fabric::WireReader;
using fabric::WireWriter;

constexpr int kLastLines = 8;  // of a dead acceptor's log, shown with its death
constexpr int kMaxDeaths = 5;  // within kDeathWindow, of all acceptors together
constexpr auto kDeathWindow = std::chrono::seconds(60);
constexpr auto kLinkTime = std::chrono::seconds(20);           // for the ranks to take one more front
constexpr auto kGatherTime = std::chrono::milliseconds(1000);  // for acceptors to say their figures
constexpr auto kSendTime = std::chrono::seconds(5);
constexpr auto kLastAnswers = std::chrono::seconds(8);  // after the deadline of a stop: cancels, last bytes

struct Acceptor {
  int number = 0;
  std::unique_ptr<sys::Child> child;
  sys::Fd control;
  enum class State { kStarted, kOpen, kLinked, kServing, kGone } state = State::kStarted;
  bool told_stop = false;
  serve::FrontPart part;  // as last heard

  bool live() const { return state != State::kGone; }
};

// One acceptor wants the parts of the others.
struct Gather {
  int asker = 0;
  uint64_t askers_ticket = 0;
  std::set<int> waiting;  // for these
  TimePoint deadline;
};

class Acceptors : public Front {
 public:
  Acceptors(const config::ServeOptions& options, int count)
      : options_(options),
        acceptors_(static_cast<size_t>(count)),
        wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        failed_(eventfd(0, EFD_CLOEXEC)) {}
  ~Acceptors() override {
    Stop(Now());
    if (options_.http.uds && listened_) unlink(options_.http.uds->c_str());
  }

  Status Open() {
    CADRE_ASSIGN(listener_, http::Server::Listen(HttpOptionsOf(options_.http)));
    listened_ = true;
    CADRE_ASSIGN(auto peers, PeerConnections::Create(static_cast<int>(acceptors_.size())));
    peers_.emplace(std::move(peers));
    CADRE_ASSIGN(program_, sys::ProgramPath());
    CADRE_ASSIGN(words_, OwnWords());
    thread_ = std::thread([this] { Run(); });
    CADRE_TRY(WaitFor([this] { return num_open_ == acceptors_.size(); }));
    LogInfo("{} API servers share {}", acceptors_.size(), address());
    return {};
  }

  std::string address() const override { return address_; }
  void SetStarting(const std::string& why) override {
    const std::lock_guard lock(mutex_);
    starting_ = why;
    Wake();
  }
  Status Serve(Deployment& deployment) override {
    {
      const std::lock_guard lock(mutex_);
      deployment_ = &deployment;
      Wake();
    }
    return WaitFor([this] { return num_serving_ == acceptors_.size(); });
  }
  int failed_fd() const override { return failed_.get(); }
  Status Outcome() const override {
    const std::lock_guard lock(mutex_);
    return outcome_;
  }
  void Fail(const Error& error) override {
    const std::lock_guard lock(mutex_);
    failure_ = error.message;
    Wake();
  }
  void Stop(TimePoint deadline) override {
    {
      const std::lock_guard lock(mutex_);
      if (!stop_deadline_) stop_deadline_ = deadline;
      Wake();
    }
    const std::lock_guard lock(join_mutex_);
    if (!thread_.joinable()) return;
    thread_.join();
    if (deployment_ != nullptr) deployment_->engine().Drain(deadline);  // nothing is left in it
  }

 private:
  void Wake() const { eventfd_write(wake_.get(), 1); }

  // Until `done`, which is asked under the lock, or the acceptors have failed.
  template <typename Done>
  Status WaitFor(Done done) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !outcome_ || stop_deadline_ || done(); });
    CADRE_TRY(outcome_);
    if (stop_deadline_) return cadre::Fail(Code::kCancelled, "stopped while starting");
    return {};
  }

  // The supervisor: the one thread that touches acceptors_, so that a child's life (which the kernel ties to
  // the thread that started it) ends with it.
  void Run() {
    for (size_t i = 0; i < acceptors_.size() && !given_up_; ++i) {
      acceptors_[i].number = static_cast<int>(i);
      if (Status status = Start(acceptors_[i]); !status) GiveUp(std::move(status).error());
    }
    while (Poll()) {
      Obey();
      for (Acceptor& acceptor : acceptors_) {
        if (acceptor.live() && Readable(acceptor.child->pidfd())) HandleDeath(acceptor);
      }
      AnswerOverdue();
    }
    for (Acceptor& acceptor : acceptors_) acceptor.child.reset();
    listener_.Reset();
  }

  static bool Readable(int fd) {
    pollfd entry = {fd, POLLIN, 0};
    return poll(&entry, 1, 0) > 0;
  }

  Status Start(Acceptor& acceptor) {
    CADRE_ASSIGN(auto control, sys::SocketPair());
    std::vector<std::string> args = {"acceptor", Format("{}", acceptor.number)};
    args.insert(args.end(), words_.begin(), words_.end());
    CADRE_ASSIGN(acceptor.child, sys::Child::Spawn({.program = program_,
                                                    .args = std::move(args),
                                                    .fds = {{control.second.get(), kAcceptorControlFd},
                                                            {listener_.get(), kAcceptorListenerFd},
                                                            {peers_->fd(), kAcceptorPeersFd}},
                                                    .line_prefix = Format("[api {}] ", acceptor.number)}));
    acceptor.control = std::move(control.first);
    acceptor.state = Acceptor::State::kStarted;
    acceptor.part = {};
    if (!said_starting_.empty()) Send(acceptor, kStarting, WireWriter().PutText(said_starting_).text());
    return {};
  }

  void Send(Acceptor& acceptor, uint32_t kind, std::string_view body, std::span<const int> fds = {}) {
    // What cannot be sent goes to one who is dead or stuck; the first is seen by its process's end.
    if (const Status sent = sys::SendFrame(acceptor.control.get(), kind, body, fds, Now() + kSendTime); !sent)
      LogDebug("API server {}: {}", acceptor.number, sent.error().message);
  }

  // Waits for something to happen and hears the acceptors. False when all is over.
  bool Poll() {
    std::vector<pollfd> entries = {{wake_.get(), POLLIN, 0}};
    std::vector<Acceptor*> heard;
    bool anybody = false;
    for (Acceptor& acceptor : acceptors_) {
      if (!acceptor.live()) continue;
      anybody = true;
      entries.push_back({acceptor.child->pidfd(), POLLIN, 0});
      if (!acceptor.control) continue;
      entries.push_back({acceptor.control.get(), POLLIN, 0});
      heard.resize(entries.size());
      heard.back() = &acceptor;
    }
    if (stopping_ && !anybody) return false;
    if (stopping_ && Now() > hard_deadline_) {
      for (Acceptor& acceptor : acceptors_) {
        if (acceptor.live()) LogWarning("API server {} did not end in time and is killed", acceptor.number);
      }
      return false;
    }
    poll(entries.data(), entries.size(), Timeout());
    heard.resize(entries.size());
    for (size_t i = 1; i < entries.size(); ++i) {
      if (entries[i].revents != 0 && heard[i] != nullptr) Hear(*heard[i]);
    }
    return true;
  }
  int Timeout() const {
    TimePoint next = TimePoint::max();
    for (const auto& [ticket, gather] : gathers_) next = std::min(next, gather.deadline);
    if (stopping_) next = std::min(next, hard_deadline_);
    if (next == TimePoint::max()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Now()).count();
    return static_cast<int>(std::clamp<int64_t>(left, 0, 10'000));
  }

  void Hear(Acceptor& acceptor) {
    auto frame = sys::RecvFrame(acceptor.control.get(), kMaxAcceptorFrame, Now() + kSendTime);
    if (!frame) return acceptor.control.Reset();  // its end comes next; or it is stuck, and ends with us
    WireReader body(std::move(frame->body));
    switch (frame->kind) {
      case kOpened: {
        acceptor.state = Acceptor::State::kOpen;
        const std::lock_guard lock(mutex_);
        address_ = body.GetText();
        ++num_open_;
        changed_.notify_all();
        return;
      }
      case kNotOpened:
      case kNotServing: {
        const auto code = static_cast<Code>(body.Get<int32_t>());
        std::string message = body.GetText();
        Error error{code, std::move(message), body.GetText()};
        if (frame->kind == kNotOpened && num_open_ < acceptors_.size()) return GiveUp(std::move(error));
        LogError("API server {}: {}", acceptor.number, error.message);
        return acceptor.child->Kill(SIGKILL);
      }
      case kServing: {
        acceptor.state = Acceptor::State::kServing;
        const std::lock_guard lock(mutex_);
        ++num_serving_;
        changed_.notify_all();
        return;
      }
      case kPart:
        return TakePart(acceptor, body);
      case kPartsWanted:
        return BeginGather(acceptor, body.Get<uint64_t>());
      default:
        LogWarning("API server {} sent an unknown message {}", acceptor.number, frame->kind);
    }
  }

  // What others have asked of this thread.
  void Obey() {
    eventfd_t ignored = 0;
    eventfd_read(wake_.get(), &ignored);
    std::string starting, failure;
    Deployment* deployment = nullptr;
    std::optional<TimePoint> stop;
    {
      const std::lock_guard lock(mutex_);
      starting = starting_;
      failure = failure_;
      deployment = deployment_;
      stop = stop_deadline_;
    }
    if (starting != said_starting_) {
      said_starting_ = starting;
      Tell(kStarting, WireWriter().PutText(starting).text());
    }
    if (failure != said_failure_) {
      said_failure_ = failure;
      Tell(kFailed, WireWriter().PutText(failure).text());
    }
    if (stop) return StopAll(*stop);
    for (Acceptor& acceptor : acceptors_) {
      if (deployment != nullptr && acceptor.state == Acceptor::State::kOpen) Link(acceptor, *deployment);
    }
  }
  void Tell(uint32_t kind, const std::string& body) {
    for (Acceptor& acceptor : acceptors_) {
      if (acceptor.live()) Send(acceptor, kind, body);
    }
  }

  void StopAll(TimePoint deadline) {
    stopping_ = true;
    hard_deadline_ = deadline + kLastAnswers;
    listener_.Reset();  // the port closes with the last acceptor
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Now()).count();
    for (Acceptor& acceptor : acceptors_) {
      if (!acceptor.live() || std::exchange(acceptor.told_stop, true)) continue;
      Send(acceptor, kStop, WireWriter().Put(int64_t{std::max<int64_t>(left, 0)}).text());
    }
  }

  void Link(Acceptor& acceptor, Deployment& deployment) {
    acceptor.state = Acceptor::State::kLinked;
    auto links = deployment.ConnectFront(Now() + kLinkTime);
    if (!links) {
      LogError("API server {} cannot reach all ranks: {}", acceptor.number, links.error().message);
      return acceptor.child->Kill(SIGKILL);
    }
    const int board = deployment.board()->fd();
    board_ = deployment.board();
    Send(acceptor, kBoard, "", {&board, 1});
    for (size_t begin = 0; begin < links->size(); begin += kMaxLinksPerFrame) {
      const size_t end = std::min(links->size(), begin + kMaxLinksPerFrame);
      WireWriter body;
      body.Put(static_cast<uint32_t>(end - begin));
      std::vector<int> fds;
      for (size_t i = begin; i < end; ++i) {
        body.Put(int32_t{(*links)[i].first});
        fds.push_back((*links)[i].second.get());
      }
      Send(acceptor, kLinks, body.text(), fds);
    }
    Send(acceptor, kServe, "");
  }

  void HandleDeath(Acceptor& acceptor) {
    while (acceptor.control && Readable(acceptor.control.get())) Hear(acceptor);  // its last words
    const auto status = acceptor.child->Wait(Now() + std::chrono::milliseconds(200));
    const bool was_serving = acceptor.state == Acceptor::State::kServing;
    acceptor.state = Acceptor::State::kGone;
    acceptor.control.Reset();
    retired_.num_in_flight = 0;
    retired_.metrics = MergeMetrics({retired_.metrics, acceptor.part.metrics});
    acceptor.part = {};
    peers_->SetGone(acceptor.number);
    if (board_) board_->ClearFront(acceptor.number);
    for (auto& [ticket, gather] : gathers_) gather.waiting.erase(acceptor.number);
    AnswerOverdue();
    if (stopping_ || given_up_) return;
    const std::string how = status ? status->Describe() : "has ended";
    if (num_open_ < acceptors_.size()) {
      return GiveUp(
          {Code::kUnavailable,
           Format("API server {} {} while starting{}", acceptor.number, how, LastLines(*acceptor.child)),
           {}});
    }
    deaths_.push_back(Now());
    while (Now() - deaths_.front() > kDeathWindow) deaths_.pop_front();
    if (static_cast<int>(deaths_.size()) > kMaxDeaths) {
      return GiveUp({Code::kUnavailable,
                     Format("API servers died {} times within {} s; the last one, {}, {}{}", deaths_.size(),
                            std::chrono::seconds(kDeathWindow).count(), acceptor.number, how,
                            LastLines(*acceptor.child)),
                     {}});
    }
    LogError(
        "API server {} {}: its clients have lost their connections, its requests are cancelled; starting it "
        "again",
        acceptor.number, how);
    if (was_serving) {
      const std::lock_guard lock(mutex_);
      --num_serving_;
    }
    acceptor.told_stop = false;
    if (Status again = Start(acceptor); !again) GiveUp(std::move(again).error());
  }

  static std::string LastLines(const sys::Child& child) {
    const auto lines = child.LastLines();
    std::string text = lines.empty() ? "; it had logged nothing" : "; its last log lines:";
    for (size_t i = lines.size() > kLastLines ? lines.size() - kLastLines : 0; i < lines.size(); ++i)
      text += "\n  " + lines[i];
    return text;
  }

  void GiveUp(Error error) {
    if (std::exchange(given_up_, true)) return;
    const std::lock_guard lock(mutex_);
    outcome_ = std::unexpected(std::move(error));
    changed_.notify_all();
    eventfd_write(failed_.get(), 1);
  }

  void BeginGather(Acceptor& asker, uint64_t askers_ticket) {
    const uint64_t ticket = next_ticket_++;
    Gather gather{.asker = asker.number,
                  .askers_ticket = askers_ticket,
                  .waiting = {},
                  .deadline = Now() + kGatherTime};
    for (Acceptor& other : acceptors_) {
      if (&other == &asker || other.state != Acceptor::State::kServing) continue;
      gather.waiting.insert(other.number);
      Send(other, kPartWanted, WireWriter().Put(ticket).text());
    }
    gathers_[ticket] = std::move(gather);
    AnswerOverdue();
  }
  void TakePart(Acceptor& acceptor, WireReader& body) {
    const auto ticket = body.Get<uint64_t>();
    acceptor.part.num_in_flight = body.Get<int64_t>();
    acceptor.part.metrics = body.GetText();
    if (const auto it = gathers_.find(ticket); it != gathers_.end())
      it->second.waiting.erase(acceptor.number);
    AnswerOverdue();
  }
  // Answers who has heard everybody, or has waited too long for one: then that one's last part counts.
  void AnswerOverdue() {
    for (auto it = gathers_.begin(); it != gathers_.end();) {
      const Gather& gather = it->second;
      if (!gather.waiting.empty() && Now() < gather.deadline) {
        ++it;
        continue;
      }
      std::vector<const serve::FrontPart*> parts = {&retired_};
      for (const Acceptor& acceptor : acceptors_) {
        if (acceptor.number != gather.asker) parts.push_back(&acceptor.part);
      }
      WireWriter body;
      body.Put(gather.askers_ticket).Put(static_cast<uint32_t>(parts.size()));
      for (const serve::FrontPart* part : parts)
        body.Put(int64_t{part->num_in_flight}).PutText(part->metrics);
      Acceptor& asker = acceptors_[static_cast<size_t>(gather.asker)];
      if (asker.live()) Send(asker, kPartsOfOthers, body.text());
      it = gathers_.erase(it);
    }
  }

  const config::ServeOptions options_;
  sys::Fd listener_;
  bool listened_ = false;
  std::optional<PeerConnections> peers_;
  std::string program_;
  std::vector<std::string> words_;

  // The supervisor's.
  std::vector<Acceptor> acceptors_;
  std::string said_starting_, said_failure_;
  bool stopping_ = false, given_up_ = false;
  TimePoint hard_deadline_;
  std::shared_ptr<cluster::LoadBoard> board_;
  serve::FrontPart retired_;  // what those that died had counted
  uint64_t next_ticket_ = 0;
  std::map<uint64_t, Gather> gathers_;
  std::deque<TimePoint> deaths_;

  const sys::Fd wake_, failed_;
  mutable std::mutex mutex_;  // guards all down to outcome_
  std::condition_variable changed_;
  std::string address_, starting_, failure_;
  size_t num_open_ = 0, num_serving_ = 0;
  Deployment* deployment_ = nullptr;
  std::optional<TimePoint> stop_deadline_;
  Status outcome_;
  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<Front>> OpenAcceptors(const config::ServeOptions& options, int count) {
  auto acceptors = std::make_unique<Acceptors>(options, count);
  CADRE_TRY(acceptors->Open());
  return acceptors;
}

}  // namespace cadre::deploy
