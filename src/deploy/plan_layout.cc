#include "deploy/plan_layout.h"

#include <algorithm>

#include "a2a/a2a.h"
#include "eplb/footprint.h"

namespace cadre::deploy {
namespace {

constexpr auto kBad = Code::kInvalidArgument;
constexpr int kMostRanksPerHost = 64;

bool Few(PlanTarget target) {
  return target == PlanTarget::kLatency || target == PlanTarget::kPrefill;
}

double ExpertShare(const ModelTraits& model) {
  const auto all = static_cast<double>(model.dense_bytes + model.expert_bytes);
  return all > 0 ? static_cast<double>(model.expert_bytes) / all : 0;
}

// Few large ranks where a step should be quick, because the dense half of a step runs on one rank's threads
// (docs/performance.md); ranks that stay within a socket where many requests keep all of them busy.
int RanksOfHost(const PlanHosts& hosts, PlanTarget target, std::vector<std::string>& reasons) {
  const int cores_of_rank = Few(target) ? 64 : 16;
  const int most = std::clamp(a2a::kMaxRanks / hosts.num_hosts, 1, 8);
  if (!hosts.cores) {
    const int ranks = Few(target) ? 1 : std::min(2, most);
    reasons.push_back(Format("{} a host{}; say --cores-per-host for a choice by cores, or --ranks-per-host",
                             ranks == 1 ? "one rank" : "two ranks",
                             ranks == 1 ? ", so that all its cores work at one request" : ", one a socket"));
    return ranks;
  }
  const int ranks = std::clamp(*hosts.cores / cores_of_rank, 1, most);
  if (ranks == 1) {
    reasons.push_back(Format("one rank with all {} cores of a host", *hosts.cores));
    return ranks;
  }
  reasons.push_back(Format("{} ranks of {} cores on each host: {}", ranks, *hosts.cores / ranks,
                           Few(target) ? "few large ones, so that many cores work at one request"
                                       : "about 16 cores each, so that a rank stays within a socket"));
  return ranks;
}

Result<int> RanksPerHost(const PlanHosts& hosts, PlanTarget target, const LayoutWishes& wishes,
                         std::vector<std::string>& reasons) {
  const int tp = wishes.tp.value_or(1);
  if (wishes.dp) {
    const int64_t ranks = int64_t{*wishes.dp} * tp;
    if (ranks % hosts.num_hosts != 0) {
      return FailParam(
          kBad, "--data-parallel-size",
          "TP {} x DP {} = {} ranks do not divide over --hosts {}; the hosts are alike, so say a "
          "multiple, or --ranks-per-host",
          tp, *wishes.dp, ranks, hosts.num_hosts);
    }
    const int64_t share = ranks / hosts.num_hosts;
    if (wishes.ranks_per_host && *wishes.ranks_per_host != share) {
      return FailParam(kBad, "--ranks-per-host",
                       "--ranks-per-host {} x --hosts {} is not TP {} x DP {}; leave one of them out",
                       *wishes.ranks_per_host, hosts.num_hosts, tp, *wishes.dp);
    }
    if (share > kMostRanksPerHost) {
      return FailParam(kBad, "--data-parallel-size", "{} ranks on a host; at most {} are accepted", share,
                       kMostRanksPerHost);
    }
    return static_cast<int>(share);
  }
  if (wishes.ranks_per_host) return *wishes.ranks_per_host;
  const int chosen = RanksOfHost(hosts, target, reasons);
  return std::min((chosen + tp - 1) / tp * tp, std::max(tp, kMostRanksPerHost));
}

// The largest share of a host's ranks that can split the heads.
int WidestTp(const ModelTraits& model, int ranks) {
  for (int tp = ranks; tp > 1; --tp)
    if (ranks % tp == 0 && HeadsDivide(model, tp)) return tp;
  return 1;
}

void ChooseExchange(PlanTarget target, bool one_host, const LayoutWishes& wishes, Layout& layout) {
  constexpr const char* kPrefill = "deepep_high_throughput";
  constexpr const char* kDecode = "deepep_low_latency";
  if (wishes.prefill_backend && wishes.decode_backend) {
    layout.prefill_backend = *wishes.prefill_backend;
    layout.decode_backend = *wishes.decode_backend;
    return;
  }
  std::string why;
  if (target == PlanTarget::kPrefill) {
    layout.prefill_backend = layout.decode_backend = kPrefill;
    why = "prompts come in large batches; each row is sent to a rank once";
  } else if (target != PlanTarget::kThroughput) {
    layout.prefill_backend = layout.decode_backend = kDecode;
    why = "steps have few rows; no sizes are exchanged before them";
  } else if (one_host) {
    layout.prefill_backend = layout.decode_backend = "pplx";
    why = "one host, and prompts in chunks";
  } else {
    layout.prefill_backend = kPrefill;
    layout.decode_backend = kDecode;
    why = "over several hosts prompts and decoding each get their own";
  }
  if (wishes.prefill_backend) layout.prefill_backend = *wishes.prefill_backend;
  if (wishes.decode_backend) layout.decode_backend = *wishes.decode_backend;
  const bool one = layout.prefill_backend == layout.decode_backend;
  layout.reasons.push_back(Format("exchange {}{}: {}", layout.prefill_backend,
                                  one ? "" : Format(" (prompts) and {} (decoding)", layout.decode_backend),
                                  why));
}

void ChooseCopies(const ModelTraits& model, PlanTarget target, const LayoutWishes& wishes, Layout& layout) {
  layout.eplb = wishes.eplb.value_or(target != PlanTarget::kLatency);
  if (!layout.eplb) {
    layout.reasons.push_back(wishes.eplb ? "no balancing of experts, as given"
                                         : "no copies of experts: few requests do not fill one expert more "
                                           "than another");
    return;
  }
  layout.redundant = wishes.redundant.value_or(RedundantFor(model.num_experts, layout.num_ranks()));
  if (wishes.redundant) return;
  layout.reasons.push_back(
      Format("{} copies of experts over all ranks ({} + {} slots divide evenly over {}), "
             "so that busy experts are on more than one",
             layout.redundant, model.num_experts, layout.redundant, layout.num_ranks()));
}

std::string WhyExperts(const ModelTraits& model, const Layout& layout, int num_hosts) {
  return Format(
      "experts are {:.0f} % of the weights and there are {} ranks: whole experts on each{}, EP = TP x "
      "DP = {}{}",
      100 * ExpertShare(model), layout.num_ranks(), layout.tp > 1 ? " (EP + TP)" : "", layout.num_ranks(),
      num_hosts > 1 && layout.tp == 1 ? ", every rank a replica of attention" : "");
}

}  // namespace

Result<PlanTarget> ParsePlanTarget(const std::string& name) {
  if (name == "throughput") return PlanTarget::kThroughput;
  if (name == "latency") return PlanTarget::kLatency;
  if (name == "prefill") return PlanTarget::kPrefill;
  if (name == "decode") return PlanTarget::kDecode;
  return FailParam(kBad, "--target", "--target must be throughput, latency, prefill or decode, not '{}'",
                   name.substr(0, 40));
}

bool HeadsDivide(const ModelTraits& model, int tp) {
  if (tp < 1 || model.num_heads % tp != 0) return false;
  return model.latent || model.num_kv_heads % tp == 0 || tp % model.num_kv_heads == 0;
}

int64_t RedundantFor(int32_t num_experts, int num_ranks) {
  constexpr int32_t kMost = 1023;  // as --eplb-config takes
  const int32_t least = std::max(num_ranks - num_experts, 0);
  const int32_t wanted = std::max(num_ranks >= 16 ? 32 : 2, least);
  const eplb::EvenCounts even = eplb::NearestEven(num_experts, std::min(wanted, kMost), num_ranks);
  return even.above <= kMost ? even.above : std::max(even.below, 0);
}

Result<Layout> ChooseLayout(const ModelTraits& model, const PlanHosts& hosts, PlanTarget target,
                            const LayoutWishes& wishes) {
  Layout layout;
  CADRE_ASSIGN(layout.ranks_per_host, RanksPerHost(hosts, target, wishes, layout.reasons));
  const int all = layout.ranks_per_host * hosts.num_hosts;
  const bool moe = model.num_experts > 0;
  const bool dense_rules = !moe || ExpertShare(model) < 0.5;
  const bool wide = target == PlanTarget::kLatency || (dense_rules && moe && hosts.num_hosts == 1);
  layout.tp = wishes.tp.value_or(wide ? WidestTp(model, layout.ranks_per_host) : 1);
  if (layout.ranks_per_host % layout.tp != 0) {
    return FailParam(
        kBad, "--tensor-parallel-size",
        "the {} ranks of a host are no multiple of TP {}: a replica's tensor parallel ranks stay on "
        "one host here. Say --ranks-per-host",
        layout.ranks_per_host, layout.tp);
  }
  if (!HeadsDivide(model, layout.tp)) {
    return FailParam(kBad, "--tensor-parallel-size", "{} heads with {} KV heads cannot be split over TP {}",
                     model.num_heads, model.num_kv_heads, layout.tp);
  }
  layout.dp = all / layout.tp;
  if (!wishes.tp && layout.tp > 1) {
    layout.reasons.push_back(
        target == PlanTarget::kLatency
            ? Format("TP {}: all ranks of a host work at one request", layout.tp)
            : Format("TP {}: few ranks, and dense layers are most of the weights", layout.tp));
  }
  layout.ep = moe && wishes.ep.value_or(all > 1 && !(dense_rules && hosts.num_hosts == 1));
  if (all == 1) {
    layout.reasons.push_back("one rank holds everything: no exchange, nothing to balance");
    return layout;
  }
  if (!moe) layout.reasons.push_back("a dense model: no experts to spread; replicas share the requests");
  if (layout.ep) layout.reasons.push_back(WhyExperts(model, layout, hosts.num_hosts));
  if (moe && !layout.ep) layout.reasons.push_back("every rank holds a slice of every expert, not whole ones");
  if (moe) ChooseExchange(target, hosts.num_hosts == 1, wishes, layout);
  if (layout.ep) ChooseCopies(model, target, wishes, layout);
  return layout;
}

}  // namespace cadre::deploy
