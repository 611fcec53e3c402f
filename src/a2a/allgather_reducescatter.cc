// All ranks see all rows; partial sums are scattered home.
//
// Dispatch: a rank's rows and choices stay in its own segment; everybody reads in place what its slots need.
// Combine: each rank sums, for every row of every other rank, its own experts' rows (rising k) into its
// segment; the home rank adds the partial sums in rank order, its own computed on the way. Partial sums are
// f32. Those of one home rank lie packed, only rows that the rank has a choice of; the home rank knows its
// own choices, so it knows where each lies.
//
// The same serves experts that are sharded over all ranks: every slot is local everywhere.
//
// Reuse: one set of everything is enough, because both waits are for all ranks.
//   rows, choices   written after my combine wait of round r: all have raised combine r, so all have read my
//   rows of r partial sums    written after my dispatch wait of r + 1: all have raised dispatch r + 1, which
//   they do only after
//                   reading the partial sums of r
// A rank without rows waits like all others.
//
// Bytes drawn from other ranks, per rank: T (H b + 8 K) and T H 4 by the formula; in shared
// memory only rows with a choice here, and only partial sums that exist.
#include "a2a/allgather_reducescatter.h"

#include <algorithm>
#include <array>

#include "a2a/rank_segment.h"
#include "a2a/row_sum.h"
#include "sys/memory.h"

namespace cadre::a2a {
namespace {

struct Parts : SegmentParts {
  explicit Parts(const Options& o) : SegmentParts(o) {
    block_bytes = static_cast<size_t>(o.max_rows) * static_cast<size_t>(o.hidden) * sizeof(float);
    partials = regions.Add(block_bytes * static_cast<size_t>(o.layout.num_ranks - 1));
  }
  size_t partials, block_bytes;
};

class AllGatherReduceScatter final : public AllToAll {
 public:
  AllGatherReduceScatter(const Options& options, const Parts& parts, std::unique_ptr<RankSegment> segment)
      : options_(options),
        parts_(parts),
        segment_(std::move(segment)),
        me_(segment_->rank()),
        builder_(options.top_k, segment_->row_bytes(), options.layout.Begin(me_), options.layout.Count(me_),
                 options.layout.num_slots) {}

  void BeginStep(int64_t step, TimePoint deadline) override { segment_->BeginStep(step, deadline); }
  int64_t chunk_rows() const override { return options_.max_rows; }
  bool CanariesIntact() const override { return segment_->CanariesIntact(); }
  std::byte* Stage(int64_t num_rows) override { return segment_->Stage(num_rows); }

  Status Send(const Routing& routing) override {
    CADRE_TRY(FindHelpers(routing));
    segment_->SendRouting(routing);
    return {};
  }

  Result<RowTable> Receive() override {
    CADRE_TRY(segment_->AwaitSources(sources_));
    CADRE_TRY(builder_.Build(sources_));
    const int64_t choice_bytes = options_.top_k * 8;
    for (int s = 0; s < segment_->size(); ++s) {
      if (s == me_) continue;
      const int64_t rows = sources_[static_cast<size_t>(s)].num_rows;
      bytes_.dispatch_algorithmic += rows * (segment_->row_bytes() + choice_bytes);
      bytes_.dispatch_physical +=
          static_cast<int64_t>(builder_.TouchedRows(s).size()) * segment_->row_bytes() + rows * choice_bytes;
    }
    return builder_.table();
  }

  Status SendResults(const float* expert_rows) override {
    expert_rows_ = expert_rows;
    const int64_t width = options_.hidden;
    for (int home = 0; home < segment_->size(); ++home) {
      if (home == me_) continue;
      const auto touched = builder_.TouchedRows(home);
      float* block = reinterpret_cast<float*>(segment_->fabric().own() + BlockOffset(me_, home));
      ForRows(options_.device, static_cast<int64_t>(touched.size()), width * 4 * (options_.top_k + 1),
              [&](int64_t i) {
                std::array<const float*, kMaxTopK> own;
                SumRow({{}, OwnTerms(home, touched[static_cast<size_t>(i)], own), {}}, width,
                       block + i * width, false);
              });
    }
    segment_->fabric().Publish(kCombineFlag, segment_->round(), 0);
    return {};
  }

  Status ReceiveResults(float* out, bool accumulate) override {
    CADRE_TRY(
        segment_->fabric().AwaitAll(kCombineFlag, segment_->round(), nullptr, segment_->Context("combine")));
    const int64_t width = options_.hidden;
    ForRows(options_.device, segment_->num_rows(), width * 4 * (segment_->size() + options_.top_k),
            [&](int64_t t) {
              std::array<const float*, kMaxRanks> partials;
              std::array<const float*, kMaxTopK> own;
              const size_t before = TakePartials(t, 0, me_, partials.data());
              const size_t after = TakePartials(t, me_ + 1, segment_->size(), partials.data() + before);
              SumRow({{partials.data(), before}, OwnTerms(me_, t, own), {partials.data() + before, after}},
                     width, out + t * width, accumulate);
            });
    bytes_.combine_algorithmic += (segment_->size() - 1) * segment_->num_rows() * width * 4;
    bytes_.combine_physical += num_remote_partials_ * width * 4;
    return {};
  }

  ByteCounts bytes() const override { return bytes_; }
  const char* name() const override { return "allgather_reducescatter"; }
  std::string Describe() const override {
    return Format(
        "allgather_reducescatter: all ranks see all rows, partial sums f32 in rank order; {} ranks over "
        "shared memory{}; up to {} rows a rank; {} of buffers a rank",
        segment_->size(), options_.layout.sharded ? ", experts sharded" : "", options_.max_rows,
        sys::FormatBytes(AllGatherReduceScatterBytes(options_)));
  }

 private:
  // Where in the segment of `from` the partial sums for `home` begin; a rank keeps none for itself.
  size_t BlockOffset(int from, int home) const {
    return parts_.partials + static_cast<size_t>(home < from ? home : home - 1) * parts_.block_bytes;
  }

  std::span<const float* const> OwnTerms(int source, int64_t row,
                                         std::array<const float*, kMaxTopK>& terms) const {
    size_t n = 0;
    for (const int32_t place : builder_.PlacesOf(source, row))
      terms[n++] = expert_rows_ + place * options_.hidden;
    return {terms.data(), n};
  }

  // The partial sums that ranks [from, to) made for own row t; how many there are.
  size_t TakePartials(int64_t t, int from, int to, const float** partials) const {
    size_t n = 0;
    for (int s = from; s < to; ++s) {
      const int32_t at = helper_rows_[static_cast<size_t>(t * segment_->size() + s)];
      if (at < 0) continue;
      const std::byte* block = segment_->fabric().peer(s) + BlockOffset(s, me_);
      partials[n++] = reinterpret_cast<const float*>(block) + at * options_.hidden;
    }
    return n;
  }

  // For each own row and rank: its place among the partial sums that the rank makes for me, or -1.
  Status FindHelpers(const Routing& routing) {
    const auto ranks = static_cast<size_t>(segment_->size());
    helper_rows_.assign(static_cast<size_t>(routing.num_rows) * ranks, -1);
    std::array<int32_t, kMaxRanks> next;
    std::fill_n(next.begin(), ranks, 0);
    for (int64_t t = 0; t < routing.num_rows; ++t) {
      int32_t* places = helper_rows_.data() + static_cast<size_t>(t) * ranks;
      for (int64_t i = t * options_.top_k; i < (t + 1) * options_.top_k; ++i) {
        const int32_t slot = routing.slots[i];
        if (slot < 0) continue;
        if (slot >= options_.layout.num_slots) {
          return Fail(Code::kInternal, "a row was routed to slot {}; there are {} slots", slot,
                      options_.layout.num_slots);
        }
        if (!options_.layout.sharded) {
          const auto s = static_cast<size_t>(options_.layout.RankOf(slot));
          if (places[s] < 0) places[s] = next[s]++;
        } else if (places[0] < 0) {
          for (size_t s = 0; s < ranks; ++s) places[s] = next[s]++;
        }
      }
    }
    num_remote_partials_ = 0;
    for (size_t s = 0; s < ranks; ++s) num_remote_partials_ += static_cast<int>(s) == me_ ? 0 : next[s];
    return {};
  }

  Options options_;
  Parts parts_;
  std::unique_ptr<RankSegment> segment_;
  int me_;
  RowTableBuilder builder_;
  std::vector<Source> sources_;
  std::vector<int32_t> helper_rows_;  // [T, R]
  int64_t num_remote_partials_ = 0;
  const float* expert_rows_ = nullptr;
  ByteCounts bytes_;
};

}  // namespace

int64_t AllGatherReduceScatterBytes(const Options& options) {
  return static_cast<int64_t>(Parts(options).regions.total());
}

Result<std::unique_ptr<AllToAll>> CreateAllGatherReduceScatter(const Options& options) {
  const Parts parts(options);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, options.max_rows));
  return std::make_unique<AllGatherReduceScatter>(options, parts, std::move(segment));
}

}  // namespace cadre::a2a
