#pragma once
// Which layout suits a model, hosts and a purpose: the "when to use" tables of the expert parallel guides as
// a pure function. No memory is looked at here; deployment_plan.h tries what this proposes.
//
//   TP only    few ranks, and the dense layers are most of the weights; or a dense model
//   EP         many ranks, and the experts are most of the weights: TP 1, every rank is a replica of
//   attention EP + TP    one sequence's cache or one request's speed wants several ranks (an expert is never
//   cut: the
//              EP size is TP x DP, and each rank holds whole experts)
//   EP + DP    several replicas on several hosts
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace cadre::deploy {

enum class PlanTarget : uint8_t { kThroughput, kLatency, kPrefill, kDecode };

/// Errors: kInvalidArgument for other names than throughput, latency, prefill, decode.
Result<PlanTarget> ParsePlanTarget(const std::string& name);

/// What the choice looks at.
struct ModelTraits {
  int64_t dense_bytes = 0, expert_bytes = 0;  ///< one copy of all of them
  int32_t num_experts = 0;                    ///< a layer; 0: a dense model
  int32_t num_heads = 1, num_kv_heads = 1;
  bool latent = false;  ///< MLA: tensor parallelism does not split the cache
};

struct PlanHosts {
  int num_hosts = 1;
  std::optional<int> cores;  ///< of each
};

/// What the user has fixed; the rest is chosen.
struct LayoutWishes {
  std::optional<int> tp, dp, ranks_per_host;
  std::optional<bool> ep, eplb;
  std::optional<int64_t> redundant;
  std::optional<std::string> prefill_backend, decode_backend;
};

struct Layout {
  int tp = 1, dp = 1, ranks_per_host = 1;
  bool ep = false;
  std::string prefill_backend, decode_backend;  ///< of --all2all-backend
  bool eplb = false;
  int64_t redundant = 0;
  std::vector<std::string> reasons;  ///< a sentence each

  int num_ranks() const { return tp * dp; }
};

/// Errors: kInvalidArgument where the wishes do not divide over the hosts or the heads.
Result<Layout> ChooseLayout(const ModelTraits& model, const PlanHosts& hosts, PlanTarget target,
                            const LayoutWishes& wishes);

/// Whether the attention heads can be split over `tp` ranks.
bool HeadsDivide(const ModelTraits& model, int tp);

/// Copies of experts for `num_ranks` ranks that divide evenly: 32 from 16 ranks on (the guides' large scale),
/// else 2, both rounded up; at least one slot for each rank.
int64_t RedundantFor(int32_t num_experts, int num_ranks);

}  // namespace cadre::deploy
