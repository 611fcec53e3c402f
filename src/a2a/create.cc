#include <algorithm>
#include <array>

#include "a2a/a2a.h"
#include "a2a/algorithms.h"
#include "a2a/backends.h"
#include "a2a/local.h"
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

Status CheckFp8(const Options& options, Algorithm algorithm) {
  if (!options.fp8_dispatch || algorithm == Algorithm::kDeepEpLowLatency) return {};
  return Fail(Code::kInvalidArgument, "rows travel as fp8 only with deepep_low_latency, not with {}",
              options.backend);
}

struct Backend {
  Result<std::unique_ptr<AllToAll>> (*create)(const Options&, const fabric::GroupHosts&);
  int64_t (*bytes)(const Options&, const fabric::GroupHosts&);
};

const Backend& BackendOf(Algorithm algorithm) {
  static constexpr std::array<Backend, 7> kBackends = {{
      {CreateAllGatherReduceScatter, AllGatherReduceScatterBytes},
      {CreateNaive, NaiveBytes},
      {CreatePplx, PplxBytes},
      {CreateDeepEpHighThroughput, DeepEpHighThroughputBytes},
      {CreateDeepEpLowLatency, DeepEpLowLatencyBytes},
      {CreateFlashInfer, FlashInferBytes},
      {CreateMori, MoriBytes},
  }};
  return kBackends[static_cast<size_t>(algorithm)];  // in the order of the enum
}

Result<Algorithm> Check(const Options& options) {
  CADRE_ASSIGN(const Algorithm algorithm, AlgorithmOf(options.backend));
  CADRE_TRY(CheckShapes(options));
  CADRE_TRY(CheckFp8(options, algorithm));
  return algorithm;
}

}  // namespace

Result<std::unique_ptr<AllToAll>> Create(const Options& options) {
  CADRE_ASSIGN(const Algorithm algorithm, Check(options));
  if (options.layout.num_ranks == 1) return CreateLocal(options);
  CADRE_ASSIGN(const fabric::GroupHosts hosts, HostsOf(options));
  return BackendOf(algorithm).create(options, hosts);
}

Result<int64_t> BufferBytes(const Options& options) {
  CADRE_ASSIGN(const Algorithm algorithm, Check(options));
  if (options.layout.num_ranks == 1) return options.max_rows * options.hidden * DTypeBytes(options.act_type);
  CADRE_ASSIGN(const fabric::GroupHosts hosts, HostsOf(options));
  return BackendOf(algorithm).bytes(options, hosts);
}

Result<int64_t> MaxTableRows(const Options& options) {
  CADRE_ASSIGN(const Algorithm algorithm, AlgorithmOf(options.backend));
  CADRE_TRY(CheckShapes(options));
  if (options.layout.num_ranks == 1) return TableRowsPerChunk(options, options.max_rows);
  CADRE_ASSIGN(const fabric::GroupHosts hosts, HostsOf(options));
  return TableRowsPerChunk(options, std::min(options.max_rows, ChunkRows(options, hosts, algorithm)));
}

}  // namespace cadre::a2a
