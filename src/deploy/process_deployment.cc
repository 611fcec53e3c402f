#include "deploy/process_deployment.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "base/log.h"
#include "base/random.h"
#include "cluster/engine_cluster.h"
#include "deploy/node_group.h"
#include "deploy/own_words.h"
#include "deploy/rank_process.h"
#include "fabric/broker.h"
#include "group/heartbeat.h"
#include "link/engine_client.h"
#include "sys/process.h"
#include "sys/sockets.h"

namespace cadre::deploy {
namespace {

constexpr int kLastLines = 8;  // of a dead rank's log, shown with its death

class ProcessDeployment : public Deployment {
 public:
  explicit ProcessDeployment(ModelSetup setup)
      : Deployment(std::move(setup)),
        ended_(eventfd(0, EFD_CLOEXEC)),
        stop_(eventfd(0, EFD_CLOEXEC)),
        silent_(eventfd(0, EFD_CLOEXEC)) {}

  ~ProcessDeployment() override {
    Signal(stop_);
    if (watcher_.joinable()) watcher_.join();
    heartbeat_.reset();
    cluster_.reset();
    clients_.clear();
    // Ranks that were drained are gone; what is left after a moment is killed with its Child.
    const TimePoint deadline = Now() + std::chrono::seconds(2);
    for (const auto& child : children_) child->Wait(deadline);
    node_.reset();  // uses the broker
  }

  Status Start(const config::EngineOptions& options, const StartOptions& start) {
    const config::Launch& launch = setup().launch;
    const TimePoint deadline = Now() + std::chrono::seconds(options.parallel.engine_ready_timeout_s);
    if (launch.num_local_ranks > 0) {
      CADRE_ASSIGN(broker_, fabric::Broker::Create(launch.num_local_ranks, Format("{:016x}", EntropySeed())));
    }
    if (!launch.one_node()) {
      CADRE_ASSIGN(node_, NodeGroup::Join(options, setup(), start.on_waiting, deadline));
    }
    CADRE_TRY(StartRanks(start, deadline));
    if (broker_) node_ ? node_->hosts().Serve(*broker_) : broker_->Start();
    if (broker_) WatchForSilence();
    watcher_ = std::thread([this] { Watch(); });
    return launch.headless ? Status() : Connect(options, start, deadline);
  }

  engine::Engine& engine() override { return *cluster_; }
  std::shared_ptr<cluster::LoadBoard> board() override { return cluster_->board(); }

  Result<FrontLinks> ConnectFront(TimePoint deadline) override {
    const std::vector<int> away = node_ ? node_->EnginesAway() : std::vector<int>();
    const std::string where = node_ ? node_->InviteEngines() : "";
    FrontLinks links;
    for (const auto& client : clients_) {
      sys::Fd mine;
      if (std::ranges::find(away, WorldRank(*client)) != away.end()) {
        client->AddFront({}, where);
      } else {
        CADRE_ASSIGN(auto pair, sys::SocketPair());
        client->AddFront(std::move(pair.second), "");
        mine = std::move(pair.first);
      }
      links.emplace_back(client->rank(), std::move(mine));
    }
    if (!away.empty()) {
      CADRE_ASSIGN(auto connected, node_->AcceptEngines([this] { return IsAlive(); }, deadline));
      for (auto& [rank, fd] : links) {
        if (!fd) fd = std::move(connected[rank * tp_size_]);
      }
    }
    return links;
  }

  int ended_fd() const override { return ended_.get(); }
  Status Outcome() const override {
    const std::lock_guard lock(mutex_);
    return outcome_;
  }

 private:
  static void Signal(const sys::Fd& event) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event.get(), &one, sizeof(one));
  }

  // A process for each rank of this node, each with its ends of two connections: to its front and to the
  // broker.
  Status StartRanks(const StartOptions& start, TimePoint deadline) {
    const config::Launch& launch = setup().launch;
    std::string program = start.program;
    std::vector<std::string> words = start.words;
    if (program.empty()) {
      CADRE_ASSIGN(program, sys::ProgramPath());
      CADRE_ASSIGN(words, OwnWords());
    }
    const std::vector<int> away = node_ && !launch.first ? node_->EnginesAway() : std::vector<int>();
    for (int local = 0; local < launch.num_local_ranks; ++local) {
      const int rank = launch.first_rank + local;
      std::pair<sys::Fd, sys::Fd> link;
      if (std::ranges::find(away, rank) != away.end()) {
        CADRE_ASSIGN(link.second, node_->ConnectEngine(rank, deadline));
      } else {
        CADRE_ASSIGN(link, sys::SocketPair());
      }
      std::vector<std::string> args = {"rank", Format("{}", rank)};
      args.insert(args.end(), words.begin(), words.end());
      CADRE_ASSIGN(
          auto child,
          sys::Child::Spawn({.program = program,
                             .args = std::move(args),
                             .fds = {{link.second.get(), kLinkFd}, {broker_->ChildEnd(local), kBrokerFd}},
                             .line_prefix = Format("[rank {}] ", rank)}));
      broker_->CloseChildEnd(local);
      children_.push_back(std::move(child));
      links_[rank] = std::move(link.first);
    }
    return {};
  }

  // Ranks watch each other, but a stopped one may be the only one here, or all may be stopped.
  void WatchForSilence() {
    std::vector<int> ranks(static_cast<size_t>(setup().launch.num_local_ranks));
    std::iota(ranks.begin(), ranks.end(), setup().launch.first_rank);
    heartbeat_ = std::make_unique<group::Heartbeat>(group::HeartbeatOptions{
        .control = broker_->control(), .rank = -1, .watched = std::move(ranks), .on_silence = [this] {
          Signal(silent_);
        }});
  }

  Status IsAlive() const {
    pollfd entry = {ended_.get(), POLLIN, 0};
    return poll(&entry, 1, 0) > 0 ? Outcome() : Status();
  }
  int WorldRank(const link::EngineClient& client) const { return client.rank() * tp_size_; }

  Status Connect(const config::EngineOptions& options, const StartOptions& start, TimePoint deadline) {
    tp_size_ = options.parallel.tensor_parallel_size;
    if (node_) {
      auto away = node_->AcceptEngines([this] { return IsAlive(); }, deadline);
      if (!away) return StartFailure(std::move(away).error());
      links_.merge(*away);
    }
    for (auto& [rank, fd] : links_) {
      if (PlaceOf(options.parallel, rank).tp_rank != 0) continue;
      auto client = link::EngineClient::Connect(
          std::move(fd),
          {.rank = rank / tp_size_,
           .max_queued_requests = options.scheduler.max_num_queued_reqs.value_or(kMaxQueuedRequests)},
          deadline);
      if (!client) return StartFailure(std::move(client).error());
      const std::lock_guard lock(mutex_);
      clients_.push_back(std::move(*client));
    }
    std::vector<engine::Engine*> engines;
    for (const auto& client : clients_) engines.push_back(client.get());
    CADRE_ASSIGN(auto board,
                 cluster::LoadBoard::Create({.num_fronts = std::max(start.num_fronts, 1),
                                             .num_ranks = static_cast<int>(engines.size()),
                                             .num_kv_blocks = engines.front()->model_info().num_kv_blocks}));
    CADRE_ASSIGN(cluster_, cluster::EngineCluster::Create(
                               std::move(engines), {.board = std::move(board),
                                                    .front = 0,
                                                    .prefix_caching = options.cache.enable_prefix_caching}));
    return {};
  }

  // A rank that closes its link is about to be found dead by the watcher, which knows why.
  std::unexpected<Error> StartFailure(Error error) {
    pollfd entry = {ended_.get(), POLLIN, 0};
    if (poll(&entry, 1, 3000) > 0 && !Outcome()) return std::unexpected(Outcome().error());
    return std::unexpected(std::move(error));
  }

  // Waits for the end of a rank or of another node. The first death is the end of the deployment: the
  // survivors are told by the control page and leave their waits at once, clients get the error, and the
  // front ends.
  void Watch() {
    std::vector<pollfd> entries = {{stop_.get(), POLLIN, 0},
                                   {node_ ? node_->hosts().ended_fd() : -1, POLLIN, 0},
                                   {silent_.get(), POLLIN, 0}};
    for (const auto& child : children_) entries.push_back({child->pidfd(), POLLIN, 0});
    const size_t first_child = entries.size() - children_.size();
    for (size_t left = children_.size(); left > 0 || children_.empty();) {
      while (poll(entries.data(), entries.size(), -1) < 0) {
      }
      if (entries[0].revents != 0) return;
      if (entries[1].revents != 0) return EndWith(HostsOutcome());
      if (entries[2].revents != 0) return EndWith(broker_->control().Check());
      for (size_t i = 0; i < children_.size(); ++i) {
        pollfd& entry = entries[first_child + i];
        if (entry.revents == 0) continue;
        entry.fd = -1;
        const auto status = children_[i]->Wait(Now() + std::chrono::milliseconds(200));
        const bool asked = draining() || setup().launch.headless;
        if (!status || !status->ok() || !asked) return EndWith(DeathOf(i, status));
        --left;
      }
    }
    EndWith({});
  }

  // Why the other nodes are no more.
  Status HostsOutcome() {
    if (Status status = broker_ ? broker_->control().Check() : node_->hosts().Outcome(); !status)
      return status;
    if (draining() || setup().launch.headless) return {};
    return cadre::Fail(Code::kUnavailable, "another node has left the deployment");
  }

  std::unexpected<Error> DeathOf(size_t local, const std::optional<sys::ExitStatus>& status) {
    const int rank = setup().launch.first_rank + static_cast<int>(local);
    std::string message = Format("rank {} {}", rank, status ? status->Describe() : "has ended");
    broker_->control().Abort(rank, message);
    const auto lines = children_[local]->LastLines();
    message += lines.empty() ? "; it had logged nothing" : "; its last log lines:";
    for (size_t i = lines.size() > kLastLines ? lines.size() - kLastLines : 0; i < lines.size(); ++i) {
      message += "\n  " + lines[i];
    }
    return std::unexpected(Error{Code::kUnavailable, message, {}});
  }

  void EndWith(Status outcome) {
    const std::lock_guard lock(mutex_);
    outcome_ = std::move(outcome);
    if (!outcome_) {
      for (const auto& client : clients_) client->Fail(outcome_.error());
    }
    Signal(ended_);
  }

  bool draining() const {
    const std::lock_guard lock(mutex_);
    return std::ranges::any_of(clients_, [](const auto& client) { return client->draining(); });
  }

  std::unique_ptr<fabric::Broker> broker_;  // null where no ranks are here
  std::unique_ptr<NodeGroup> node_;         // null where all ranks are here
  std::vector<std::unique_ptr<sys::Child>> children_;
  std::map<int, sys::Fd>
      links_;  // by world rank; those of ranks without a scheduler stay open as long as we live
  sys::Fd ended_, stop_, silent_;
  int tp_size_ = 1;
  mutable std::mutex mutex_;  // guards clients_ until the start has ended, and outcome_
  std::vector<std::unique_ptr<link::EngineClient>> clients_;
  std::unique_ptr<cluster::EngineCluster> cluster_;
  Status outcome_;
  std::thread watcher_;
  std::unique_ptr<group::Heartbeat> heartbeat_;
};

}  // namespace

Result<std::unique_ptr<Deployment>> StartProcesses(const config::EngineOptions& options, ModelSetup setup,
                                                   const StartOptions& start) {
  auto deployment = std::make_unique<ProcessDeployment>(std::move(setup));
  CADRE_TRY(deployment->Start(options, start));
  return deployment;
}

}  // namespace cadre::deploy
