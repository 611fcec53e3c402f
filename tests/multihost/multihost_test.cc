// Ranks as processes on hosts that share nothing but a network.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>

#include <csignal>
#include <functional>
#include <numeric>
#include <thread>

#include "a2a/a2a.h"
#include "a2a/collective.h"
#include "fabric/broker.h"
#include "group/coordinator.h"
#include "group/host_group.h"
#include "group/lockstep.h"
#include "multihost/namespaces.h"

namespace cadre {
namespace {

using namespace std::chrono_literals;
using test::Namespaces;
using RankBody = std::function<void(fabric::Rendezvous&)>;

constexpr uint16_t kPort = 29550;

struct Deployment {
  std::vector<int> layout;
  std::string link = "tcp";
  Duration timeout = 5s;
};

[[noreturn]] void Exit() {
  fflush(nullptr);
  _exit(testing::Test::HasFailure() ? 1 : 0);
}

// The life of a host's parent; in its namespace already.
void RunHost(const Deployment& d, size_t host, const RankBody& body) {
  auto broker = fabric::Broker::Create(d.layout[host], Format("host{}", host));
  ASSERT_TRUE(broker) << broker.error().message;
  std::vector<pid_t> ranks;
  for (int r = 0; r < d.layout[host]; ++r) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      sys::Fd socket = (*broker)->TakeChildEnd(r);
      broker->reset();
      {
        auto rendezvous = fabric::JoinHost(std::move(socket), Now() + 30s);
        EXPECT_TRUE(rendezvous) << rendezvous.error().message;
        if (rendezvous) body(**rendezvous);
      }
      Exit();
    }
    (*broker)->CloseChildEnd(r);
    ranks.push_back(pid);
  }
  group::HostHello own;
  own.num_ranks_in_all = std::accumulate(d.layout.begin(), d.layout.end(), 0);
  own.entry = {.name = Format("h{}", host),
               .first_rank = std::accumulate(d.layout.begin(), d.layout.begin() + static_cast<long>(host), 0),
               .num_ranks = d.layout[host],
               .addresses = {},
               .info = {}};
  own.links = {d.link};
  std::unique_ptr<group::Coordinator> coordinator;
  if (host == 0) {
    auto started = group::Coordinator::Start(
        {.address = Namespaces::Address(0), .port = kPort, .own = own, .timeout = d.timeout});
    ASSERT_TRUE(started) << started.error().message;
    coordinator = std::move(*started);
  }
  auto joined = group::HostGroup::Join({.address = Namespaces::Address(0),
                                        .port = kPort,
                                        .own = own,
                                        .deadline = Now() + 30s,
                                        .timeout = d.timeout});
  if (joined) (*joined)->Serve(**broker);
  EXPECT_TRUE(joined) << joined.error().message;
  if (!joined) broker->reset();  // the ranks hear it
  for (const pid_t pid : ranks) {
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "a rank of host " << host << " failed";
  }
  if (joined) joined->reset();
  if (coordinator) std::this_thread::sleep_for(200ms);  // the others leave first
}

void RunHosts(const Namespaces& namespaces, const Deployment& d, const RankBody& body,
              const std::function<void()>& meanwhile = nullptr) {
  std::vector<pid_t> hosts;
  for (size_t h = 0; h < d.layout.size(); ++h) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      EXPECT_TRUE(namespaces.Enter(static_cast<int>(h)));
      RunHost(d, h, body);
      Exit();
    }
    hosts.push_back(pid);
  }
  if (meanwhile) meanwhile();
  for (const pid_t pid : hosts) {
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
}

// Steps with sleeps between them, sums large and small, an exchange of an expert layer. The last step does not
// sleep: what follows a sleep is the next step (lockstep.h).
void Work(fabric::Rendezvous& rendezvous, const std::string& backend, int num_steps) {
  const int me = rendezvous.rank(), ranks = rendezvous.num_ranks();
  const TimePoint deadline = Now() + 60s;
  auto lockstep =
      group::Lockstep::Create({.rendezvous = &rendezvous, .spin = false, .join_deadline = deadline});
  ASSERT_TRUE(lockstep) << lockstep.error().message;
  auto sum = a2a::Collective::Create({.rendezvous = &rendezvous, .join_deadline = deadline, .spin = false});
  ASSERT_TRUE(sum) << sum.error().message;
  a2a::Options options;
  options.backend = backend;
  options.hidden = 512;
  options.act_type = DType::kF32;
  options.top_k = 2;
  options.max_rows = 64;
  options.layout = {.num_slots = 2 * ranks, .num_ranks = ranks};
  options.rendezvous = &rendezvous;
  options.join_deadline = deadline;
  options.spin = false;
  auto exchange = a2a::Create(options);
  ASSERT_TRUE(exchange) << exchange.error().message;
  for (int step = 0; step < num_steps; ++step) {
    const group::StepWord word{.num_tokens = me + step, .ticket = (*lockstep)->Ticket()};
    const auto view = (*lockstep)->Exchange(word, deadline);
    ASSERT_TRUE(view) << view.error().message;
    ASSERT_EQ(view->TotalTokens(), ranks * (ranks - 1) / 2 + step * ranks);
    (*sum)->BeginStep(step, deadline);
    std::vector<float> x(step % 5 == 0 ? 500'000 : 100, static_cast<float>(me + 1));
    const Status reduced = (*sum)->AllReduceSum(x.data(), static_cast<int64_t>(x.size()));
    ASSERT_TRUE(reduced) << reduced.error().message;
    for (const float v : x) ASSERT_EQ(v, static_cast<float>(ranks * (ranks + 1) / 2));

    // Row t of rank r is all r + t; each of its two experts doubles it with weight 1/2.
    const int64_t rows = (me * 7 + step * 3) % 65;
    (*exchange)->BeginStep(step, deadline);
    auto* staged = reinterpret_cast<float*>((*exchange)->Stage(rows));
    std::vector<int32_t> slots;
    for (int64_t t = 0; t < rows; ++t) {
      std::fill(staged + t * 512, staged + (t + 1) * 512, static_cast<float>(me + t));
      slots.push_back(static_cast<int32_t>(t + step) % (2 * ranks));
      slots.push_back(static_cast<int32_t>(t + step + 1 + me) % (2 * ranks));
    }
    const std::vector<float> weights(slots.size(), 0.5f);
    const auto table = (*exchange)->Dispatch({rows, slots.data(), weights.data()});
    ASSERT_TRUE(table) << table.error().message;
    std::vector<float> results(static_cast<size_t>(table->num_rows) * 512 + 1);
    for (int64_t n = 0; n < table->num_rows; ++n) {
      const auto* row = static_cast<const float*>(table->rows[n]);
      for (int64_t i = 0; i < 512; ++i)
        results[static_cast<size_t>(n * 512 + i)] = row[i] * 2 * table->row_weights[n];
    }
    std::vector<float> out(static_cast<size_t>(rows) * 512 + 1);
    const Status combined = (*exchange)->Combine(results.data(), out.data(), false);
    ASSERT_TRUE(combined) << combined.error().message;
    for (int64_t i = 0; i < rows * 512; ++i)
      ASSERT_EQ(out[static_cast<size_t>(i)], static_cast<float>(2 * (me + i / 512)));
    if (step % 8 == 3) {
      if (me == step % ranks) {
        std::this_thread::sleep_for(3ms);
        (*lockstep)->Ring();
      }
      const auto rung = (*lockstep)->Sleep(*view, deadline);
      ASSERT_TRUE(rung && *rung) << "rank " << me << " step " << step;
    }
  }
  ASSERT_TRUE(rendezvous.ExchangeBlobs("end", {}, "", deadline));
}

class Multihost : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (geteuid() != 0 || !Namespaces(1).ok()) GTEST_SKIP() << "network namespaces need root and `ip`";
  }
};

TEST_P(Multihost, RanksOnTwoToFourHostsWorkTogether) {
  struct Case {
    std::vector<int> layout;
    std::string backend;
  };
  for (const Case& c : {Case{{1, 1}, "pplx"},
                        {{2, 2}, "allgather_reducescatter"},
                        {{2, 2}, "deepep_low_latency"},
                        {{2, 1, 3}, "deepep_high_throughput"},
                        {{1, 1, 1, 1}, "mori"},
                        {{3, 1}, "naive"},
                        {{8, 8}, "flashinfer_all2allv"}}) {
    SCOPED_TRACE(c.backend);
    const Namespaces namespaces(static_cast<int>(c.layout.size()));
    ASSERT_TRUE(namespaces.ok());
    RunHosts(namespaces, {c.layout, GetParam()}, [&](fabric::Rendezvous& r) { Work(r, c.backend, 24); });
    if (HasFailure()) return;
  }
}

TEST_P(Multihost, DelayLossReorderingAndLittleBandwidthChangeNothing) {
  struct Case {
    std::vector<int> layout;
    const char *backend, *how;
  };
  for (const Case& c : {Case{{2, 2}, "allgather_reducescatter", "delay 2ms 1ms loss 0.5% reorder 10%"},
                        {{1, 2, 1}, "deepep_low_latency", "delay 1ms 1ms duplicate 5%"},
                        {{2, 1}, "deepep_high_throughput", "rate 200mbit"}}) {
    SCOPED_TRACE(c.how);
    Namespaces namespaces(static_cast<int>(c.layout.size()));
    ASSERT_TRUE(namespaces.ok() && namespaces.Disturb(c.how));
    RunHosts(namespaces, {c.layout, GetParam()}, [&](fabric::Rendezvous& r) { Work(r, c.backend, 14); });
    if (HasFailure()) return;
  }
}

TEST_P(Multihost, AnUnpluggedHostIsNamedWithinFiveSeconds) {
  Namespaces namespaces(2);
  ASSERT_TRUE(namespaces.ok());
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  RunHosts(
      namespaces, {{2, 2}, GetParam(), 3s},
      [&](fabric::Rendezvous& rendezvous) {
        auto lockstep =
            group::Lockstep::Create({.rendezvous = &rendezvous, .spin = false, .join_deadline = Now() + 20s});
        ASSERT_TRUE(lockstep) << lockstep.error().message;
        TimePoint last = Now();
        for (int step = 0;; ++step) {
          if (step == 20 && rendezvous.rank() == 0) {
            ASSERT_EQ(write(ready[1], "x", 1), 1);
          }
          const auto view = (*lockstep)->Exchange({}, Now() + 60s);
          if (!view) {
            // Each side sees the other one fall silent; UCX may find its own connection broken first.
            const std::string wanted =
                rendezvous.rank() < 2 ? "host 'h1' (ranks 2 and 3)" : "the first host at 10.77.0.1:29550";
            EXPECT_THAT(view.error().message, testing::AnyOf(testing::StartsWith(wanted),
                                                             testing::HasSubstr("the connection to host")));
            EXPECT_LT(SecondsSince(last), 5);
            return;
          }
          last = Now();
          std::this_thread::sleep_for(5ms);
        }
      },
      [&] {
        char byte;
        pollfd entry = {ready[0], POLLIN, 0};
        EXPECT_EQ(poll(&entry, 1, 20'000), 1);
        EXPECT_EQ(read(ready[0], &byte, 1), 1);
        EXPECT_TRUE(namespaces.Unplug(1));
      });
}

INSTANTIATE_TEST_SUITE_P(Links, Multihost, testing::Values("tcp", "ucx"),
                         [](const auto& link) { return link.param; });

}  // namespace
}  // namespace cadre
