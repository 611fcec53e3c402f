#pragma once
// An immutable byte trie: all keys that begin a text, found in one walk. Children of a node lie side by side,
// so a step is one memchr over at most 256 labels.
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace cadre::text {

class Trie {
 public:
  /// Keys must not be empty; of equal keys the last one stays. Cost: sorting, then linear in the bytes of the
  /// keys.
  void Build(const std::vector<std::pair<std::string_view, int32_t>>& keys);

  bool empty() const { return nodes_.size() <= 1; }
  /// True if some key begins with this byte.
  bool StartsKey(char byte) const { return starts_[static_cast<unsigned char>(byte)]; }

  /// Calls found(length, value) for every key that begins `text`, shortest first.
  template <typename Found>
  void ForEachPrefix(std::string_view text, Found&& found) const {
    if (nodes_.empty()) return;
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const Node& at = nodes_[node];
      if (at.num_children == 0) return;
      const void* hit =
          std::memchr(labels_.data() + at.first_child, static_cast<unsigned char>(text[i]), at.num_children);
      if (hit == nullptr) return;
      node = static_cast<uint32_t>(static_cast<const unsigned char*>(hit) - labels_.data());
      if (nodes_[node].value >= 0) found(i + 1, nodes_[node].value);
    }
  }

 private:
  struct Node {
    uint32_t first_child = 0;
    uint32_t num_children = 0;
    int32_t value = -1;
  };
  std::vector<Node> nodes_;
  std::vector<unsigned char> labels_;  // the byte that leads to each node
  bool starts_[256] = {};
};

}  // namespace cadre::text
