#include "a2a/algorithms.h"

#include <algorithm>
#include <array>

#include "a2a/host_mail.h"

namespace cadre::a2a {
namespace {

struct Name {
  std::string_view name;
  Algorithm algorithm;
};

// The first name of each algorithm is its own. The others are later names in vLLM for the same thing, or for
// a later version of it: two-sided is what flashinfer_all2allv was renamed to, one-sided has the same slots
// and the same pulled combine; deepep_v2 sends a row once per rank and reduces where the experts are; nixl_ep
// is DeepEP's low-latency kernel on another transport.
constexpr std::array<Name, 13> kNames = {{
    {"allgather_reducescatter", Algorithm::kAllGatherReduceScatter},
    {"naive", Algorithm::kNaive},
    {"pplx", Algorithm::kPplx},
    {"deepep_high_throughput", Algorithm::kDeepEpHighThroughput},
    {"deepep_low_latency", Algorithm::kDeepEpLowLatency},
    {"flashinfer_all2allv", Algorithm::kFlashInfer},
    {"mori", Algorithm::kMori},
    {"deepep_v2", Algorithm::kDeepEpHighThroughput},
    {"nixl_ep", Algorithm::kDeepEpLowLatency},
    {"flashinfer_nvlink_two_sided", Algorithm::kFlashInfer},
    {"flashinfer_nvlink_one_sided", Algorithm::kFlashInfer},
    {"mori_high_throughput", Algorithm::kMori},
    {"mori_low_latency", Algorithm::kMori},
}};

constexpr int64_t kResultBytes = int64_t{256} << 20;
constexpr int64_t kLandingBytes = int64_t{512} << 20;
constexpr int64_t kRowsByK = 256;

}  // namespace

Result<Algorithm> AlgorithmOf(std::string_view name) {
  for (const Name& known : kNames) {
    if (known.name == name) return known.algorithm;
  }
  if (name == "moonep") {
    return FailParam(Code::kUnsupported, "--all2all-backend",
                     "all2all backend 'moonep' fetches weights of busy experts within a step, which is not "
                     "built; use deepep_high_throughput");
  }
  std::string all;
  for (const Name& known : kNames) all += (all.empty() ? "" : ", ") + std::string(known.name);
  return FailParam(Code::kInvalidArgument, "--all2all-backend",
                   "all2all backend '{}' is unknown; the names are {}", name, all);
}

std::string_view NameOf(Algorithm algorithm) {
  return kNames[static_cast<size_t>(algorithm)].name;
}

Tree TreeOf(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kPplx:
    case Algorithm::kDeepEpLowLatency:
      return Tree::kByK;
    case Algorithm::kDeepEpHighThroughput:
      return Tree::kByHost;
    default:
      return Tree::kByRank;
  }
}

int64_t ChunkRows(const Options& o, const fabric::GroupHosts& hosts, Algorithm algorithm) {
  if (algorithm == Algorithm::kAllGatherReduceScatter || algorithm == Algorithm::kNaive) return o.max_rows;
  const int64_t most = std::max<int64_t>(o.max_rows, 1);
  if (o.chunk_rows > 0) return std::min(o.chunk_rows, most);
  const bool by_k = TreeOf(algorithm) == Tree::kByK;
  const int64_t results = by_k ? TableRowsPerChunk(o, 1) : o.layout.num_ranks - 1;
  int64_t fit = kResultBytes / std::max<int64_t>(results * o.hidden * 4, 1);
  if (hosts.size() > 1) fit = std::min(fit, kLandingBytes / LandingBytesPerRow(o, hosts, by_k));
  return std::clamp<int64_t>(fit, 1, by_k ? std::min(most, kRowsByK) : most);
}

int64_t TableRowsPerChunk(const Options& o, int64_t chunk_rows) {
  return chunk_rows * o.layout.num_ranks * std::min(o.top_k, o.layout.Count(0));
}

}  // namespace cadre::a2a
