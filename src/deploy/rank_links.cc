#include "deploy/rank_links.h"

#include "deploy/expert_start.h"
#include "deploy/lockstep_gate.h"
#include "group/join.h"
#include "kernels/isa.h"

namespace cadre::deploy {
namespace {

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

// The DP ranks that answer to the same front as this one.
std::vector<size_t> StopsWith(const ModelSetup& setup, RankPlace place) {
  const config::Launch& launch = setup.launch;
  std::vector<size_t> dp_ranks;
  for (int rank : SchedulerRanks(place)) {
    const bool here = rank >= launch.first_rank && rank < launch.first_rank + launch.num_local_ranks;
    if (here || launch.balancing == config::LoadBalancing::kInternal)
      dp_ranks.push_back(static_cast<size_t>(rank / place.tp_size));
  }
  return dp_ranks;
}

}  // namespace

std::vector<group::ConfigField> SharedConfig(const config::EngineOptions& options, const ModelSetup& setup) {
  const config::ParallelOptions& parallel = options.parallel;
  const config::EplbOptions& eplb = parallel.eplb;
  return {{"version", CADRE_VERSION},
          {"model", LoadIdentity(setup)},
          {"--dtype", DTypeName(setup.type)},
          {"--quantization", WeightsText(setup)},
          {"instruction set", kernels::IsaName(setup.isa)},
          {"--tensor-parallel-size", Format("{}", parallel.tensor_parallel_size)},
          {"--data-parallel-size", Format("{}", parallel.data_parallel_size)},
          {"--enable-expert-parallel", parallel.enable_expert_parallel ? "true" : "false"},
          {"--all2all-backend", parallel.all2all_backend},
          {"--prefill-all2all-backend", parallel.prefill_backend()},
          {"--decode-all2all-backend", parallel.decode_backend()},
          {"--fabric-transport", parallel.fabric_transport},
          {"--fabric-connections", Format("{}", parallel.fabric_connections)},
          {"--all2all-fp8-dispatch", parallel.all2all_fp8_dispatch ? "true" : "false"},
          {"--expert-placement-strategy", parallel.expert_placement_strategy},
          {"--enable-eplb", parallel.enable_eplb ? "true" : "false"},
          {"--eplb-config.window_size", Format("{}", eplb.window_size)},
          {"--eplb-config.step_interval", Format("{}", eplb.step_interval)},
          {"--eplb-config.num_redundant_experts", Format("{}", eplb.num_redundant_experts)},
          {"--eplb-config.log_balancedness", eplb.log_balancedness ? "true" : "false"},
          {"--eplb-config.log_balancedness_interval", Format("{}", eplb.log_balancedness_interval)},
          {"--eplb-config.use_async", eplb.use_async ? "true" : "false"},
          {"--eplb-config.policy", eplb.policy},
          {"--eplb-config.replica_routing", eplb.replica_routing},
          {"expert start map (--eplb-init)", Format("{:016x}", HashMaps(setup.expert_maps))},
          {"--max-num-batched-tokens", Format("{}", options.scheduler.max_num_batched_tokens)},
          {"--max-model-len", Format("{}", setup.max_model_len)},
          {"--block-size", Format("{}", options.cache.block_size)},
          {"--kv-transfer-config", Format("{} {}", options.kv_transfer.connector, options.kv_transfer.role)}};
}

Result<RankLinks> MakeLinks(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place,
                            fabric::Rendezvous& rendezvous, TimePoint deadline) {
  CADRE_TRY(group::CheckSameConfig(rendezvous, {}, SharedConfig(options, setup), deadline));
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
    const Duration step_timeout = std::chrono::seconds(options.parallel.distributed_timeout_s.value_or(60));
    links.gate = std::make_unique<LockstepGate>(std::move(lockstep), StopsWith(setup, place), step_timeout);
  }
  return links;
}

}  // namespace cadre::deploy
