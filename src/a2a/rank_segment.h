#pragma once
// What the back ends of one host share: each rank's segment begins with its staged rows and its choices, and
// a flag whose count is the number of rows.
#include <memory>
#include <vector>

#include "a2a/a2a.h"
#include "a2a/row_table.h"
#include "fabric/fabric.h"
#include "fabric/regions.h"

namespace cadre::a2a {

/// The flags that a rank raises once a round, in this order.
enum Flag : int { kDispatchFlag, kCombineFlag, kGatherFlag, kNumFlags };

struct SegmentParts {
  explicit SegmentParts(const Options& options);
  fabric::Regions regions;
  size_t rows, slots, weights;
  int num_channels = 0;  // between hosts
  size_t landing_bytes = 0;
};

class RankSegment {
 public:
  /// `parts` may have had further regions added. Collective.
  static Result<std::unique_ptr<RankSegment>> Open(const Options& options, const SegmentParts& parts);

  fabric::Fabric& fabric() { return *fabric_; }
  int rank() const { return fabric_->rank(); }
  int size() const { return fabric_->size(); }
  int64_t row_bytes() const { return row_bytes_; }
  int64_t num_rows() const { return num_rows_; }
  uint32_t round() const { return round_; }
  fabric::WaitContext Context(const char* what) const { return {what, step_, deadline_}; }

  void BeginStep(int64_t step, TimePoint deadline);
  /// Begins a round.
  std::byte* Stage(int64_t num_rows);
  /// Copies the choices beside the rows and raises the dispatch flag.
  void SendRouting(const Routing& routing);
  /// The rows and choices of all ranks of this host, in place; other entries are left alone.
  Status AwaitSources(std::vector<Source>& sources);

 private:
  RankSegment(const Options& options, const SegmentParts& parts, std::unique_ptr<fabric::Fabric> fabric);

  SegmentParts parts_;
  std::unique_ptr<fabric::Fabric> fabric_;
  int64_t row_bytes_, max_rows_, num_rows_ = 0;
  int32_t top_k_;
  uint32_t round_;
  int64_t step_ = 0;
  TimePoint deadline_ = TimePoint::max();
  std::vector<uint32_t> counts_;
};

}  // namespace cadre::a2a
