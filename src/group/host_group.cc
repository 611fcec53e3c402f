#include "group/host_group.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <thread>

#include "base/check.h"
#include "base/format.h"
#include "base/log.h"
#include "fabric/wire.h"
#include "group/frame_stream.h"
#include "group/silence.h"
#include "sys/sockets.h"

namespace cadre::group {
namespace {

using fabric::WireReader;
using fabric::WireWriter;

constexpr auto kConnectTime = std::chrono::seconds(3);  // for one try
constexpr auto kFirstPause = std::chrono::milliseconds(50);
constexpr auto kLongestPause = std::chrono::seconds(1);

// Messages of this host's broker on their way to the connection's thread; the broker may outlive that.
class RelayQueue final : public fabric::Uplink {
 public:
  void Send(const std::vector<int>& hosts, const std::string& message) override {
    WireWriter body;
    body.Put(static_cast<uint32_t>(hosts.size()));
    for (const int host : hosts) body.Put(int32_t{host});
    body.PutText(message);
    {
      const std::lock_guard lock(mutex_);
      relays_.push_back(body.text());
    }
    Wake();
  }
  std::vector<std::string> Take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(relays_, {});
  }
  void Wake() { eventfd_write(wake.get(), 1); }

  const sys::Fd wake{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};

 private:
  std::mutex mutex_;
  std::vector<std::string> relays_;
};

}  // namespace

struct HostGroup::State {
  HostGroupOptions options;
  std::unique_ptr<FrameStream> stream;
  fabric::HostTable table;
  fabric::HostEntry first;
  std::shared_ptr<RelayQueue> relays = std::make_shared<RelayQueue>();
  sys::Fd ended;
  std::atomic<bool> stop = false;
  std::mutex mutex;                  // guards all with "early" and:
  fabric::Broker* broker = nullptr;  // from Serve on
  std::vector<std::string> early;    // messages that came before
  bool told_abort = false, over = false;
  std::optional<std::string> early_abort;
  int early_abort_rank = -1;
  Silence silence;
  std::thread thread;
  std::string waiting;  // what Join waits for
  TimePoint next_report = Now();

  void Report(const std::string& waiting_for);
  Status Connect();
  Result<bool> Wait();
  Result<bool> HandleJoinFrame(const HostFrame& frame);
  Status JoinAll();

  void Run();
  void Handle(const HostFrame& frame);
  void AbortHere(int rank, const std::string& reason);
  void Beat();
  void SendRelays();
  std::string First() const { return Format("the first host at {}:{}", options.address, options.port); }
};

// Logs at changes, and again and again.
void HostGroup::State::Report(const std::string& waiting_for) {
  if (waiting_for == waiting && Now() < next_report) return;
  waiting = waiting_for;
  next_report = Now() + options.report_interval;
  LogInfo("{}", waiting);
  if (options.on_waiting) options.on_waiting(waiting);
}

Status HostGroup::State::Connect() {
  const TimePoint start = Now();
  Duration pause = kFirstPause;
  while (true) {
    auto fd =
        sys::ConnectTcp(options.address, options.port, std::min(options.deadline, Now() + kConnectTime));
    if (fd) {
      HostHello hello = options.own;
      if (hello.entry.addresses.empty()) hello.entry.addresses = {sys::LocalHost(fd->get())};
      stream = std::make_unique<FrameStream>(std::move(*fd), kMaxFrameBytes);
      stream->Send(kHello, hello.Encode());
      return {};
    }
    if (fd.error().code == Code::kNotFound) return std::unexpected(fd.error());
    if (Now() + pause >= options.deadline) {
      return Fail(Code::kDeadlineExceeded,
                  "{} did not answer within {} s ({}); is it started, and do all hosts have the same address "
                  "and port for it?",
                  First(), fabric::SecondsText(Now() - start), fd.error().message);
    }
    Report(Format("waiting for {}: {}", First(), fd.error().message));
    std::this_thread::sleep_for(pause);
    pause = std::min<Duration>(pause * 2, kLongestPause);
  }
}

// True when all have joined.
Result<bool> HostGroup::State::HandleJoinFrame(const HostFrame& frame) {
  WireReader reader(frame.body);
  if (frame.kind == kRefused) {
    std::string param = reader.GetText();
    return FailParam(Code::kInvalidArgument, std::move(param), "{} refused this host: {}", First(),
                     reader.GetText());
  }
  if (frame.kind == kWaiting) Report(reader.GetText());
  if (frame.kind == kAbort) {
    reader.Get<int32_t>();
    return Fail(Code::kUnavailable, "{}", reader.GetText());
  }
  if (frame.kind != kTable) return false;
  const auto own = reader.Get<int32_t>();
  table = fabric::HostTable::Read(reader, own);
  first.info = reader.GetText();
  for (auto left = reader.Get<uint32_t>(); left > 0 && reader.ok(); --left)
    first.addresses.push_back(reader.GetText());
  if (table.hosts.empty() || !reader.ok())
    return Fail(Code::kDataLoss, "{} sent a broken table of hosts", First());
  return true;
}

// Until all have joined (true) or the connection ends (false): then another try.
Result<bool> HostGroup::State::Wait() {
  TimePoint next_beat = Now();
  silence.Reset();
  while (true) {
    pollfd entry = {stream->fd(), static_cast<short>(POLLIN | (stream->unsent() ? POLLOUT : 0)), 0};
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(std::min(next_beat, options.deadline) - Now()).count();
    poll(&entry, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 10'000)));
    std::vector<HostFrame> frames;
    stream->Read(frames);
    stream->Flush();
    if (!frames.empty()) silence.Reset();
    for (size_t i = 0; i < frames.size(); ++i) {
      CADRE_ASSIGN(const bool all, HandleJoinFrame(frames[i]));
      if (!all) continue;
      for (++i; i < frames.size(); ++i) Handle(frames[i]);  // a fast host has begun already
      return true;
    }
    if (Now() >= next_beat) {
      next_beat = Now() + options.beat_interval;
      stream->Send(kBeat, "");
      if (silence.TooLong(options.timeout, options.beat_interval)) return false;
    }
    if (stream->broken()) {
      if (stream->reason() == "it does not speak this protocol") {
        return Fail(Code::kUnavailable,
                    "what answers at {}:{} is not the first host of a deployment; is the port another "
                    "program's?",
                    options.address, options.port);
      }
      return false;
    }
    if (Now() >= options.deadline) {
      return Fail(Code::kDeadlineExceeded, "not all hosts joined in time: {}",
                  waiting.empty() ? "no word from " + First() : waiting);
    }
  }
}

Status HostGroup::State::JoinAll() {
  Duration pause = kFirstPause;
  while (true) {
    CADRE_TRY(Connect());
    CADRE_ASSIGN(const bool all, Wait());
    if (all) return {};
    Report(Format("lost {}: {}; trying again", First(),
                  stream->broken() ? stream->reason() : std::string("it is silent")));
    std::this_thread::sleep_for(pause);
    pause = std::min<Duration>(pause * 2, kLongestPause);
  }
}

void HostGroup::State::AbortHere(int rank, const std::string& reason) {
  over = true;
  const std::lock_guard lock(mutex);
  if (broker != nullptr) {
    broker->control().Abort(rank, reason);
  } else if (!early_abort) {
    early_abort = reason;
    early_abort_rank = rank;
  }
  eventfd_write(ended.get(), 1);
}

void HostGroup::State::Handle(const HostFrame& frame) {
  WireReader reader(frame.body);
  if (frame.kind == kRelay) {
    const std::lock_guard lock(mutex);
    broker != nullptr ? broker->Deliver(frame.body) : early.push_back(frame.body);
  } else if (frame.kind == kAbort) {
    told_abort = true;
    const auto rank = reader.Get<int32_t>();
    AbortHere(rank, reader.GetText());
  } else if (frame.kind == kLeave) {
    if (!frame.body.empty()) LogInfo("{} has left the deployment", frame.body);
    over = true;
    eventfd_write(ended.get(), 1);
  }
}

void HostGroup::State::SendRelays() {
  for (const std::string& relay : relays->Take()) stream->Send(kRelay, relay);
}

void HostGroup::State::Beat() {
  stream->Send(kBeat, "");
  if (!over && silence.TooLong(options.timeout, options.beat_interval)) {
    AbortHere(0, Format("{} gave no sign of life for {} s; is it stopped, its link down, or the machine "
                        "overloaded?",
                        First(), fabric::SecondsText(options.timeout)));
  }
  if (told_abort) return;
  const std::lock_guard lock(mutex);
  if (broker == nullptr || !broker->control().aborted()) return;
  told_abort = true;
  over = true;
  eventfd_write(ended.get(), 1);
  const fabric::Control control = broker->control();
  WireWriter body;
  body.Put(int32_t{control.abort_rank()}).PutText(control.Check().error().message);
  stream->Send(kAbort, body.text());
}

void HostGroup::State::Run() {
  TimePoint next_beat = Now();
  silence.Reset();
  while (!stop.load()) {
    std::vector<pollfd> polls = {{relays->wake.get(), POLLIN, 0}};
    if (!stream->broken()) {
      polls.push_back({stream->fd(), static_cast<short>(POLLIN | (stream->unsent() ? POLLOUT : 0)), 0});
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_beat - Now()).count();
    poll(polls.data(), polls.size(), static_cast<int>(std::clamp<int64_t>(left, 0, 10'000)));
    eventfd_t rung;
    eventfd_read(relays->wake.get(), &rung);
    SendRelays();
    std::vector<HostFrame> frames;
    if (!stream->broken()) stream->Read(frames);
    stream->Flush();
    if (!frames.empty()) silence.Reset();
    for (const HostFrame& frame : frames) Handle(frame);
    if (stream->broken() && !over) {
      AbortHere(0, Format("the connection to {} ended: {}", First(), stream->reason()));
    }
    if (Now() >= next_beat) {
      next_beat = Now() + options.beat_interval;
      Beat();
    }
  }
  Beat();  // tells an abort
  SendRelays();
  stream->Send(kLeave, "");
  const TimePoint deadline = Now() + std::chrono::seconds(1);
  while (stream->unsent() && Now() < deadline) {
    sys::WaitReady(stream->fd(), sys::Ready::kWrite, deadline);
    stream->Flush();
  }
}

HostGroup::HostGroup(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<HostGroup>> HostGroup::Join(HostGroupOptions options) {
  auto state = std::make_unique<State>();
  state->options = std::move(options);
  state->ended = sys::Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state->relays->wake || !state->ended) {
    return Fail(Code::kResourceExhausted, "cannot make an event descriptor");
  }
  CADRE_TRY(state->JoinAll());
  state->thread = std::thread([s = state.get()] { s->Run(); });
  return std::unique_ptr<HostGroup>(new HostGroup(std::move(state)));
}

HostGroup::~HostGroup() {
  state_->stop = true;
  state_->relays->Wake();
  state_->thread.join();
}

const fabric::HostTable& HostGroup::table() const {
  return state_->table;
}
const fabric::HostEntry& HostGroup::first() const {
  return state_->first;
}
Status HostGroup::Outcome() const {
  const std::lock_guard lock(state_->mutex);
  if (!state_->early_abort) return {};
  return Fail(Code::kUnavailable, "{}", *state_->early_abort);
}
int HostGroup::ended_fd() const {
  return state_->ended.get();
}

void HostGroup::Serve(fabric::Broker& broker) {
  broker.Start(state_->table, state_->relays);
  const std::lock_guard lock(state_->mutex);
  CADRE_CHECK(state_->broker == nullptr);
  state_->broker = &broker;
  for (std::string& message : state_->early) broker.Deliver(std::move(message));
  state_->early.clear();
  if (state_->early_abort) broker.control().Abort(state_->early_abort_rank, *state_->early_abort);
}

std::string DescribeRing(const fabric::HostTable& table) {
  std::string ring;
  for (const fabric::HostEntry& host : table.hosts) ring += fabric::NameHost(host) + " -> ";
  return Format("Connected all rings: {}{}; {} ranks, over {}", ring, fabric::NameHost(table.hosts[0]),
                table.num_ranks(),
                table.num_hosts() > 1 ? "shared memory in a host and " + table.link + " between hosts"
                                      : std::string("shared memory"));
}

}  // namespace cadre::group
