#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <deque>
#include <mutex>
#include <numeric>

#include "fabric/ranks_testing.h"
#include "group/heartbeat.h"
#include "group/join.h"
#include "group/lockstep.h"

namespace cadre::group {
namespace {

using namespace std::chrono_literals;

TEST(Join, EqualSettingsPass) {
  fabric::RunThreads(4, [](fabric::Rendezvous& r) {
    EXPECT_TRUE(CheckSameConfig(r, {}, {{"model", "m"}, {"dtype", "bfloat16"}}, Now() + 20s));
  });
}

TEST(Join, ADifferenceIsNamedOnAllSides) {
  const auto body = [](fabric::Rendezvous& r) {
    std::vector<ConfigField> fields = {{"model", "m"}, {"dtype", r.rank() >= 2 ? "float32" : "bfloat16"}};
    const Status status = CheckSameConfig(r, {}, fields, Now() + 20s);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().param, "dtype");
    EXPECT_EQ(status.error().message,
              "the ranks were not started alike: ranks 2 and 3 have dtype = 'float32', rank 0 has "
              "'bfloat16'; start all "
              "with the same value");
  };
  fabric::RunThreads(4, body);
  fabric::RunProcesses(4, body);
  fabric::RunThreads(2, [](fabric::Rendezvous& r) {
    std::vector<ConfigField> fields = {{"a", "1"}};
    if (r.rank() == 1) fields.push_back({"extra", "x"});
    const Status status = CheckSameConfig(r, {}, fields, Now() + 20s);
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("rank 1 has extra = 'x', rank 0 has no value"), std::string::npos)
        << status.error().message;
  });
}

TEST(Join, HashTellsFieldsApart) {
  EXPECT_EQ(ConfigHash({{"a", "b"}}), ConfigHash({{"a", "b"}}));
  EXPECT_NE(ConfigHash({{"a", "bc"}}), ConfigHash({{"ab", "c"}}));
  EXPECT_NE(ConfigHash({{"a", "1"}, {"b", "2"}}), ConfigHash({{"b", "2"}, {"a", "1"}}));
}

void Steps(fabric::Rendezvous& rendezvous) {
  auto lockstep = Lockstep::Create({.rendezvous = &rendezvous, .spin = false, .first_round = 0xFFFFFFF8});
  ASSERT_TRUE(lockstep) << lockstep.error().message;
  const int me = rendezvous.rank(), ranks = rendezvous.num_ranks();
  for (int step = 0; step < 100; ++step) {
    StepWord word;
    word.num_tokens = step * 10 + me;
    word.has_work = step % 3 == 0 && me == step % ranks;
    word.stop = step == 99;
    const auto view = (*lockstep)->Exchange(word, Now() + 20s);
    ASSERT_TRUE(view) << view.error().message;
    ASSERT_EQ(view->step, step);
    ASSERT_EQ(view->MaxTokens(), step * 10 + ranks - 1);
    ASSERT_EQ(view->TotalTokens(), int64_t{step} * 10 * ranks + ranks * (ranks - 1) / 2);
    ASSERT_EQ(view->AnyWork(), step % 3 == 0);
    ASSERT_EQ(view->AllStop(), step == 99);
    ASSERT_FALSE(view->AllPause());
  }
}

TEST(Lockstep, AllSeeAllWords) {
  for (const int ranks : {1, 2, 3, 8}) fabric::RunThreads(ranks, Steps);
  fabric::RunProcesses(4, Steps);
  for (const char* link : {"loop", "tcp"}) {
    for (const auto& layout : std::vector<std::vector<int>>{{1, 1}, {2, 3}, {1, 2, 1}}) {
      fabric::RunHosts(layout, link, Steps);
    }
  }
  auto alone = Lockstep::Create({});
  const auto view = (*alone)->Exchange({.num_tokens = 3, .has_work = true}, Now());
  EXPECT_EQ(view->MaxTokens(), 3);
  EXPECT_TRUE(view->AnyWork());
}

TEST(Lockstep, AMissingRankAndAWrongEpochAreNamed) {
  fabric::RunThreads(2, [](fabric::Rendezvous& rendezvous) {
    auto lockstep = Lockstep::Create({.rendezvous = &rendezvous, .spin = false});
    if (rendezvous.rank() == 1) return;
    const auto view = (*lockstep)->Exchange({}, Now() + 50ms);
    ASSERT_FALSE(view);
    EXPECT_TRUE(view.error().message.starts_with("rank 1 did not arrive at the start of step 0 within "))
        << view.error().message;
  });
  fabric::RunThreads(2, [](fabric::Rendezvous& rendezvous) {
    auto lockstep = Lockstep::Create({.rendezvous = &rendezvous, .spin = false});
    const auto view = (*lockstep)->Exchange({.membership_epoch = 1 + rendezvous.rank()}, Now() + 20s);
    ASSERT_FALSE(view);
    EXPECT_NE(view.error().message.find("membership epoch"), std::string::npos);
  });
}

// Requests come to ranks at random times; ranks sleep whenever nobody has work. Every request must be served,
// and nobody may wait for a sleeper: a lost ring would end in the deadline.
void ServeWithSleeps(const std::vector<int>& layout, const std::string& link) {
  constexpr int kRequests = 300;
  const int kRanks = std::accumulate(layout.begin(), layout.end(), 0);
  std::vector<int> host_of;
  for (size_t h = 0; h < layout.size(); ++h)
    host_of.insert(host_of.end(), static_cast<size_t>(layout[h]), static_cast<int>(h));
  struct Queue {
    std::mutex mutex;
    int waiting = 0;
  };
  std::vector<Queue> queues(static_cast<size_t>(kRanks));
  std::atomic<int> served{0}, slept{0};
  fabric::LoopHost host(layout, link);
  std::vector<std::thread> threads;
  for (int r = 0; r < kRanks; ++r) {
    threads.emplace_back([&, r] {
      const auto rendezvous = host.Join(r);
      auto lockstep = Lockstep::Create({.rendezvous = rendezvous.get(), .spin = false});
      ASSERT_TRUE(lockstep);
      while (true) {
        StepWord word;
        word.ticket = (*lockstep)->Ticket();
        {
          const std::lock_guard lock(queues[static_cast<size_t>(r)].mutex);
          word.num_tokens = std::exchange(queues[static_cast<size_t>(r)].waiting, 0);
        }
        word.has_work = word.num_tokens > 0;
        word.stop = served.load() == kRequests;
        const auto view = (*lockstep)->Exchange(word, Now() + 20s);
        ASSERT_TRUE(view) << view.error().message;
        if (view->AllStop()) return;
        served += word.num_tokens;
        if (served.load() == kRequests) (*lockstep)->Ring();
        if (view->AnyWork()) continue;
        const auto rung = (*lockstep)->Sleep(*view, Now() + 20s);
        ASSERT_TRUE(rung);
        ASSERT_TRUE(*rung) << "a ring was lost";
        ++slept;
      }
    });
  }
  const auto rank_of = [&](int i) { return (i * 7 + i / kRanks) % kRanks; };
  // One at a time, so that no later ring can make up for a lost one; the next comes while the ranks go to
  // sleep.
  for (int i = 0; i < kRequests; ++i) {
    for (std::atomic<int> wait = 0; wait < i * 50; ++wait) {
    }
    {
      const std::lock_guard lock(queues[static_cast<size_t>(rank_of(i))].mutex);
      ++queues[static_cast<size_t>(rank_of(i))].waiting;
    }
    host.control(host_of[static_cast<size_t>(rank_of(i))]).Ring();  // only the host where it came in
    const TimePoint deadline = Now() + 10s;
    while (served.load() <= i && Now() < deadline) std::this_thread::yield();
    EXPECT_EQ(served.load(), i + 1);
    if (served.load() != i + 1) host.control().Abort(-1, "a ring was lost");
    if (testing::Test::HasFailure()) break;
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(served.load(), kRequests);
  EXPECT_GT(slept.load(), 0);
}

TEST(Lockstep, NoRequestIsLostToSleep) {
  ServeWithSleeps({3}, "");
  for (const char* link : {"loop", "tcp"}) {
    for (const auto& layout : std::vector<std::vector<int>>{{1, 1}, {2, 2}, {1, 2, 1}}) {
      ServeWithSleeps(layout, link);
    }
  }
}

TEST(Lockstep, IdleRanksUseNoCpu) {
  fabric::RunProcesses(3, [](fabric::Rendezvous& rendezvous) {
    auto lockstep = Lockstep::Create({.rendezvous = &rendezvous});
    ASSERT_TRUE(lockstep);
    StepWord word;
    word.ticket = (*lockstep)->Ticket();
    const auto view = (*lockstep)->Exchange(word, Now() + 20s);
    ASSERT_TRUE(view);
    const auto switches = [] {
      rusage usage;
      getrusage(RUSAGE_SELF, &usage);
      return usage.ru_nvcsw;
    };
    const long before = switches();
    if (rendezvous.rank() == 1) {
      std::this_thread::sleep_for(400ms);
      (*lockstep)->Ring();
    }
    EXPECT_TRUE(*(*lockstep)->Sleep(*view, Now() + 20s));
    EXPECT_LT(switches() - before, 10);
  });
}

TEST(Heartbeat, AStoppedRankIsNamed) {
  fabric::RunProcesses(
      3,
      [](fabric::Rendezvous& rendezvous) {
        auto lockstep = Lockstep::Create({.rendezvous = &rendezvous, .spin = false});
        ASSERT_TRUE(lockstep);
        HeartbeatOptions options{.control = rendezvous.control(),
                                 .rank = rendezvous.rank(),
                                 .watched = {0, 1, 2},
                                 .interval = 20ms,
                                 .timeout = 400ms};
        const Heartbeat heartbeat(options);
        ASSERT_TRUE((*lockstep)->Exchange({}, Now() + 20s));
        if (rendezvous.rank() == 2) raise(SIGSTOP);
        const TimePoint start = Now();
        const auto view = (*lockstep)->Exchange({}, Now() + 20s);
        ASSERT_FALSE(view);
        EXPECT_EQ(
            view.error().message,
            "rank 2 gave no sign of life for 0.4 s (in step 0); is it stopped, or its machine overloaded?");
        EXPECT_LT(SecondsSince(start), 10);
      },
      2,
      [](fabric::Broker& broker, const std::vector<pid_t>& pids) {
        const TimePoint deadline = Now() + 20s;
        while (!broker.control().aborted() && Now() < deadline) std::this_thread::sleep_for(5ms);
        EXPECT_EQ(broker.control().abort_rank(), 2);
        kill(pids[2], SIGKILL);
      });
}

TEST(Heartbeat, ThoseWhoBeatAndThoseWhoLeftAreLeftAlone) {
  fabric::ControlBlock block = {};
  const fabric::Control control(&block, false);
  const Heartbeat a(
      {.control = control, .rank = 0, .watched = {0, 1, 2, 3}, .interval = 5ms, .timeout = 100ms});
  const Heartbeat b(
      {.control = control, .rank = 1, .watched = {0, 1, 2, 3}, .interval = 5ms, .timeout = 100ms});
  block.ranks[2].beats.store(7);  // left on purpose; rank 3 has not begun
  block.ranks[2].left.store(1);
  std::this_thread::sleep_for(400ms);
  EXPECT_FALSE(control.aborted());
}

}  // namespace
}  // namespace cadre::group
