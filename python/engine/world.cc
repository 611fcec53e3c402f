#include "python/engine/world.h"

#include <poll.h>
#include <unistd.h>

#include <numeric>
#include <optional>

#include "fabric/broker.h"
#include "fabric/wire.h"
#include "group/coordinator.h"
#include "group/heartbeat.h"
#include "group/host_group.h"
#include "python/engine/local_meeting.h"

namespace cadre::python {
namespace {

constexpr auto kLeaveTime = std::chrono::seconds(10);

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "host";
}

Status CheckOptions(const WorldOptions& o) {
  constexpr auto kBad = Code::kInvalidArgument;
  if (o.size < 1 || o.size > fabric::kMaxHosts * fabric::kMaxRanksPerHost)
    return FailParam(kBad, "WORLD_SIZE", "WORLD_SIZE is {}; it must be at least 1", o.size);
  if (o.rank < 0 || o.rank >= o.size)
    return FailParam(kBad, "RANK", "RANK is {}; with WORLD_SIZE {} it goes from 0 to {}", o.rank, o.size,
                     o.size - 1);
  if (o.local_size < 1 || o.local_size > o.size)
    return FailParam(kBad, "LOCAL_WORLD_SIZE",
                     "LOCAL_WORLD_SIZE is {}; with WORLD_SIZE {} it goes from 1 to {}", o.local_size, o.size,
                     o.size);
  if (o.local_size > fabric::kMaxRanksPerHost)
    return FailParam(Code::kUnsupported, "LOCAL_WORLD_SIZE", "{} ranks on one host; at most {} are supported",
                     o.local_size, fabric::kMaxRanksPerHost);
  if (o.local_rank < 0 || o.local_rank >= o.local_size)
    return FailParam(kBad, "LOCAL_RANK", "LOCAL_RANK is {}; with LOCAL_WORLD_SIZE {} it goes from 0 to {}",
                     o.local_rank, o.local_size, o.local_size - 1);
  if (o.rank < o.local_rank || o.rank - o.local_rank + o.local_size > o.size)
    return FailParam(kBad, "RANK",
                     "RANK {} cannot be LOCAL_RANK {} of {} in a world of {}: the ranks of a host "
                     "are neighbours",
                     o.rank, o.local_rank, o.local_size, o.size);
  return {};
}

}  // namespace

struct World::State {
  WorldOptions options;
  // In the order in which they are made; ended the other way round.
  std::unique_ptr<fabric::Broker> broker;  // on local rank 0
  std::unique_ptr<group::Coordinator> coordinator;
  std::unique_ptr<group::HostGroup> hosts;
  std::unique_ptr<fabric::Rendezvous> rendezvous;
  std::optional<group::Heartbeat> heartbeat;
  std::vector<std::weak_ptr<Tenant>> tenants;

  int first_rank() const { return options.rank - options.local_rank; }
  bool over_hosts() const { return options.local_size < options.size; }

  Result<sys::Fd> Lead(TimePoint deadline);
  Status JoinHosts(TimePoint deadline);
  Status Join();
  void End();
};

// What the host's first process does for all of them; its own end of the broker's sockets.
Result<sys::Fd> World::State::Lead(TimePoint deadline) {
  CADRE_ASSIGN(broker, fabric::Broker::Create(options.local_size, Format("py{}", getpid())));
  if (options.local_size > 1) {
    const LocalMeeting meeting(options);
    CADRE_ASSIGN(const sys::Fd listener, meeting.Listen());
    CADRE_TRY(meeting.HandOut(listener, *broker, deadline));
  }
  sys::Fd own = broker->TakeChildEnd(0);
  if (over_hosts()) {
    CADRE_TRY(JoinHosts(deadline));
    hosts->Serve(*broker);
  } else {
    broker->Start();
  }
  return own;
}

Status World::State::JoinHosts(TimePoint deadline) {
  const auto port = static_cast<uint16_t>(options.port < 65535 ? options.port + 1 : options.port - 1);
  group::HostHello hello{.num_ranks_in_all = options.size,
                         .entry = {.name = HostName(),
                                   .first_rank = first_rank(),
                                   .num_ranks = options.local_size,
                                   .addresses = {},
                                   .info = {}},
                         .links = fabric::LinkKinds(),
                         .config = {{"WORLD_SIZE", Format("{}", options.size)}}};
  if (first_rank() == 0) {
    CADRE_ASSIGN(coordinator,
                 group::Coordinator::Start({.address = options.address, .port = port, .own = hello}));
  }
  CADRE_ASSIGN(
      hosts, group::HostGroup::Join(
                 {.address = options.address, .port = port, .own = std::move(hello), .deadline = deadline}));
  return {};
}

Status World::State::Join() {
  const TimePoint deadline = Now() + options.timeout;
  sys::Fd socket;
  if (options.local_rank == 0) {
    CADRE_ASSIGN(socket, Lead(deadline));
  } else {
    CADRE_ASSIGN(socket, LocalMeeting(options).Attend(deadline));
  }
  CADRE_ASSIGN(rendezvous, fabric::JoinHost(std::move(socket), deadline));
  // All are there from here on; who is not is named.
  CADRE_TRY(rendezvous->ExchangeBlobs("world", {}, "", deadline));
  std::vector<int> everybody(static_cast<size_t>(options.size));
  std::iota(everybody.begin(), everybody.end(), 0);
  heartbeat.emplace(group::HeartbeatOptions{
      .control = rendezvous->control(), .rank = options.rank, .watched = std::move(everybody)});
  return {};
}

void World::State::End() {
  for (const auto& weak : tenants) {
    if (const auto tenant = weak.lock()) tenant->Vacate();
  }
  tenants.clear();
  heartbeat.reset();
  rendezvous.reset();
  hosts.reset();
  coordinator.reset();
  broker.reset();
}

Result<std::shared_ptr<World>> World::Join(const WorldOptions& options) {
  CADRE_TRY(CheckOptions(options));
  auto state = std::make_unique<State>();
  state->options = options;
  const Status joined = state->Join();
  if (!joined) {
    state->End();
    return std::unexpected(joined.error());
  }
  return std::shared_ptr<World>(new World(std::move(state)));
}

World::World(std::unique_ptr<State> state) : state_(std::move(state)) {}

World::~World() {
  Abandon("it ended without leaving the group");
}

const WorldOptions& World::options() const {
  return state_->options;
}

Status World::Check() const {
  if (state_->rendezvous == nullptr)
    return Fail(Code::kUnavailable, "rank {} has left the group already", state_->options.rank);
  return state_->rendezvous->control().Check();
}

fabric::Rendezvous* World::rendezvous() {
  return state_->rendezvous.get();
}

void World::Add(const std::shared_ptr<Tenant>& tenant) {
  std::erase_if(state_->tenants, [](const auto& weak) { return weak.expired(); });
  state_->tenants.push_back(tenant);
}

Status World::Leave() {
  CADRE_TRY(Check());
  const TimePoint deadline = Now() + std::min<Duration>(state_->options.timeout, kLeaveTime);
  Status status;
  if (auto met = state_->rendezvous->ExchangeBlobs("leave", {}, "", deadline); !met)
    status = std::unexpected(met.error());
  // The host's first process runs the broker: it goes last, when the others have said goodbye.
  if (status && state_->broker != nullptr) {
    fabric::Control control = state_->rendezvous->control();
    for (int r = state_->first_rank() + 1; r < state_->first_rank() + state_->options.local_size; ++r) {
      while (control.line(r).left.load() == 0 && !control.aborted() && Now() < deadline) poll(nullptr, 0, 1);
    }
  }
  state_->End();
  return status;
}

void World::Abandon(const std::string& reason) {
  if (state_->rendezvous == nullptr) return;
  const std::string text = Format("rank {} is gone: {}", state_->options.rank, reason);
  state_->rendezvous->control().Abort(state_->options.rank, text);
  state_->End();
}

}  // namespace cadre::python
