#include "kv/block_pool.h"

#include <algorithm>

#include "base/check.h"
#include "base/prefix_hash.h"

namespace cadre::kv {
namespace {

// A client may hold the pool's number of salts; beyond it the trie starts anew. Keeps roots_ bounded.
constexpr size_t kMaxRoots = 4096;

// Mixes well enough for a table; equality is decided by comparing tokens.
uint64_t HashPlace(NodeId parent, std::span<const int32_t> tokens) {
  uint64_t h = static_cast<uint64_t>(parent.value) * 0x9E3779B97F4A7C15;
  for (const int32_t token : tokens) {
    h ^= static_cast<uint32_t>(token);
    h *= 0xD6E8FEB86659FD93;
    h ^= h >> 32;
  }
  return h;
}

}  // namespace

BlockPool::BlockPool(int64_t num_blocks, int32_t block_size)
    : block_size_(block_size), blocks_(static_cast<size_t>(num_blocks)) {
  empty_.reserve(blocks_.size());
  for (int64_t i = num_blocks; i > 0; --i) empty_.push_back(BlockId(static_cast<int32_t>(i - 1)));
}

std::optional<BlockId> BlockPool::Allocate() {
  if (empty_.empty() && !evictable_.empty()) Forget(evictable_.front());
  if (empty_.empty()) return std::nullopt;
  const BlockId block = empty_.back();
  empty_.pop_back();
  At(block).holders = 1;
  return block;
}

void BlockPool::Hold(BlockId block) {
  Block& b = At(block);
  if (b.holders == 0) {
    CADRE_CHECK(b.node.valid());
    evictable_.erase(b.age);
  }
  ++b.holders;
}

void BlockPool::Release(BlockId block) {
  Block& b = At(block);
  CADRE_CHECK(b.holders > 0);
  if (--b.holders > 0) return;
  if (b.node.valid()) {
    b.age = evictable_.insert(evictable_.end(), block);
  } else {
    empty_.push_back(block);
  }
}

NodeId BlockPool::Root(const std::string& key) {
  if (const auto found = roots_.find(key); found != roots_.end()) return found->second;
  if (roots_.size() >= kMaxRoots) ForgetRoots();
  const NodeId root(next_node_++);
  names_[root.value] = PrefixRoot(key);
  return roots_[key] = root;
}

// What stands under a root that is forgotten stays, and is found no more.
void BlockPool::ForgetRoots() {
  for (const auto& [key, root] : roots_) names_.erase(root.value);
  roots_.clear();
}

std::optional<uint64_t> BlockPool::NameOf(NodeId node) const {
  const auto found = names_.find(node.value);
  return found == names_.end() ? std::nullopt : std::optional(found->second);
}

std::unordered_multimap<uint64_t, BlockPool::Node>::iterator BlockPool::FindNode(
    NodeId parent, std::span<const int32_t> tokens) {
  auto [it, end] = nodes_.equal_range(HashPlace(parent, tokens));
  for (; it != end; ++it) {
    if (it->second.parent == parent && std::ranges::equal(it->second.tokens, tokens)) return it;
  }
  return nodes_.end();
}

BlockPool::Match BlockPool::FindPrefix(NodeId root, std::span<const int32_t> tokens) {
  Match match{.blocks = {}, .node = root};
  const auto step = static_cast<size_t>(block_size_);
  for (size_t begin = 0; begin + step <= tokens.size(); begin += step) {
    const auto found = FindNode(match.node, tokens.subspan(begin, step));
    if (found == nodes_.end()) break;
    Hold(found->second.block);
    match.blocks.push_back(found->second.block);
    match.node = found->second.id;
  }
  return match;
}

NodeId BlockPool::Publish(NodeId parent, std::span<const int32_t> tokens, BlockId block) {
  CADRE_CHECK(static_cast<int32_t>(tokens.size()) == block_size_);
  if (const auto found = FindNode(parent, tokens); found != nodes_.end()) return found->second.id;
  CADRE_CHECK(At(block).holders > 0 && !At(block).node.valid());
  const NodeId id(next_node_++);
  const uint64_t hash = HashPlace(parent, tokens);
  std::optional<uint64_t> name = NameOf(parent);
  if (name) {
    name = names_[id.value] = ExtendPrefix(*name, tokens);
    if (listener_ != nullptr) listener_->Published(*name);
  }
  nodes_.emplace(hash, Node{id, parent, block, {tokens.begin(), tokens.end()}, name});
  node_hash_[id.value] = hash;
  At(block).node = id;
  return id;
}

void BlockPool::Forget(BlockId block) {
  Block& b = At(block);
  const auto place = node_hash_.find(b.node.value);
  auto [it, end] = nodes_.equal_range(place->second);
  while (it != end && it->second.id != b.node) ++it;
  CADRE_CHECK(it != end);
  if (const auto name = it->second.name) {
    names_.erase(b.node.value);
    if (listener_ != nullptr) listener_->Forgotten(*name);
  }
  nodes_.erase(it);
  node_hash_.erase(place);
  b.node = NodeId();
  if (b.holders == 0) {
    evictable_.erase(b.age);
    empty_.push_back(block);
  }
}

void BlockPool::ForgetAll() {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (blocks_[i].node.valid()) Forget(BlockId(static_cast<int32_t>(i)));
  }
  ForgetRoots();
}

void BlockPool::CheckIntegrity() const {
  size_t held = 0, cached = 0;
  for (const Block& b : blocks_) {
    held += b.holders > 0;
    cached += b.holders == 0 && b.node.valid();
  }
  CADRE_CHECK(cached == evictable_.size());
  CADRE_CHECK(held + cached + empty_.size() == blocks_.size());
  CADRE_CHECK(nodes_.size() == node_hash_.size());
}

}  // namespace cadre::kv
