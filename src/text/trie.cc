#include "text/trie.h"

#include <algorithm>

namespace cadre::text {

void Trie::Build(std::vector<std::pair<std::string_view, int32_t>> keys) {
  std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  struct Range {  // the keys below a node
    size_t begin, end, depth;
  };
  std::vector<Range> ranges{{0, keys.size(), 0}};
  nodes_.assign(1, {});
  labels_.assign(1, 0);
  std::fill(std::begin(starts_), std::end(starts_), false);
  for (size_t node = 0; node < nodes_.size(); ++node) {  // breadth first: children become neighbours
    auto [begin, end, depth] = ranges[node];
    for (; begin < end && keys[begin].first.size() == depth; ++begin) nodes_[node].value = keys[begin].second;
    nodes_[node].first_child = static_cast<uint32_t>(nodes_.size());
    while (begin < end) {
      const char label = keys[begin].first[depth];
      size_t next = begin;
      while (next < end && keys[next].first[depth] == label) ++next;
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
