#include "deploy/rank_process.h"

#include <signal.h>

#include "base/log.h"
#include "deploy/lockstep_gate.h"
#include "deploy/rank_runtime.h"
#include "fabric/broker.h"
#include "group/heartbeat.h"
#include "group/join.h"
#include "kernels/isa.h"
#include "link/engine_server.h"
#include "sys/process.h"

namespace cadre::deploy {
namespace {

// What must be equal on all ranks: a difference would show as a wrong answer or a hang.
std::vector<group::ConfigField> SharedConfig(const config::EngineOptions& options, const ModelSetup& setup) {
  const config::ParallelOptions& parallel = options.parallel;
  return {{"version", CADRE_VERSION},
          {"model", setup.files.config.Dump()},
          {"--dtype", DTypeName(setup.type)},
          {"instruction set", kernels::IsaName(setup.isa)},
          {"--tensor-parallel-size", Format("{}", parallel.tensor_parallel_size)},
          {"--data-parallel-size", Format("{}", parallel.data_parallel_size)},
          {"--enable-expert-parallel", parallel.enable_expert_parallel ? "true" : "false"},
          {"--all2all-backend", parallel.all2all_backend},
          {"--expert-placement-strategy", parallel.expert_placement_strategy},
          {"--max-num-batched-tokens", Format("{}", options.scheduler.max_num_batched_tokens)},
          {"--max-model-len", Format("{}", setup.max_model_len)},
          {"--block-size", Format("{}", options.cache.block_size)}};
}

// The world ranks of this rank's tensor-parallel replica, and of all replicas' first ranks.
std::vector<int> ReplicaRanks(RankPlace place) {
  std::vector<int> ranks;
  for (int tp = 0; tp < place.tp_size; ++tp) ranks.push_back(place.dp_rank * place.tp_size + tp);
  return ranks;
}
std::vector<int> SchedulerRanks(RankPlace place) {
  std::vector<int> ranks;
  for (int dp = 0; dp < place.dp_size; ++dp) ranks.push_back(dp * place.tp_size);
  return ranks;
}

Result<RankLinks> MakeLinks(const ModelSetup& setup, RankPlace place, fabric::Rendezvous& rendezvous,
                            Duration step_timeout, TimePoint deadline) {
  RankLinks links{.rendezvous = &rendezvous};
  if (place.tp_size > 1) {
    CADRE_ASSIGN(links.tensor_parallel, a2a::Collective::Create({.name = Format("tp{}", place.dp_rank),
                                                                 .rendezvous = &rendezvous,
                                                                 .ranks = ReplicaRanks(place),
                                                                 .join_deadline = deadline,
                                                                 .spin = setup.spin}));
  }
  if (setup.is_moe() && place.dp_size > 1 && place.tp_rank == 0) {
    CADRE_ASSIGN(auto lockstep, group::Lockstep::Create({.rendezvous = &rendezvous,
                                                         .ranks = SchedulerRanks(place),
                                                         .spin = setup.spin,
                                                         .join_deadline = deadline}));
    links.gate = std::make_unique<LockstepGate>(std::move(lockstep), step_timeout);
  }
  return links;
}

}  // namespace

Status RunRank(const config::EngineOptions& options, int rank) {
  sys::DieWithParent(SIGKILL);
  const RankPlace place = PlaceOf(options.parallel, rank);
  const TimePoint deadline = Now() + std::chrono::seconds(options.parallel.engine_ready_timeout_s);
  const Duration step_timeout = std::chrono::seconds(options.parallel.distributed_timeout_s.value_or(60));
  sys::Fd link(kLinkFd);
  CADRE_ASSIGN(const auto rendezvous, fabric::JoinHost(sys::Fd(kBrokerFd), deadline));
  CADRE_ASSIGN(const ModelSetup setup, PrepareModel(options));
  CADRE_TRY(group::CheckSameConfig(*rendezvous, {}, SharedConfig(options, setup), deadline));
  CADRE_ASSIGN(RankLinks links, MakeLinks(setup, place, *rendezvous, step_timeout, deadline));
  CADRE_ASSIGN(const auto runtime, RankRuntime::Start(options, setup, place, std::move(links), deadline, {}));
  const group::Heartbeat heartbeat({.control = rendezvous->control(), .rank = rank, .watched = {}});
  if (runtime->engine() != nullptr) return link::ServeEngine(*runtime->engine(), std::move(link));
  return runtime->Follow();
}

}  // namespace cadre::deploy
