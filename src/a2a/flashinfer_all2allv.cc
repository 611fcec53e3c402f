// One symmetric workspace: every pair of ranks has fixed slots, [R, Tmax, H] with counts. A row goes once to
// each rank that it needs; results lie in the same slots where the experts are, and the home rank pulls them.
//
// In shared memory the slot (source, i) is "row list[i] of the source's segment", read in place.
//
// Bytes drawn from other ranks, D ranks apart from the own one having experts of a row: D (H b + 8 K) and
// D H 4 by the formula; here 4 more for the row's number, and 4 for each peer's count.
#include "a2a/backends.h"
#include "a2a/by_rank.h"

namespace cadre::a2a {
namespace {

class FlashInfer final : public ByRankExchange {
 public:
  FlashInfer(const Options& options, const ByRankParts& parts, std::unique_ptr<RankSegment> segment)
      : ByRankExchange(options, parts, Algorithm::kFlashInfer, std::move(segment)) {}

 protected:
  std::string Idea() const override {
    return "a row once per rank into fixed slots of a symmetric workspace, partial sums f32 pulled in rank "
           "order";
  }
  bool contiguous() const override { return false; }
  int64_t header_bytes() const override { return options_.top_k * 8; }
  bool formula_sums_by_host() const override { return false; }
};

}  // namespace

int64_t FlashInferBytes(const Options& options, const fabric::GroupHosts& hosts) {
  return ByRankParts(options, hosts, Algorithm::kFlashInfer).TotalBytes(hosts);
}

Result<std::unique_ptr<AllToAll>> CreateFlashInfer(const Options& options, const fabric::GroupHosts& hosts) {
  const ByRankParts parts(options, hosts, Algorithm::kFlashInfer);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, parts.chunk_rows));
  return std::make_unique<FlashInfer>(options, parts, std::move(segment));
}

}  // namespace cadre::a2a
