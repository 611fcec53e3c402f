#pragma once
// The work of one product as a line of stages, each a row of tiles (row segments times panels), that threads
// eat from the front: long ranges first, so that weights stream, shorter ones towards the end, so that all
// finish together. The cut depends on timing, the result does not.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace cadre::kernels {

class TileWork {
 public:
  struct Range {
    size_t stage = 0;
    int64_t begin = 0, end = 0;  ///< tiles of that stage
  };

  void Clear() {
    stages_.clear();
    total_ns_ = 0;
    num_tiles_ = 0;
    next_.store(0, std::memory_order_relaxed);
  }

  /// Appends a stage of tiles that take about `tile_ns` each; no range is shorter than `min_tiles`, if there
  /// are as many.
  void Add(int64_t num_tiles, double tile_ns, int64_t min_tiles) {
    num_tiles_ += num_tiles;
    total_ns_ += static_cast<double>(num_tiles) * tile_ns;
    stages_.push_back({.end = num_tiles_,
                       .num_tiles = num_tiles,
                       .min_tiles = min_tiles,
                       .tile_ns = tile_ns,
                       .until_ns = total_ns_});
  }

  size_t num_stages() const { return stages_.size(); }
  int64_t num_tiles(size_t stage) const { return stages_[stage].num_tiles; }

  /// Whether to wake others: a fork and a join take 1 to 2 us.
  bool WorthSharing(int num_threads) const { return num_threads > 1 && num_tiles_ > 1 && total_ns_ > 6000; }

  /// The next range for one of `num_threads` threads, false when there is none. `stage` is the thread's own
  /// memory of where it was, zero at first. Ranges come in rising order.
  bool Take(int num_threads, size_t& stage, Range& range) {
    int64_t at = next_.load(std::memory_order_relaxed);
    while (at < num_tiles_) {
      while (at >= stages_[stage].end) ++stage;
      const Stage& s = stages_[stage];
      const int64_t count = num_threads == 1 ? s.end - at : RangeSize(s, at, num_threads);
      if (!next_.compare_exchange_weak(at, at + count, std::memory_order_relaxed)) continue;
      const int64_t begin = at - (s.end - s.num_tiles);
      range = {.stage = stage, .begin = begin, .end = begin + count};
      return true;
    }
    return false;
  }

 private:
  struct Stage {
    int64_t end = 0, num_tiles = 0, min_tiles = 1;  // end: counted from the first stage on
    double tile_ns = 0, until_ns = 0;               // until_ns: cost of this stage and all before it
  };

  // A third of an even share of what is left, but neither so short that starting it shows nor longer than
  // evens out.
  int64_t RangeSize(const Stage& s, int64_t at, int num_threads) const {
    const double left_ns = total_ns_ - s.until_ns + static_cast<double>(s.end - at) * s.tile_ns;
    const double target_ns = std::clamp(left_ns / (3 * num_threads), 2500.0, 60000.0);
    const int64_t left = s.end - at,
                  count = std::max(s.min_tiles, static_cast<int64_t>(target_ns / s.tile_ns));
    return count + count / 2 >= left ? left : count;  // no crumbs
  }

  std::vector<Stage> stages_;
  int64_t num_tiles_ = 0;
  double total_ns_ = 0;
  alignas(64) std::atomic<int64_t> next_{0};
};

}  // namespace cadre::kernels
