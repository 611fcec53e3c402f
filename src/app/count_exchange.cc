#include "app/count_exchange.h"

#include <algorithm>

#include "a2a/algorithms.h"
#include "a2a/counts.h"
#include "base/random.h"
#include "eplb/placement.h"

namespace cadre::app {
namespace {

constexpr int64_t kValueBytes = 2;  // bfloat16

// Distinct experts at random; a copy of each by the row's hash, as eplb chooses it.
std::vector<int32_t> DrawSlots(const CountCase& c, const eplb::ExpertMap& map, int rank) {
  std::vector<int32_t> all(static_cast<size_t>(c.experts)), slots;
  std::vector<uint32_t> hashes;
  for (int64_t t = 0; t < c.rows; ++t) {
    for (int32_t e = 0; e < c.experts; ++e) all[static_cast<size_t>(e)] = e;
    const auto stream = static_cast<uint64_t>(rank);
    for (int32_t k = 0; k < c.top_k; ++k) {
      const double draw = UniformAt(11, stream, static_cast<uint64_t>(t * c.top_k + k));
      const auto pick = k + static_cast<int32_t>(draw * (c.experts - k));
      std::swap(all[static_cast<size_t>(k)], all[static_cast<size_t>(pick)]);
      slots.push_back(all[static_cast<size_t>(k)]);
    }
    hashes.push_back(Philox(12, stream, static_cast<uint64_t>(t))[0]);
  }
  map.MapChoices(c.rows, c.top_k, slots.data(), hashes.data(), slots.data());
  return slots;
}

fabric::GroupHosts HostsOf(const CountCase& c) {
  fabric::GroupHosts hosts;
  hosts.entries.resize(static_cast<size_t>(c.hosts));
  for (int h = 0; h < c.hosts; ++h) hosts.members.push_back({h * c.ranks_per_host, c.ranks_per_host});
  return hosts;
}

std::string Mib(int64_t bytes) {
  return Format("{:.1f}", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

Result<HostBytes> CountExchange(const CountCase& c) {
  CADRE_ASSIGN(const a2a::Algorithm algorithm, a2a::AlgorithmOf(c.backend));
  const int ranks = c.hosts * c.ranks_per_host;
  CADRE_ASSIGN(const eplb::ExpertMap map,
               eplb::StartMap(c.experts, std::max(0, ranks - c.experts), ranks, eplb::Placement::kLinear));
  std::vector<std::vector<int32_t>> slots;
  std::vector<a2a::RankChoices> choices;
  for (int r = 0; r < ranks; ++r) slots.push_back(DrawSlots(c, map, r));
  for (const auto& of_rank : slots) choices.push_back({c.rows, of_rank.data()});
  a2a::Options options;
  options.backend = c.backend;
  options.hidden = c.hidden;
  options.act_type = DType::kBf16;
  options.top_k = c.top_k;
  options.max_rows = c.rows;
  options.layout = map.layout();
  const fabric::GroupHosts hosts = HostsOf(c);
  const a2a::CountArgs args{.backend = c.backend,
                            .top_k = c.top_k,
                            .row_bytes = c.hidden * kValueBytes,
                            .partial_bytes = int64_t{c.hidden} * 4,
                            .layout = map.layout(),
                            .ranks = choices,
                            .chunk_rows = a2a::ChunkRows(options, hosts, algorithm),
                            .hosts = hosts.members,
                            .sum_bytes = c.hidden * kValueBytes};
  a2a::ByteCounts sum;
  for (int r = 0; r < c.ranks_per_host; ++r) sum += a2a::CountBytes(args, r);
  return HostBytes{.formula = (sum.dispatch_algorithmic + sum.combine_algorithmic) * c.layers,
                   .shared = (sum.dispatch_physical + sum.combine_physical) * c.layers,
                   .wire = (sum.dispatch_wire + sum.combine_wire) * c.layers};
}

Result<std::string> CountTable(const CountCase& shape, const std::vector<std::string>& backends,
                               const std::vector<int64_t>& hosts, Json& rows) {
  std::string text =
      "| hosts | ranks | back end | formula, MiB | read here, MiB | between hosts, MiB "
      "|\n|---|---|---|---|---|---|\n";
  rows = Json::Array();
  for (const int64_t count : hosts) {
    for (const std::string& backend : backends) {
      CountCase c = shape;
      c.backend = backend;
      c.hosts = static_cast<int>(count);
      CADRE_ASSIGN(const HostBytes bytes, CountExchange(c));
      text += Format("| {} | {} | `{}` | {} | {} | {} |\n", count, count * c.ranks_per_host, backend,
                     Mib(bytes.formula), Mib(bytes.shared), Mib(bytes.wire));
      rows.Push(Json::Object{{"hosts", count},
                             {"ranks", count * c.ranks_per_host},
                             {"backend", backend},
                             {"formula_bytes", bytes.formula},
                             {"read_bytes", bytes.shared},
                             {"wire_bytes", bytes.wire}});
    }
  }
  return text;
}

}  // namespace cadre::app
