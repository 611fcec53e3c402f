#include "deploy/process_deployment.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "base/random.h"
#include "cluster/engine_cluster.h"
#include "deploy/rank_process.h"
#include "fabric/broker.h"
#include "link/engine_client.h"
#include "sys/files.h"
#include "sys/process.h"
#include "sys/sockets.h"

namespace cadre::deploy {
namespace {

constexpr int kLastLines = 8;  // of a dead rank's log, shown with its death

// The words that this process was started with, the program's own name left out.
Result<std::vector<std::string>> OwnWords() {
  CADRE_ASSIGN(const std::string all, sys::ReadFile("/proc/self/cmdline", 1 << 20));
  std::vector<std::string> words;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find('\0', begin), all.size());
    words.push_back(all.substr(begin, end - begin));
    begin = end + 1;
  }
  if (!words.empty()) words.erase(words.begin());
  return words;
}

class ProcessDeployment : public Deployment {
 public:
  explicit ProcessDeployment(ModelSetup setup)
      : Deployment(std::move(setup)), failed_(eventfd(0, EFD_CLOEXEC)), stop_(eventfd(0, EFD_CLOEXEC)) {}

  ~ProcessDeployment() override {
    Signal(stop_);
    if (watcher_.joinable()) watcher_.join();
    cluster_.reset();
    clients_.clear();
    // Ranks that were drained are gone; what is left after a moment is killed with its Child.
    const TimePoint deadline = Now() + std::chrono::seconds(2);
    for (const auto& child : children_) child->Wait(deadline);
  }

  Status Start(const config::EngineOptions& options) {
    const int num_ranks = options.parallel.expert_parallel_size();
    CADRE_ASSIGN(const std::string program, sys::ProgramPath());
    CADRE_ASSIGN(const std::vector<std::string> words, OwnWords());
    CADRE_ASSIGN(broker_, fabric::Broker::Create(num_ranks, Format("{:016x}", EntropySeed())));
    std::vector<sys::Fd> links;
    for (int rank = 0; rank < num_ranks; ++rank) {
      CADRE_ASSIGN(auto link, sys::SocketPair());
      std::vector<std::string> args = {"rank", Format("{}", rank)};
      args.insert(args.end(), words.begin(), words.end());
      CADRE_ASSIGN(
          auto child,
          sys::Child::Spawn({.program = program,
                             .args = std::move(args),
                             .fds = {{link.second.get(), kLinkFd}, {broker_->ChildEnd(rank), kBrokerFd}},
                             .line_prefix = Format("[rank {}] ", rank)}));
      broker_->CloseChildEnd(rank);
      children_.push_back(std::move(child));
      links.push_back(std::move(link.first));
    }
    broker_->Start();
    watcher_ = std::thread([this] { Watch(); });
    return Connect(options, std::move(links));
  }

  engine::Engine& engine() override { return *cluster_; }
  int failure_fd() const override { return failed_.get(); }
  Error Failure() const override {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  static void Signal(const sys::Fd& event) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event.get(), &one, sizeof(one));
  }

  Status Connect(const config::EngineOptions& options, std::vector<sys::Fd> links) {
    const TimePoint deadline = Now() + std::chrono::seconds(options.parallel.engine_ready_timeout_s);
    for (int rank = 0; rank < static_cast<int>(links.size()); ++rank) {
      if (PlaceOf(options.parallel, rank).tp_rank != 0) continue;
      auto client = link::EngineClient::Connect(
          std::move(links[static_cast<size_t>(rank)]),
          {.rank = rank / options.parallel.tensor_parallel_size,
           .max_queued_requests = options.scheduler.max_num_queued_reqs.value_or(kMaxQueuedRequests)},
          deadline);
      if (!client) return StartFailure(std::move(client).error());
      const std::lock_guard lock(mutex_);
      clients_.push_back(std::move(*client));
    }
    idle_links_ = std::move(links);  // of ranks without a scheduler: open as long as we live
    std::vector<engine::Engine*> engines;
    for (const auto& client : clients_) engines.push_back(client.get());
    cluster_ = std::make_unique<cluster::EngineCluster>(std::move(engines));
    return {};
  }

  // A rank that closes its link is about to be found dead by the watcher, which knows why.
  std::unexpected<Error> StartFailure(Error error) {
    pollfd entry = {failed_.get(), POLLIN, 0};
    if (poll(&entry, 1, 3000) > 0) return std::unexpected(Failure());
    return std::unexpected(std::move(error));
  }

  // Waits for the first death. One is the end of the deployment: the survivors are told by the control page
  // and leave their waits at once, clients get the error, and the front ends.
  void Watch() {
    std::vector<pollfd> entries = {{stop_.get(), POLLIN, 0}};
    for (const auto& child : children_) entries.push_back({child->pidfd(), POLLIN, 0});
    while (poll(entries.data(), entries.size(), -1) < 0) {
    }
    if (entries[0].revents != 0) return;
    size_t dead = 0;
    while (entries[dead + 1].revents == 0) ++dead;
    const auto status = children_[dead]->Wait(Now() + std::chrono::milliseconds(200));
    if (status && status->ok() && draining()) return;
    std::string message = Format("rank {} {}", dead, status ? status->Describe() : "has ended");
    broker_->control().Abort(static_cast<int>(dead), message);
    const auto lines = children_[dead]->LastLines();
    message += lines.empty() ? "; it had logged nothing" : "; its last log lines:";
    for (size_t i = lines.size() > kLastLines ? lines.size() - kLastLines : 0; i < lines.size(); ++i) {
      message += "\n  " + lines[i];
    }
    Fail({Code::kUnavailable, message, {}});
  }

  void Fail(Error error) {
    const std::lock_guard lock(mutex_);
    failure_ = error;
    for (const auto& client : clients_) client->Fail(error);
    Signal(failed_);
  }

  bool draining() const {
    const std::lock_guard lock(mutex_);
    return std::ranges::any_of(clients_, [](const auto& client) { return client->draining(); });
  }

  std::unique_ptr<fabric::Broker> broker_;
  std::vector<std::unique_ptr<sys::Child>> children_;
  std::vector<sys::Fd> idle_links_;
  sys::Fd failed_, stop_;
  mutable std::mutex mutex_;  // guards clients_ until the start has ended, and failure_
  std::vector<std::unique_ptr<link::EngineClient>> clients_;
  std::unique_ptr<cluster::EngineCluster> cluster_;
  Error failure_;
  std::thread watcher_;
};

}  // namespace

Result<std::unique_ptr<Deployment>> StartProcesses(const config::EngineOptions& options, ModelSetup setup) {
  auto deployment = std::make_unique<ProcessDeployment>(std::move(setup));
  CADRE_TRY(deployment->Start(options));
  return deployment;
}

}  // namespace cadre::deploy
