#include "a2a/rank_segment.h"

#include <algorithm>
#include <cstring>

#include "a2a/algorithms.h"
#include "base/check.h"
#include "fabric/rendezvous.h"

namespace cadre::a2a {
namespace {

constexpr size_t kGapBytes = 64;
constexpr int kCanary = 0xA5;
constexpr uint8_t kPoison = 0xFF;  // floats of it are NaN, numbers -1

}  // namespace

SegmentParts::SegmentParts(const Options& options) : regions(options.poison ? kGapBytes : 0) {
  const auto max_rows = static_cast<size_t>(options.max_rows);
  const auto top_k = static_cast<size_t>(options.top_k);
  rows = regions.Add(max_rows * static_cast<size_t>(options.hidden * DTypeBytes(options.act_type)));
  slots = regions.Add(max_rows * top_k * sizeof(int32_t));
  weights = regions.Add(max_rows * top_k * sizeof(float));
}

int64_t SegmentParts::TotalBytes(const fabric::GroupHosts& hosts) const {
  const fabric::FabricSpec spec{.segment_bytes = regions.total(), .landing_bytes = landing_bytes};
  const auto [begin, count] = hosts.members[static_cast<size_t>(hosts.own)];
  size_t most = 0;
  for (int r = begin; r < begin + count; ++r)
    most = std::max(most, fabric::Fabric::SegmentBytes(spec, hosts, r));
  return static_cast<int64_t>(most);
}

RankSegment::RankSegment(const Options& options, const SegmentParts& parts, int64_t chunk_rows,
                         std::unique_ptr<fabric::Fabric> fabric)
    : parts_(parts),
      fabric_(std::move(fabric)),
      row_bytes_(options.hidden * DTypeBytes(options.act_type)),
      max_rows_(options.max_rows),
      chunk_rows_(chunk_rows),
      top_k_(options.top_k),
      first_round_(options.first_round),
      counts_(static_cast<size_t>(fabric_->size())) {}

Result<std::unique_ptr<RankSegment>> RankSegment::Open(const Options& options, const SegmentParts& parts,
                                                       int64_t chunk_rows) {
  if (options.rendezvous == nullptr) {
    return Fail(Code::kInternal, "an exchange between {} ranks was given no way to reach them",
                options.layout.num_ranks);
  }
  if (parts.message_bytes > UINT32_MAX) {
    return Fail(Code::kInvalidArgument,
                "{} would send up to {} MiB to a host at once; at most 4096 are possible: lower "
                "--max-num-batched-tokens, or take an exchange that works in chunks",
                options.backend, parts.message_bytes >> 20);
  }
  fabric::FabricSpec spec{.name = "a2a." + options.backend,
                          .ranks = options.ranks,
                          .segment_bytes = parts.regions.total(),
                          .num_flags = kNumFlags,
                          .first_round = options.first_round,
                          .spin = options.spin,
                          .num_channels = parts.num_channels,
                          .landing_bytes = parts.landing_bytes};
  if (options.poison) spec.fill = kPoison;
  CADRE_ASSIGN(auto fabric, options.rendezvous->Open(spec, options.join_deadline));
  if (fabric->size() != options.layout.num_ranks) {
    return Fail(Code::kInternal, "slots are laid out over {} ranks, but the group has {}",
                options.layout.num_ranks, fabric->size());
  }
  sys::TouchPages(fabric->own(), parts.regions.total(), options.device.pool);
  if (options.poison) {
    for (const size_t gap : parts.regions.gaps()) std::memset(fabric->own() + gap, kCanary, kGapBytes);
  }
  return std::unique_ptr<RankSegment>(new RankSegment(options, parts, chunk_rows, std::move(fabric)));
}

void RankSegment::BeginStep(int64_t step, TimePoint deadline) {
  step_ = step;
  deadline_ = deadline;
}

std::byte* RankSegment::Stage(int64_t num_rows) {
  CADRE_CHECK(num_rows >= 0 && num_rows <= max_rows_);
  first_round_ += static_cast<uint32_t>(num_chunks_);
  chunk_ = num_pieces_ = 0;
  num_chunks_ = 1;  // at least; known after the first chunk
  num_rows_ = num_rows;
  return fabric_->own() + parts_.rows;
}

RowRange RankSegment::TakePiece(const Routing& routing, bool with_weights) {
  const RowRange piece = PieceOf(num_rows_, chunk_rows_, num_pieces_++);
  CADRE_CHECK(routing.num_rows == piece.count && (num_pieces_ == 1 || piece.count > 0));
  const auto first = static_cast<size_t>(piece.begin * top_k_) * 4;
  const auto bytes = static_cast<size_t>(piece.count * top_k_) * 4;
  if (bytes > 0) {
    std::memcpy(fabric_->own() + parts_.slots + first, routing.slots, bytes);
    if (with_weights) std::memcpy(fabric_->own() + parts_.weights + first, routing.weights, bytes);
  }
  return piece;
}

void RankSegment::PublishPiece(Flag flag) {
  fabric_->Publish(flag, first_round_ + static_cast<uint32_t>(num_pieces_ - 1),
                   static_cast<uint32_t>(num_rows_));
}

Status RankSegment::AwaitPieces(Flag flag) {
  const fabric::WaitContext context = Context("dispatch");
  const auto [begin, count] = fabric_->local();
  if (chunk_ > 0) {
    for (int r = begin; r < begin + count; ++r) {
      if (HasPiece(r)) CADRE_TRY(fabric_->Await(r, flag, round(), context));
    }
    return {};
  }
  CADRE_TRY(fabric_->AwaitAll(flag, round(), counts_.data(), context));
  for (int r = begin; r < begin + count; ++r) CADRE_TRY(NoteRows(r, counts_[static_cast<size_t>(r)]));
  return {};
}

Status RankSegment::NoteRows(int rank, int64_t rows) {
  if (rows > max_rows_) {
    return Fail(Code::kDataLoss, "rank {} sent {} rows; at most {} were agreed", fabric_->world_rank(rank),
                rows, max_rows_);
  }
  counts_[static_cast<size_t>(rank)] = static_cast<uint32_t>(rows);
  num_chunks_ = std::max(num_chunks_, NumPieces(rows, chunk_rows_));
  return {};
}

bool RankSegment::HasPiece(int rank, int64_t chunk) const {
  return chunk < NumPieces(counts_[static_cast<size_t>(rank)], chunk_rows_);
}

RowRange RankSegment::PieceOfRank(int rank) const {
  return PieceOf(counts_[static_cast<size_t>(rank)], chunk_rows_, chunk_);
}

Source RankSegment::PieceAt(int rank, RowRange piece) const {
  const std::byte* segment = fabric_->peer(rank);
  return {segment + parts_.rows + piece.begin * row_bytes_,
          reinterpret_cast<const int32_t*>(segment + parts_.slots) + piece.begin * top_k_,
          reinterpret_cast<const float*>(segment + parts_.weights) + piece.begin * top_k_, piece.count};
}

Status RankSegment::AwaitCombine() {
  return fabric_->AwaitAll(kCombineFlag, round(), nullptr, Context("combine"));
}

void RankSegment::FinishChunk() {
  if (num_chunks_ > 1) fabric_->Publish(kConsumedFlag, round(), 0);
  ++chunk_;
}

Status RankSegment::AwaitConsumed() {
  if (chunk_ == 0) return {};
  return fabric_->AwaitAll(kConsumedFlag, round() - 1, nullptr, Context("combine"));
}

bool RankSegment::CanariesIntact() const {
  for (const size_t gap : parts_.regions.gaps()) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(fabric_->own() + gap);
    if (std::any_of(bytes, bytes + kGapBytes, [](unsigned char b) { return b != kCanary; })) return false;
  }
  return true;
}

}  // namespace cadre::a2a
