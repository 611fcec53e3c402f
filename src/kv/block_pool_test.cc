#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>

namespace cadre::kv {
namespace {

std::vector<int32_t> Iota(int32_t n, int32_t first = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(BlockPool, GivesEveryBlockOnceThenRefuses) {
  BlockPool pool(3, 4);
  std::vector<BlockId> got;
  while (const auto block = pool.Allocate()) got.push_back(*block);
  EXPECT_EQ(got.size(), 3u);
  EXPECT_EQ(pool.num_available(), 0);
  pool.Release(got[1]);
  EXPECT_EQ(pool.Allocate(), got[1]);
}

TEST(BlockPool, FindsTheLongestPublishedPrefix) {
  BlockPool pool(8, 4);
  const auto tokens = Iota(12);
  NodeId node = pool.Root("");
  std::vector<BlockId> blocks;
  for (size_t i = 0; i < 3; ++i) {
    blocks.push_back(*pool.Allocate());
    node = pool.Publish(node, std::span(tokens).subspan(i * 4, 4), blocks.back());
  }
  auto longer = Iota(20);
  longer[9] = 77;  // differs inside the third block
  const auto match = pool.FindPrefix(pool.Root(""), longer);
  EXPECT_EQ(match.blocks, (std::vector<BlockId>{blocks[0], blocks[1]}));
  EXPECT_TRUE(pool.FindPrefix(pool.Root("other salt"), tokens).blocks.empty());
  for (const BlockId b : match.blocks) pool.Release(b);
  pool.CheckIntegrity();
}

TEST(BlockPool, EvictsTheOldestReleaseFirst) {
  BlockPool pool(2, 2);
  const auto a = Iota(2, 10), b = Iota(2, 20);
  const BlockId block_a = *pool.Allocate(), block_b = *pool.Allocate();
  pool.Publish(pool.Root(""), a, block_a);
  pool.Publish(pool.Root(""), b, block_b);
  pool.Release(block_b);
  pool.Release(block_a);
  EXPECT_EQ(pool.Allocate(), block_b);
  EXPECT_TRUE(pool.FindPrefix(pool.Root(""), b).blocks.empty());
  EXPECT_EQ(pool.FindPrefix(pool.Root(""), a).blocks.size(), 1u);
}

TEST(BlockPool, TheFirstPublisherKeepsThePlace) {
  BlockPool pool(2, 2);
  const auto a = Iota(2);
  const BlockId first = *pool.Allocate(), second = *pool.Allocate();
  const NodeId node = pool.Publish(pool.Root(""), a, first);
  EXPECT_EQ(pool.Publish(pool.Root(""), a, second), node);
  pool.Release(second);
  EXPECT_EQ(pool.num_available(), 1);
  EXPECT_EQ(pool.FindPrefix(pool.Root(""), a).blocks, std::vector<BlockId>{first});
}

TEST(BlockPool, ForgetAllKeepsHeldBlocksButFindsThemNoMore) {
  BlockPool pool(2, 2);
  const auto a = Iota(2);
  const BlockId block = *pool.Allocate();
  pool.Publish(pool.Root(""), a, block);
  pool.ForgetAll();
  EXPECT_TRUE(pool.FindPrefix(pool.Root(""), a).blocks.empty());
  pool.Release(block);
  EXPECT_EQ(pool.num_available(), 2);
  pool.CheckIntegrity();
}

// Random sequences come, grow, publish and go; a plain map of what each block should hold is the twin.
TEST(BlockPool, RandomLifeKeepsContentAndCounts) {
  std::mt19937 rng(3);
  BlockPool pool(24, 2);
  struct Seq {
    std::vector<int32_t> tokens;
    std::vector<BlockId> blocks;
  };
  std::vector<Seq> alive;
  std::map<BlockId, std::vector<int32_t>> content;  // whole prefix that ends with this block
  for (int step = 0; step < 5000; ++step) {
    if (alive.size() < 6 && rng() % 2 == 0) {
      Seq seq;
      for (uint32_t i = 0, n = 2 + rng() % 10; i < n; ++i)
        seq.tokens.push_back(static_cast<int32_t>(rng() % 2));
      auto match = pool.FindPrefix(pool.Root(""), seq.tokens);
      for (size_t i = 0; i < match.blocks.size(); ++i) {
        ASSERT_EQ(
            content[match.blocks[i]],
            std::vector<int32_t>(seq.tokens.begin(), seq.tokens.begin() + static_cast<int64_t>(2 * i + 2)));
      }
      seq.blocks = match.blocks;
      NodeId node = match.node;
      while (seq.blocks.size() < seq.tokens.size() / 2) {
        const auto block = pool.Allocate();
        if (!block) break;
        const size_t end = 2 * seq.blocks.size() + 2;
        content[*block] = {seq.tokens.begin(), seq.tokens.begin() + static_cast<int64_t>(end)};
        node = pool.Publish(node, std::span(seq.tokens).subspan(end - 2, 2), *block);
        seq.blocks.push_back(*block);
      }
      alive.push_back(std::move(seq));
    } else if (!alive.empty()) {
      const size_t victim = rng() % alive.size();
      for (size_t i = alive[victim].blocks.size(); i > 0; --i) pool.Release(alive[victim].blocks[i - 1]);
      alive.erase(alive.begin() + static_cast<int64_t>(victim));
    }
    pool.CheckIntegrity();
  }
}

}  // namespace
}  // namespace cadre::kv
