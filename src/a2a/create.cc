#include <algorithm>

#include "a2a/a2a.h"
#include "a2a/algorithms.h"
#include "a2a/allgather_hosts.h"
#include "a2a/allgather_reducescatter.h"
#include "a2a/backends.h"
#include "a2a/local.h"
#include "a2a/naive.h"
#include "fabric/rendezvous.h"

namespace cadre::a2a {
namespace {

Status CheckShapes(const Options& o) {
  if (o.hidden < 1 || o.max_rows < 0 || o.max_rows > (int64_t{1} << 30) || o.layout.num_slots < 1) {
    return Fail(Code::kInvalidArgument,
                "an exchange needs rows and slots; got hidden {}, max_rows {}, {} slots", o.hidden,
                o.max_rows, o.layout.num_slots);
  }
  if (o.top_k < 1 || o.top_k > kMaxTopK) {
    return Fail(Code::kInvalidArgument, "an exchange takes 1 to {} experts per token; got {}", kMaxTopK,
                o.top_k);
  }
  if (o.layout.num_ranks < 1 || o.layout.num_ranks > kMaxRanks) {
    return Fail(Code::kInvalidArgument, "an exchange takes 1 to {} ranks; got {}", kMaxRanks,
                o.layout.num_ranks);
  }
  if (o.act_type != DType::kBf16 && o.act_type != DType::kF32) {
    return Fail(Code::kInvalidArgument, "an exchange carries bfloat16 or float32 rows; got {}",
                DTypeName(o.act_type));
  }
  return {};
}

// How the group lies over hosts.
Result<fabric::GroupHosts> HostsOf(const Options& o) {
  fabric::HostTable table = fabric::HostTable::OneHost(o.layout.num_ranks);
  std::vector<int> ranks = o.ranks;
  int own = 0;
  if (o.rendezvous != nullptr) {
    table = o.rendezvous->hosts();
    own = o.rendezvous->rank();
  } else if (!o.ranks_per_host.empty()) {
    table.hosts.clear();
    for (const int n : o.ranks_per_host) {
      table.hosts.push_back(
          {.name = {}, .first_rank = table.num_ranks(), .num_ranks = n, .addresses = {}, .info = {}});
    }
  }
  for (int r = 0; ranks.size() < static_cast<size_t>(o.layout.num_ranks); ++r) ranks.push_back(r);
  return fabric::GroupHosts::Of(table, ranks, own);
}

Status CheckOverHosts(const std::string& name, Algorithm algorithm) {
  if (algorithm == Algorithm::kAllGatherReduceScatter) return {};
  return FailParam(Code::kUnsupported, "--all2all-backend",
                   "all2all backend '{}' does not work over several hosts; use allgather_reducescatter",
                   name);
}

Status CheckFp8(const Options& options, Algorithm algorithm) {
  if (!options.fp8_dispatch || algorithm == Algorithm::kDeepEpLowLatency) return {};
  return Fail(Code::kInvalidArgument, "rows travel as fp8 only with deepep_low_latency, not with {}",
              options.backend);
}

}  // namespace

Result<std::unique_ptr<AllToAll>> Create(const Options& options) {
  CADRE_ASSIGN(const Algorithm algorithm, AlgorithmOf(options.backend));
  CADRE_TRY(CheckShapes(options));
  CADRE_TRY(CheckFp8(options, algorithm));
  if (options.layout.num_ranks == 1) return CreateLocal(options);
  CADRE_ASSIGN(const fabric::GroupHosts hosts, HostsOf(options));
  if (hosts.size() > 1) {
    CADRE_TRY(CheckOverHosts(options.backend, algorithm));
    return CreateAllGatherHosts(options, hosts);
  }
  switch (algorithm) {
    case Algorithm::kAllGatherReduceScatter:
      return CreateAllGatherReduceScatter(options);
    case Algorithm::kNaive:
      return CreateNaive(options);
    case Algorithm::kPplx:
      return CreatePplx(options);
    case Algorithm::kDeepEpHighThroughput:
      return CreateDeepEpHighThroughput(options);
    case Algorithm::kDeepEpLowLatency:
      return CreateDeepEpLowLatency(options);
    case Algorithm::kFlashInfer:
      return CreateFlashInfer(options);
    case Algorithm::kMori:
      return CreateMori(options);
  }
  return Fail(Code::kInternal, "no such algorithm");
}

Result<int64_t> BufferBytes(const Options& options) {
  CADRE_ASSIGN(const Algorithm algorithm, AlgorithmOf(options.backend));
  CADRE_TRY(CheckShapes(options));
  CADRE_TRY(CheckFp8(options, algorithm));
  if (options.layout.num_ranks == 1) return options.max_rows * options.hidden * DTypeBytes(options.act_type);
  CADRE_ASSIGN(const fabric::GroupHosts hosts, HostsOf(options));
  if (hosts.size() > 1) {
    CADRE_TRY(CheckOverHosts(options.backend, algorithm));
    return AllGatherHostsBytes(options, hosts);
  }
  switch (algorithm) {
    case Algorithm::kAllGatherReduceScatter:
      return AllGatherReduceScatterBytes(options);
    case Algorithm::kNaive:
      return NaiveBytes(options);
    case Algorithm::kPplx:
      return PplxBytes(options);
    case Algorithm::kDeepEpHighThroughput:
      return DeepEpHighThroughputBytes(options);
    case Algorithm::kDeepEpLowLatency:
      return DeepEpLowLatencyBytes(options);
    case Algorithm::kFlashInfer:
      return FlashInferBytes(options);
    case Algorithm::kMori:
      return MoriBytes(options);
  }
  return Fail(Code::kInternal, "no such algorithm");
}

Result<int64_t> MaxTableRows(const Options& options) {
  CADRE_ASSIGN(const Algorithm algorithm, AlgorithmOf(options.backend));
  CADRE_TRY(CheckShapes(options));
  const bool alone = options.layout.num_ranks == 1;
  return TableRowsPerChunk(
      options, std::min(options.max_rows, alone ? options.max_rows : ChunkRows(options, algorithm)));
}

}  // namespace cadre::a2a
