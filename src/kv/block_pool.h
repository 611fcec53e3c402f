#pragma once
// Who holds which block of the KV cache, and which blocks still carry a prefix that a later request may want.
//
// One reference count a block; holders are sequences (and later hand-off leases). A block without holders is
// either empty or *cached*: its content is known by the prefix index and stays until the space is needed,
// oldest first.
//
// The index is an exact trie: a node is found by (parent node, the block's tokens), and tokens are compared,
// not only hashed. Two prompts can therefore never share a block by accident or by attack. A root stands for
// everything else that the content depends on: cache salt, adapter, weight generation.
//
// Not thread safe: the engine thread owns it.
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"

namespace cadre::kv {

/// Place in the prefix trie. Never used again after its block is evicted.
using NodeId = Id<struct NodeTag, int64_t>;

/// Hears which prefixes can be found, by their names (base/prefix_hash.h). On the engine thread; must be
/// cheap.
class PrefixListener {
 public:
  virtual ~PrefixListener() = default;
  virtual void Published(uint64_t name) = 0;
  virtual void Forgotten(uint64_t name) = 0;  ///< as often as it was published
};

class BlockPool {
 public:
  BlockPool(int64_t num_blocks, int32_t block_size);

  /// `listener` hears of all that is published from now on; null: nobody. Outlives the pool.
  void SetListener(PrefixListener* listener) { listener_ = listener; }

  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  int32_t block_size() const { return block_size_; }
  /// Blocks that Allocate can still give: empty ones and cached ones without holders.
  int64_t num_available() const { return static_cast<int64_t>(empty_.size() + evictable_.size()); }

  /// A block held once by the caller; evicts the block that was released longest ago if none is empty.
  /// nullopt if all blocks have holders.
  std::optional<BlockId> Allocate();

  void Hold(BlockId block);
  /// Gives up one hold. Release a sequence's blocks last to first, so that a prefix outlives its
  /// continuation.
  void Release(BlockId block);

  /// The trie's root for everything but tokens that decides a block's content.
  NodeId Root(const std::string& key);

  struct Match {
    std::vector<BlockId> blocks;  ///< each held once for the caller
    NodeId node;                  ///< of the last matched block, or the root
  };
  /// The longest cached chain of whole blocks that starts at `root` and spells a beginning of `tokens`.
  Match FindPrefix(NodeId root, std::span<const int32_t> tokens);

  /// Says that `block` now holds the keys and values of `tokens` (block_size of them) after `parent`. If the
  /// trie has that place already, the earlier block keeps it and this one stays private. Returns the node for
  /// the next block.
  NodeId Publish(NodeId parent, std::span<const int32_t> tokens, BlockId block);

  /// Forgets every cached prefix. Blocks with holders stay theirs but are found no more.
  void ForgetAll();

  /// Checks the counts against each other; for tests and for idle moments.
  void CheckIntegrity() const;

 private:
  struct Block {
    int32_t holders = 0;
    NodeId node;                       // invalid: content not in the trie
    std::list<BlockId>::iterator age;  // place in evictable_, valid if holders == 0 and node is valid
  };
  struct Node {
    NodeId id;
    NodeId parent;
    BlockId block;
    std::vector<int32_t> tokens;
    std::optional<uint64_t> name;  // if it can be found: not if its parent was evicted before it came
  };
  std::optional<uint64_t> NameOf(NodeId node) const;

  std::unordered_multimap<uint64_t, Node>::iterator FindNode(NodeId parent, std::span<const int32_t> tokens);
  void Forget(BlockId block);
  void ForgetRoots();
  Block& At(BlockId block) { return blocks_[static_cast<size_t>(block.value)]; }

  int32_t block_size_;
  std::vector<Block> blocks_;
  std::vector<BlockId> empty_;    // last in, first out: its memory is likely still in the cache
  std::list<BlockId> evictable_;  // oldest release first
  std::unordered_multimap<uint64_t, Node> nodes_;    // by hash of (parent, tokens)
  std::unordered_map<int64_t, uint64_t> node_hash_;  // node id -> its key in nodes_
  std::unordered_map<std::string, NodeId> roots_;
  std::unordered_map<int64_t, uint64_t> names_;  // of roots and nodes that can be found, by id
  PrefixListener* listener_ = nullptr;
  int64_t next_node_ = 0;
};

}  // namespace cadre::kv
