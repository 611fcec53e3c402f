#include "a2a/counts.h"

#include <algorithm>

#include "a2a/algorithms.h"
#include "base/check.h"

namespace cadre::a2a {
namespace {

// What crosses from a source rank to a target rank: rows with a choice there, and such choices.
struct Flow {
  int64_t rows = 0, choices = 0;
};

Flow FlowOf(const CountArgs& args, int source, int target) {
  const RankChoices& choices = args.ranks[static_cast<size_t>(source)];
  Flow flow;
  for (int64_t t = 0; t < choices.num_rows; ++t) {
    int64_t here = 0;
    for (int64_t i = t * args.top_k; i < (t + 1) * args.top_k; ++i) {
      const int32_t slot = choices.slots[i];
      here += slot >= 0 && (args.layout.sharded || args.layout.RankOf(slot) == target);
    }
    flow.rows += here > 0;
    flow.choices += here;
  }
  return flow;
}

// A peer's rows on their way to `rank`: all of it, what comes here, in how many pieces.
struct Incoming {
  int64_t all_rows;
  Flow flow;
  int64_t pieces;
};

void AddDispatch(const CountArgs& args, Algorithm algorithm, int rank, const Incoming& in,
                 ByteCounts& bytes) {
  const int64_t choice_bytes = args.top_k * 8;  // a slot and a weight each
  const int64_t local_slots = args.layout.Count(rank);
  int64_t& formula = bytes.dispatch_algorithmic;
  int64_t& here = bytes.dispatch_physical;
  const int64_t listed = in.flow.rows * (args.row_bytes + choice_bytes + 4);  // and which row it is
  switch (algorithm) {
    case Algorithm::kAllGatherReduceScatter:
      formula += in.all_rows * (args.row_bytes + choice_bytes);
      here += in.flow.rows * args.row_bytes + in.all_rows * choice_bytes;
      break;
    case Algorithm::kNaive:
      formula += in.all_rows * (args.row_bytes + choice_bytes);
      here += in.all_rows * (args.row_bytes + choice_bytes);
      break;
    case Algorithm::kPplx:
      formula += in.flow.choices * (args.row_bytes + 4);
      here += in.flow.rows * args.row_bytes + in.flow.choices * 4 + in.pieces * 4 * (local_slots + 1);
      break;
    case Algorithm::kDeepEpLowLatency:
      formula += in.flow.choices * (args.row_bytes + 16);
      here += in.flow.rows * args.row_bytes + in.all_rows * args.top_k * 4;
      break;
    case Algorithm::kDeepEpHighThroughput:
      formula += in.flow.rows * (args.row_bytes + args.top_k * 12 + 4) + in.pieces * 4 * (local_slots + 1);
      here += listed + in.pieces * 4 * (local_slots + 1);
      break;
    case Algorithm::kFlashInfer:
      formula += in.flow.rows * (args.row_bytes + choice_bytes);
      here += listed + in.pieces * 4;
      break;
    case Algorithm::kMori:
      formula += listed;
      here += listed + in.pieces * 4;
      break;
  }
}

// `out`: this rank's rows at a peer, whose results come home.
void AddCombine(const CountArgs& args, Algorithm algorithm, int64_t own_rows, const Flow& out,
                int64_t begins_read, int64_t peers_rows, ByteCounts& bytes) {
  int64_t& formula = bytes.combine_algorithmic;
  int64_t& here = bytes.combine_physical;
  switch (algorithm) {
    case Algorithm::kAllGatherReduceScatter:
      formula += own_rows * args.partial_bytes;
      here += out.rows * args.partial_bytes;
      break;
    case Algorithm::kNaive:  // everything is copied; the all-reduce gathers the others' sums as well
      formula += (own_rows + peers_rows) * args.partial_bytes;
      here += (own_rows + peers_rows) * args.partial_bytes;
      break;
    case Algorithm::kPplx:
    case Algorithm::kDeepEpLowLatency:
      formula += out.choices * args.partial_bytes;
      here += out.choices * (args.partial_bytes + 4);
      break;
    case Algorithm::kFlashInfer:
      formula += out.rows * args.partial_bytes;
      here += out.rows * args.partial_bytes;
      break;
    case Algorithm::kDeepEpHighThroughput:
    case Algorithm::kMori:
      formula += out.rows * args.partial_bytes;
      here += out.rows * args.partial_bytes + begins_read * 4;
      break;
  }
}

// In how many of this rank's pieces something goes to the peer.
int64_t PiecesTo(const CountArgs& args, int rank, int peer, int64_t chunk_rows) {
  const RankChoices& own = args.ranks[static_cast<size_t>(rank)];
  int64_t pieces = 0;
  for (int64_t p = 0; p < NumPieces(own.num_rows, chunk_rows); ++p) {
    const RowRange piece = PieceOf(own.num_rows, chunk_rows, p);
    const RankChoices part = {piece.count, own.slots + piece.begin * args.top_k};
    CountArgs one = args;
    one.ranks = {&part, 1};
    pieces += FlowOf(one, 0, peer).rows > 0;
  }
  return pieces;
}

}  // namespace

ByteCounts CountBytes(const CountArgs& args, int rank) {
  const auto algorithm = AlgorithmOf(args.backend);
  CADRE_CHECK(algorithm);
  const int64_t own_rows = args.ranks[static_cast<size_t>(rank)].num_rows;
  ByteCounts bytes;
  for (int peer = 0; peer < static_cast<int>(args.ranks.size()); ++peer) {
    if (peer == rank) continue;
    const int64_t rows = args.ranks[static_cast<size_t>(peer)].num_rows;
    const auto chunk = [&](int64_t all) {
      return args.chunk_rows > 0 ? args.chunk_rows : std::max<int64_t>(all, 1);
    };
    AddDispatch(args, *algorithm, rank, {rows, FlowOf(args, peer, rank), NumPieces(rows, chunk(rows))},
                bytes);
    AddCombine(args, *algorithm, own_rows, FlowOf(args, rank, peer),
               PiecesTo(args, rank, peer, chunk(own_rows)), rows, bytes);
  }
  return bytes;
}

}  // namespace cadre::a2a
