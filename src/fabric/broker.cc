#include "fabric/broker.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/format.h"
#include "base/log.h"
#include "fabric/wire.h"
#include "sys/shared_memory.h"
#include "sys/sockets.h"

namespace cadre::fabric {
namespace {

// Ranks write whole messages at once; one that stops in the middle holds the others no longer than this.
constexpr auto kMessageTime = std::chrono::seconds(2);

struct Meeting {
  std::string name;
  std::vector<int> ranks;
  uint32_t ordinal = 0;  // how many meetings of this name and these ranks were before
  TimePoint start = Now(), deadline = TimePoint::max();
  std::map<int, Parcel> parcels;
  std::map<int, uint32_t> sequence;  // of each local rank's request, echoed in the answer

  std::pair<std::string, std::vector<int>> key() const { return {name, ranks}; }
};

// Between brokers.
enum PartKind : uint32_t { kPart = 1, kPartRefused };

}  // namespace

// Vectors are by place on the host; everything else speaks of world ranks.
struct Broker::State {
  int num_ranks = 0;  // of this host
  HostTable table;
  std::shared_ptr<Uplink> uplink;
  std::string run_id;
  sys::Segment page;
  std::shared_ptr<const Wakers> wakers;
  Control control;
  std::vector<sys::Fd> ours, theirs;
  std::vector<bool> dead;                // connection gone, on purpose or not
  std::vector<bool> crashed;             // gone without a goodbye
  std::map<int, TimePoint> unexplained;  // died without a goodbye; abort at this time
  std::vector<Meeting> meetings;
  std::map<std::pair<std::string, std::vector<int>>, uint32_t> num_held;  // meetings that are over
  std::mutex mutex;
  std::vector<std::string> delivered;  // by other brokers; guarded by the mutex
  sys::Fd wake;
  std::atomic<bool> stop = false;
  std::thread thread;

  void Run();
  void HandleMessage(int rank);
  void HandleGone(int rank, bool goodbye);
  void HandleMeet(int rank, sys::Frame frame);
  void HandlePart(const std::string& message);
  std::vector<Meeting>::iterator FindMeeting(Meeting&& wanted);
  void CheckMeeting(std::vector<Meeting>::iterator at);
  void FinishMeeting(const Meeting& meeting);
  void Refuse(const Meeting& meeting, Code code, const std::string& text);
  void TellHosts(const Meeting& meeting, PartKind kind, int number, const std::string& text);
  void Welcome(int rank);
  void HandleTimes();
  int PollMs() const;
  void Send(int rank, uint32_t kind, std::string_view body, std::span<const int> fds);

  int first_rank() const { return table.own_host().first_rank; }
  bool Local(int rank) const { return rank >= first_rank() && rank < first_rank() + num_ranks; }
  size_t At(int rank) const { return static_cast<size_t>(rank - first_rank()); }
};

void Broker::State::Send(int rank, uint32_t kind, std::string_view body, std::span<const int> fds) {
  if (dead[At(rank)]) return;
  const Status sent = sys::SendFrame(ours[At(rank)].get(), kind, body, fds, Now() + kMessageTime);
  if (!sent)
    LogDebug("cannot answer rank {}: {}", rank, sent.error().message);  // its end is seen by the next poll
}

// Ends a meeting that the caller takes off the list.
void Broker::State::Refuse(const Meeting& meeting, Code code, const std::string& text) {
  num_held[meeting.key()] = meeting.ordinal + 1;
  for (const auto& [rank, sequence] : meeting.sequence) {
    WireWriter body;
    body.Put(sequence).Put(code).PutText(text);
    Send(rank, kRefused, body.text(), {});
  }
}

void Broker::State::TellHosts(const Meeting& meeting, PartKind kind, int number, const std::string& text) {
  std::vector<int> hosts;
  for (const int r : meeting.ranks) {
    const int host = table.host_of(r);
    if (host != table.own && std::ranges::find(hosts, host) == hosts.end()) hosts.push_back(host);
  }
  if (hosts.empty() || uplink == nullptr) return;
  WireWriter body;
  body.Put(kind).Put(meeting.ordinal).PutText(meeting.name);
  body.Put(static_cast<uint32_t>(meeting.ranks.size()));
  for (const int r : meeting.ranks) body.Put(int32_t{r});
  uplink->Send(hosts, body.Put(int32_t{number}).PutText(text).text());
}

void Broker::State::FinishMeeting(const Meeting& meeting) {
  num_held[meeting.key()] = meeting.ordinal + 1;
  std::vector<int> fds;
  WireWriter parcels;
  for (const int r : meeting.ranks) {
    const Parcel& parcel = meeting.parcels.at(r);
    parcels.PutText(parcel.blob).Put(static_cast<uint32_t>(parcel.fds.size()));
    for (const sys::Fd& fd : parcel.fds) fds.push_back(fd.get());
  }
  if (fds.size() > sys::kMaxFrameFds) {
    return Refuse(meeting, Code::kResourceExhausted, Format("'{}' shares too many segments", meeting.name));
  }
  for (const auto& [rank, sequence] : meeting.sequence) {
    WireWriter body;
    body.Put(sequence);
    Send(rank, kParcels, body.text() + parcels.text(), fds);
  }
}

std::vector<Meeting>::iterator Broker::State::FindMeeting(Meeting&& wanted) {
  const auto at = std::ranges::find_if(meetings, [&](const Meeting& m) {
    return m.name == wanted.name && m.ranks == wanted.ranks && m.ordinal == wanted.ordinal;
  });
  if (at != meetings.end()) return at;
  meetings.push_back(std::move(wanted));
  return meetings.end() - 1;
}

// Ends a meeting that is complete or cannot be.
void Broker::State::CheckMeeting(std::vector<Meeting>::iterator at) {
  if (at->parcels.size() == at->ranks.size()) {
    const Meeting complete = std::move(*at);
    meetings.erase(at);
    return FinishMeeting(complete);
  }
  // Those that crashed are the cause; ranks that then left in good order are not worth naming.
  std::vector<int> ended;
  for (const auto* gone : {&crashed, &dead}) {
    for (const int r : at->ranks) {
      if (Local(r) && (*gone)[At(r)]) ended.push_back(r);
    }
    if (!ended.empty()) break;
  }
  if (ended.empty()) return;
  const std::string text = Format("{} ended before joining '{}'", NameRanks(ended), at->name);
  TellHosts(*at, kPartRefused, static_cast<int>(Code::kUnavailable), text);
  Refuse(*at, Code::kUnavailable, text);
  meetings.erase(at);
}

void Broker::State::HandleMeet(int rank, sys::Frame frame) {
  WireReader reader(std::move(frame.body));
  const auto sequence = reader.Get<uint32_t>();
  const auto timeout_ms = reader.Get<int64_t>();
  Meeting wanted;
  wanted.name = reader.GetText();
  const auto num_members = reader.Get<uint32_t>();
  bool member = false, known = true;
  for (uint32_t i = 0; i < num_members && reader.ok(); ++i) {
    wanted.ranks.push_back(reader.Get<int32_t>());
    member |= wanted.ranks.back() == rank;
    known &= table.host_of(wanted.ranks.back()) >= 0;
  }
  std::string blob = reader.GetText();
  if (!reader.ok() || !member || !known || timeout_ms < 0) {
    LogError("rank {} sent a broken message to its parent", rank);
    return HandleGone(rank, false);
  }
  const TimePoint deadline = Now() + std::chrono::milliseconds(std::min<int64_t>(timeout_ms, 86'400'000));
  wanted.ordinal = num_held[wanted.key()];
  const auto at = FindMeeting(std::move(wanted));
  if (at->sequence.empty()) at->start = Now();
  at->deadline = std::min(at->deadline, deadline);
  at->sequence[rank] = sequence;
  TellHosts(*at, kPart, rank, blob);
  at->parcels[rank] = {std::move(blob), std::move(frame.fds)};
  CheckMeeting(at);
}

void Broker::State::HandlePart(const std::string& message) {
  WireReader reader(message);
  const auto kind = reader.Get<PartKind>();
  Meeting wanted;
  wanted.ordinal = reader.Get<uint32_t>();
  wanted.name = reader.GetText();
  const auto num_members = reader.Get<uint32_t>();
  for (uint32_t i = 0; i < num_members && reader.ok(); ++i) wanted.ranks.push_back(reader.Get<int32_t>());
  const auto number = reader.Get<int32_t>();
  std::string text = reader.GetText();
  if (!reader.ok()) return LogError("another host's parent sent a broken message");
  if (wanted.ordinal < num_held[wanted.key()]) return;  // over; both sides ended it at the same time
  const auto at = FindMeeting(std::move(wanted));
  if (kind == kPartRefused) {
    Refuse(*at, static_cast<Code>(number), text);
    meetings.erase(at);
    return;
  }
  const bool member = std::ranges::find(at->ranks, number) != at->ranks.end() && !Local(number);
  if (kind != kPart || !member) return LogError("another host's parent sent a broken message");
  at->parcels[number].blob = std::move(text);
  CheckMeeting(at);
}

void Broker::State::HandleGone(int rank, bool goodbye) {
  dead[At(rank)] = true;
  ours[At(rank)].Reset();
  if (goodbye) {
    control.line(rank).left.store(1);
  } else {
    crashed[At(rank)] = true;
    unexplained[rank] = Now() + kGrace;
  }
  std::erase_if(meetings, [&](const Meeting& m) {
    if (std::ranges::find(m.ranks, rank) == m.ranks.end()) return false;
    const std::string text = Format("rank {} ended while ranks were joining '{}'", rank, m.name);
    TellHosts(m, kPartRefused, static_cast<int>(Code::kUnavailable), text);
    Refuse(m, Code::kUnavailable, text);
    return true;
  });
}

void Broker::State::HandleMessage(int rank) {
  auto frame = sys::RecvFrame(ours[At(rank)].get(), kMaxMessage, Now() + kMessageTime);
  if (!frame) return HandleGone(rank, false);
  if (frame->kind == kGoodbye) return HandleGone(rank, true);
  if (frame->kind == kMeet) return HandleMeet(rank, std::move(*frame));
  HandleGone(rank, false);
}

void Broker::State::HandleTimes() {
  const TimePoint now = Now();
  std::erase_if(meetings, [&](const Meeting& m) {
    if (now < m.deadline) return false;
    std::vector<int> missing;
    for (const int r : m.ranks) {
      if (!m.parcels.contains(r)) missing.push_back(r);
    }
    const std::string text = Format("{} did not join '{}' within {:.3g} s", NameRanks(missing), m.name,
                                    Seconds(m.deadline - m.start));
    TellHosts(m, kPartRefused, static_cast<int>(Code::kDeadlineExceeded), text);
    Refuse(m, Code::kDeadlineExceeded, text);
    return true;
  });
  std::erase_if(unexplained, [&](const auto& entry) {
    if (now < entry.second) return false;
    control.Abort(entry.first, Format("rank {} ended unexpectedly", entry.first));
    return true;
  });
}

int Broker::State::PollMs() const {
  TimePoint next = TimePoint::max();
  for (const Meeting& m : meetings) next = std::min(next, m.deadline);
  for (const auto& [rank, when] : unexplained) next = std::min(next, when);
  if (next == TimePoint::max()) return -1;
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(next - Now()).count();
  return static_cast<int>(std::clamp<int64_t>(ms, 0, 60'000));
}

void Broker::State::Welcome(int rank) {
  WireWriter body;
  body.Put(kWireVersion).Put(int32_t{rank}).PutText(run_id).Put(int32_t{table.own});
  table.Write(body);
  std::vector<int> fds = {page.fd.get()};
  for (int i = 0; i < num_ranks; ++i) fds.push_back(wakers->fd(i));
  Send(rank, kWelcome, body.text(), fds);
}

void Broker::State::Run() {
  for (int i = 0; i < num_ranks; ++i) Welcome(first_rank() + i);
  while (!stop.load()) {
    std::vector<pollfd> polls = {{wake.get(), POLLIN, 0}};
    std::vector<int> ranks = {-1};
    for (int i = 0; i < num_ranks; ++i) {
      if (dead[static_cast<size_t>(i)]) continue;
      polls.push_back({ours[static_cast<size_t>(i)].get(), POLLIN, 0});
      ranks.push_back(first_rank() + i);
    }
    poll(polls.data(), polls.size(), PollMs());
    eventfd_t rung;
    eventfd_read(wake.get(), &rung);
    std::vector<std::string> parts;
    {
      const std::lock_guard lock(mutex);
      parts.swap(delivered);
    }
    for (const std::string& part : parts) HandlePart(part);
    for (size_t i = 1; i < polls.size(); ++i) {
      if (polls[i].revents != 0 && !dead[At(ranks[i])]) HandleMessage(ranks[i]);
    }
    HandleTimes();
  }
}

Broker::Broker(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Broker>> Broker::Create(int num_ranks, const std::string& run_id) {
  if (num_ranks < 1 || num_ranks > kMaxRanksPerHost) {
    return Fail(Code::kUnsupported, "a host runs 1 to {} ranks; {} were asked for", kMaxRanksPerHost,
                num_ranks);
  }
  auto state = std::make_unique<State>();
  state->num_ranks = num_ranks;
  state->run_id = run_id;
  CADRE_ASSIGN(state->page, sys::CreateSegment("cadre-" + run_id + "-control", sizeof(ControlBlock), false));
  auto* block = reinterpret_cast<ControlBlock*>(state->page.region.data());
  block->num_ranks = num_ranks;
  CADRE_ASSIGN(state->wakers, Wakers::Create(num_ranks));
  state->control = Control(block, true, state->wakers);
  for (int r = 0; r < num_ranks; ++r) {
    CADRE_ASSIGN(auto pair, sys::SocketPair());
    state->ours.push_back(std::move(pair.first));
    state->theirs.push_back(std::move(pair.second));
  }
  state->dead.assign(static_cast<size_t>(num_ranks), false);
  state->crashed = state->dead;
  state->wake = sys::Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state->wake) return Fail(Code::kResourceExhausted, "cannot make an event descriptor");
  return std::unique_ptr<Broker>(new Broker(std::move(state)));
}

Broker::~Broker() {
  if (!state_->thread.joinable()) return;
  state_->stop = true;
  eventfd_write(state_->wake.get(), 1);
  state_->thread.join();
}

int Broker::ChildEnd(int rank) const {
  return state_->theirs[static_cast<size_t>(rank)].get();
}
void Broker::CloseChildEnd(int rank) {
  state_->theirs[static_cast<size_t>(rank)].Reset();
}
sys::Fd Broker::TakeChildEnd(int rank) {
  return std::move(state_->theirs[static_cast<size_t>(rank)]);
}
Control Broker::control() {
  return state_->control;
}

int Broker::num_ranks() const {
  return state_->num_ranks;
}

void Broker::Start() {
  Start(HostTable::OneHost(state_->num_ranks), nullptr);
}

void Broker::Start(HostTable table, std::shared_ptr<Uplink> uplink) {
  CADRE_CHECK(!state_->thread.joinable() && table.own_host().num_ranks == state_->num_ranks);
  state_->table = std::move(table);
  state_->uplink = std::move(uplink);
  reinterpret_cast<ControlBlock*>(state_->page.region.data())->first_rank = state_->first_rank();
  state_->thread = std::thread([state = state_.get()] { state->Run(); });
}

void Broker::Deliver(std::string message) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->delivered.push_back(std::move(message));
  }
  eventfd_write(state_->wake.get(), 1);
}

}  // namespace cadre::fabric
