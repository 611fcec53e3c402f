#pragma once
// Instances of one or more tp ranks in one process, with pools whose every element is known, and the slow
// twin of the layout: one element at a time, as kernels/attention.h draws a block.
#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>

#include "base/random.h"
#include "handoff/agent.h"
#include "sys/shared_memory.h"

namespace cadre::handoff {

constexpr std::byte kFill{0xEE};

struct Shape {
  bool latent = false;
  DType type = DType::kBf16;
  int32_t num_layers = 3, num_kv_heads = 4, k_dim = 6, v_dim = 5;
  int64_t note_bytes = 0;
};

inline Identity IdentityOf(const Shape& shape, int32_t block_size, int32_t tp_rank, int32_t tp_size) {
  Identity identity;
  identity.model = "m";
  identity.model_name = "tiny";
  identity.layout = {.num_layers = shape.num_layers,
                     .num_kv_heads = shape.latent ? 1 : std::max(shape.num_kv_heads / tp_size, 1),
                     .k_dim = shape.k_dim,
                     .v_dim = shape.v_dim,
                     .latent = shape.latent,
                     .block_size = block_size,
                     .type = shape.type,
                     .note_bytes = shape.note_bytes};
  identity.num_kv_heads = shape.latent ? 1 : shape.num_kv_heads;
  identity.tp_rank = tp_rank;
  identity.tp_size = tp_size;
  return identity;
}

/// Byte offset in a block of element `c` of the key (or value) of `token`, head `head` of the rank.
inline int64_t SlowOffset(const kv::Layout& l, int64_t head, int64_t token, int64_t c, bool value) {
  const int64_t size = DTypeBytes(l.type), panel = token / 16, t = token % 16;
  const int64_t k_bytes = l.block_size * l.k_dim * size;
  const int64_t v_bytes = l.latent ? 0 : (l.block_size * l.v_dim * size + 63) / 64 * 64;
  const int64_t at = head * (k_bytes + v_bytes);
  if (!value) {
    if (l.type == DType::kF32) return at + ((panel * l.k_dim + c) * 16 + t) * size;
    return at + (((panel * (l.k_dim / 2) + c / 2) * 16 + t) * 2 + c % 2) * size;
  }
  if (l.type == DType::kF32) return at + k_bytes + ((panel * 16 + t) * l.v_dim + c) * size;
  return at + k_bytes + (((panel * 8 + t / 2) * l.v_dim + c) * 2 + t % 2) * size;
}

/// The bits of an element, by its place in the model.
inline uint32_t Element(int64_t salt, int64_t layer, int64_t head, int64_t token, int64_t c, bool value) {
  return Philox(static_cast<uint64_t>(salt), static_cast<uint64_t>(layer * 1000 + head),
                static_cast<uint64_t>(token * 1000 + c * 2 + value))[0];
}

/// Writes tokens [first, end) of a sequence into a pool, element by element.
inline void SlowWrite(const Identity& identity, std::byte* pool, int64_t num_blocks,
                      const std::vector<int32_t>& blocks, int64_t salt, int32_t layer, int64_t first,
                      int64_t end) {
  const kv::Layout& l = identity.layout;
  const int32_t tp = identity.tp_size, all = identity.num_kv_heads;
  const int64_t first_head = l.latent ? 0 : int64_t{identity.tp_rank} * all / tp;
  for (int64_t token = first; token < end; ++token) {
    std::byte* block =
        pool + (layer * num_blocks + blocks[static_cast<size_t>(token / l.block_size)]) * l.BlockBytes();
    for (int64_t head = 0; head < l.num_kv_heads; ++head) {
      for (const bool value : {false, true}) {
        if (value && l.latent) continue;
        for (int64_t c = 0; c < (value ? l.v_dim : l.k_dim); ++c) {
          const uint32_t bits = Element(salt, layer, first_head + head, token, c, value);
          std::memcpy(block + SlowOffset(l, head, token % l.block_size, c, value), &bits,
                      static_cast<size_t>(DTypeBytes(l.type)));
        }
      }
    }
  }
}

/// The same of notes, byte by byte; all ranks have all of them.
inline void SlowWriteNotes(const kv::Layout& l, std::byte* pool, int64_t num_blocks,
                           const std::vector<int32_t>& blocks, int64_t salt, int64_t first, int64_t end) {
  std::byte* const notes = pool + l.PoolBytes(num_blocks);
  for (int64_t token = first; token < end; ++token) {
    const int64_t block = blocks[static_cast<size_t>(token / l.block_size)];
    for (int64_t i = 0; i < l.note_bytes; ++i) {
      notes[(block * l.block_size + token % l.block_size) * l.note_bytes + i] =
          static_cast<std::byte>(Element(salt, l.num_layers, 0, token, i, false));
    }
  }
}

struct RankRig {
  Identity identity;
  sys::Segment segment;
  std::unique_ptr<Agent> agent;
};

/// One instance.
class Rig {
 public:
  struct Options {
    Shape shape;
    int32_t block_size = 16;
    int32_t tp_size = 1;
    bool share_memory = true;
    int64_t num_blocks = 40;
    std::string engine_id = "engine";
    // Long, so that a machine that stands still for a while looks like no failure; tests of one set it.
    Duration silence_timeout = std::chrono::seconds(30), connect_timeout = std::chrono::seconds(30);
    std::string model = "m";
    int64_t generation = 0;
    double max_bytes_per_s = 0;
  };
  explicit Rig(Options options) : options_(std::move(options)) {
    std::vector<PeerAddress> peers;
    for (int32_t rank = 0; rank < options_.tp_size; ++rank) {
      RankRig& r = ranks_.emplace_back();
      r.identity = IdentityOf(options_.shape, options_.block_size, rank, options_.tp_size);
      r.identity.model = options_.model;
      r.identity.weight_generation = options_.generation;
      const auto bytes = static_cast<size_t>(r.identity.layout.AllBytes(options_.num_blocks));
      r.segment = *sys::CreateSegment("handoff-test", bytes, false);
      std::memset(r.segment.region.data(), static_cast<int>(kFill), bytes);
      auto agent = StartAgent({.identity = r.identity,
                               .engine_id = options_.engine_id,
                               .host = "127.0.0.1",
                               .bind_host = "127.0.0.1",
                               .kv_fd = r.segment.fd.get(),
                               .kv = r.segment.region.data(),
                               .num_blocks = options_.num_blocks,
                               .group_key = options_.engine_id + " secret",
                               .share_memory = options_.share_memory,
                               .max_bytes_per_s = options_.max_bytes_per_s,
                               .connect_timeout = options_.connect_timeout,
                               .silence_timeout = options_.silence_timeout,
                               .wake = [this] { Ring(); }});
      EXPECT_TRUE(agent.has_value()) << (agent ? "" : agent.error().message);
      r.agent = std::move(*agent);
      peers.push_back({"127.0.0.1", r.agent->port()});
    }
    for (RankRig& r : ranks_) r.agent->SetPeers(peers);
  }
  ~Rig() {
    for (RankRig& r : ranks_) r.agent.reset();
  }

  std::vector<RankRig>& ranks() { return ranks_; }
  Agent& agent() { return *ranks_[0].agent; }
  int64_t num_blocks() const { return options_.num_blocks; }
  int32_t block_size() const { return options_.block_size; }

  SourceAddress Address(const std::string& request_id) {
    return {options_.engine_id, request_id, "127.0.0.1", agent().port()};
  }
  /// A block table in an order that is none.
  std::vector<int32_t> Table(int64_t num_tokens, int32_t salt) const {
    std::vector<int32_t> blocks;
    for (int64_t i = 0; i < kv::BlocksFor(num_tokens, options_.block_size); ++i) {
      // Pairs of neighbours, so that there are runs too.
      const int64_t pairs = options_.num_blocks / 2;
      blocks.push_back(static_cast<int32_t>((i / 2 * 7 + salt) % pairs * 2 + i % 2));
    }
    return blocks;
  }

  void Open(const std::string& id, int64_t num_tokens, const std::string& adapter = {}) {
    ASSERT_TRUE(agent().Open(id, num_tokens, adapter).has_value());
  }
  /// Layers and, behind them, the notes if there are any.
  int32_t num_layers() const { return options_.shape.num_layers + (options_.shape.note_bytes > 0); }
  /// Writes tokens [first, end) of all layers (or one) into the pools, and says so.
  void Write(const std::string& id, const std::vector<int32_t>& blocks, int64_t salt, int64_t first,
             int64_t end, int32_t only_layer = -1) {
    for (RankRig& r : ranks_) {
      r.agent->Blocks(id, blocks);
      for (int32_t layer = 0; layer < num_layers(); ++layer) {
        if (only_layer >= 0 && layer != only_layer) continue;
        SlowWriteLayer(r.identity, r.segment.region.data(), blocks, salt, layer, first, end);
        r.agent->Written(id, layer, end);
      }
    }
  }
  /// Open, write all, lease.
  void Hold(const std::string& id, int64_t num_tokens, int64_t salt,
            Duration lease = std::chrono::seconds(30), const std::string& adapter = {}) {
    Open(id, num_tokens, adapter);
    Write(id, Table(num_tokens, 3), salt, 0, num_tokens);
    agent().Lease(id, Now() + lease);
  }

  FetchOrder Order(Rig& source, const std::string& id, int64_t first, int64_t num_tokens, bool push = false,
                   Duration within = std::chrono::seconds(60)) {
    return {.id = FetchId(++next_fetch_),
            .source = source.Address(id),
            .first_token = first,
            .num_tokens = num_tokens,
            .blocks = Table(num_tokens, 5),
            .deadline = Now() + within,
            .push = push};
  }
  FetchResult AwaitFetched(Duration within = std::chrono::seconds(60)) {
    FetchResult result;
    result.status = Fail(Code::kDeadlineExceeded, "the test waited in vain");
    Await(within, [&] {
      for (FetchResult& r : agent().TakeFetched()) fetched_.push_back(std::move(r));
      return !fetched_.empty();
    });
    if (!fetched_.empty()) {
      result = fetched_.front();
      fetched_.erase(fetched_.begin());
    }
    return result;
  }
  /// Waits for the end of a lease; its reason, or nothing.
  std::optional<LeaseEnd> AwaitEnded(const std::string& id, Duration within = std::chrono::seconds(60)) {
    Await(within, [&] {
      for (const EndedLease& e : agent().TakeEnded()) ended_[e.request_id] = e.why;
      return ended_.contains(id);
    });
    if (!ended_.contains(id)) return std::nullopt;
    return ended_.extract(id).mapped();
  }

  /// Every byte of the pools: what was there before, and of the sequence tokens [first, end) alone.
  void ExpectPools(const std::vector<int32_t>& blocks, int64_t salt, int64_t first, int64_t end) {
    for (RankRig& r : ranks_) {
      std::vector<std::byte> want(static_cast<size_t>(r.identity.layout.AllBytes(options_.num_blocks)),
                                  kFill);
      for (int32_t layer = 0; layer < num_layers(); ++layer)
        SlowWriteLayer(r.identity, want.data(), blocks, salt, layer, first, end);
      EXPECT_EQ(std::memcmp(want.data(), r.segment.region.data(), want.size()), 0)
          << "tp rank " << r.identity.tp_rank;
    }
  }
  void Clear() {
    for (RankRig& r : ranks_) {
      const auto bytes = static_cast<size_t>(r.identity.layout.AllBytes(options_.num_blocks));
      std::memset(r.segment.region.data(), static_cast<int>(kFill), bytes);
    }
  }

 private:
  void SlowWriteLayer(const Identity& identity, std::byte* pool, const std::vector<int32_t>& blocks,
                      int64_t salt, int32_t layer, int64_t first, int64_t end) const {
    if (layer < options_.shape.num_layers)
      return SlowWrite(identity, pool, options_.num_blocks, blocks, salt, layer, first, end);
    SlowWriteNotes(identity.layout, pool, options_.num_blocks, blocks, salt, first, end);
  }
  void Ring() {
    {
      const std::lock_guard lock(mutex_);
      ++rung_;
    }
    bell_.notify_all();
  }
  template <typename F>
  void Await(Duration within, F&& done) {
    const TimePoint until = Now() + within;
    while (Now() < until) {
      int64_t before;
      {
        const std::lock_guard lock(mutex_);
        before = rung_;
      }
      if (done()) return;
      std::unique_lock lock(mutex_);
      bell_.wait_until(lock, std::min(until, Now() + std::chrono::milliseconds(200)),
                       [&] { return rung_ != before; });
    }
  }

  Options options_;
  std::mutex mutex_;
  std::condition_variable bell_;
  int64_t rung_ = 0;
  std::vector<RankRig> ranks_;
  std::vector<FetchResult> fetched_;
  std::map<std::string, LeaseEnd> ended_;
  int64_t next_fetch_ = 0;
};

}  // namespace cadre::handoff
