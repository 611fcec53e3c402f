#pragma once
// The exact bytes of an exchange, computed from the expert choices alone. Tests compare them with the byte
// counters of running back ends, for equality.
//
// algorithmic: what the name's formula says (reference: tokens x copies x row bytes, over all peers).
// physical: what a rank reads from other ranks' memory here. In a host rows are published once and read in
// place, so a rank reads only the rows that it computes, and only the partial sums that exist. Over hosts
// that includes what lies in the landing zones of its host, and the partial sums of others that it adds up
// for rows of other hosts. wire: what the carriers received.
#include <cstdint>
#include <span>
#include <string_view>

#include "eplb/slot_layout.h"
#include "fabric/fabric.h"

namespace cadre::a2a {

/// Bytes that a rank draws from other ranks; rows and what travels beside them (choices, lists, counts), no
/// flags.
struct ByteCounts {
  int64_t dispatch_algorithmic = 0, dispatch_physical = 0;
  int64_t combine_algorithmic = 0, combine_physical = 0;
  /// That it received from other hosts, for all ranks of its own; without heads and padding.
  int64_t dispatch_wire = 0, combine_wire = 0;

  ByteCounts& operator+=(const ByteCounts& other) {
    dispatch_algorithmic += other.dispatch_algorithmic;
    dispatch_physical += other.dispatch_physical;
    combine_algorithmic += other.combine_algorithmic;
    combine_physical += other.combine_physical;
    dispatch_wire += other.dispatch_wire;
    combine_wire += other.combine_wire;
    return *this;
  }
  ByteCounts& operator-=(const ByteCounts& other) {
    dispatch_algorithmic -= other.dispatch_algorithmic;
    dispatch_physical -= other.dispatch_physical;
    combine_algorithmic -= other.combine_algorithmic;
    combine_physical -= other.combine_physical;
    dispatch_wire -= other.dispatch_wire;
    combine_wire -= other.combine_wire;
    return *this;
  }
  friend bool operator==(const ByteCounts&, const ByteCounts&) = default;
};

/// One rank's choices in one exchange.
struct RankChoices {
  int64_t num_rows = 0;
  const int32_t* slots = nullptr;  ///< [num_rows, top_k], -1 for none
};

struct CountArgs {
  std::string_view backend;  ///< any name that AlgorithmOf knows
  int32_t top_k = 0;
  int64_t row_bytes = 0;      ///< a dispatched row as it travels (fp8: Fp8RowBytes of codec.h)
  int64_t partial_bytes = 0;  ///< a result on its way home: hidden * 4 in shared memory
  eplb::SlotLayout layout;
  std::span<const RankChoices> ranks;  ///< all ranks, in order
  int64_t chunk_rows = 0;              ///< AllToAll::chunk_rows; 0: all rows in one piece
  std::span<const fabric::MemberRange> hosts =
      {};                 ///< how the ranks lie over hosts; one or none: a single one
  int64_t sum_bytes = 0;  ///< a host's sum on its way to another: hidden * bytes of the model's type
};

/// What `rank` draws in one exchange. The name must be one that Create knows (checked). docs/exchange.md has
/// the formulas.
ByteCounts CountBytes(const CountArgs& args, int rank);

}  // namespace cadre::a2a
