#pragma once
// For tests: runs one function per rank, as threads on loop memory or as forked processes on shared memory.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "fabric/broker.h"
#include "fabric/loop.h"

namespace cadre::fabric {

using RankBody = std::function<void(Rendezvous&)>;

inline void RunThreads(LoopHost& host, int num_ranks, const RankBody& body) {
  std::vector<std::thread> threads;
  for (int r = 0; r < num_ranks; ++r) {
    threads.emplace_back([&, r] {
      const auto rendezvous = host.Join(r);
      body(*rendezvous);
    });
  }
  for (auto& thread : threads) thread.join();
}

inline void RunThreads(int num_ranks, const RankBody& body) {
  LoopHost host(num_ranks);
  RunThreads(host, num_ranks, body);
}

/// Threads that stand for several hosts.
inline void RunHosts(const std::vector<int>& ranks_per_host, const std::string& link, const RankBody& body) {
  LoopHost host(ranks_per_host, link);
  RunThreads(host, std::accumulate(ranks_per_host.begin(), ranks_per_host.end(), 0), body);
}

/// A child that fails an expectation, or ends in another way, fails the test; `may_die` names one that is
/// meant to. `at_parent` runs in the parent while the children do.
inline void RunProcesses(int num_ranks, const RankBody& body, int may_die = -1,
                         const std::function<void(Broker&, const std::vector<pid_t>&)>& at_parent = nullptr) {
  auto broker = Broker::Create(num_ranks, "test" + std::to_string(getpid()));
  ASSERT_TRUE(broker) << broker.error().message;
  std::vector<pid_t> pids;
  for (int r = 0; r < num_ranks; ++r) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      sys::Fd socket = (*broker)->TakeChildEnd(r);
      broker->reset();
      {
        auto rendezvous = JoinHost(std::move(socket), Now() + std::chrono::seconds(20));
        EXPECT_TRUE(rendezvous);
        if (rendezvous) body(**rendezvous);
      }
      fflush(nullptr);
      _exit(testing::Test::HasFailure() ? 1 : 0);
    }
    pids.push_back(pid);
    (*broker)->CloseChildEnd(r);
  }
  (*broker)->Start();
  if (at_parent) at_parent(**broker, pids);
  for (int r = 0; r < num_ranks; ++r) {
    int status = 0;
    EXPECT_EQ(waitpid(pids[static_cast<size_t>(r)], &status, 0), pids[static_cast<size_t>(r)]);
    if (r == may_die) continue;
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << "rank " << r << " ended with status " << status;
  }
}

}  // namespace cadre::fabric
