#include "a2a/reference.h"

#include <algorithm>

namespace cadre::a2a {
namespace {

// A sum that is its first term, not 0 + its first term.
struct Sum {
  explicit Sum(size_t width) : values(width, 0.0f) {}
  void Add(const std::vector<float>& row) {
    for (size_t h = 0; h < row.size(); ++h) values[h] = empty ? row[h] : values[h] + row[h];
    empty = false;
  }
  std::vector<float> values;
  bool empty = true;
};

bool Holds(const eplb::SlotLayout& layout, int rank, int32_t slot) {
  return slot >= 0 && (layout.sharded || layout.RankOf(slot) == rank);
}

}  // namespace

std::vector<float> ReferenceCombine(const ReferenceArgs& args, int home) {
  const ReferenceInput& input = args.ranks[static_cast<size_t>(home)];
  const auto width = static_cast<size_t>(args.hidden);
  const int num_ranks = args.layout.num_ranks;
  const int ranks_per_host =
      args.tree == Tree::kByHost && args.ranks_per_host > 0 ? args.ranks_per_host : num_ranks;
  std::vector<float> result;
  for (int64_t t = 0; t < input.num_rows; ++t) {
    Sum total(width);
    const auto slot_of = [&](int32_t k) { return input.slots[t * args.top_k + k]; };
    const auto expert_row = [&](int rank, int32_t k) {
      std::vector<float> row(width);
      args.expert(rank, slot_of(k), home, t, row.data());
      return row;
    };
    const auto weighted = [&](std::vector<float> row, int32_t k) {
      for (float& value : row) value *= input.weights[t * args.top_k + k];
      return row;
    };
    if (args.tree == Tree::kByK) {
      for (int32_t k = 0; k < args.top_k; ++k) {
        Sum shards(width);
        for (int rank = 0; rank < num_ranks; ++rank) {
          if (Holds(args.layout, rank, slot_of(k))) shards.Add(expert_row(rank, k));
        }
        if (!shards.empty) total.Add(weighted(shards.values, k));
      }
    } else {
      for (int first = 0; first < num_ranks; first += ranks_per_host) {
        Sum host(width);
        for (int rank = first; rank < std::min(first + ranks_per_host, num_ranks); ++rank) {
          Sum partial(width);
          for (int32_t k = 0; k < args.top_k; ++k) {
            if (Holds(args.layout, rank, slot_of(k))) partial.Add(weighted(expert_row(rank, k), k));
          }
          if (!partial.empty) host.Add(partial.values);
        }
        if (!host.empty) total.Add(host.values);
      }
    }
    result.insert(result.end(), total.values.begin(), total.values.end());
  }
  return result;
}

}  // namespace cadre::a2a
