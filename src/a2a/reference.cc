#include "a2a/reference.h"

namespace cadre::a2a {
namespace {

// sum += row, or sum = row for the first.
void AddInto(std::vector<float>& sum, const std::vector<float>& row, bool& empty) {
  for (size_t h = 0; h < row.size(); ++h) sum[h] = empty ? row[h] : sum[h] + row[h];
  empty = false;
}

bool Holds(const eplb::SlotLayout& layout, int rank, int32_t slot) {
  return slot >= 0 && (layout.sharded || layout.RankOf(slot) == rank);
}

}  // namespace

std::vector<float> ReferenceCombine(const ReferenceArgs& args, int home) {
  const ReferenceInput& input = args.ranks[static_cast<size_t>(home)];
  const auto width = static_cast<size_t>(args.hidden);
  std::vector<float> result;
  for (int64_t t = 0; t < input.num_rows; ++t) {
    std::vector<float> total(width, 0.0f), partial(width), expert(width);
    bool total_empty = true;
    const auto weighted = [&](int rank, int32_t k) {
      args.expert(rank, input.slots[t * args.top_k + k], home, t, expert.data());
      for (float& value : expert) value *= input.weights[t * args.top_k + k];
    };
    if (args.tree == Tree::kByK) {
      for (int32_t k = 0; k < args.top_k; ++k) {
        const int32_t slot = input.slots[t * args.top_k + k];
        if (slot < 0) continue;
        weighted(args.layout.RankOf(slot), k);
        AddInto(total, expert, total_empty);
      }
    } else {
      for (int rank = 0; rank < args.layout.num_ranks; ++rank) {
        bool partial_empty = true;
        for (int32_t k = 0; k < args.top_k; ++k) {
          if (!Holds(args.layout, rank, input.slots[t * args.top_k + k])) continue;
          weighted(rank, k);
          AddInto(partial, expert, partial_empty);
        }
        if (!partial_empty) AddInto(total, partial, total_empty);
      }
    }
    result.insert(result.end(), total.begin(), total.end());
  }
  return result;
}

}  // namespace cadre::a2a
