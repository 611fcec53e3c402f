#pragma once
// Load -> plan: which expert each slot should hold, layer by layer. Every rank makes the plan itself from the
// same sums; equal inputs give equal plans on every machine (stable sorts, lowest index on ties, IEEE doubles
// in a fixed order), and hash() lets ranks prove it to each other.
//
// A policy is one file (policy_<name>.cc) behind the interface Policy; FindPolicy lists them.
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "eplb/expert_map.h"
#include "eplb/load.h"
#include "eplb/slot_layout.h"

namespace cadre::eplb {

/// Which host each rank runs on.
struct Hosts {
  std::vector<int32_t> of_rank;  ///< [ranks], 0-based, each host's ranks in one run, rising

  /// `num_ranks` ranks over `num_hosts` hosts, the first (ranks mod hosts) hosts holding one more.
  static Hosts Even(int32_t num_ranks, int32_t num_hosts);
  int32_t count() const { return of_rank.empty() ? 0 : of_rank.back() + 1; }
  /// Ranks a host, if all hosts have as many; else 0.
  int32_t RanksEach() const;
};

struct PolicyInput {
  const LoadTable* load = nullptr;  ///< summed over the window and over all ranks
  int32_t num_groups = 1;           ///< the model's expert groups (n_group); 1 where it has none
  Hosts hosts;                      ///< [layout.num_ranks]
  SlotLayout layout;                ///< not sharded; at least one slot per expert. May be uneven.
};

class Policy {
 public:
  virtual ~Policy() = default;
  /// The word of --eplb-config.policy.
  virtual std::string_view name() const = 0;
  /// One layer: load [experts] -> slot_to_expert [slots], each expert at least once. Deterministic.
  /// The input was checked by MakePlan.
  virtual std::vector<int32_t> PlaceLayer(const PolicyInput& input, std::span<const int64_t> load) const = 0;
};

/// The policy of that name, living for ever. kInvalidArgument names those there are.
Result<const Policy*> FindPolicy(std::string_view name);
/// The names that FindPolicy knows.
std::vector<std::string_view> PolicyNames();

/// One layer of a plan.
struct LayerPlan {
  std::vector<int32_t> slot_to_expert;  ///< [slots]; the present map's where not `changed`
  bool changed = false;
  double present_max = 0;  ///< load of the fullest rank under the present map
  double planned_max = 0;  ///< the same under this plan
};

struct Plan {
  SlotLayout layout;
  int32_t num_experts = 0;
  std::vector<LayerPlan> layers;

  bool changed() const;
  /// FNV-1a over counts, layout and every layer's slots. Ranks with equal plans have equal hashes.
  uint64_t Hash() const;
};

/// Makes the plan and keeps what is not worth moving for:
///  * an expert that stays on a rank keeps its slot (KeepSlots);
///  * a layer whose fullest rank would not carry less than under the present map keeps that map (less than
///  one
///    part in 10^9 counts as rounding; a layer without load therefore never changes).
/// present: [load layers], the maps in use, all with input.layout. Errors: kInvalidArgument for counts that
/// do not fit together (layers, experts, groups that do not divide the experts, hosts, negative counts, a
/// sharded layout). Cost: for each layer about slots x (ranks + experts copied) operations.
Result<Plan> MakePlan(const Policy& policy, const PolicyInput& input, std::span<const ExpertMap> present);

/// Reorders each rank's slots of `target` so that an expert which a rank holds under `present` and under
/// `target` stays in its slot (its first ones in rising order, where it has several); the others fill the
/// free slots in the order of `target`. Which experts a rank holds does not change. Both [layout.num_slots].
/// Source: vLLM's preserve_intragpu_slots.
std::vector<int32_t> KeepSlots(const SlotLayout& layout, std::span<const int32_t> present,
                               std::span<const int32_t> target);

/// Whether each rank's experts that stay have their slots in `target`: no rank gains an expert in one slot
/// and loses it in another. True of what KeepSlots returns.
bool SlotsAreKept(const SlotLayout& layout, std::span<const int32_t> present,
                  std::span<const int32_t> target);

/// The maps of a plan under `epoch`. Never fails for a plan of MakePlan.
Result<std::vector<ExpertMap>> MapsOf(const Plan& plan, Epoch epoch);

}  // namespace cadre::eplb
