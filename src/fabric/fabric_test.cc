#include "fabric/fabric.h"

#include <gtest/gtest.h>

#include <csignal>

#include "base/format.h"
#include "fabric/ranks_testing.h"

namespace cadre::fabric {
namespace {

using namespace std::chrono_literals;

TimePoint Soon() {
  return Now() + 20s;
}

// Every rank writes numbers that follow from (round, rank) into its parity set and reads everybody else's.
void Rounds(Rendezvous& rendezvous, int num_rounds, uint32_t first_round, bool spin) {
  FabricSpec spec{.name = "rounds",
                  .ranks = {},
                  .segment_bytes = 2 * 4096,
                  .num_flags = 3,
                  .first_round = first_round,
                  .spin = spin};
  auto fabric = rendezvous.Open(spec, Soon());
  ASSERT_TRUE(fabric) << fabric.error().message;
  Fabric& f = **fabric;
  std::vector<uint32_t> counts(static_cast<size_t>(f.size()));
  for (int i = 0; i < num_rounds; ++i) {
    const uint32_t round = first_round + static_cast<uint32_t>(i);
    const size_t at = round % 2 * 1024;
    auto* own = reinterpret_cast<uint32_t*>(f.own()) + at;
    const uint32_t n = (round * 7 + static_cast<uint32_t>(f.rank())) % 1000;
    for (uint32_t j = 0; j < n; ++j) own[j] = round * 31 + static_cast<uint32_t>(f.rank()) + j;
    const int flag = static_cast<int>(round % 2);
    f.Publish(flag, round, n);
    const WaitContext context{"test", i, Soon()};
    ASSERT_TRUE(f.AwaitAll(flag, round, counts.data(), context));
    for (int r = 0; r < f.size(); ++r) {
      const auto* theirs = reinterpret_cast<const uint32_t*>(f.peer(r)) + at;
      const uint32_t count = counts[static_cast<size_t>(r)];
      ASSERT_EQ(count, (round * 7 + static_cast<uint32_t>(r)) % 1000);
      for (uint32_t j = 0; j < count; ++j) ASSERT_EQ(theirs[j], round * 31 + static_cast<uint32_t>(r) + j);
    }
  }
  f.Publish(2, first_round, 0);  // nobody unmaps while others read (threads share the memory's life anyway)
  ASSERT_TRUE(f.AwaitAll(2, first_round, nullptr, {"end", 0, Soon()}));
}

TEST(Fabric, ThreadsSeeWhatWasPublishedAlsoAcrossTheWrap) {
  for (const int ranks : {1, 2, 3, 8}) {
    for (const bool spin : {false, true}) {
      RunThreads(ranks, [&](Rendezvous& r) { Rounds(r, 50, 0xFFFFFFFF - 20, spin); });
    }
  }
}

TEST(Fabric, ProcessesSeeWhatWasPublished) {
  for (const int ranks : {1, 2, 5}) {
    RunProcesses(ranks, [&](Rendezvous& r) { Rounds(r, 200, 1, false); });
  }
}

TEST(Fabric, AMissingRankIsNamedToAll) {
  const auto body = [](Rendezvous& rendezvous) {
    auto fabric = rendezvous.Open({.name = "x", .segment_bytes = 64, .num_flags = 1}, Soon());
    ASSERT_TRUE(fabric) << fabric.error().message;
    if ((*fabric)->rank() == 2) return;
    (*fabric)->Publish(0, 1, 0);
    // The first to give up tells all: the last deadline is far away, and nobody needs it.
    const auto limit = (*fabric)->rank() == 0 ? 200ms : 20s;
    const Status status = (*fabric)->AwaitAll(0, 1, nullptr, {"dispatch", 17, Now() + limit});
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("rank 2 did not arrive at dispatch of step 17 within "),
              std::string::npos)
        << status.error().message;
    EXPECT_EQ(rendezvous.control().abort_rank(), 2);
  };
  RunThreads(4, body);
  RunProcesses(4, body);
}

TEST(Fabric, SeveralMissingRanksAreAllNamed) {
  RunThreads(4, [](Rendezvous& rendezvous) {
    auto fabric = rendezvous.Open({.name = "x", .segment_bytes = 64, .num_flags = 1}, Soon());
    if ((*fabric)->rank() != 0) return;
    (*fabric)->Publish(0, 1, 0);
    const Status status = (*fabric)->AwaitAll(0, 1, nullptr, {"combine", 3, Now() + 50ms});
    EXPECT_EQ(status.error().code, Code::kDeadlineExceeded);
    EXPECT_TRUE(
        status.error().message.starts_with("ranks 1, 2 and 3 did not arrive at combine of step 3 within "))
        << status.error().message;
  });
}

TEST(Fabric, AKilledRankFreesItsWaitersWithTheParentsReason) {
  RunProcesses(
      3,
      [](Rendezvous& rendezvous) {
        auto fabric = rendezvous.Open({.name = "x", .segment_bytes = 64, .num_flags = 1}, Soon());
        ASSERT_TRUE(fabric);
        if ((*fabric)->rank() == 1) raise(SIGKILL);
        const TimePoint start = Now();
        (*fabric)->Publish(0, 1, 0);
        const Status status = (*fabric)->AwaitAll(0, 1, nullptr, {"dispatch", 1, Soon()});
        ASSERT_FALSE(status);
        EXPECT_EQ(status.error().message, "rank 1 was killed by SIGKILL");
        EXPECT_LT(SecondsSince(start), 5);
      },
      1,
      [](Broker& broker, const std::vector<pid_t>& pids) {
        siginfo_t info;
        ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pids[1]), &info, WEXITED | WNOWAIT), 0);
        broker.control().Abort(1, "rank 1 was killed by SIGKILL");
      });
}

TEST(Fabric, WithoutAParentThatExplainsTheBrokerDoes) {
  RunProcesses(
      2,
      [](Rendezvous& rendezvous) {
        auto fabric = rendezvous.Open({.name = "x", .segment_bytes = 64, .num_flags = 1}, Soon());
        if ((*fabric)->rank() == 1) raise(SIGKILL);
        const Result<uint32_t> got = (*fabric)->Await(1, 0, 1, {"dispatch", 1, Soon()});
        ASSERT_FALSE(got);
        EXPECT_EQ(got.error().message, "rank 1 ended unexpectedly");
      },
      1);
}

TEST(Rendezvous, ARankThatDiesDuringJoinIsNamed) {
  RunProcesses(
      3,
      [](Rendezvous& rendezvous) {
        if (rendezvous.rank() == 2) raise(SIGKILL);
        const auto fabric = rendezvous.Open({.name = "x", .segment_bytes = 64, .num_flags = 1}, Soon());
        ASSERT_FALSE(fabric);
        EXPECT_NE(fabric.error().message.find("rank 2 ended"), std::string::npos) << fabric.error().message;
      },
      2);
}

TEST(Rendezvous, ARankThatDoesNotComeIsNamedAtTheDeadline) {
  const auto body = [](Rendezvous& rendezvous) {
    if (rendezvous.rank() != 0) {
      const auto blobs = rendezvous.ExchangeBlobs("late", {}, "x", Now() + 200ms);
      ASSERT_FALSE(blobs);
      EXPECT_EQ(blobs.error().code, Code::kDeadlineExceeded);
      EXPECT_NE(blobs.error().message.find("rank 0 did not join 'late' within "), std::string::npos)
          << blobs.error().message;
    }
    // The connection is still good for the next meeting.
    ASSERT_TRUE(rendezvous.ExchangeBlobs("later", {}, "x", Soon()));
  };
  RunThreads(3, [&](Rendezvous& r) {
    if (r.rank() == 0) std::this_thread::sleep_for(500ms);
    body(r);
  });
  RunProcesses(3, [&](Rendezvous& r) {
    if (r.rank() == 0) std::this_thread::sleep_for(500ms);
    body(r);
  });
}

TEST(Rendezvous, BlobsSubgroupsAndSharedMemory) {
  const auto body = [](Rendezvous& rendezvous) {
    const int me = rendezvous.rank();
    for (int i = 0; i < 20; ++i) {
      const auto blobs = rendezvous.ExchangeBlobs("b", {}, Format("{}:{}", me, i), Soon());
      ASSERT_TRUE(blobs) << blobs.error().message;
      for (int r = 0; r < 4; ++r) ASSERT_EQ((*blobs)[static_cast<size_t>(r)], Format("{}:{}", r, i));
    }
    // Two pairs open the same name at once.
    const std::vector<int> pair = me % 2 == 0 ? std::vector<int>{0, 2} : std::vector<int>{1, 3};
    auto fabric =
        rendezvous.Open({.name = "pair", .ranks = pair, .segment_bytes = 64, .num_flags = 1}, Soon());
    ASSERT_TRUE(fabric) << fabric.error().message;
    EXPECT_EQ((*fabric)->world_rank((*fabric)->rank()), me);
    (*fabric)->own()[0] = static_cast<std::byte>(me);
    (*fabric)->Publish(0, 1, 5);
    const int other = 1 - (*fabric)->rank();
    EXPECT_EQ(*(*fabric)->Await(other, 0, 1, {"pair", 0, Soon()}), 5u);
    EXPECT_EQ((*fabric)->peer(other)[0], static_cast<std::byte>((*fabric)->world_rank(other)));

    auto shared = rendezvous.Share("weights", 3, 100'000, Soon());
    ASSERT_TRUE(shared) << shared.error().message;
    if (me == 3) std::fill(shared->data, shared->data + 100'000, std::byte{42});
    ASSERT_TRUE(rendezvous.ExchangeBlobs("written", {}, "", Soon()));
    for (int i = 0; i < 100'000; ++i) ASSERT_EQ(shared->data[i], std::byte{42});
    ASSERT_TRUE(rendezvous.ExchangeBlobs("done", {}, "", Soon()));
  };
  RunThreads(4, body);
  RunProcesses(4, body);
}

TEST(Rendezvous, RanksThatDisagreeAreRefused) {
  RunThreads(2, [](Rendezvous& rendezvous) {
    const size_t bytes = rendezvous.rank() == 0 ? 64 : 128;
    const auto fabric = rendezvous.Open({.name = "x", .segment_bytes = bytes, .num_flags = 1}, Soon());
    ASSERT_FALSE(fabric);
    EXPECT_NE(fabric.error().message.find("128 bytes"), std::string::npos);
  });
}

TEST(Rendezvous, APeersSegmentCannotBeWritten) {
  RunProcesses(
      2,
      [](Rendezvous& rendezvous) {
        auto fabric = rendezvous.Open({.name = "x", .segment_bytes = 64, .num_flags = 1}, Soon());
        ASSERT_TRUE(fabric);
        if (rendezvous.rank() != 0) return;
        signal(SIGSEGV, [](int) { _exit(77); });
        const_cast<std::byte*>((*fabric)->peer(1))[0] = std::byte{1};
      },
      0,
      [](Broker&, const std::vector<pid_t>& pids) {
        siginfo_t info;
        ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pids[0]), &info, WEXITED | WNOWAIT), 0);
        EXPECT_EQ(info.si_status, 77);
      });
}

TEST(Fabric, NamesForPeople) {
  EXPECT_EQ(NameRanks(std::vector{2}), "rank 2");
  EXPECT_EQ(NameRanks(std::vector{1, 3}), "ranks 1 and 3");
  EXPECT_EQ(NameRanks(std::vector{1, 3, 4}), "ranks 1, 3 and 4");
  EXPECT_EQ(SecondsText(5s), "5");
  EXPECT_EQ(SecondsText(199ms), "0.2");
  EXPECT_EQ(SecondsText(120s), "120");
}

TEST(Control, ARingIsNeverLostAndAbortWakes) {
  ControlBlock block = {};
  Control control(&block, false);
  const uint32_t ticket = control.Ticket();
  EXPECT_FALSE(*control.AwaitRing(ticket, Now() + 5ms));
  control.Ring();
  EXPECT_TRUE(*control.AwaitRing(ticket, Soon()));
  for (int i = 0; i < 200; ++i) {
    const uint32_t before = control.Ticket();
    std::thread ringer([&] { control.Ring(); });
    EXPECT_TRUE(*control.AwaitRing(before, Soon()));
    ringer.join();
  }
  std::thread aborter([&] {
    std::this_thread::sleep_for(10ms);
    control.Abort(3, "rank 3 is gone");
    control.Abort(4, "rank 4 is gone");
  });
  const auto rung = control.AwaitRing(control.Ticket(), Soon());
  aborter.join();
  ASSERT_FALSE(rung);
  EXPECT_EQ(rung.error().message, "rank 3 is gone");
  EXPECT_EQ(control.abort_rank(), 3);
}

}  // namespace
}  // namespace cadre::fabric
