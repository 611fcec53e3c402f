#include "a2a/counts.h"

#include "base/check.h"

namespace cadre::a2a {
namespace {

// Whether `rank` computes anything for row t.
bool Touches(const CountArgs& args, const RankChoices& choices, int64_t t, int rank) {
  for (int64_t i = t * args.top_k; i < (t + 1) * args.top_k; ++i) {
    const int32_t slot = choices.slots[i];
    if (slot >= 0 && (args.layout.sharded || args.layout.RankOf(slot) == rank)) return true;
  }
  return false;
}

}  // namespace

ByteCounts CountBytes(const CountArgs& args, int rank) {
  const bool naive = args.backend == "naive";
  CADRE_CHECK(naive || args.backend == "allgather_reducescatter");
  const int64_t choice_bytes = args.top_k * 8;  // a slot and a weight each
  const int64_t peers = static_cast<int64_t>(args.ranks.size()) - 1;
  const RankChoices& own = args.ranks[static_cast<size_t>(rank)];
  ByteCounts bytes;
  int64_t others_rows = 0, rows_read = 0, partials_read = 0;
  for (int s = 0; s <= peers; ++s) {
    if (s == rank) continue;
    const RankChoices& theirs = args.ranks[static_cast<size_t>(s)];
    others_rows += theirs.num_rows;
    for (int64_t t = 0; t < theirs.num_rows; ++t) rows_read += Touches(args, theirs, t, rank);
    for (int64_t t = 0; t < own.num_rows; ++t) partials_read += Touches(args, own, t, s);
  }
  bytes.dispatch_algorithmic = others_rows * (args.row_bytes + choice_bytes);
  bytes.combine_algorithmic = peers * own.num_rows * args.partial_bytes;
  bytes.dispatch_physical = rows_read * args.row_bytes + others_rows * choice_bytes;
  bytes.combine_physical = partials_read * args.partial_bytes;
  if (naive) {  // everything is copied; the all-reduce gathers the others' sums as well
    bytes.combine_algorithmic += others_rows * args.partial_bytes;
    bytes.dispatch_physical = bytes.dispatch_algorithmic;
    bytes.combine_physical = bytes.combine_algorithmic;
  }
  return bytes;
}

}  // namespace cadre::a2a
