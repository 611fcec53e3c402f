#include <algorithm>
#include <array>
#include <string_view>

#include "a2a/a2a.h"
#include "a2a/allgather_hosts.h"
#include "a2a/allgather_reducescatter.h"
#include "a2a/local.h"
#include "a2a/naive.h"
#include "fabric/rendezvous.h"

namespace cadre::a2a {
namespace {

constexpr std::array<std::string_view, 2> kBuilt = {"allgather_reducescatter", "naive"};
// The other names that vLLM knows or knew.
constexpr std::array<std::string_view, 12> kNotBuilt = {"pplx",
                                                        "deepep_high_throughput",
                                                        "deepep_low_latency",
                                                        "deepep_v2",
                                                        "flashinfer_all2allv",
                                                        "flashinfer_nvlink_one_sided",
                                                        "flashinfer_nvlink_two_sided",
                                                        "mori",
                                                        "mori_high_throughput",
                                                        "mori_low_latency",
                                                        "nixl_ep",
                                                        "moonep"};

Status CheckName(const std::string& name) {
  if (std::ranges::find(kBuilt, name) != kBuilt.end()) return {};
  if (std::ranges::find(kNotBuilt, name) != kNotBuilt.end()) {
    return FailParam(Code::kUnsupported, "--all2all-backend",
                     "all2all backend '{}' is not built yet; use allgather_reducescatter", name);
  }
  return FailParam(Code::kInvalidArgument, "--all2all-backend",
                   "all2all backend '{}' is unknown; use allgather_reducescatter or naive", name);
}

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

Status CheckOverHosts(const std::string& name) {
  if (name == "allgather_reducescatter") return {};
  return FailParam(Code::kUnsupported, "--all2all-backend",
                   "all2all backend '{}' does not work over several hosts; use allgather_reducescatter",
                   name);
}

}  // namespace

Result<std::unique_ptr<AllToAll>> Create(const Options& options) {
  CADRE_TRY(CheckName(options.backend));
  CADRE_TRY(CheckShapes(options));
  if (options.layout.num_ranks == 1) return CreateLocal(options);
  CADRE_ASSIGN(const fabric::GroupHosts hosts, HostsOf(options));
  if (hosts.size() > 1) {
    CADRE_TRY(CheckOverHosts(options.backend));
    return CreateAllGatherHosts(options, hosts);
  }
  return options.backend == "naive" ? CreateNaive(options) : CreateAllGatherReduceScatter(options);
}

Result<int64_t> BufferBytes(const Options& options) {
  CADRE_TRY(CheckName(options.backend));
  CADRE_TRY(CheckShapes(options));
  if (options.layout.num_ranks == 1) return options.max_rows * options.hidden * DTypeBytes(options.act_type);
  CADRE_ASSIGN(const fabric::GroupHosts hosts, HostsOf(options));
  if (hosts.size() > 1) {
    CADRE_TRY(CheckOverHosts(options.backend));
    return AllGatherHostsBytes(options, hosts);
  }
  return options.backend == "naive" ? NaiveBytes(options) : AllGatherReduceScatterBytes(options);
}

}  // namespace cadre::a2a
