#include <algorithm>

#include "a2a/reference.h"

namespace cadre::a2a {
namespace {

bool Holds(const eplb::SlotLayout& layout, int rank, int32_t slot) {
  return slot >= 0 && (layout.sharded || layout.RankOf(slot) == rank);
}

bool Contains(fabric::MemberRange host, int rank) {
  return rank >= host.begin && rank < host.begin + host.count;
}

}  // namespace

std::vector<float> ReferenceHostCombine(const ReferenceArgs& args, std::span<const fabric::MemberRange> hosts,
                                        DType wire_type, int home) {
  if (args.tree == Tree::kByK) return ReferenceCombine(args, home);  // the same wherever experts lie
  const ReferenceInput& input = args.ranks[static_cast<size_t>(home)];
  const auto width = static_cast<size_t>(args.hidden);
  std::vector<float> result;
  const auto add = [&](std::vector<float>& sum, const std::vector<float>& row, bool& empty) {
    for (size_t i = 0; i < width; ++i) sum[i] = empty ? row[i] : sum[i] + row[i];
    empty = false;
  };
  for (int64_t t = 0; t < input.num_rows; ++t) {
    std::vector<float> total(width, 0.0f), of_host(width), of_rank(width), expert(width);
    bool total_empty = true;
    for (const fabric::MemberRange host : hosts) {
      bool host_empty = true;
      for (int rank = host.begin; rank < host.begin + host.count; ++rank) {
        bool rank_empty = true;
        for (int32_t k = 0; k < args.top_k; ++k) {
          const int32_t slot = input.slots[t * args.top_k + k];
          if (!Holds(args.layout, rank, slot)) continue;
          args.expert(rank, slot, home, t, expert.data());
          for (float& value : expert) value *= input.weights[t * args.top_k + k];
          add(of_rank, expert, rank_empty);
        }
        if (!rank_empty) add(of_host, of_rank, host_empty);
      }
      if (host_empty) continue;
      if (!Contains(host, home) && wire_type == DType::kBf16) {
        for (float& value : of_host) value = ToFloat(ToBf16(value));
      }
      add(total, of_host, total_empty);
    }
    result.insert(result.end(), total.begin(), total.end());
  }
  return result;
}

}  // namespace cadre::a2a
