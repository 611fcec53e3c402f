#include "a2a/by_k.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace cadre::a2a {

ByKParts::ByKParts(const Options& o, Algorithm algorithm)
    : SegmentParts(o),
      chunk_rows(ChunkRows(o, algorithm)),
      num_pieces(NumPieces(o.max_rows, chunk_rows)),
      result_rows(o.max_rows == 0 ? 0 : TableRowsPerChunk(o, chunk_rows)) {
  begins = regions.Add(static_cast<size_t>(o.layout.num_ranks) * static_cast<size_t>(o.layout.Count(0)) *
                       sizeof(int32_t));
  results = regions.Add(static_cast<size_t>(result_rows) * static_cast<size_t>(o.hidden) * sizeof(float));
}

ByKExchange::ByKExchange(const Options& options, const ByKParts& parts, Algorithm algorithm,
                         std::unique_ptr<RankSegment> segment)
    : SegmentExchange(options, algorithm, std::move(segment)),
      parts_(parts),
      counts_(static_cast<size_t>(options.layout.num_slots)),
      slots_(static_cast<size_t>(options.max_rows * options.top_k)),
      places_(slots_.size()),
      weights_(slots_.size()) {}

size_t ByKExchange::BeginsOffset(int home) const {
  return parts_.begins + static_cast<size_t>(home) * static_cast<size_t>(options_.layout.Count(0)) * 4;
}

Status ByKExchange::Send(const Routing& routing) {
  const std::span slots(routing.slots, static_cast<size_t>(routing.num_rows * options_.top_k));
  CADRE_TRY(CheckSlots(slots, options_.layout.num_slots));
  const int64_t piece_idx = segment_->num_pieces_taken();
  const RowRange piece = segment_->TakePiece(routing);
  const int64_t first = piece.begin * options_.top_k;
  std::ranges::copy(slots, slots_.begin() + first);
  std::copy_n(routing.weights, slots.size(), weights_.begin() + first);
  SendPiece(piece_idx, piece, slots);
  return {};
}

Result<RowTable> ByKExchange::Receive() {
  CADRE_TRY(segment_->AwaitPieces(kDispatchFlag));
  CADRE_ASSIGN(const RowTable table, BuildTable());
  if (table.num_rows > parts_.result_rows) {
    return Fail(Code::kDataLoss, "{} rows came to this rank, at most {} can: a row names a slot twice",
                table.num_rows, parts_.result_rows);
  }
  CADRE_TRY(segment_->AwaitConsumed());
  for (int home = 0; home < num_ranks_; ++home) {
    if (home != me_) std::ranges::copy(BeginsOf(home), Own<int32_t>(BeginsOffset(home)));
  }
  table_rows_ = table.num_rows;
  return table;
}

Status ByKExchange::SendResults(const float* expert_rows) {
  float* results = StageResults();
  if (expert_rows != results && table_rows_ > 0)
    std::memcpy(results, expert_rows, static_cast<size_t>(table_rows_ * options_.hidden) * sizeof(float));
  segment_->PublishCombine();
  return {};
}

Status ByKExchange::ReceiveResults(float* out, bool accumulate) {
  CADRE_TRY(segment_->AwaitCombine());
  const RowRange piece = PieceOf(segment_->num_rows(), segment_->chunk_rows(), segment_->chunk());
  const int64_t width = options_.hidden;
  const eplb::SlotLayout& layout = options_.layout;
  const int shards = layout.sharded ? num_ranks_ : 1;
  // Of expert row `choice` of the exchange, computed by rank r.
  const auto row_of = [&](int r, int32_t slot, size_t choice) {
    const int32_t local = slot - layout.Begin(r);
    const int32_t begin =
        r == me_ ? BeginsOf(me_)[static_cast<size_t>(local)] : Peer<int32_t>(r, BeginsOffset(me_))[local];
    return Peer<float>(r, parts_.results) + int64_t{begin + places_[choice]} * width;
  };
  ForRows(options_.device, piece.count, width * 4 * (options_.top_k * shards + 1), [&](int64_t i) {
    std::array<float, kMaxTopK> weights;
    std::vector<const float*> many;  // only where sharded
    std::array<const float*, kMaxTopK> few;
    if (shards > 1) many.resize(static_cast<size_t>(shards * options_.top_k));
    const float** rows = shards > 1 ? many.data() : few.data();
    size_t n = 0, num_weights = 0;
    for (int32_t k = 0; k < options_.top_k; ++k) {
      const auto choice = static_cast<size_t>((piece.begin + i) * options_.top_k + k);
      const int32_t slot = slots_[choice];
      if (slot < 0) continue;
      weights[num_weights++] = weights_[choice];
      if (shards == 1) {
        rows[n++] = row_of(layout.RankOf(slot), slot, choice);
      } else {
        for (int r = 0; r < shards; ++r) rows[n++] = row_of(r, slot, choice);
      }
    }
    SumWeighted({weights.data(), num_weights}, rows, shards, width, out + (piece.begin + i) * width,
                accumulate);
  });
  CountCombine(piece);
  segment_->FinishChunk();
  return {};
}

// The formula has H f32 for each expert row from another rank; here 4 bytes more, the begin that locates it.
void ByKExchange::CountCombine(RowRange piece) {
  int64_t remote = 0;
  const auto first = slots_.begin() + piece.begin * options_.top_k;
  for (auto slot = first; slot != first + piece.count * options_.top_k; ++slot) {
    if (*slot < 0) continue;
    remote += options_.layout.sharded ? num_ranks_ - 1 : options_.layout.RankOf(*slot) != me_;
  }
  bytes_.combine_algorithmic += remote * options_.hidden * 4;
  bytes_.combine_physical += remote * (options_.hidden * 4 + 4);
}

}  // namespace cadre::a2a
