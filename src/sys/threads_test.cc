#include "sys/threads.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <new>
#include <set>
#include <thread>

namespace cadre::sys {
namespace {

TEST(ThreadPool, EveryTaskRunsOnceWhateverTheShape) {
  for (const int threads : {1, 2, 3, 8}) {
    for (const bool spin : {false, true}) {
      ThreadPool pool({.num_threads = threads, .cpus = {}, .spin = spin});
      for (const int64_t tasks : {0, 1, 2, 7, 1000}) {
        std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
        pool.ForEach(tasks, [&](int64_t task, int worker) {
          ASSERT_LT(worker, threads);
          runs[static_cast<size_t>(task)].fetch_add(1);
        });
        for (const auto& count : runs) ASSERT_EQ(count.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, RunReachesEveryWorkerAlsoAfterTheySlept) {
  ThreadPool pool({.num_threads = 4, .cpus = {0}, .spin = true});
  for (int round = 0; round < 5; ++round) {
    std::mutex mutex;
    std::set<int> workers;
    pool.Run([&](int worker) {
      const std::lock_guard lock(mutex);
      workers.insert(worker);
    });
    EXPECT_EQ(workers.size(), 4u);
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
}

TEST(ThreadPool, ManyShortRoundsKeepOrder) {
  ThreadPool pool({.num_threads = 3, .cpus = {}, .spin = false});
  int64_t sum = 0;
  for (int64_t round = 0; round < 2000; ++round) {
    std::atomic<int64_t> part{0};
    pool.ForEach(5, [&](int64_t task, int) { part += task + round; });
    sum += part;
  }
  EXPECT_EQ(sum, 2000 * 10 + 5 * (1999 * 2000 / 2));
}

TEST(ThreadPoolDeathTest, AnExceptionOfTheCallersShareDoesNotUnwindWhatOthersUse) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadPool pool({.num_threads = 2});
        try {
          pool.Run([](int worker) {
            if (worker == 0) throw std::bad_alloc();
          });
        } catch (...) {
          _exit(0);  // unwound: wrong
        }
      },
      "");
}

}  // namespace
}  // namespace cadre::sys
