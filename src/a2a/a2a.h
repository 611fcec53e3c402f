#pragma once
// The exchange of one expert layer: rows go to the ranks that hold their experts (dispatch), results come
// home (combine). One contract, several algorithms; Create() is the only place that knows their names.
//
// A layer walks, on every rank of the group and in the same order, rows or no rows:
//   x = Stage(T)                the norm writes the rows [T, H] there
//   Send(routing)               publishes rows and choices        } Dispatch() does both; work that needs no
//   table = Receive()           the rows that my slots compute    } experts fits between the two
//   expert rows [N, H] f32, in the table's order, each times its row weight
//   SendResults(expert rows)    publishes partial sums            } Combine() does both
//   ReceiveResults(out)         [T, H] f32, summed in the fixed order of the algorithm's reduction tree
//
// Waiting: every wait ends at the deadline given to BeginStep or when the group is aborted, with an error
// that names the ranks that are missing. After an error the object must not be used again (ranks disagree
// about the round).
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "a2a/counts.h"
#include "base/clock.h"
#include "base/error.h"
#include "eplb/slot_layout.h"
#include "kernels/device.h"
#include "tensor/dtype.h"

namespace cadre::fabric {
class Rendezvous;
}

namespace cadre::a2a {

constexpr int32_t kMaxRanks = 64;
constexpr int32_t kMaxTopK = 64;

/// This rank's choices for its own rows; the arrays live until Receive returns. Real rows only: padding would
/// be computed and counted.
struct Routing {
  int64_t num_rows = 0;            ///< T; 0 is fine
  const int32_t* slots = nullptr;  ///< [T, K] physical slot, or -1 for no choice
  const float* weights = nullptr;  ///< [T, K]
};

/// The rows for this rank's slots, ordered by (slot, source rank, row). Valid until SendResults.
struct RowTable {
  int64_t num_rows = 0;              ///< N
  std::span<const int32_t> offsets;  ///< [S + 1]: rows of local slot s are [offsets[s], offsets[s + 1])
  const void* const* rows =
      nullptr;  ///< [N] address of each row, [H] of the activation type; may be a peer's memory
  const float* row_weights = nullptr;  ///< [N]: the expert row is multiplied with it (f32) before Combine
};

struct Options {
  std::string backend = "allgather_reducescatter";  ///< an --all2all-backend name
  int32_t hidden = 0;                               ///< H
  DType act_type = DType::kBf16;                    ///< of the rows: kBf16 or kF32
  int32_t top_k = 0;                                ///< K, 1 to kMaxTopK
  int64_t max_rows = 0;                        ///< Tmax: no rank stages more rows at once; same on all ranks
  eplb::SlotLayout layout;                     ///< where slots lie; same on all ranks
  kernels::Device device;                      ///< threads for sums; a null pool means the caller alone
  fabric::Rendezvous* rendezvous = nullptr;    ///< how to reach the other ranks; may be null for one rank
  std::vector<int> ranks;                      ///< world ranks of the group in order; empty: all
  std::vector<int> ranks_per_host = {};        ///< for BufferBytes without a rendezvous; empty: one host
  TimePoint join_deadline = TimePoint::max();  ///< for reaching the other ranks in Create
  bool spin = true;                            ///< false where threads outnumber CPUs
  uint32_t first_round = 1;                    ///< where the round counter starts (tests of its wrap)
};

class AllToAll {
 public:
  virtual ~AllToAll() = default;
  AllToAll(const AllToAll&) = delete;
  AllToAll& operator=(const AllToAll&) = delete;

  /// Names the step in errors and bounds every wait until the next call.
  virtual void BeginStep(int64_t step, TimePoint deadline) = 0;

  /// Where this rank's next rows go: [num_rows, H] of the activation type, 64-byte aligned, 0 <= num_rows <=
  /// Tmax. Valid until the matching ReceiveResults.
  virtual std::byte* Stage(int64_t num_rows) = 0;

  virtual Status Send(const Routing& routing) = 0;
  virtual Result<RowTable> Receive() = 0;
  /// expert_rows [N, H] in the table's order, already multiplied with their row weights; free again on
  /// return.
  virtual Status SendResults(const float* expert_rows) = 0;
  /// out [T, H] = (accumulate: +=) the rows' sums; rows without a choice get 0. The sum is complete before it
  /// is added.
  virtual Status ReceiveResults(float* out, bool accumulate) = 0;

  Result<RowTable> Dispatch(const Routing& routing) {
    CADRE_TRY(Send(routing));
    return Receive();
  }
  Status Combine(const float* expert_rows, float* out, bool accumulate) {
    CADRE_TRY(SendResults(expert_rows));
    return ReceiveResults(out, accumulate);
  }

  /// Bytes that this rank drew from other ranks since the start. They equal counts.h exactly.
  virtual ByteCounts bytes() const = 0;
  virtual const char* name() const = 0;
  /// One line for the log at start: algorithm, transports, limits, bytes of buffers.
  virtual std::string Describe() const = 0;

 protected:
  AllToAll() = default;
};

/// Makes the back end named in the options; collective over the group (all ranks must call it, with equal
/// shapes). With one rank every name gives the same local exchange: no shared memory, no copies. Errors:
/// kInvalidArgument for shapes out of range or an unknown name (with the list), kUnsupported for a name that
/// is not built yet, and those of the rendezvous.
Result<std::unique_ptr<AllToAll>> Create(const Options& options);

/// Bytes of buffers that Create will take on each rank, for the memory plan. Same errors for the name.
Result<int64_t> BufferBytes(const Options& options);

/// The contiguous share of `num_rows` rows that part `part` of `num_parts` handles: the first rows mod parts
/// parts get one more. So are rows split over tp before dispatch, and gathered after combine.
struct RowRange {
  int64_t begin = 0, count = 0;
};
constexpr RowRange SplitRows(int64_t num_rows, int num_parts, int part) {
  const int64_t base = num_rows / num_parts, rem = num_rows % num_parts;
  return {part * base + (part < rem ? part : rem), base + (part < rem ? 1 : 0)};
}

}  // namespace cadre::a2a
