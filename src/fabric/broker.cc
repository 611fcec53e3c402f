#include "fabric/broker.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <map>
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
  TimePoint start, deadline;
  std::map<int, Parcel> parcels;
  std::map<int, uint32_t> sequence;  // of each rank's request, echoed in the answer
};

}  // namespace

struct Broker::State {
  int num_ranks = 0;
  std::string run_id;
  sys::Segment page;
  Control control;
  std::vector<sys::Fd> ours, theirs;
  std::vector<bool> dead;                // connection gone, on purpose or not
  std::vector<bool> crashed;             // gone without a goodbye
  std::map<int, TimePoint> unexplained;  // died without a goodbye; abort at this time
  std::vector<Meeting> meetings;
  sys::Fd wake;
  std::atomic<bool> stop = false;
  std::thread thread;

  void Run();
  void HandleMessage(int rank);
  void HandleGone(int rank, bool goodbye);
  void HandleMeet(int rank, sys::Frame frame);
  void FinishMeeting(const Meeting& meeting);
  void Refuse(const Meeting& meeting, Code code, const std::string& text);
  void HandleTimes();
  int PollMs() const;
  void Send(int rank, uint32_t kind, std::string_view body, std::span<const int> fds);
};

void Broker::State::Send(int rank, uint32_t kind, std::string_view body, std::span<const int> fds) {
  if (dead[static_cast<size_t>(rank)]) return;
  const Status sent =
      sys::SendFrame(ours[static_cast<size_t>(rank)].get(), kind, body, fds, Now() + kMessageTime);
  if (!sent)
    LogDebug("cannot answer rank {}: {}", rank, sent.error().message);  // its end is seen by the next poll
}

void Broker::State::Refuse(const Meeting& meeting, Code code, const std::string& text) {
  for (const auto& [rank, sequence] : meeting.sequence) {
    WireWriter body;
    body.Put(sequence).Put(code).PutText(text);
    Send(rank, kRefused, body.text(), {});
  }
}

void Broker::State::FinishMeeting(const Meeting& meeting) {
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

void Broker::State::HandleMeet(int rank, sys::Frame frame) {
  WireReader reader(std::move(frame.body));
  const auto sequence = reader.Get<uint32_t>();
  const auto timeout_ms = reader.Get<int64_t>();
  Meeting wanted;
  wanted.name = reader.GetText();
  const auto num_members = reader.Get<uint32_t>();
  bool member = false;
  for (uint32_t i = 0; i < num_members && reader.ok(); ++i) {
    wanted.ranks.push_back(reader.Get<int32_t>());
    member |= wanted.ranks.back() == rank;
    if (wanted.ranks.back() < 0 || wanted.ranks.back() >= num_ranks) member = false, wanted.ranks.pop_back();
  }
  std::string blob = reader.GetText();
  if (!reader.ok() || !member || timeout_ms < 0) {
    LogError("rank {} sent a broken message to its parent", rank);
    return HandleGone(rank, false);
  }
  auto at = std::ranges::find_if(
      meetings, [&](const Meeting& m) { return m.name == wanted.name && m.ranks == wanted.ranks; });
  const TimePoint deadline = Now() + std::chrono::milliseconds(std::min<int64_t>(timeout_ms, 86'400'000));
  if (at == meetings.end()) {
    wanted.start = Now();
    wanted.deadline = deadline;
    meetings.push_back(std::move(wanted));
    at = meetings.end() - 1;
  }
  at->deadline = std::min(at->deadline, deadline);
  at->sequence[rank] = sequence;
  at->parcels[rank] = {std::move(blob), std::move(frame.fds)};
  if (at->parcels.size() == at->ranks.size()) {
    const Meeting complete = std::move(*at);
    meetings.erase(at);
    return FinishMeeting(complete);
  }
  // Those that crashed are the cause; ranks that then left in good order are not worth naming.
  std::vector<int> ended;
  for (const auto* gone : {&crashed, &dead}) {
    for (const int r : at->ranks) {
      if ((*gone)[static_cast<size_t>(r)]) ended.push_back(r);
    }
    if (!ended.empty()) break;
  }
  if (!ended.empty()) {
    Refuse(*at, Code::kUnavailable, Format("{} ended before joining '{}'", NameRanks(ended), at->name));
    meetings.erase(at);
  }
}

void Broker::State::HandleGone(int rank, bool goodbye) {
  dead[static_cast<size_t>(rank)] = true;
  ours[static_cast<size_t>(rank)].Reset();
  if (goodbye) {
    control.line(rank).left.store(1);
  } else {
    crashed[static_cast<size_t>(rank)] = true;
    unexplained[rank] = Now() + kGrace;
  }
  std::erase_if(meetings, [&](const Meeting& m) {
    if (std::ranges::find(m.ranks, rank) == m.ranks.end()) return false;
    Refuse(m, Code::kUnavailable, Format("rank {} ended while ranks were joining '{}'", rank, m.name));
    return true;
  });
}

void Broker::State::HandleMessage(int rank) {
  auto frame = sys::RecvFrame(ours[static_cast<size_t>(rank)].get(), kMaxMessage, Now() + kMessageTime);
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
    Refuse(m, Code::kDeadlineExceeded,
           Format("{} did not join '{}' within {:.3g} s", NameRanks(missing), m.name,
                  Seconds(m.deadline - m.start)));
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

void Broker::State::Run() {
  for (int r = 0; r < num_ranks; ++r) {
    WireWriter body;
    body.Put(kWireVersion).Put(int32_t{r}).Put(int32_t{num_ranks}).PutText(run_id);
    const int fd = page.fd.get();
    Send(r, kWelcome, body.text(), {&fd, 1});
  }
  while (!stop.load()) {
    std::vector<pollfd> polls = {{wake.get(), POLLIN, 0}};
    std::vector<int> ranks = {-1};
    for (int r = 0; r < num_ranks; ++r) {
      if (dead[static_cast<size_t>(r)]) continue;
      polls.push_back({ours[static_cast<size_t>(r)].get(), POLLIN, 0});
      ranks.push_back(r);
    }
    poll(polls.data(), polls.size(), PollMs());
    for (size_t i = 1; i < polls.size(); ++i) {
      if (polls[i].revents != 0 && !dead[static_cast<size_t>(ranks[i])]) HandleMessage(ranks[i]);
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
  state->control = Control(reinterpret_cast<ControlBlock*>(state->page.region.data()), true);
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

void Broker::Start() {
  CADRE_CHECK(!state_->thread.joinable());
  state_->thread = std::thread([state = state_.get()] { state->Run(); });
}

}  // namespace cadre::fabric
