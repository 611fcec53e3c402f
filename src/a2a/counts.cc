#include "a2a/counts.h"

#include <algorithm>
#include <vector>

#include "a2a/algorithms.h"
#include "base/check.h"

namespace cadre::a2a {
namespace {

// What crosses from a source rank to a range of slots' ranks: rows with a choice there, and such choices.
struct Flow {
  int64_t rows = 0, choices = 0;
};

bool Holds(const eplb::SlotLayout& layout, fabric::MemberRange ranks, int32_t slot) {
  return slot >= 0 && (layout.sharded ||
                       (slot >= layout.Begin(ranks.begin) && slot < layout.Begin(ranks.begin + ranks.count)));
}

// Choices of row t of `source` on `ranks`.
int64_t ChoicesOf(const CountArgs& args, int source, int64_t t, fabric::MemberRange ranks) {
  const int32_t* slots = args.ranks[static_cast<size_t>(source)].slots + t * args.top_k;
  return std::count_if(slots, slots + args.top_k,
                       [&](int32_t slot) { return Holds(args.layout, ranks, slot); });
}

Flow FlowOf(const CountArgs& args, int source, fabric::MemberRange ranks) {
  Flow flow;
  for (int64_t t = 0; t < args.ranks[static_cast<size_t>(source)].num_rows; ++t) {
    const int64_t here = ChoicesOf(args, source, t, ranks);
    flow.rows += here > 0;
    flow.choices += here;
  }
  return flow;
}
Flow FlowOf(const CountArgs& args, int source, int target) {
  return FlowOf(args, source, fabric::MemberRange{target, 1});
}

bool Contains(fabric::MemberRange host, int rank) {
  return rank >= host.begin && rank < host.begin + host.count;
}

// A peer's rows on their way to `rank`: all of it, what comes here, in how many pieces.
struct Incoming {
  int64_t all_rows;
  Flow flow;
  int64_t pieces;
  int64_t seen_rows;  // rows that lie where this rank can see them: all of this host's, and what came
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
      here += in.flow.rows * args.row_bytes + in.seen_rows * args.top_k * 4;
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

int64_t ChunkRowsOf(const CountArgs& args, int rank) {
  return args.chunk_rows > 0 ? args.chunk_rows
                             : std::max<int64_t>(args.ranks[static_cast<size_t>(rank)].num_rows, 1);
}
int64_t PiecesOf(const CountArgs& args, int rank) {
  return NumPieces(args.ranks[static_cast<size_t>(rank)].num_rows, ChunkRowsOf(args, rank));
}

int32_t SlotsOn(const eplb::SlotLayout& layout, fabric::MemberRange host) {
  return layout.sharded ? layout.num_slots : layout.Begin(host.begin + host.count) - layout.Begin(host.begin);
}

// What `source` sends to another host: rows and what is beside them.
int64_t DispatchWire(const CountArgs& args, Algorithm algorithm, int source, fabric::MemberRange to) {
  const int64_t choice_bytes = args.top_k * 8, pieces = PiecesOf(args, source);
  const Flow flow = FlowOf(args, source, to);
  const auto listed = [&] {
    int64_t bytes = flow.rows * (args.row_bytes + choice_bytes) + pieces * 4 * to.count;
    for (int r = to.begin; r < to.begin + to.count; ++r) bytes += 4 * FlowOf(args, source, r).rows;
    return bytes;
  };
  switch (algorithm) {
    case Algorithm::kAllGatherReduceScatter:
    case Algorithm::kNaive:
      return args.ranks[static_cast<size_t>(source)].num_rows * (args.row_bytes + choice_bytes);
    case Algorithm::kPplx:
      return flow.rows * args.row_bytes + flow.choices * 4 +
             pieces * 4 * (to.count + SlotsOn(args.layout, to));
    case Algorithm::kDeepEpLowLatency:
      return flow.rows * (args.row_bytes + args.top_k * 4);
    case Algorithm::kDeepEpHighThroughput:
      return listed() + pieces * 4 * SlotsOn(args.layout, to);
    case Algorithm::kFlashInfer:
    case Algorithm::kMori:
      return listed();
  }
  return 0;
}

// Expert rows that come back for a choice.
int64_t Copies(const CountArgs& args, fabric::MemberRange from) {
  return args.layout.sharded ? from.count : 1;
}

// Partial sums of others that `rank` reads because its host's ranks share out the rows of `other`.
int64_t ReducedReads(const CountArgs& args, bool all, int rank, fabric::MemberRange own,
                     fabric::MemberRange other) {
  int64_t reads = 0, chunks = 1;
  for (int s = other.begin; s < other.begin + other.count; ++s) chunks = std::max(chunks, PiecesOf(args, s));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    std::vector<int64_t> others;  // of each row of the message: ranks here, but this one, that have a part
    for (int s = other.begin; s < other.begin + other.count; ++s) {
      const RowRange piece =
          PieceOf(args.ranks[static_cast<size_t>(s)].num_rows, ChunkRowsOf(args, s), chunk);
      for (int64_t t = piece.begin; t < piece.begin + piece.count; ++t) {
        if (!all && ChoicesOf(args, s, t, own) == 0) continue;
        int64_t n = 0;
        for (int r = own.begin; r < own.begin + own.count; ++r)
          n += r != rank && (all || ChoicesOf(args, s, t, {r, 1}) > 0);
        others.push_back(n);
      }
    }
    const RowRange share = SplitRows(std::ssize(others), own.count, rank - own.begin);
    for (int64_t i = share.begin; i < share.begin + share.count; ++i) reads += others[static_cast<size_t>(i)];
  }
  return reads;
}

// What this rank and another host have to do with each other, apart from the dispatch to each rank.
void AddHost(const CountArgs& args, Algorithm algorithm, int rank, fabric::MemberRange own,
             fabric::MemberRange other, bool carries, ByteCounts& bytes) {
  const auto num_rows = [&](int r) { return args.ranks[static_cast<size_t>(r)].num_rows; };
  const bool by_k = TreeOf(algorithm) == Tree::kByK, naive = algorithm == Algorithm::kNaive;
  // Results for a home rank of this host.
  const auto results = [&](int home) {
    if (naive) return num_rows(home) * args.sum_bytes;
    const Flow flow = FlowOf(args, home, other);
    return by_k ? flow.choices * Copies(args, other) * args.partial_bytes : flow.rows * args.sum_bytes;
  };
  bytes.combine_physical += results(rank);
  if (algorithm == Algorithm::kAllGatherReduceScatter) {
    bytes.combine_algorithmic += num_rows(rank) * args.sum_bytes;
  } else if (algorithm == Algorithm::kFlashInfer) {  // one from each rank, not from each host
    for (int r = other.begin; r < other.begin + other.count; ++r)
      bytes.combine_algorithmic += FlowOf(args, rank, r).rows * args.sum_bytes;
  } else {
    bytes.combine_algorithmic += results(rank);
  }
  if (!by_k) bytes.combine_physical += ReducedReads(args, naive, rank, own, other) * args.partial_bytes;
  for (int s = other.begin; s < other.begin + other.count; ++s) {
    if (carries) bytes.dispatch_wire += DispatchWire(args, algorithm, s, own);
    if (!naive) continue;  // all finished sums come too
    const int64_t sums = num_rows(s) * args.partial_bytes;
    bytes.combine_algorithmic += sums;
    bytes.combine_physical += sums;
    if (carries) bytes.combine_wire += sums;
  }
  for (int home = own.begin; carries && home < own.begin + own.count; ++home)
    bytes.combine_wire += results(home);
}

}  // namespace

ByteCounts CountBytes(const CountArgs& args, int rank) {
  const auto found = AlgorithmOf(args.backend);
  CADRE_CHECK(found);
  const Algorithm algorithm = *found;
  const auto num_ranks = static_cast<int>(args.ranks.size());
  const fabric::MemberRange all{0, num_ranks};
  const auto hosts = args.hosts.empty() ? std::span(&all, 1) : args.hosts;
  size_t own = 0;
  while (!Contains(hosts[own], rank)) ++own;
  const int64_t own_rows = args.ranks[static_cast<size_t>(rank)].num_rows;
  ByteCounts bytes;
  for (int peer = 0; peer < num_ranks; ++peer) {
    if (peer == rank) continue;
    const int64_t rows = args.ranks[static_cast<size_t>(peer)].num_rows;
    const bool here = Contains(hosts[own], peer);
    const int64_t seen = here ? rows : FlowOf(args, peer, hosts[own]).rows;
    AddDispatch(args, algorithm, rank, {rows, FlowOf(args, peer, rank), PiecesOf(args, peer), seen}, bytes);
    if (here) {
      AddCombine(args, algorithm, own_rows, FlowOf(args, rank, peer),
                 PiecesTo(args, rank, peer, ChunkRowsOf(args, rank)), rows, bytes);
    }
  }
  for (size_t h = 0; h < hosts.size(); ++h) {
    if (h == own) continue;
    const bool carries = hosts[own].begin + static_cast<int>(h) % hosts[own].count == rank;
    AddHost(args, algorithm, rank, hosts[own], hosts[h], carries, bytes);
  }
  return bytes;
}

}  // namespace cadre::a2a
