#include "text/trie.h"

#include <algorithm>
#include <numeric>

namespace cadre::text {

void Trie::Build(const std::vector<std::pair<std::string_view, int32_t>>& keys) {
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int compared = keys[a].first.compare(keys[b].first);
    return compared != 0 ? compared < 0 : a < b;
  });
  const auto key = [&](size_t i) { return keys[order[i]].first; };
  struct Range {  // the keys below a node
    size_t begin, end, depth;
  };
  std::vector<Range> ranges{{0, keys.size(), 0}};
  nodes_.assign(1, {});
  labels_.assign(1, 0);
  std::fill(std::begin(starts_), std::end(starts_), false);
  for (size_t node = 0; node < nodes_.size(); ++node) {  // breadth first: children become neighbours
    auto [begin, end, depth] = ranges[node];
    for (; begin < end && key(begin).size() == depth; ++begin) nodes_[node].value = keys[order[begin]].second;
    nodes_[node].first_child = static_cast<uint32_t>(nodes_.size());
    while (begin < end) {
      const char label = key(begin)[depth];
      size_t next = begin;
      while (next < end && key(next)[depth] == label) ++next;
      ranges.push_back({begin, next, depth + 1});
      nodes_.push_back({});
      labels_.push_back(static_cast<unsigned char>(label));
      if (node == 0) starts_[static_cast<unsigned char>(label)] = true;
      begin = next;
    }
    nodes_[node].num_children = static_cast<uint32_t>(nodes_.size()) - nodes_[node].first_child;
  }
}

}  // namespace cadre::text
