#include "deploy/expert_start.h"

#include <algorithm>
#include <utility>

#include "eplb/footprint.h"
#include "eplb/hash.h"
#include "eplb/load_record.h"
#include "eplb/placement.h"
#include "eplb/policy.h"
#include "group/join.h"
#include "sys/files.h"

namespace cadre::deploy {
namespace {

constexpr size_t kMaxRecordBytes = size_t{256} << 20;

int32_t NumRedundant(const config::ParallelOptions& parallel) {
  const bool copies = parallel.enable_eplb && parallel.expert_parallel_size() > 1;
  return copies ? static_cast<int32_t>(parallel.eplb.num_redundant_experts) : 0;
}

// The maps that a recorded load asks for. Nodes do not know each other's ranks yet, so all ranks count as one
// host.
Result<std::vector<eplb::ExpertMap>> Planned(const config::ParallelOptions& parallel, const ModelSetup& setup,
                                             const std::vector<eplb::ExpertMap>& start) {
  const std::string& path = *parallel.eplb.init_file;
  const auto failed = [&](const Error& error) {
    return FailParam(error.code, "--eplb-init", "--eplb-init {}: {}", path, error.message);
  };
  const auto text = sys::ReadFile(path, kMaxRecordBytes);
  if (!text) return failed(text.error());
  const auto record = eplb::ReadLoadRecord(*text);
  if (!record) return failed(record.error());
  const nn::MoeSpec& moe = setup.spec.moe;
  const Status fits =
      eplb::CheckRecord(*record, LoadIdentity(setup), setup.spec.num_moe_layers(),
                        static_cast<int32_t>(moe.num_experts), static_cast<int32_t>(moe.top_k));
  if (!fits) return failed(fits.error());
  CADRE_ASSIGN(const eplb::Policy* const policy, eplb::FindPolicy(parallel.eplb.policy));
  const eplb::SlotLayout& layout = start.front().layout();
  const eplb::PolicyInput input{.load = &record->load,
                                .num_groups = std::max<int32_t>(1, static_cast<int32_t>(moe.num_groups)),
                                .hosts = eplb::Hosts::Even(layout.num_ranks, 1),
                                .layout = layout};
  CADRE_ASSIGN(const eplb::Plan plan, eplb::MakePlan(*policy, input, start));
  return eplb::MapsOf(plan, start.front().epoch());
}

}  // namespace

std::string LoadIdentity(const ModelSetup& setup) {
  return Format("{} (config.json {:016x})", setup.spec.architecture,
                group::ConfigHash({{"config.json", setup.files.config.Dump()}}));
}

Result<std::vector<eplb::ExpertMap>> StartMaps(const config::ParallelOptions& parallel,
                                               const ModelSetup& setup) {
  const model::ModelSpec& spec = setup.spec;
  std::vector<eplb::ExpertMap> maps;
  if (spec.moe.num_experts == 0) {
    if (!parallel.enable_eplb) return maps;
    return FailParam(Code::kInvalidArgument, "--enable-eplb",
                     "--enable-eplb balances experts, and {} has none; leave the flag out",
                     spec.architecture);
  }
  CADRE_ASSIGN(const auto placement, eplb::ParsePlacement(parallel.expert_placement_strategy));
  const int num_ranks = parallel.expert_parallel_size();
  const bool whole = parallel.enable_expert_parallel || num_ranks == 1;
  CADRE_ASSIGN(auto map,
               whole ? eplb::StartMap(spec.moe.num_experts, NumRedundant(parallel), num_ranks, placement)
                     : eplb::ShardedMap(spec.moe.num_experts, num_ranks));
  maps.assign(static_cast<size_t>(spec.num_moe_layers()), map);
  if (parallel.eplb.init_file && whole && !maps.empty()) return Planned(parallel, setup, maps);
  return maps;
}

uint64_t HashMaps(const std::vector<eplb::ExpertMap>& maps) {
  eplb::Fnv hash;
  for (const eplb::ExpertMap& map : maps) hash.Add(map.slot_to_expert());
  return hash.value();
}

std::vector<std::string> EplbNotes(const config::ParallelOptions& parallel, const ModelSetup& setup) {
  std::vector<std::string> notes;
  const int ranks = parallel.expert_parallel_size();
  if (!parallel.enable_eplb || ranks == 1 || setup.expert_maps.empty()) return notes;
  const eplb::SlotLayout& layout = setup.expert_maps.front().layout();
  const auto experts = static_cast<int32_t>(setup.spec.moe.num_experts);
  const int32_t redundant = NumRedundant(parallel), larger = layout.num_slots % ranks;
  notes.push_back(Format("EPLB: {} experts and {} copies in each of {} layers over {} ranks{}", experts,
                         redundant, setup.expert_maps.size(), ranks,
                         parallel.eplb.init_file ? ", placed by " + *parallel.eplb.init_file : ""));
  if (larger != 0) {
    const eplb::EvenCounts even = eplb::NearestEven(experts, redundant, ranks);
    notes.push_back(
        Format("EPLB: {} slots do not divide over {} ranks: {} with {}, {} with {}; "
               "num_redundant_experts {}{} would be even",
               layout.num_slots, ranks, larger, layout.Count(0), ranks - larger, layout.Count(ranks - 1),
               even.below < 0 ? "" : Format("{} or ", even.below), even.above));
  }
  return notes;
}

}  // namespace cadre::deploy
