#include "a2a/rank_segment.h"

#include <cstring>

#include "base/check.h"
#include "fabric/rendezvous.h"

namespace cadre::a2a {

SegmentParts::SegmentParts(const Options& options) {
  const auto max_rows = static_cast<size_t>(options.max_rows);
  const auto top_k = static_cast<size_t>(options.top_k);
  rows = regions.Add(max_rows * static_cast<size_t>(options.hidden * DTypeBytes(options.act_type)));
  slots = regions.Add(max_rows * top_k * sizeof(int32_t));
  weights = regions.Add(max_rows * top_k * sizeof(float));
}

RankSegment::RankSegment(const Options& options, const SegmentParts& parts,
                         std::unique_ptr<fabric::Fabric> fabric)
    : parts_(parts),
      fabric_(std::move(fabric)),
      row_bytes_(options.hidden * DTypeBytes(options.act_type)),
      max_rows_(options.max_rows),
      top_k_(options.top_k),
      round_(options.first_round - 1),
      counts_(static_cast<size_t>(fabric_->size())) {}

Result<std::unique_ptr<RankSegment>> RankSegment::Open(const Options& options, const SegmentParts& parts) {
  if (options.rendezvous == nullptr) {
    return Fail(Code::kInternal, "an exchange between {} ranks was given no way to reach them",
                options.layout.num_ranks);
  }
  fabric::FabricSpec spec{.name = "a2a." + options.backend,
                          .ranks = options.ranks,
                          .segment_bytes = parts.regions.total(),
                          .num_flags = kNumFlags,
                          .first_round = options.first_round,
                          .spin = options.spin,
                          .num_channels = parts.num_channels,
                          .landing_bytes = parts.landing_bytes};
  CADRE_ASSIGN(auto fabric, options.rendezvous->Open(spec, options.join_deadline));
  if (fabric->size() != options.layout.num_ranks) {
    return Fail(Code::kInternal, "slots are laid out over {} ranks, but the group has {}",
                options.layout.num_ranks, fabric->size());
  }
  sys::TouchPages(fabric->own(), parts.regions.total(), options.device.pool);
  return std::unique_ptr<RankSegment>(new RankSegment(options, parts, std::move(fabric)));
}

void RankSegment::BeginStep(int64_t step, TimePoint deadline) {
  step_ = step;
  deadline_ = deadline;
}

std::byte* RankSegment::Stage(int64_t num_rows) {
  CADRE_CHECK(num_rows >= 0 && num_rows <= max_rows_);
  ++round_;
  num_rows_ = num_rows;
  return fabric_->own() + parts_.rows;
}

void RankSegment::SendRouting(const Routing& routing) {
  CADRE_CHECK(routing.num_rows == num_rows_);
  const auto n = static_cast<size_t>(num_rows_ * top_k_) * 4;
  if (n > 0) {
    std::memcpy(fabric_->own() + parts_.slots, routing.slots, n);
    std::memcpy(fabric_->own() + parts_.weights, routing.weights, n);
  }
  fabric_->Publish(kDispatchFlag, round_, static_cast<uint32_t>(num_rows_));
}

Status RankSegment::AwaitSources(std::vector<Source>& sources) {
  CADRE_TRY(fabric_->AwaitAll(kDispatchFlag, round_, counts_.data(), Context("dispatch")));
  sources.resize(counts_.size());
  const auto [begin, count] = fabric_->local();
  for (int r = begin; r < begin + count; ++r) {
    const int64_t rows = counts_[static_cast<size_t>(r)];
    if (rows > max_rows_) {
      return Fail(Code::kDataLoss, "rank {} sent {} rows; at most {} were agreed", fabric_->world_rank(r),
                  rows, max_rows_);
    }
    const std::byte* segment = fabric_->peer(r);
    sources[static_cast<size_t>(r)] = {segment + parts_.rows,
                                       reinterpret_cast<const int32_t*>(segment + parts_.slots),
                                       reinterpret_cast<const float*>(segment + parts_.weights), rows};
  }
  return {};
}

}  // namespace cadre::a2a
