#include "a2a/send_lists.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "a2a/algorithms.h"
#include "base/random.h"

namespace cadre::a2a {
namespace {

std::vector<int32_t> DrawSlots(uint64_t seed, int64_t num_choices, int32_t num_slots) {
  std::vector<int32_t> slots;
  for (int64_t i = 0; i < num_choices; ++i)
    slots.push_back(static_cast<int32_t>(UniformAt(seed, 1, static_cast<uint64_t>(i)) * (num_slots + 1)) - 1);
  return slots;
}

// By hand: two rows, three ranks of two slots.
TEST(GroupLists, EachRowOncePerGroupAndStopsInOrder) {
  const int32_t slots[] = {5, 0, 4, /**/ -1, 1, 0};
  GroupLists lists(3, {.num_slots = 6, .num_ranks = 3});
  lists.Build(slots, 2);
  EXPECT_EQ(std::vector(lists.RowsFor(0).begin(), lists.RowsFor(0).end()), (std::vector<int32_t>{0, 1}));
  EXPECT_TRUE(lists.RowsFor(1).empty());
  EXPECT_EQ(std::vector(lists.RowsFor(2).begin(), lists.RowsFor(2).end()), (std::vector<int32_t>{0}));
  ASSERT_EQ(lists.StopsOf(0).size(), 2u);
  EXPECT_EQ(lists.StopsOf(0)[1].group, 2);
  EXPECT_EQ(lists.StopsOf(1)[0].place, 1);
}

TEST(GroupLists, EqualsSetsOverManyRanksAndHosts) {
  constexpr int32_t kTopK = 7;
  for (const auto& [ranks, per_group] :
       std::vector<std::pair<int, int>>{{1, 1}, {5, 2}, {64, 8}, {1024, 1}, {1024, 8}}) {
    for (const bool sharded : {false, true}) {
      if (sharded && ranks > 64) continue;
      const eplb::SlotLayout layout{.num_slots = 2 * ranks + 3, .num_ranks = ranks, .sharded = sharded};
      GroupLists lists(kTopK, layout, per_group);
      for (const int64_t rows : {0, 1, 40, 13}) {  // shrinks too
        const auto slots = DrawSlots(static_cast<uint64_t>(ranks), rows * kTopK, layout.num_slots);
        lists.Build(slots.data(), rows);
        std::map<int, std::vector<int32_t>> want;
        for (int64_t t = 0; t < rows; ++t) {
          std::set<int> groups;
          for (int64_t i = t * kTopK; i < (t + 1) * kTopK; ++i) {
            for (int r = 0; r < ranks; ++r) {
              const int32_t slot = slots[static_cast<size_t>(i)];
              if (slot >= layout.Begin(r) && slot < layout.Begin(r) + layout.Count(r))
                groups.insert(r / per_group);
            }
          }
          size_t n = 0;
          for (const int g : groups) {
            ASSERT_LT(n, lists.StopsOf(t).size());
            EXPECT_EQ(lists.StopsOf(t)[n].group, g);
            EXPECT_EQ(lists.StopsOf(t)[n++].place, std::ssize(want[g]));
            want[g].push_back(static_cast<int32_t>(t));
          }
          EXPECT_EQ(lists.StopsOf(t).size(), n);
        }
        for (int g = 0; g < lists.num_groups(); ++g)
          ASSERT_EQ(std::vector(lists.RowsFor(g).begin(), lists.RowsFor(g).end()), want[g]);
      }
    }
  }
}

TEST(ListBySlot, RowsOfEachSlotInOrder) {
  constexpr int32_t kTopK = 5, kSlots = 9;
  const auto slots = DrawSlots(3, 30 * kTopK, kSlots);
  std::vector<int32_t> counts(kSlots, 99), places(slots.size()), entries(slots.size(), -7),
      begins(kSlots + 1);
  NumberWithinSlots(slots, counts, places.data());
  ListBySlot(slots, kTopK, counts, places.data(), entries.data(), begins);
  size_t at = 0;
  for (int32_t s = 0; s < kSlots; ++s) {
    EXPECT_EQ(begins[static_cast<size_t>(s)], static_cast<int32_t>(at));
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] != s) continue;
      EXPECT_EQ(entries[at++], static_cast<int32_t>(i) / kTopK);
    }
  }
  EXPECT_EQ(begins[kSlots], static_cast<int32_t>(at));
}

TEST(Pieces, CoverEveryRowOnce) {
  for (int64_t rows = 0; rows < 30; ++rows) {
    for (int64_t chunk = 1; chunk < 12; ++chunk) {
      int64_t next = 0;
      for (int64_t p = 0; p < NumPieces(rows, chunk); ++p) {
        const RowRange piece = PieceOf(rows, chunk, p);
        EXPECT_EQ(piece.begin, next);
        EXPECT_TRUE(piece.count == chunk || p + 1 == NumPieces(rows, chunk));
        next += piece.count;
      }
      EXPECT_EQ(next, rows);
      EXPECT_EQ(PieceOf(rows, chunk, NumPieces(rows, chunk)).count, 0);
    }
  }
}

// What a step costs a rank in bytes does not depend on how many ranks there are, but for the formula.
TEST(CountBytes, AThousandRanks) {
  constexpr int32_t kTopK = 8, kRanks = 1024, kRows = 2;
  const eplb::SlotLayout layout{.num_slots = 2048, .num_ranks = kRanks};
  std::vector<std::vector<int32_t>> slots;
  std::vector<RankChoices> choices;
  for (int r = 0; r < kRanks; ++r) slots.push_back(DrawSlots(static_cast<uint64_t>(r), kRows * kTopK, 2048));
  for (const auto& s : slots) choices.push_back({kRows, s.data()});
  const auto count = [&](const char* backend) {
    return CountBytes({backend, kTopK, 14336, 28672, layout, choices, 0}, 17);
  };
  EXPECT_EQ(count("allgather_reducescatter").dispatch_algorithmic, 1023 * kRows * (14336 + 64));
  EXPECT_LE(count("mori").combine_algorithmic, kRows * kTopK * 28672);
  EXPECT_LE(count("mori").combine_algorithmic, count("deepep_low_latency").combine_algorithmic);
}

}  // namespace
}  // namespace cadre::a2a
