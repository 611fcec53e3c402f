#include "eplb/circles.h"

#include <deque>

#include "base/check.h"

namespace cadre::eplb {
namespace {

constexpr int32_t kNone = -1;

struct Arrow {
  int32_t to = 0;               // node
  int32_t lost_slot = kNone;    // at the node it starts from; kNone: the outside
  int32_t gained_slot = kNone;  // at `to`; kNone: the outside
};

// Nodes 0 .. ranks-1 are the ranks, node `ranks` is the outside. [nodes] arrows that leave, in the order in
// which they are taken.
using Arrows = std::vector<std::deque<Arrow>>;

Arrows DrawArrows(const SlotLayout& layout, int32_t num_experts, std::span<const int32_t> present,
                  std::span<const int32_t> target) {
  const int32_t outside = layout.num_ranks;
  std::vector<bool> stays(static_cast<size_t>(num_experts));
  for (size_t slot = 0; slot < present.size(); ++slot) {
    if (present[slot] == target[slot]) stays[static_cast<size_t>(present[slot])] = true;
  }
  // An expert that stays nowhere: its first gain is tied to its first loss.
  std::vector<int32_t> tied_gain(static_cast<size_t>(num_experts), kNone);
  std::vector<int32_t> tied_loss(static_cast<size_t>(num_experts), kNone);
  Arrows arrows(static_cast<size_t>(outside) + 1);
  for (size_t i = 0; i < present.size(); ++i) {
    if (present[i] == target[i]) continue;
    const auto slot = static_cast<int32_t>(i);
    const int32_t rank = layout.RankOf(slot);
    const auto lost = static_cast<size_t>(present[i]), gained = static_cast<size_t>(target[i]);
    if (!stays[lost] && tied_loss[lost] == kNone) {
      tied_loss[lost] = slot;
    } else {
      arrows[static_cast<size_t>(rank)].push_back({.to = outside, .lost_slot = slot});
    }
    if (!stays[gained] && tied_gain[gained] == kNone) {
      tied_gain[gained] = slot;
    } else {
      arrows[static_cast<size_t>(outside)].push_back({.to = rank, .gained_slot = slot});
    }
  }
  for (size_t e = 0; e < tied_loss.size(); ++e) {
    if (tied_loss[e] == kNone) continue;
    CADRE_CHECK(tied_gain[e] != kNone);  // both maps are legal
    arrows[static_cast<size_t>(layout.RankOf(tied_loss[e]))].push_back(
        {.to = layout.RankOf(tied_gain[e]), .lost_slot = tied_loss[e], .gained_slot = tied_gain[e]});
  }
  return arrows;
}

// The arrows of a closed path: where one arrives at a rank, the next leaves it.
Circle CircleOf(std::span<const Arrow> path, int32_t outside) {
  Circle circle;
  for (size_t i = 0; i < path.size(); ++i) {
    const Arrow& next = path[(i + 1) % path.size()];
    if (path[i].to != outside)
      circle.push_back({.rank = path[i].to, .gains = path[i].gained_slot, .loses = next.lost_slot});
  }
  return circle;
}

}  // namespace

std::vector<Circle> CutIntoCircles(const SlotLayout& layout, int32_t num_experts,
                                   std::span<const int32_t> present, std::span<const int32_t> target) {
  const int32_t outside = layout.num_ranks;
  Arrows arrows = DrawArrows(layout, num_experts, present, target);
  std::vector<Circle> circles;
  std::vector<int32_t> depth(arrows.size(), kNone);  // arrows walked before the walk came to the node
  // The outside first: its circles are short.
  for (int32_t start = outside; start >= 0; --start) {
    while (!arrows[static_cast<size_t>(start)].empty()) {
      std::vector<Arrow> path;
      std::vector<int32_t> nodes;  // where each arrow of the path starts
      int32_t node = start;
      // As many arrows leave a node as arrive, so the walk cannot end anywhere but where it began.
      while (!path.empty() || !arrows[static_cast<size_t>(node)].empty()) {
        if (depth[static_cast<size_t>(node)] != kNone) {  // been here: the path since then is a circle
          const auto from = static_cast<size_t>(depth[static_cast<size_t>(node)]);
          circles.push_back(CircleOf(std::span(path).subspan(from), outside));
          for (size_t i = from; i < nodes.size(); ++i) depth[static_cast<size_t>(nodes[i])] = kNone;
          path.resize(from);
          nodes.resize(from);
          continue;
        }
        depth[static_cast<size_t>(node)] = static_cast<int32_t>(path.size());
        nodes.push_back(node);
        auto& leaving = arrows[static_cast<size_t>(node)];
        CADRE_CHECK(!leaving.empty());
        path.push_back(leaving.front());
        leaving.pop_front();
        node = path.back().to;
      }
    }
  }
  return circles;
}

}  // namespace cadre::eplb
