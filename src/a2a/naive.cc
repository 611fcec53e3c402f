// R broadcasts, then an all-reduce of everything: the simplest exchange that can work, to compare others
// with.
//
// Every rank copies all rows and choices, computes partial sums for all rows of all ranks, and takes part in
// an all-reduce over [all rows, H]: each home rank adds its rows over all ranks in rank order, everybody
// copies all sums, each keeps its own. A rank without a choice of a row contributes -0.0, which added to x
// gives x for every x, so the tree is the one of allgather_reducescatter.
//
// Reuse of the one set: rows are read before combine is raised, partial sums before gather, sums before the
// next dispatch; each is written again only after waiting for that flag of all ranks.
#include "a2a/naive.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "a2a/rank_segment.h"
#include "a2a/row_sum.h"
#include "sys/memory.h"

namespace cadre::a2a {
namespace {

struct Parts : SegmentParts {
  explicit Parts(const Options& o) : SegmentParts(o) {
    block_bytes = static_cast<size_t>(o.max_rows) * static_cast<size_t>(o.hidden) * sizeof(float);
    partials = regions.Add(block_bytes * static_cast<size_t>(o.layout.num_ranks));
    sums = regions.Add(block_bytes);
  }
  size_t partials, sums, block_bytes;
};

class Naive final : public AllToAll {
 public:
  Naive(const Options& options, const Parts& parts, std::unique_ptr<RankSegment> segment)
      : options_(options),
        parts_(parts),
        segment_(std::move(segment)),
        me_(segment_->rank()),
        builder_(options.top_k, segment_->row_bytes(), options.layout.Begin(me_), options.layout.Count(me_),
                 options.layout.num_slots),
        copies_(static_cast<size_t>(segment_->size())) {}

  void BeginStep(int64_t step, TimePoint deadline) override { segment_->BeginStep(step, deadline); }
  int64_t chunk_rows() const override { return options_.max_rows; }
  bool CanariesIntact() const override { return segment_->CanariesIntact(); }
  std::byte* Stage(int64_t num_rows) override { return segment_->Stage(num_rows); }

  Status Send(const Routing& routing) override {
    has_choice_.assign(static_cast<size_t>(routing.num_rows), false);
    for (int64_t i = 0; i < routing.num_rows * options_.top_k; ++i) {
      if (routing.slots[i] >= 0) has_choice_[static_cast<size_t>(i / options_.top_k)] = true;
    }
    segment_->SendRouting(routing);
    return {};
  }

  Result<RowTable> Receive() override {
    CADRE_TRY(segment_->AwaitSources(sources_));
    for (size_t r = 0; r < sources_.size(); ++r) {
      Source& source = sources_[r];
      Copy& copy = copies_[r];
      const auto choices = static_cast<size_t>(source.num_rows * options_.top_k);
      copy.rows.assign(source.rows, source.rows + source.num_rows * segment_->row_bytes());
      copy.slots.assign(source.slots, source.slots + choices);
      copy.weights.assign(source.weights, source.weights + choices);
      source = {copy.rows.data(), copy.slots.data(), copy.weights.data(), source.num_rows};
      if (static_cast<int>(r) == me_) continue;
      const int64_t bytes = source.num_rows * (segment_->row_bytes() + options_.top_k * 8);
      bytes_.dispatch_algorithmic += bytes;
      bytes_.dispatch_physical += bytes;
    }
    CADRE_TRY(builder_.Build(sources_));
    return builder_.table();
  }

  Status SendResults(const float* expert_rows) override {
    const int64_t width = options_.hidden;
    for (int home = 0; home < segment_->size(); ++home) {
      auto* block = reinterpret_cast<float*>(segment_->fabric().own() + BlockOffset(home));
      ForRows(options_.device, sources_[static_cast<size_t>(home)].num_rows, width * 4 * (options_.top_k + 1),
              [&](int64_t t) {
                std::array<const float*, kMaxTopK> own;
                size_t n = 0;
                for (const int32_t place : builder_.PlacesOf(home, t)) own[n++] = expert_rows + place * width;
                float* to = block + t * width;
                if (n == 0) return std::fill(to, to + width, -0.0f);
                SumRow({{}, {own.data(), n}, {}}, width, to, false);
              });
    }
    segment_->fabric().Publish(kCombineFlag, segment_->round(), 0);
    return {};
  }

  Status ReceiveResults(float* out, bool accumulate) override {
    fabric::Fabric& fabric = segment_->fabric();
    CADRE_TRY(fabric.AwaitAll(kCombineFlag, segment_->round(), nullptr, segment_->Context("combine")));
    const int64_t width = options_.hidden, rows = segment_->num_rows();
    auto* sums = reinterpret_cast<float*>(fabric.own() + parts_.sums);
    ForRows(options_.device, rows, width * 4 * (segment_->size() + 1), [&](int64_t t) {
      std::array<const float*, kMaxRanks> terms;
      size_t n = 0;
      for (int s = 0; s < segment_->size(); ++s) {
        terms[n++] = reinterpret_cast<const float*>(fabric.peer(s) + BlockOffset(me_)) + t * width;
      }
      SumRow({{terms.data(), n}, {}, {}}, width, sums + t * width, false);
    });
    fabric.Publish(kGatherFlag, segment_->round(), 0);
    CADRE_TRY(fabric.AwaitAll(kGatherFlag, segment_->round(), nullptr, segment_->Context("gather")));
    const int64_t bytes = GatherAll() + (segment_->size() - 1) * rows * width * 4;
    bytes_.combine_algorithmic += bytes;
    bytes_.combine_physical += bytes;
    for (int64_t t = 0; t < rows; ++t) {
      const float* sum = gathered_.data() + (own_begin_ + t) * width;
      const auto term =
          has_choice_[static_cast<size_t>(t)] ? std::span(&sum, 1) : std::span<const float* const>();
      SumRow({term, {}, {}}, width, out + t * width, accumulate);
    }
    return {};
  }

  ByteCounts bytes() const override { return bytes_; }
  const char* name() const override { return "naive"; }
  std::string Describe() const override {
    return Format(
        "naive: every rank copies all rows, all-reduce of all sums in rank order (for comparison, slow); {} "
        "ranks over shared memory; up to {} rows a rank; {} of buffers a rank",
        segment_->size(), options_.max_rows, sys::FormatBytes(NaiveBytes(options_)));
  }

 private:
  struct Copy {
    std::vector<std::byte> rows;
    std::vector<int32_t> slots;
    std::vector<float> weights;
  };

  // Where the partial sums for `home` begin in a segment.
  size_t BlockOffset(int home) const {
    return parts_.partials + static_cast<size_t>(home) * parts_.block_bytes;
  }

  // Copies all ranks' sums; the bytes that came from others.
  int64_t GatherAll() {
    int64_t total = 0, from_others = 0;
    for (const Source& source : sources_) total += source.num_rows;
    gathered_.resize(static_cast<size_t>(total * options_.hidden));
    int64_t begin = 0;
    for (int s = 0; s < segment_->size(); ++s) {
      const int64_t bytes = sources_[static_cast<size_t>(s)].num_rows * options_.hidden * 4;
      if (bytes > 0) {
        std::memcpy(gathered_.data() + begin * options_.hidden, segment_->fabric().peer(s) + parts_.sums,
                    static_cast<size_t>(bytes));
      }
      if (s == me_) own_begin_ = begin;
      from_others += s == me_ ? 0 : bytes;
      begin += sources_[static_cast<size_t>(s)].num_rows;
    }
    return from_others;
  }

  Options options_;
  Parts parts_;
  std::unique_ptr<RankSegment> segment_;
  int me_;
  RowTableBuilder builder_;
  std::vector<Source> sources_;
  std::vector<Copy> copies_;
  std::vector<bool> has_choice_;  // [T]
  std::vector<float> gathered_;   // [all rows, H]
  int64_t own_begin_ = 0;
  ByteCounts bytes_;
};

}  // namespace

int64_t NaiveBytes(const Options& options) {
  const Parts parts(options);
  // The segment, and local copies of everybody's rows, choices and sums.
  const int64_t row = options.hidden * DTypeBytes(options.act_type) + options.top_k * 8 + options.hidden * 4;
  return static_cast<int64_t>(parts.regions.total()) + options.layout.num_ranks * options.max_rows * row;
}

Result<std::unique_ptr<AllToAll>> CreateNaive(const Options& options) {
  const Parts parts(options);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, options.max_rows));
  return std::make_unique<Naive>(options, parts, std::move(segment));
}

}  // namespace cadre::a2a
