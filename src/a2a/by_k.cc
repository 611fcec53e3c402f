#include "a2a/by_k.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace cadre::a2a {

ByKParts::ByKParts(const Options& o, const fabric::GroupHosts& hosts, Algorithm algorithm)
    : SegmentParts(o),
      chunk_rows(ChunkRows(o, hosts, algorithm)),
      num_pieces(NumPieces(o.max_rows, chunk_rows)),
      result_rows(o.max_rows == 0 ? 0 : TableRowsPerChunk(o, chunk_rows)) {
  begins = regions.Add(static_cast<size_t>(o.layout.num_ranks + 1) * static_cast<size_t>(o.layout.Count(0)) *
                       sizeof(int32_t));
  results = regions.Add(static_cast<size_t>(result_rows) * static_cast<size_t>(o.hidden) * sizeof(float));
}

void ByKParts::AddMail(const Options& o, const fabric::GroupHosts& hosts, MailSpec spec) {
  spec.by_k = true;
  mail = MailParts(o, hosts, chunk_rows, spec, *this);
}

ByKExchange::ByKExchange(const Options& options, const ByKParts& parts, Algorithm algorithm,
                         std::unique_ptr<RankSegment> segment)
    : SegmentExchange(options, algorithm, parts.mail, std::move(segment)),
      parts_(parts),
      counts_(static_cast<size_t>(options.layout.num_slots)),
      slots_(static_cast<size_t>(options.max_rows * options.top_k)),
      places_(slots_.size()),
      weights_(slots_.size()) {
  for (int r = 0; r < num_ranks_; ++r) host_of_.push_back(segment_->fabric().hosts().HostOf(r));
}

std::string ByKExchange::IdeaOverHosts() const {
  return "a row once to each host that needs it, K expert rows f32 back";
}

size_t ByKExchange::BeginsOffset(int home) const {
  return parts_.begins + static_cast<size_t>(home) * static_cast<size_t>(options_.layout.Count(0)) * 4;
}

Status ByKExchange::Send(const Routing& routing) {
  const std::span slots(routing.slots, static_cast<size_t>(routing.num_rows * options_.top_k));
  CADRE_TRY(CheckSlots(slots, options_.layout.num_slots));
  const int64_t piece_idx = segment_->num_pieces_taken();
  const RowRange piece = segment_->TakePiece(routing, false);  // the home rank weighs
  SendPiece(piece_idx, piece, routing);
  mail_.TryPost();
  const int64_t first = piece.begin * options_.top_k;
  std::ranges::copy(slots, slots_.begin() + first);
  std::copy_n(routing.weights, slots.size(), weights_.begin() + first);
  if (mail_.any()) {
    if (std::ssize(slot_begins_) <= piece_idx) slot_begins_.resize(static_cast<size_t>(piece_idx) + 1);
    auto& begins = slot_begins_[static_cast<size_t>(piece_idx)];
    begins.assign(1, 0);
    for (const int32_t count : counts_) begins.push_back(begins.back() + count);
  }
  return {};
}

Result<RowTable> ByKExchange::Receive() {
  CADRE_TRY(segment_->AwaitPieces(kDispatchFlag));
  CADRE_TRY(mail_.Receive());
  mail_.PostNext();
  CADRE_ASSIGN(const RowTable table, BuildTable());
  if (table.num_rows > parts_.result_rows) {
    return Fail(Code::kDataLoss, "{} rows came to this rank, at most {} can: a row names a slot twice",
                table.num_rows, parts_.result_rows);
  }
  CADRE_TRY(segment_->AwaitConsumed());
  for (int home = 0; home < num_ranks_; ++home) {
    if (home != me_ || mail_.any()) std::ranges::copy(BeginsOf(home), Own<int32_t>(BeginsOffset(home)));
  }
  std::ranges::copy(table.offsets.subspan(1), Own<int32_t>(BeginsOffset(num_ranks_)));
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

// Runs of expert rows, by (home rank, rank, slot).
void ByKExchange::GatherResults(int host, std::vector<fabric::Piece>& pieces) const {
  const eplb::SlotLayout& layout = options_.layout;
  const auto [first, count] = segment_->fabric().members(host);
  const int64_t row_bytes = options_.hidden * 4;
  for (int home = first; home < first + count; ++home) {
    for (int r = here_.begin; r < here_.begin + here_.count; ++r) {
      const int32_t* begins = Peer<int32_t>(r, BeginsOffset(home));
      const int32_t* ends = Peer<int32_t>(r, BeginsOffset(home + 1));  // of the next home, or of the slots
      for (int32_t local = 0; local < layout.Count(r); ++local) {
        const int64_t rows = ends[local] - begins[local];
        if (rows == 0) continue;
        pieces.push_back({Peer<std::byte>(r, parts_.results) + begins[local] * row_bytes,
                          static_cast<size_t>(rows * row_bytes)});
      }
    }
  }
}

// Expert row `choice` of the exchange, in this chunk, computed by rank r for `slot`.
const float* ByKExchange::ResultOf(int r, int32_t slot, size_t choice) const {
  const int64_t width = options_.hidden;
  const int32_t local = slot - options_.layout.Begin(r);
  if (mail_.IsHere(r)) {
    const int32_t begin =
        r == me_ ? BeginsOf(me_)[static_cast<size_t>(local)] : Peer<int32_t>(r, BeginsOffset(me_))[local];
    return Peer<float>(r, parts_.results) + int64_t{begin + places_[choice]} * width;
  }
  const int host = host_of_[static_cast<size_t>(r)];
  const fabric::MemberRange there = segment_->fabric().members(host);
  const SlotRange slots = SlotsOfHost(options_.layout, there);
  const std::vector<int32_t>& begins = slot_begins_[static_cast<size_t>(segment_->chunk())];
  const auto first = static_cast<size_t>(slots.begin);
  int64_t at = begins[static_cast<size_t>(slot)] - begins[first] + places_[choice];
  if (options_.layout.sharded) {  // every rank there has a row for every choice
    at += int64_t{r - there.begin} * (begins[first + static_cast<size_t>(slots.count)] - begins[first]);
  }
  return reinterpret_cast<const float*>(mail_.ResultsFrom(host)) + at * width;
}

Status ByKExchange::ReceiveResults(float* out, bool accumulate) {
  CADRE_TRY(segment_->AwaitCombine());
  if (mail_.any()) {
    CADRE_TRY(mail_.TradeResults(
        [&](int host, std::vector<fabric::Piece>& pieces) { GatherResults(host, pieces); }));
  }
  const RowRange piece = PieceOf(segment_->num_rows(), segment_->chunk_rows(), segment_->chunk());
  const int64_t width = options_.hidden;
  const eplb::SlotLayout& layout = options_.layout;
  const int shards = layout.sharded ? num_ranks_ : 1;
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
        rows[n++] = ResultOf(layout.RankOf(slot), slot, choice);
      } else {
        for (int r = 0; r < shards; ++r) rows[n++] = ResultOf(r, slot, choice);
      }
    }
    SumWeighted({weights.data(), num_weights}, rows, shards, width, out + (piece.begin + i) * width,
                accumulate);
  });
  CountCombine(piece);
  segment_->FinishChunk();
  return {};
}

// The formula has H f32 for each expert row from another rank; here 4 bytes more for one of this host, the
// begin that locates it.
void ByKExchange::CountCombine(RowRange piece) {
  int64_t near = 0, far = 0;
  const auto first = slots_.begin() + piece.begin * options_.top_k;
  for (auto slot = first; slot != first + piece.count * options_.top_k; ++slot) {
    if (*slot < 0) continue;
    if (options_.layout.sharded) {
      near += here_.count - 1;
      far += num_ranks_ - here_.count;
    } else if (const int r = options_.layout.RankOf(*slot); r != me_) {
      ++(mail_.IsHere(r) ? near : far);
    }
  }
  bytes_.combine_algorithmic += (near + far) * options_.hidden * 4;
  bytes_.combine_physical += (near + far) * options_.hidden * 4 + near * 4;
}

}  // namespace cadre::a2a
