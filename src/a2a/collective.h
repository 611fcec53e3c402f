#pragma once
// Collectives of a small group: the tensor-parallel ranks of one DP replica. Sums are f32 in rank order, so
// every rank gets the same bits however the work is shared out. Over hosts the tree is by host, then rank:
// each host sums its ranks in order, one message of f32 goes to each other host, and every rank sums the
// hosts in order.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "kernels/device.h"

namespace cadre::fabric {
class Fabric;
class Rendezvous;
}  // namespace cadre::fabric

namespace cadre::a2a {

struct CollectiveOptions {
  std::string name = "tp";                   ///< one collective per name and group
  fabric::Rendezvous* rendezvous = nullptr;  ///< may be null for a group of one
  std::vector<int> ranks = {};               ///< world ranks in order, this one included; empty: all
  int64_t capacity_bytes = int64_t{4}
                           << 20;  ///< of one round; more goes in several rounds. Same on all ranks
  int64_t split_bytes = 32 << 10;  ///< larger sums are shared out over the ranks (if more than two)
  kernels::Device device = {};
  TimePoint join_deadline = TimePoint::max();
  bool spin = true;
  uint32_t first_round = 1;
};

/// All calls are collective: every rank makes the same calls in the same order, with equal sizes. Errors:
/// those of the waits, naming who is missing; afterwards the object must not be used.
class Collective {
 public:
  static Result<std::unique_ptr<Collective>> Create(const CollectiveOptions& options);
  ~Collective();

  int rank() const;
  int size() const;
  /// Names the step in errors and bounds every wait until the next call.
  void BeginStep(int64_t step, TimePoint deadline);

  /// Where to write `count` floats (at most capacity / 4) for ReduceStaged, to spare a copy.
  float* Stage(int64_t count);
  /// out = (accumulate: +=) the sum of all ranks' staged floats.
  Status ReduceStaged(int64_t count, float* out, bool accumulate);
  /// x = the sum of all ranks' x, any size.
  Status AllReduceSum(float* x, int64_t count);
  /// out = every rank's bytes one behind the other; sizes [size()] are known to all (SplitRows of a2a.h).
  /// `own` may be its place in out.
  Status AllGather(const void* own, std::span<const int64_t> sizes, void* out);
  /// Every rank's `text` becomes that of `root` (a rank of the group). At most 2^32 - 1 bytes.
  Status Broadcast(int root, std::string& text);
  /// Returns when all have come.
  Status Barrier();

 private:
  struct State;
  explicit Collective(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cadre::a2a
