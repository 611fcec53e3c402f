// Fetches between instances of every pair of shapes, compared byte by byte with pools written one element at
// a time.
#include <list>
#include <thread>

#include "handoff/agent_testing.h"

namespace cadre::handoff {
namespace {

struct Pair {
  bool near;
  int32_t source_tp, target_tp;
};

class PairTest : public testing::TestWithParam<Pair> {};

std::string NameOf(const testing::TestParamInfo<Pair>& info) {
  return Format("{}_{}_to_{}", info.param.near ? "near" : "tcp", info.param.source_tp, info.param.target_tp);
}

Rig::Options Side(const Pair& pair, const Shape& shape, int32_t block_size, bool source) {
  return {.shape = shape,
          .block_size = block_size,
          .tp_size = source ? pair.source_tp : pair.target_tp,
          .share_memory = pair.near,
          .engine_id = source ? "source" : "target"};
}

constexpr int64_t kTokens = 151;  // not whole panels, nor whole blocks

// Pull: all is written before anybody asks.
void Pull(Rig& source, Rig& target, bool near, int64_t first, int64_t salt) {
  const std::string id = Format("pull-{}", salt);
  target.Clear();
  source.Hold(id, kTokens, salt);
  const FetchOrder order = target.Order(source, id, first, kTokens);
  target.agent().Fetch(order);
  const FetchResult result = target.AwaitFetched();
  ASSERT_TRUE(result.status.has_value()) << result.status.error().message;
  EXPECT_EQ(result.id, order.id);
  EXPECT_EQ(result.valid_tokens, kTokens);
  EXPECT_EQ(result.within_host, near);
  EXPECT_GT(result.bytes, 0);
  target.ExpectPools(order.blocks, salt, first, kTokens);
  EXPECT_EQ(source.AwaitEnded(id), LeaseEnd::kFetched);
}

// Push: the target asks first; chunks come layer by layer, blocks as they are needed.
void Push(Rig& source, Rig& target, int64_t first, int64_t salt) {
  const std::string id = Format("push-{}", salt);
  target.Clear();
  const FetchOrder order = target.Order(source, id, first, kTokens, /*push=*/true);
  target.agent().Fetch(order);
  if (salt % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  source.Open(id, kTokens);
  const std::vector<int32_t> table = source.Table(kTokens, 3);
  int64_t done = 0;
  for (const int64_t end : {int64_t{37}, int64_t{96}, kTokens}) {
    const std::vector<int32_t> so_far(table.begin(), table.begin() + kv::BlocksFor(end, source.block_size()));
    for (int32_t layer = 0; layer < source.num_layers(); ++layer)
      source.Write(id, so_far, salt, done, end, layer);
    done = end;
  }
  source.agent().Lease(id, Now() + std::chrono::seconds(30));
  const FetchResult result = target.AwaitFetched();
  ASSERT_TRUE(result.status.has_value()) << result.status.error().message;
  target.ExpectPools(order.blocks, salt, first, kTokens);
  EXPECT_EQ(source.AwaitEnded(id), LeaseEnd::kFetched);
}

TEST_P(PairTest, AllShapes) {
  int64_t salt = 0;
  const std::pair<int32_t, int32_t> block_sizes[] = {{16, 16}, {32, 32}, {16, 32},
                                                     {32, 16}, {64, 16}, {16, 64}};
  for (const bool latent : {false, true}) {
    for (const DType type : {DType::kF32, DType::kBf16}) {
      for (const auto& [from, to] : block_sizes) {
        const Shape shape = {.latent = latent, .type = type, .note_bytes = type == DType::kF32 ? 10 : 0};
        Rig source(Side(GetParam(), shape, from, true)), target(Side(GetParam(), shape, to, false));
        for (const int64_t first : {0, 37, 64}) {
          SCOPED_TRACE(
              Format("latent {} {} blocks {} -> {} from token {}", latent, DTypeName(type), from, to, first));
          Pull(source, target, GetParam().near, first, ++salt);
          Push(source, target, first, ++salt);
          if (HasFailure()) return;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Agents, PairTest,
                         testing::Values(Pair{true, 1, 1}, Pair{true, 2, 1}, Pair{true, 1, 2},
                                         Pair{true, 2, 2}, Pair{false, 1, 1}, Pair{false, 2, 1},
                                         Pair{false, 1, 2}, Pair{false, 2, 2}, Pair{true, 4, 2},
                                         Pair{false, 2, 4}),
                         NameOf);

TEST(AgentTest, MoreTpRanksThanHeads) {
  for (const bool near : {true, false}) {
    for (const auto& [from, to] : {std::pair{4, 1}, {1, 4}, {4, 4}, {2, 4}}) {
      const Shape shape = {.num_kv_heads = 2, .note_bytes = 6};
      Rig source({.shape = shape, .tp_size = from, .share_memory = near, .engine_id = "source"});
      Rig target({.shape = shape, .tp_size = to, .share_memory = near, .engine_id = "target"});
      SCOPED_TRACE(Format("{} -> {}", from, to));
      Pull(source, target, near, 3, 1);
      Push(source, target, 0, 2);
    }
  }
}

// A target that keeps nothing beside keys and values takes them from a source that does, whose pool is
// larger.
TEST(AgentTest, NotesThatNobodyWants) {
  for (const bool near : {true, false}) {
    for (const int32_t tp : {1, 2}) {
      SCOPED_TRACE(Format("near {} tp {}", near, tp));
      Rig source({.shape = {.note_bytes = 10},
                  .block_size = 32,
                  .tp_size = tp,
                  .share_memory = near,
                  .engine_id = "source"});
      Rig target({.share_memory = near, .engine_id = "target"});
      Pull(source, target, near, 5, 1);
      Push(source, target, 0, 2);
    }
  }
}

// Tokens count as there when their notes are; what is known of a fetch that fails includes them.
TEST(AgentTest, NotesThatAreLate) {
  for (const bool near : {true, false}) {
    const Shape shape = {.note_bytes = 10};
    Rig source({.shape = shape, .share_memory = near, .engine_id = "source"});
    Rig target({.shape = shape, .share_memory = near, .engine_id = "target"});
    source.Open("r", 64);
    for (int32_t layer = 0; layer < shape.num_layers; ++layer)
      source.Write("r", source.Table(64, 3), 1, 0, 64, layer);
    source.Write("r", source.Table(64, 3), 1, 0, 32, shape.num_layers);
    target.agent().Fetch(
        target.Order(source, "r", 0, 64, /*push=*/false, /*within=*/std::chrono::seconds(3)));
    const FetchResult result = target.AwaitFetched();
    EXPECT_FALSE(result.status.has_value());
    EXPECT_EQ(result.valid_tokens, 32);
  }
}

// Larger than a piece, than a socket's buffers, and than one call's number of runs.
TEST(AgentTest, ManyPieces) {
  const Shape shape = {.num_layers = 4, .num_kv_heads = 2, .k_dim = 32, .v_dim = 32, .note_bytes = 100};
  for (const bool near : {true, false}) {
    Rig source(
        {.shape = shape, .block_size = 32, .share_memory = near, .num_blocks = 1200, .engine_id = "s"});
    Rig target(
        {.shape = shape, .block_size = 16, .share_memory = near, .num_blocks = 2400, .engine_id = "t"});
    const int64_t num_tokens = 30'001;
    std::vector<int32_t> blocks;
    for (int32_t i = 0; i < 938; ++i) blocks.push_back(1199 - i);
    source.Open("r", num_tokens);
    RankRig& rank = source.ranks()[0];
    const kv::Layout& l = rank.identity.layout;
    auto* words = reinterpret_cast<uint64_t*>(rank.segment.region.data());
    for (int64_t i = 0; i < l.AllBytes(1200) / 8; ++i)
      words[i] = static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15;
    source.agent().Blocks("r", blocks);
    for (int32_t layer = 0; layer < 5; ++layer) source.agent().Written("r", layer, num_tokens);
    source.agent().Lease("r", Now() + std::chrono::seconds(30));
    FetchOrder order = target.Order(source, "r", 0, 16);
    order.num_tokens = num_tokens;
    order.blocks.clear();
    for (int32_t i = 0; i < 1876; ++i) order.blocks.push_back(i);
    target.agent().Fetch(order);
    const FetchResult result = target.AwaitFetched();
    ASSERT_TRUE(result.status.has_value()) << result.status.error().message;
    const kv::Layout& t = target.ranks()[0].identity.layout;
    const std::byte* to = target.ranks()[0].segment.region.data();
    int64_t wrong = 0;
    for (int32_t layer = 0; layer < 4; ++layer) {
      for (int64_t token = 0; token < num_tokens; token += 7) {
        for (const bool value : {false, true}) {
          const int64_t c = token % 32, head = token % 2;
          const auto* a = rank.segment.region.data() +
                          (layer * 1200 + blocks[static_cast<size_t>(token / 32)]) * l.BlockBytes() +
                          SlowOffset(l, head, token % 32, c, value);
          const auto* b =
              to + (layer * 2400 + token / 16) * t.BlockBytes() + SlowOffset(t, head, token % 16, c, value);
          wrong += std::memcmp(a, b, 2) != 0;
        }
      }
    }
    for (int64_t token = 0; token < num_tokens; ++token) {
      const auto* a = rank.segment.region.data() + l.PoolBytes(1200) +
                      (blocks[static_cast<size_t>(token / 32)] * 32 + token % 32) * l.note_bytes;
      wrong += std::memcmp(a, to + t.PoolBytes(2400) + token * t.note_bytes, 100) != 0;
    }
    EXPECT_EQ(wrong, 0);
    const AgentStats stats = target.agent().stats();
    EXPECT_EQ(stats.num_fetches, 1);
    EXPECT_EQ(stats.bytes_fetched, result.bytes);
    // Whole panels of 16 tokens, 2 heads, keys and values of 32 in 2 bytes, 4 layers; and each token's notes.
    EXPECT_EQ(result.bytes, int64_t{1876} * 16 * 2 * (32 + 32) * 2 * 4 + num_tokens * 100);
  }
}

// An instance that is source and target at once, of its own request.
TEST(AgentTest, FromItself) {
  Rig rig({.engine_id = "both"});
  rig.Hold("r", 40, 1);
  FetchOrder order = rig.Order(rig, "r", 0, 40);
  order.blocks = {30, 33, 31};
  rig.agent().Fetch(order);
  const FetchResult result = rig.AwaitFetched();
  ASSERT_TRUE(result.status.has_value()) << result.status.error().message;
  EXPECT_EQ(rig.AwaitEnded("r"), LeaseEnd::kFetched);
}

// Everything is here already: the source hears that it can let go.
TEST(AgentTest, NothingMissing) {
  Rig source({.engine_id = "source"}), target({.engine_id = "target"});
  source.Hold("r", 40, 1);
  target.agent().Fetch(target.Order(source, "r", 40, 40));
  const FetchResult result = target.AwaitFetched();
  ASSERT_TRUE(result.status.has_value()) << result.status.error().message;
  EXPECT_EQ(result.bytes, 0);
  target.ExpectPools({}, 0, 0, 0);
  EXPECT_EQ(source.AwaitEnded("r"), LeaseEnd::kFetched);
}

// Several at once over one connection, in both directions.
TEST(AgentTest, ManyAtOnce) {
  for (const bool near : {true, false}) {
    Rig a({.share_memory = near, .num_blocks = 200, .engine_id = "a"});
    Rig b({.share_memory = near, .num_blocks = 200, .engine_id = "b"});
    for (int i = 0; i < 20; ++i) {
      a.Hold(Format("r{}", i), 50, i);
      b.Hold(Format("r{}", i), 50, i);
    }
    for (int i = 0; i < 20; ++i) {
      FetchOrder of_a = b.Order(a, Format("r{}", i), 0, 50), of_b = a.Order(b, Format("r{}", i), 0, 50);
      for (int32_t k = 0; k < 4; ++k) {
        of_a.blocks[static_cast<size_t>(k)] = 100 + i * 4 + k;
        of_b.blocks[static_cast<size_t>(k)] = 100 + i * 4 + k;
      }
      a.agent().Fetch(of_b);
      b.agent().Fetch(of_a);
    }
    for (int i = 0; i < 20; ++i) {
      for (Rig* rig : {&a, &b}) {
        const FetchResult result = rig->AwaitFetched();
        EXPECT_TRUE(result.status.has_value()) << result.status.error().message;
      }
    }
    for (int i = 0; i < 20; ++i) EXPECT_EQ(a.AwaitEnded(Format("r{}", i)), LeaseEnd::kFetched);
  }
}

// The limit holds for all targets together, and not for who reads from shared memory.
TEST(PaceTest, NeverMoreThanTheLimit) {
  constexpr double kLimit = 16e6;
  const Shape shape = {.num_layers = 4, .num_kv_heads = 4, .k_dim = 32, .v_dim = 32};
  const int64_t num_tokens = 512 * 16;
  std::vector<int32_t> blocks(512);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  for (const bool near : {false, true}) {
    Rig source({.shape = shape,
                .share_memory = near,
                .num_blocks = 512,
                .engine_id = "source",
                .max_bytes_per_s = kLimit});
    std::list<Rig> targets;
    for (const char* name : {"a", "b"}) {
      targets.emplace_back(
          Rig::Options{.shape = shape, .share_memory = near, .num_blocks = 512, .engine_id = name});
    }
    const TimePoint start = Now();
    for (Rig& target : targets) {
      const std::string id = Format("r{}", &target == &targets.front());
      source.Open(id, num_tokens);
      source.agent().Blocks(id, blocks);
      for (int32_t layer = 0; layer < shape.num_layers; ++layer)
        source.agent().Written(id, layer, num_tokens);
      source.agent().Lease(id, Now() + std::chrono::seconds(60));
      FetchOrder order = target.Order(source, id, 0, 16);
      order.num_tokens = num_tokens;
      order.blocks = blocks;
      target.agent().Fetch(order);
    }
    int64_t bytes = 0;
    for (Rig& target : targets) {
      const FetchResult result = target.AwaitFetched();
      ASSERT_TRUE(result.status.has_value()) << result.status.error().message;
      bytes += result.bytes;
    }
    // A host's own memory has no limit. What the sockets hold at the end is not sent yet, so to speak.
    if (!near) {
      EXPECT_GT(SecondsSince(start), 0.7 * static_cast<double>(bytes) / kLimit);
    }
    EXPECT_EQ(source.agent().stats().bytes_sent, near ? 0 : bytes);
  }
}

}  // namespace
}  // namespace cadre::handoff
