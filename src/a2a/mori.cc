// Rows go once to each rank that needs them, into one contiguous run [N, H] there; the home rank pulls the
// partial sums from it.
//
// The original reserves its places in the receiver's run by fetch_add, so the order is that of arrival. Here
// the receiver lays the run out by a prefix sum over the published counts, so the order is that of the
// sources, always; it publishes where each home's part begins, because no home knows the others' counts.
//
// Bytes drawn from other ranks, D ranks apart from the own one having experts of a row: D (H b + 8 K + 4) and
// D H 4 by the formula; here 4 more for each peer's count, and for each peer's begin that is looked at.
#include "a2a/backends.h"
#include "a2a/by_rank.h"

namespace cadre::a2a {
namespace {

class Mori final : public ByRankExchange {
 public:
  Mori(const Options& options, const ByRankParts& parts, std::unique_ptr<RankSegment> segment)
      : ByRankExchange(options, parts, Algorithm::kMori, std::move(segment)) {}

 protected:
  std::string Idea() const override {
    return "a row once per rank into one contiguous run, partial sums f32 pulled in rank order";
  }
  bool contiguous() const override { return true; }
  int64_t header_bytes() const override { return options_.top_k * 8 + 4; }
};

}  // namespace

int64_t MoriBytes(const Options& options, const fabric::GroupHosts& hosts) {
  return ByRankParts(options, hosts, Algorithm::kMori).TotalBytes(hosts);
}

Result<std::unique_ptr<AllToAll>> CreateMori(const Options& options, const fabric::GroupHosts& hosts) {
  const ByRankParts parts(options, hosts, Algorithm::kMori);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, parts.chunk_rows));
  return std::make_unique<Mori>(options, parts, std::move(segment));
}

}  // namespace cadre::a2a
