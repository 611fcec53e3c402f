// All ranks see all rows; partial sums come home and are added in rank order. The default.
//
// Nobody copies a row: every rank publishes its rows and choices and reads the others' in place. Each looks
// at all choices and works out by itself which rows are for its experts. It sums them into a block of its own
// segment for each home; the home rank knows from its own choices which partial sums exist, so nothing else
// is exchanged. Over hosts all rows and choices go to every other host; back comes one sum for each row with
// a choice there.
//
// Bytes drawn from other ranks, D of them having experts of a row, T_r rows of rank r: sum of T_r (H b + 8 K)
// and T (R - 1) H 4 by the formula; here the choices and the rows that are computed, and D H 4. From each
// other host come T_host (H b + 8 K), and H b for each row of this host with a choice there.
#include "a2a/backends.h"
#include "a2a/by_rank.h"

namespace cadre::a2a {
namespace {

constexpr auto kThis = Algorithm::kAllGatherReduceScatter;

class AllGatherReduceScatter final : public ByRankExchange {
 public:
  AllGatherReduceScatter(const Options& options, const ByRankParts& parts,
                         std::unique_ptr<RankSegment> segment)
      : ByRankExchange(options, parts, kThis, std::move(segment)) {}

 protected:
  std::string Idea() const override {
    return mail_.any() ? "all ranks see all rows, partial sums f32 by host, then rank"
                       : "all ranks see all rows, partial sums f32 in rank order";
  }
  std::string IdeaOverHosts() const override {
    return Format("all rows to every host, one sum back from each in {}", DTypeName(options_.act_type));
  }
  bool listed() const override { return false; }
  bool contiguous() const override { return false; }
  int64_t header_bytes() const override { return options_.top_k * 8; }
};

}  // namespace

int64_t AllGatherReduceScatterBytes(const Options& options, const fabric::GroupHosts& hosts) {
  return ByRankParts(options, hosts, kThis, false).TotalBytes(hosts);
}

Result<std::unique_ptr<AllToAll>> CreateAllGatherReduceScatter(const Options& options,
                                                               const fabric::GroupHosts& hosts) {
  const ByRankParts parts(options, hosts, kThis, false);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, parts.chunk_rows));
  return std::make_unique<AllGatherReduceScatter>(options, parts, std::move(segment));
}

}  // namespace cadre::a2a
