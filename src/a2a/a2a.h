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
// Some algorithms bound their buffers by taking the rows in chunks. Then the rows are sent in pieces of
// chunk_rows() (all ranks have the same), and the last four calls are repeated while more():
//   Send(piece 0)
//   do { if rows are left: Send(next piece)       so that it travels while this chunk is computed
//        Receive, expert rows, SendResults, ReceiveResults(out)     rows of this chunk only
//   } while (more())
// A rank without rows, or with fewer than the others, takes part in every chunk. Where chunk_rows() is Tmax
// this is the plain walk.
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

constexpr int32_t kMaxRanks = 1024;
constexpr int32_t kMaxTopK = 64;

/// This rank's choices for its own rows, or for the next piece of them; the arrays live until the matching
/// Receive returns. Real rows only: padding would be computed and counted. A row's choices are distinct.
struct Routing {
  int64_t num_rows = 0;            ///< T, or up to chunk_rows() of them; 0 is fine
  const int32_t* slots = nullptr;  ///< [T, K] physical slot, or -1 for no choice
  const float* weights = nullptr;  ///< [T, K]
};

/// The rows for this rank's slots, ordered by (slot, source rank, row). Valid until SendResults.
struct RowTable {
  int64_t num_rows = 0;              ///< N
  std::span<const int32_t> offsets;  ///< [S + 1]: rows of local slot s are [offsets[s], offsets[s + 1])
  const void* const* rows =
      nullptr;  ///< [N] address of each row, [H] of the activation type; may be a peer's memory
  /// [N]: the expert row is multiplied with it (f32) before SendResults. All 1 where the home rank weighs.
  const float* row_weights = nullptr;
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
  int64_t chunk_rows = 0;     ///< rows of a rank in one chunk; 0: what the algorithm takes (see ChunkRows)
  bool fp8_dispatch = false;  ///< deepep_low_latency: rows travel as e4m3 with a scale per 128 channels
  int32_t tree_ranks_per_host = 0;  ///< deepep_high_throughput's tree; 0: all ranks on one host
  bool poison = false;              ///< tests: unused memory holds NaN, and canaries lie between the parts
  uint32_t first_round = 1;         ///< where the round counter starts (tests of its wrap)
};

/// What a step mostly is. Equal on all ranks of the group.
enum class Phase : uint8_t { kPrefill, kDecode };

class AllToAll {
 public:
  virtual ~AllToAll() = default;
  AllToAll(const AllToAll&) = delete;
  AllToAll& operator=(const AllToAll&) = delete;

  /// Names the step in errors and bounds every wait until the next call.
  virtual void BeginStep(int64_t step, TimePoint deadline) = 0;

  /// Chooses between two back ends, where two were made (CreatePhased). Before BeginStep.
  virtual void SetPhase(Phase) {}

  /// Rows of a piece; every piece but a rank's last is as long. Tmax where rows are not taken in chunks.
  virtual int64_t chunk_rows() const = 0;
  /// After ReceiveResults: whether Receive, SendResults and ReceiveResults follow once more.
  virtual bool more() const { return false; }

  /// Where this rank's next rows go: [num_rows, H] of the activation type, 64-byte aligned, 0 <= num_rows <=
  /// Tmax. Valid until the matching ReceiveResults.
  virtual std::byte* Stage(int64_t num_rows) = 0;

  virtual Status Send(const Routing& routing) = 0;
  /// For calls within the work between Send and Receive: moves messages to and from other hosts, without
  /// waiting. Errors show in Receive. About 0.3 us over hosts, nothing on one.
  virtual void Progress() {}
  virtual Result<RowTable> Receive() = 0;
  /// After Receive: where the expert rows are best written, [N, H]; null: anywhere.
  virtual float* StageResults() { return nullptr; }
  /// expert_rows [N, H] in the table's order, already multiplied with their row weights; free again on
  /// return.
  virtual Status SendResults(const float* expert_rows) = 0;
  /// out [T, H] = (accumulate: +=) the sums of this chunk's rows, at their places in out; rows without a
  /// choice get 0. The sum is complete before it is added.
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
  /// Whether no canary between the parts of this rank's memory was written (Options::poison).
  virtual bool CanariesIntact() const { return true; }

 protected:
  AllToAll() = default;
};

/// Makes the back end named in the options; collective over the group (all ranks must call it, with equal
/// shapes). With one rank every name gives the same local exchange: no shared memory, no copies. Errors:
/// kInvalidArgument for shapes out of range or an unknown name (with the list), kUnsupported for a name that
/// is not built, and those of the rendezvous.
Result<std::unique_ptr<AllToAll>> Create(const Options& options);

/// Two back ends in one, chosen by SetPhase; one alone if both names mean the same algorithm.
/// `options.backend` is not used. Errors: those of Create.
Result<std::unique_ptr<AllToAll>> CreatePhased(const Options& options, const std::string& prefill_backend,
                                               const std::string& decode_backend);

/// Bytes of buffers that Create will take on each rank, for the memory plan. Same errors for the name.
Result<int64_t> BufferBytes(const Options& options);

/// The same for CreatePhased.
Result<int64_t> PhasedBufferBytes(const Options& options, const std::string& prefill_backend,
                                  const std::string& decode_backend);

/// The most rows that one Receive can bring, for buffers of the caller. Same errors for the name.
Result<int64_t> MaxTableRows(const Options& options);

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
