#include "a2a/collective.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "a2a/a2a.h"
#include "base/format.h"
#include "base/random.h"
#include "fabric/ranks_testing.h"

namespace cadre::a2a {
namespace {

using namespace std::chrono_literals;

float Value(int rank, int64_t i, int round) {
  return static_cast<float>(
      UniformAt(7, static_cast<uint64_t>(rank * 100 + round), static_cast<uint64_t>(i)) * 2 - 1);
}

// By host, then rank.
std::vector<float> WantedSum(const std::vector<int>& ranks_per_host, int64_t count, int round) {
  std::vector<float> want;
  for (int64_t i = 0; i < count; ++i) {
    float sum = 0;
    int rank = 0;
    for (size_t h = 0; h < ranks_per_host.size(); ++h) {
      float of_host = Value(rank++, i, round);
      for (int r = 1; r < ranks_per_host[h]; ++r) of_host += Value(rank++, i, round);
      sum = h == 0 ? of_host : sum + of_host;
    }
    want.push_back(sum);
  }
  return want;
}

void Same(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  if (!got.empty()) {
    ASSERT_EQ(std::memcmp(got.data(), want.data(), got.size() * 4), 0);
  }
}

void RunRank(fabric::Rendezvous& rendezvous, int64_t split_bytes) {
  auto made = Collective::Create({.rendezvous = &rendezvous,
                                  .capacity_bytes = 1024,
                                  .split_bytes = split_bytes,
                                  .spin = false,
                                  .first_round = 0xFFFFFFFA});
  ASSERT_TRUE(made) << made.error().message;
  Collective& group = **made;
  const int me = group.rank(), ranks = group.size();
  std::vector<int> layout;
  for (const fabric::HostEntry& host : rendezvous.hosts().hosts) layout.push_back(host.num_ranks);
  group.BeginStep(1, Now() + 60s);
  int round = 0;
  for (const int64_t count : {0, 1, 7, 256, 257, 1000, 5}) {
    std::vector<float> x;
    for (int64_t i = 0; i < count; ++i) x.push_back(Value(me, i, round));
    ASSERT_TRUE(group.AllReduceSum(x.data(), count));
    Same(x, WantedSum(layout, count, round++));
  }
  for (int again = 0; again < 4; ++again) {
    float* staged = group.Stage(200);
    for (int64_t i = 0; i < 200; ++i) staged[i] = Value(me, i, round);
    std::vector<float> out(200, 0.5f), want = WantedSum(layout, 200, round++);
    ASSERT_TRUE(group.ReduceStaged(200, out.data(), true));
    for (float& w : want) w = 0.5f + w;
    Same(out, want);
  }
  // Rows split over the group come together again; more than one round's capacity; some ranks may have none.
  for (const int64_t rows : {0, 1, 5, 700}) {
    std::vector<int64_t> sizes;
    for (int r = 0; r < ranks; ++r) sizes.push_back(SplitRows(rows, ranks, r).count * 4);
    const RowRange own = SplitRows(rows, ranks, me);
    std::vector<float> mine, all(static_cast<size_t>(rows), -1), want;
    for (int64_t i = 0; i < own.count; ++i) mine.push_back(Value(9, own.begin + i, round));
    for (int64_t i = 0; i < rows; ++i) want.push_back(Value(9, i, round));
    ASSERT_TRUE(group.AllGather(mine.data(), sizes, all.data()));
    Same(all, want);
    std::fill(all.begin(), all.end(), -1.0f);  // in place
    std::copy(mine.begin(), mine.end(), all.begin() + own.begin);
    ASSERT_TRUE(group.AllGather(all.data() + own.begin, sizes, all.data()));
    Same(all, want);
    ++round;
  }
  for (const size_t bytes : {size_t{0}, size_t{3}, size_t{1024}, size_t{10'000}}) {
    const int root = static_cast<int>(bytes) % ranks;
    std::string text = me == root ? std::string(bytes, 'r') + "!" : "something else";
    ASSERT_TRUE(group.Broadcast(root, text));
    ASSERT_EQ(text, std::string(bytes, 'r') + "!");
    std::string empty = me == root ? "" : "not empty";
    ASSERT_TRUE(group.Broadcast(root, empty));
    ASSERT_EQ(empty, "");
  }
  ASSERT_TRUE(group.Barrier());
}

TEST(Collective, ThreadsAgreeBitByBitOnBothWays) {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    for (const int64_t split : {0, 1 << 20}) {
      fabric::RunThreads(ranks, [&](fabric::Rendezvous& r) { RunRank(r, split); });
    }
  }
}

TEST(Collective, HostsAgreeBitByBit) {
  for (const char* link : {"loop", "tcp"}) {
    for (const auto& layout : std::vector<std::vector<int>>{{1, 1}, {2, 2}, {3, 1}, {1, 2, 2}}) {
      fabric::RunHosts(layout, link, [&](fabric::Rendezvous& r) { RunRank(r, 64); });
    }
  }
}

TEST(Collective, ProcessesAgree) {
  for (const int ranks : {2, 4}) {
    fabric::RunProcesses(ranks, [&](fabric::Rendezvous& r) { RunRank(r, 64); });
  }
}

TEST(Collective, GroupsDoNotDisturbEachOther) {
  fabric::RunThreads(4, [](fabric::Rendezvous& rendezvous) {
    const int dp = rendezvous.rank() / 2;
    auto group =
        Collective::Create({.rendezvous = &rendezvous, .ranks = {dp * 2, dp * 2 + 1}, .spin = false});
    ASSERT_TRUE(group);
    for (int i = 0; i < 50; ++i) {
      std::string text = Format("{} {}", dp, i);
      if ((*group)->rank() == 1) text.clear();
      ASSERT_TRUE((*group)->Broadcast(0, text));
      ASSERT_EQ(text, Format("{} {}", dp, i));
    }
  });
}

TEST(Collective, AMissingRankIsNamed) {
  fabric::RunThreads(3, [](fabric::Rendezvous& rendezvous) {
    auto group = Collective::Create({.rendezvous = &rendezvous, .spin = false});
    if (rendezvous.rank() == 2) return;
    (*group)->BeginStep(8, Now() + 100ms);
    std::string text;
    const Status status = (*group)->Broadcast(0, text);
    ASSERT_FALSE(status);
    EXPECT_TRUE(status.error().message.starts_with("rank 2 did not arrive at broadcast of step 8 within "))
        << status.error().message;
  });
}

TEST(Collective, AGroupOfOneNeedsNobody) {
  auto group = Collective::Create({});
  ASSERT_TRUE(group);
  float x = 3;
  EXPECT_TRUE((*group)->AllReduceSum(&x, 1));
  (*group)->Stage(1)[0] = 4;
  EXPECT_TRUE((*group)->ReduceStaged(1, &x, true));
  EXPECT_EQ(x, 7);
  float out = 0;
  const int64_t size = 4;
  EXPECT_TRUE((*group)->AllGather(&x, {&size, 1}, &out));
  EXPECT_EQ(out, 7);
}

}  // namespace
}  // namespace cadre::a2a
