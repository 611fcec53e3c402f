// Flags of `cadre plan`.
#include "config/settings.h"

namespace cadre::config {
namespace {

using P = PlanOptions;
constexpr Setting kPlan[] = {
    Works("hosts", Type::kInt, "1", Into<&P::hosts>, "Hosts, all alike.").Range(1, 1024),
    Works(
        "memory-per-host", Type::kHumanInt, "", Into<&P::memory_per_host>,
        "Memory of each host: 768G (GiB), 768g (GB), or a bare number of GiB. As much as this machine has if "
        "unset.")
        .Range(1, 0x1p60),
    Works("cores-per-host", Type::kInt, "", Into<&P::cores_per_host>,
          "Physical cores of each host; they say how many ranks a host gets.")
        .Range(1, 65536),
    Works("ranks-per-host", Type::kInt, "", Into<&P::ranks_per_host>,
          "Ranks of each host, if the plan shall not choose them.")
        .Range(1, 64),
    Works("target", Type::kString, "throughput", Into<&P::target>,
          "What it is for: throughput (many requests at once), latency (few, each as fast as can be), "
          "prefill or "
          "decode (one side of a pair that hands prompts over).")
        .Choices("throughput,latency,prefill,decode"),
    Works("concurrency", Type::kInt, "", Into<&P::concurrency>,
          "Sequences of --max-model-len that must fit at once, over all hosts; one a rank if unset.")
        .Range(1),
    Works("json", Type::kBool, "false", Into<&P::json>, "Print one JSON object."),
};

}  // namespace

Group PlanGroup() {
  return {"Plan", "What is there, and what for", kPlan};
}

}  // namespace cadre::config
