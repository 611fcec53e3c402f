// The slow twins of allgather_hosts.cc: formulas and plain loops.
#include <algorithm>

#include "a2a/allgather_hosts.h"

namespace cadre::a2a {
namespace {

bool Holds(const eplb::SlotLayout& layout, int rank, int32_t slot) {
  return slot >= 0 && (layout.sharded || layout.RankOf(slot) == rank);
}

bool Touches(const CountArgs& args, int home, int64_t t, int rank) {
  const int32_t* slots = args.ranks[static_cast<size_t>(home)].slots + t * args.top_k;
  return std::any_of(slots, slots + args.top_k, [&](int32_t slot) { return Holds(args.layout, rank, slot); });
}

bool HostTouches(const CountArgs& args, int home, int64_t t, fabric::MemberRange host) {
  for (int r = host.begin; r < host.begin + host.count; ++r) {
    if (Touches(args, home, t, r)) return true;
  }
  return false;
}

bool Contains(fabric::MemberRange host, int rank) {
  return rank >= host.begin && rank < host.begin + host.count;
}

}  // namespace

ByteCounts CountHostBytes(const CountArgs& args, const std::vector<fabric::MemberRange>& hosts,
                          int64_t wire_row_bytes, int rank) {
  const int64_t choice_bytes = args.top_k * 8;
  const auto home = std::ranges::find_if(hosts, [&](auto host) { return Contains(host, rank); });
  const auto num_hosts = static_cast<int>(hosts.size());
  const int64_t own_rows = args.ranks[static_cast<size_t>(rank)].num_rows;
  ByteCounts bytes;
  for (int h = 0; h < num_hosts; ++h) {
    const fabric::MemberRange host = hosts[static_cast<size_t>(h)];
    const bool here = Contains(host, rank);
    const bool carries = !here && home->begin + h % home->count == rank;
    if (!here) bytes.combine_algorithmic += own_rows * wire_row_bytes;
    for (int s = host.begin; s < host.begin + host.count; ++s) {
      if (s == rank) continue;
      const int64_t rows = args.ranks[static_cast<size_t>(s)].num_rows;
      bytes.dispatch_algorithmic += rows * (args.row_bytes + choice_bytes);
      bytes.dispatch_physical += rows * choice_bytes;
      for (int64_t t = 0; t < rows; ++t)
        bytes.dispatch_physical += Touches(args, s, t, rank) * args.row_bytes;
      if (carries) bytes.dispatch_wire += rows * (args.row_bytes + choice_bytes);
      if (!here) continue;
      bytes.combine_algorithmic += own_rows * args.partial_bytes;
      for (int64_t t = 0; t < own_rows; ++t)
        bytes.combine_physical += Touches(args, rank, t, s) * args.partial_bytes;
    }
    if (here) continue;
    for (int64_t t = 0; t < own_rows; ++t)
      bytes.combine_physical += HostTouches(args, rank, t, host) * wire_row_bytes;
    if (!carries) continue;
    for (int s = home->begin; s < home->begin + home->count; ++s) {
      for (int64_t t = 0; t < args.ranks[static_cast<size_t>(s)].num_rows; ++t) {
        bytes.combine_wire += HostTouches(args, s, t, host) * wire_row_bytes;
      }
    }
  }
  return bytes;
}

std::vector<float> ReferenceHostCombine(const ReferenceArgs& args,
                                        const std::vector<fabric::MemberRange>& hosts, DType wire_type,
                                        int home) {
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
