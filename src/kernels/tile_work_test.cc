#include "kernels/tile_work.h"

#include <gtest/gtest.h>

#include <thread>

namespace cadre::kernels {
namespace {

struct Shape {
  int64_t tiles;
  double tile_ns;
  int64_t min_tiles;
};

TEST(TileWork, OneThreadTakesEachStageWhole) {
  TileWork work;
  work.Add(7, 1e5, 1);
  work.Add(1, 10, 4);
  size_t stage = 0;
  TileWork::Range range;
  ASSERT_TRUE(work.Take(1, stage, range));
  EXPECT_EQ(std::tuple(range.stage, range.begin, range.end), (std::tuple<size_t, int64_t, int64_t>(0, 0, 7)));
  ASSERT_TRUE(work.Take(1, stage, range));
  EXPECT_EQ(std::tuple(range.stage, range.begin, range.end), (std::tuple<size_t, int64_t, int64_t>(1, 0, 1)));
  EXPECT_FALSE(work.Take(1, stage, range));
}

TEST(TileWork, EveryTileOnceInOrderAndNeverTooShort) {
  const std::vector<Shape> shapes = {{1, 50, 1}, {1000, 100, 4}, {3, 1e6, 8},
                                     {0, 5, 1},  {77, 3000, 2},  {5, 1, 5}};
  for (const int threads : {2, 3, 64}) {
    TileWork work;
    for (const Shape& shape : shapes) work.Add(shape.tiles, shape.tile_ns, shape.min_tiles);
    size_t stage = 0, last_stage = 0;
    int64_t expected = 0;
    std::vector<int64_t> taken(shapes.size(), 0);
    for (TileWork::Range range; work.Take(threads, stage, range);) {
      if (range.stage != last_stage) expected = 0;
      ASSERT_GE(range.stage, last_stage);
      ASSERT_EQ(range.begin, expected);
      const Shape& shape = shapes[range.stage];
      ASSERT_GE(range.end - range.begin, std::min(shape.min_tiles, shape.tiles));
      taken[range.stage] += range.end - range.begin;
      expected = range.end;
      last_stage = range.stage;
    }
    for (size_t s = 0; s < shapes.size(); ++s) EXPECT_EQ(taken[s], shapes[s].tiles) << s;
  }
}

TEST(TileWork, RangesShrinkTowardsTheEnd) {
  TileWork work;
  work.Add(10000, 100, 1);  // 1 ms for 4 threads
  size_t stage = 0;
  int64_t first = 0, last = 0, count = 0;
  for (TileWork::Range range; work.Take(4, stage, range); ++count) {
    if (first == 0) first = range.end - range.begin;
    last = range.end - range.begin;
  }
  EXPECT_EQ(first, 600);  // 60 us, the longest
  EXPECT_LE(last, 40);
  EXPECT_LT(count, 100);
}

TEST(TileWork, ThreadsShareWithoutLossAcrossReuse) {
  TileWork work;
  for (int round = 0; round < 20; ++round) {
    work.Clear();
    for (int s = 0; s < 50; ++s) work.Add(s % 7, 500, 1);
    std::vector<std::atomic<int>> seen(50 * 7);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        size_t stage = 0;
        for (TileWork::Range range; work.Take(4, stage, range);) {
          for (int64_t i = range.begin; i < range.end; ++i) ++seen[range.stage * 7 + static_cast<size_t>(i)];
        }
      });
    }
    for (auto& thread : threads) thread.join();
    for (size_t s = 0; s < 50; ++s) {
      for (size_t i = 0; i < 7; ++i) ASSERT_EQ(seen[s * 7 + i], i < s % 7 ? 1 : 0);
    }
  }
}

TEST(TileWork, LittleWorkWakesNobody) {
  TileWork work;
  work.Add(10, 500, 1);
  EXPECT_FALSE(work.WorthSharing(8));
  work.Add(10, 500, 1);
  EXPECT_TRUE(work.WorthSharing(8));
  EXPECT_FALSE(work.WorthSharing(1));
}

}  // namespace
}  // namespace cadre::kernels
