#include "deploy/rank_process.h"

#include <signal.h>
#include <sys/socket.h>

#include <mutex>
#include <numeric>

#include "deploy/engine_links.h"
#include "deploy/progress.h"
#include "deploy/rank_links.h"
#include "fabric/broker.h"
#include "group/heartbeat.h"
#include "link/engine_server.h"
#include "sys/process.h"
#include "sys/sockets.h"

namespace cadre::deploy {

Status RunRank(const config::EngineOptions& options, int rank) {
  sys::DieWithParent(SIGKILL);
  const RankPlace place = PlaceOf(options.parallel, rank);
  const TimePoint deadline = Now() + std::chrono::seconds(options.parallel.engine_ready_timeout_s);
  sys::Fd link(kLinkFd);
  const int link_fd = link.get();
  CADRE_ASSIGN(const auto rendezvous, fabric::JoinHost(sys::Fd(kBrokerFd), deadline));
  CADRE_ASSIGN(const ModelSetup setup, PrepareModel(options));
  CADRE_ASSIGN(RankLinks links, MakeLinks(options, setup, place, *rendezvous, deadline));
  // The others hear at once what this rank died of; then its end, which the parent sees, follows.
  std::mutex mutex;
  Status died;
  links.on_out_of_memory = [&](const Error& error) {
    rendezvous->control().Abort(rank, error.message);
    const std::lock_guard lock(mutex);
    died = std::unexpected(error);
    shutdown(link_fd, SHUT_RD);  // ends ServeEngine below
  };
  // One rank speaks for its host: the others load about as much.
  Progress progress("loading weights", options.model.show_progress && setup.local_rank(place) == 0);
  CADRE_ASSIGN(const auto runtime,
               RankRuntime::Start(options, setup, place, std::move(links), deadline,
                                  [&](int64_t done, int64_t total) { progress.Update(done, total); }));
  std::vector<int> everybody(static_cast<size_t>(place.num_ranks()));
  std::iota(everybody.begin(), everybody.end(), 0);
  const group::Heartbeat heartbeat(
      {.control = rendezvous->control(), .rank = rank, .watched = std::move(everybody)});
  if (runtime->engine() == nullptr) return runtime->Follow();
  // Further fronts are where the first one is.
  const std::string front_host = sys::PeerHost(link.get());
  const auto connect = [&](const std::string& where) {
    return ConnectLink(where, {front_host}, rank, Now() + std::chrono::seconds(10));
  };
  const Status served = link::ServeEngine(*runtime->engine(), std::move(link), connect);
  const std::lock_guard lock(mutex);
  return died ? served : died;
}

}  // namespace cadre::deploy
