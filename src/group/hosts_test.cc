// Hosts that meet over TCP: parents as threads of the test, ranks as processes; and all that may go wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <poll.h>
#include <csignal>
#include <future>

#include "base/format.h"
#include "fabric/ranks_testing.h"
#include "fabric/wire.h"
#include "group/coordinator.h"
#include "group/frame_stream.h"
#include "group/host_group.h"
#include "group/lockstep.h"
#include "sys/sockets.h"

namespace cadre::group {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

HostHello Hello(const std::string& name, int first, int ranks, int in_all) {
  HostHello hello;
  hello.num_ranks_in_all = in_all;
  hello.entry = {
      .name = name, .first_rank = first, .num_ranks = ranks, .addresses = {}, .info = "info of " + name};
  hello.links = {"tcp"};
  hello.config = {{"version", "1"}, {"--dtype", "bfloat16"}};
  return hello;
}

CoordinatorOptions Quick(HostHello own) {
  return {.address = "127.0.0.1",
          .own = std::move(own),
          .beat_interval = 20ms,
          .timeout = 500ms,
          .hello_time = 300ms,
          .report_interval = 50ms};
}

HostGroupOptions Joining(HostHello own, uint16_t port, Duration limit = 20s) {
  return {.address = "127.0.0.1",
          .port = port,
          .own = std::move(own),
          .deadline = Now() + limit,
          .beat_interval = 20ms,
          .timeout = 500ms,
          .report_interval = 50ms};
}

using Joined = Result<std::unique_ptr<HostGroup>>;

std::future<Joined> JoinLater(HostGroupOptions options) {
  return std::async(std::launch::async,
                    [o = std::move(options)]() mutable { return HostGroup::Join(std::move(o)); });
}

uint16_t FreePort() {
  return *sys::LocalPort(sys::ListenTcp("127.0.0.1", 0)->get());
}

bool WaitAborted(fabric::Broker& broker, Duration limit = 10s) {
  const TimePoint deadline = Now() + limit;
  while (!broker.control().aborted() && Now() < deadline) std::this_thread::sleep_for(2ms);
  return broker.control().aborted();
}

TEST(HostJoin, AnyOrderAndTheMissingAreNamed) {
  const uint16_t port = FreePort();
  std::mutex mutex;
  std::vector<std::string> waits;
  auto late = Joining(Hello("c", 3, 2, 5), port);
  late.on_waiting = [&](const std::string& text) {
    const std::lock_guard lock(mutex);
    waits.push_back(text);
  };
  auto c = JoinLater(late);  // before there is a coordinator
  std::this_thread::sleep_for(100ms);
  auto options = Quick(Hello("a", 0, 2, 5));
  options.port = port;
  auto coordinator = Coordinator::Start(options);
  ASSERT_TRUE(coordinator) << coordinator.error().message;
  std::this_thread::sleep_for(300ms);
  auto a = JoinLater(Joining(options.own, port));
  std::this_thread::sleep_for(200ms);
  auto b = JoinLater(Joining(Hello("b", 2, 1, 5), port));
  int number = 0;
  std::vector<std::unique_ptr<HostGroup>> groups;
  for (auto* future : {&a, &b, &c}) {
    auto joined = future->get();
    ASSERT_TRUE(joined) << joined.error().message;
    const fabric::HostTable& table = (*joined)->table();
    EXPECT_EQ(table.own, number++);
    ASSERT_EQ(table.num_hosts(), 3);
    EXPECT_EQ(table.hosts[1].name, "b");
    EXPECT_EQ(table.hosts[2].first_rank, 3);
    EXPECT_EQ(table.hosts[2].addresses, std::vector<std::string>{"127.0.0.1"});
    EXPECT_EQ(table.hosts[0].info, "info of a");
    EXPECT_EQ(table.link, "tcp");
    groups.push_back(std::move(*joined));
  }
  EXPECT_EQ(
      DescribeRing(groups[0]->table()),
      "Connected all rings: host 'a' (ranks 0 and 1) -> host 'b' (rank 2) -> host 'c' (ranks 3 and 4) -> "
      "host 'a' (ranks 0 and 1); 5 ranks, over shared memory in a host and tcp between hosts");
  const std::lock_guard lock(mutex);
  ASSERT_FALSE(waits.empty());
  EXPECT_THAT(waits[0], HasSubstr("waiting for the first host at 127.0.0.1:"));
  EXPECT_THAT(waits, testing::Contains("waiting for ranks 0 to 2 (of 5 ranks in all)"));
  EXPECT_THAT(waits, testing::Contains("waiting for rank 2 (of 5 ranks in all)"));
}

HostHello OnlyAnswers(int in_all) {
  HostHello hello = Hello("front", 0, 0, in_all);
  std::erase_if(hello.config, [](const ConfigField& field) { return field.name == "isa"; });
  return hello;
}
HostHello Computes(const std::string& name, int first, int ranks, int in_all,
                   const std::string& isa = "avx2") {
  HostHello hello = Hello(name, first, ranks, in_all);
  hello.config.push_back({"isa", isa});
  return hello;
}

TEST(HostJoin, AFirstHostWithoutRanksIsInNoTable) {
  auto options = Quick(OnlyAnswers(3));
  options.connections = 4;
  auto coordinator = Coordinator::Start(options);
  const uint16_t port = (*coordinator)->port();
  auto b = JoinLater(Joining(Computes("b", 2, 1, 3), port));
  auto front = JoinLater(Joining(options.own, port));
  std::this_thread::sleep_for(100ms);
  // What only hosts with ranks have is compared between them; and nobody else may come without ranks.
  const auto other = HostGroup::Join(Joining(Computes("a", 0, 2, 3, "avx512"), port));
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("isa = 'avx512', host 'b' (rank 2) has 'avx2'"));
  auto empty = OnlyAnswers(3);
  empty.entry.info = "another";
  EXPECT_FALSE(HostGroup::Join(Joining(empty, port)));
  auto a = JoinLater(Joining(Computes("a", 0, 2, 3), port));
  auto joined_a = a.get(), joined_b = b.get(), joined_front = front.get();
  ASSERT_TRUE(joined_a && joined_b && joined_front);
  EXPECT_EQ((*joined_front)->table().own, -1);
  EXPECT_EQ((*joined_a)->table().own, 0);
  EXPECT_EQ((*joined_b)->table().own, 1);
  for (const auto* group : {&*joined_a, &*joined_b, &*joined_front}) {
    const fabric::HostTable& table = (*group)->table();
    ASSERT_EQ(table.num_hosts(), 2);
    EXPECT_EQ(table.hosts[0].name, "a");
    EXPECT_EQ(table.connections, 4);
    EXPECT_EQ((*group)->first().info, "info of front");
    EXPECT_EQ((*group)->first().addresses, std::vector<std::string>{"127.0.0.1"});
  }
  EXPECT_TRUE((*joined_front)->Outcome().has_value());
  joined_a->reset();  // leaves: the front hears it
  pollfd entry = {(*joined_front)->ended_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&entry, 1, 10'000), 1);
}

TEST(HostJoin, ALinkThatNotAllHaveIsRefusedToAll) {
  auto options = Quick(Hello("a", 0, 1, 2));
  options.own.links = {"tcp", "ucx"};
  options.link = "ucx";
  auto coordinator = Coordinator::Start(options);
  auto a = JoinLater(Joining(options.own, (*coordinator)->port()));
  auto b = JoinLater(Joining(Hello("b", 1, 1, 2), (*coordinator)->port()));
  for (auto* future : {&a, &b}) {
    const auto joined = future->get();
    ASSERT_FALSE(joined);
    EXPECT_THAT(joined.error().message, HasSubstr("not all hosts can be linked by 'ucx'"));
  }
}

TEST(HostJoin, DeadlinesSayWhatToCheck) {
  const auto nobody = HostGroup::Join(Joining(Hello("b", 1, 1, 2), FreePort(), 200ms));
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().code, Code::kDeadlineExceeded);
  EXPECT_THAT(nobody.error().message, HasSubstr("Connection refused"));
  EXPECT_THAT(nobody.error().message, HasSubstr("is it started, and do all hosts have the same address"));

  auto coordinator = Coordinator::Start(Quick(Hello("a", 0, 1, 3)));
  const auto missing = HostGroup::Join(Joining(Hello("b", 1, 1, 3), (*coordinator)->port(), 300ms));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message,
            "not all hosts joined in time: waiting for rank 0, rank 2 (of 3 ranks in all)");

  auto other = sys::ListenTcp("127.0.0.1", 0);  // another program, which talks first
  std::thread program([&] {
    auto fd = sys::Accept(other->get(), Now() + 10s);
    const std::string_view banner = "SSH-2.0-OpenSSH_9.2\r\n";
    ASSERT_TRUE(sys::SendAll(fd->get(), std::as_bytes(std::span(banner)), Now() + 10s));
    std::this_thread::sleep_for(300ms);
  });
  const auto wrong = HostGroup::Join(Joining(Hello("b", 1, 1, 3), *sys::LocalPort(other->get())));
  program.join();
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message, HasSubstr("is the port another program's?"));

  auto taken = Quick(Hello("a", 0, 1, 3));
  taken.port = (*coordinator)->port();
  const auto second = Coordinator::Start(taken);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("Address already in use"));
}

TEST(HostJoin, WhatDoesNotFitIsRefusedByName) {
  auto coordinator = Coordinator::Start(Quick(Hello("a", 0, 2, 4)));
  const uint16_t port = (*coordinator)->port();
  const auto refusal = [&](HostHello hello) {
    const auto joined = HostGroup::Join(Joining(std::move(hello), port));
    EXPECT_FALSE(joined);
    return joined ? Error{} : joined.error();
  };
  HostHello hello = Hello("b", 2, 2, 4);
  hello.config[1].value = "float32";
  const Error config = refusal(hello);
  EXPECT_EQ(config.code, Code::kInvalidArgument);
  EXPECT_EQ(config.param, "--dtype");
  EXPECT_THAT(config.message,
              HasSubstr("host 'b' (ranks 2 and 3) has --dtype = 'float32', host 'a' (ranks 0 and 1) "
                        "has 'bfloat16'; start all with the same value"));
  hello = Hello("b", 2, 2, 4);
  hello.version = 99;
  EXPECT_THAT(refusal(hello).message, HasSubstr("speaks version 99"));
  EXPECT_THAT(refusal(Hello("b", 2, 2, 6)).message,
              HasSubstr("host 'b' (ranks 2 and 3) counts 6 ranks in all, host 'a' (ranks 0 and 1) counts 4"));
  EXPECT_THAT(refusal(Hello("b", 2, 3, 4)).message, HasSubstr("is not among the deployment's ranks 0 to 3"));
  EXPECT_THAT(refusal(Hello("b", 1 << 30, 1 << 30, 4)).message, HasSubstr("is not among"));
  auto first = JoinLater(Joining(Hello("a", 0, 2, 4), port));
  std::this_thread::sleep_for(200ms);
  EXPECT_THAT(refusal(Hello("b", 1, 2, 4)).message, HasSubstr("are taken by host 'a' (ranks 0 and 1)"));
  // The place is still free for one that is started right.
  auto right = HostGroup::Join(Joining(Hello("b", 2, 2, 4), port));
  ASSERT_TRUE(right) << right.error().message;
  EXPECT_TRUE(first.get());
  EXPECT_THAT(refusal(Hello("b", 2, 2, 4)).message, HasSubstr("too late"));
}

TEST(HostJoin, StrangersAndHalfOpenConnectionsDoNotHarm) {
  auto coordinator = Coordinator::Start(Quick(Hello("a", 0, 1, 2)));
  const uint16_t port = (*coordinator)->port();
  std::vector<sys::Fd> strangers;
  const auto call = [&](std::string_view words) {
    auto fd = sys::ConnectTcp("127.0.0.1", port, Now() + 10s);
    ASSERT_TRUE(fd);
    // The other side may close before it has read all.
    [[maybe_unused]] const Status sent =
        sys::SendAll(fd->get(), std::as_bytes(std::span(words)), Now() + 10s);
    strangers.push_back(std::move(*fd));
  };
  for (int i = 0; i < 200; ++i) call("");  // more than may wait at once
  call("GET / HTTP/1.0\r\n\r\n");
  call(std::string(1 << 20, 'x'));
  const auto frame = [](uint32_t kind, uint32_t announced, std::string_view body) {
    std::string text = "CDH1";
    text.append(reinterpret_cast<const char*>(&kind), 4).append(reinterpret_cast<const char*>(&announced), 4);
    return text.append(body);
  };
  call(frame(kHello, UINT32_MAX, "huge"));
  call(frame(kHello, 100, "half"));
  call(frame(kHello, 4, "\1\0\0\0"));  // ends too early
  call(frame(kRelay, 4, "\1\0\0\0"));  // not its turn
  std::string many = Hello("b", 1, 1, 2).Encode();
  call(frame(kHello, static_cast<uint32_t>(many.size() / 2), many.substr(0, many.size() / 2)));
  auto a = JoinLater(Joining(Hello("a", 0, 1, 2), port));
  auto b = HostGroup::Join(Joining(Hello("b", 1, 1, 2), port));
  ASSERT_TRUE(b) << b.error().message;
  ASSERT_TRUE(a.get());
  // Who says nothing is sent away, also after the join.
  std::byte byte;
  for (sys::Fd& fd : strangers) {
    const Status gone = sys::RecvAll(fd.get(), {&byte, 1}, Now() + 10s);
    EXPECT_TRUE(gone || gone.error().code != Code::kDeadlineExceeded);
  }
}

TEST(HostJoin, AHostThatGoesAwayWhileWaitingMayComeBack) {
  auto coordinator = Coordinator::Start(Quick(Hello("a", 0, 1, 2)));
  const uint16_t port = (*coordinator)->port();
  EXPECT_FALSE(HostGroup::Join(Joining(Hello("b", 1, 1, 2), port, 100ms)));  // gave up and was started again
  auto b = JoinLater(Joining(Hello("b", 1, 1, 2), port));
  std::this_thread::sleep_for(100ms);
  // The first host is started again as well.
  coordinator->reset();
  auto options = Quick(Hello("a", 0, 1, 2));
  options.port = port;
  std::this_thread::sleep_for(100ms);
  coordinator = Coordinator::Start(options);
  ASSERT_TRUE(coordinator) << coordinator.error().message;
  auto a = JoinLater(Joining(Hello("a", 0, 1, 2), port));
  EXPECT_TRUE(b.get());
  EXPECT_TRUE(a.get());
}

// Two or more hosts' parents that have joined, each with its broker.
struct Parents {
  explicit Parents(const std::vector<int>& ranks_per_host) {
    for (const int ranks : ranks_per_host) {
      brokers.push_back(std::move(*fabric::Broker::Create(ranks, Format("t{}", getpid()))));
    }
  }
  void Join() {
    int in_all = 0;
    for (const int ranks : Ranks()) in_all += ranks;
    const auto hello = [&](size_t h) {
      int first = 0;
      for (size_t i = 0; i < h; ++i) first += Ranks()[i];
      return Hello(Format("h{}", h), first, Ranks()[h], in_all);
    };
    coordinator = std::move(*Coordinator::Start(Quick(hello(0))));
    std::vector<std::future<Joined>> joining;
    for (size_t h = 0; h < brokers.size(); ++h)
      joining.push_back(JoinLater(Joining(hello(h), coordinator->port())));
    for (auto& future : joining) {
      auto joined = future.get();
      ASSERT_TRUE(joined) << joined.error().message;
      groups.push_back(std::move(*joined));
    }
    for (size_t h = 0; h < brokers.size(); ++h) groups[h]->Serve(*brokers[h]);
  }
  std::vector<int> Ranks() const {
    std::vector<int> ranks;
    for (const auto& broker : brokers) ranks.push_back(broker->num_ranks());
    return ranks;
  }
  ~Parents() { groups.clear(); }

  std::vector<std::unique_ptr<fabric::Broker>> brokers;
  std::unique_ptr<Coordinator> coordinator;
  std::vector<std::unique_ptr<HostGroup>> groups;
};

TEST(HostGroup, AnAbortReachesAllHosts) {
  Parents parents({1, 2, 1});
  parents.Join();
  const TimePoint start = Now();
  parents.brokers[1]->control().Abort(2, "rank 2 was killed by SIGKILL");
  for (auto& broker : parents.brokers) {
    ASSERT_TRUE(WaitAborted(*broker));
    EXPECT_EQ(broker->control().abort_rank(), 2);
    EXPECT_EQ(broker->control().Check().error().message, "rank 2 was killed by SIGKILL");
  }
  EXPECT_LT(SecondsSince(start), 1);
  for (auto& group : parents.groups) {
    pollfd ended = {group->ended_fd(), POLLIN, 0};
    EXPECT_EQ(poll(&ended, 1, 2000), 1);
  }
}

TEST(HostGroup, AHostThatLeavesIsNotMissedAndTheFirstEndsAll) {
  Parents parents({1, 1, 1});
  parents.Join();
  parents.groups[2].reset();
  std::this_thread::sleep_for(700ms);
  EXPECT_FALSE(parents.brokers[0]->control().aborted());
  EXPECT_FALSE(parents.brokers[1]->control().aborted());
  parents.coordinator.reset();
  pollfd ended = {parents.groups[1]->ended_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&ended, 1, 5000), 1);
  std::this_thread::sleep_for(600ms);
  EXPECT_FALSE(parents.brokers[1]->control().aborted());
}

// A host whose parent is a process of its own, to be killed or stopped.
void LoseAHost(int signal, const std::string& wanted) {
  auto listener = sys::ListenTcp("127.0.0.1", 0);
  const uint16_t port = *sys::LocalPort(listener->get());
  listener->Reset();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto broker = fabric::Broker::Create(2, "lost");
    auto joined = HostGroup::Join(Joining(Hello("lost", 1, 2, 3), port));
    if (!joined) _exit(1);
    (*joined)->Serve(**broker);
    std::this_thread::sleep_for(60s);
    _exit(0);
  }
  auto broker = fabric::Broker::Create(1, "kept");
  auto options = Quick(Hello("kept", 0, 1, 3));
  options.port = port;
  auto coordinator = Coordinator::Start(options);
  ASSERT_TRUE(coordinator) << coordinator.error().message;
  auto joined = HostGroup::Join(Joining(options.own, port));
  ASSERT_TRUE(joined) << joined.error().message;
  (*joined)->Serve(**broker);
  std::this_thread::sleep_for(100ms);
  EXPECT_FALSE((*broker)->control().aborted());
  const TimePoint start = Now();
  kill(child, signal);
  EXPECT_TRUE(WaitAborted(**broker));
  EXPECT_LT(SecondsSince(start), signal == SIGKILL ? 1 : 5);
  EXPECT_EQ((*broker)->control().abort_rank(), 1);
  EXPECT_THAT((*broker)->control().Check().error().message, testing::StartsWith(wanted));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  joined->reset();
}

TEST(HostGroup, ADeadHostIsNamedAtOnceAndASilentOneAtTheTimeout) {
  LoseAHost(SIGKILL, "the connection to host 'lost' (ranks 1 and 2) ended: ");
  LoseAHost(SIGSTOP,
            "host 'lost' (ranks 1 and 2) gave no sign of life for 0.5 s; is it stopped, its link down");
}

// Ranks as processes on hosts with parents of their own.
void RunOnHosts(const std::vector<int>& layout, const fabric::RankBody& body, int may_die = -1,
                const std::function<void(Parents&, const std::vector<pid_t>&)>& at_parents = nullptr) {
  Parents parents(layout);
  std::vector<pid_t> pids;
  for (size_t h = 0; h < layout.size(); ++h) {
    for (int r = 0; r < layout[h]; ++r) {
      const pid_t pid = fork();
      ASSERT_GE(pid, 0);
      if (pid == 0) {
        sys::Fd socket = parents.brokers[h]->TakeChildEnd(r);
        parents.brokers.clear();
        {
          auto rendezvous = fabric::JoinHost(std::move(socket), Now() + 20s);
          EXPECT_TRUE(rendezvous);
          if (rendezvous) body(**rendezvous);
        }
        fflush(nullptr);
        _exit(testing::Test::HasFailure() ? 1 : 0);
      }
      pids.push_back(pid);
      parents.brokers[h]->CloseChildEnd(r);
    }
  }
  parents.Join();
  if (at_parents) at_parents(parents, pids);
  for (size_t r = 0; r < pids.size(); ++r) {
    int status = 0;
    EXPECT_EQ(waitpid(pids[r], &status, 0), pids[r]);
    if (static_cast<int>(r) == may_die) continue;
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << "rank " << r << " ended with status " << status;
  }
}

void MeetAndStep(fabric::Rendezvous& rendezvous) {
  const int me = rendezvous.rank(), ranks = rendezvous.num_ranks();
  for (int i = 0; i < 30; ++i) {
    const auto blobs = rendezvous.ExchangeBlobs("b", {}, Format("{}:{}", me, i), Now() + 20s);
    ASSERT_TRUE(blobs) << blobs.error().message;
    for (int r = 0; r < ranks; ++r) ASSERT_EQ((*blobs)[static_cast<size_t>(r)], Format("{}:{}", r, i));
  }
  const Status differs =
      CheckSameConfig(rendezvous, {}, {{"threads", me == ranks - 1 ? "2" : "1"}}, Now() + 20s);
  ASSERT_FALSE(differs);
  EXPECT_THAT(differs.error().message,
              HasSubstr(Format("rank {} has threads = '2', rank 0 has '1'", ranks - 1)));
  auto lockstep = Lockstep::Create({.rendezvous = &rendezvous, .spin = false, .join_deadline = Now() + 20s});
  ASSERT_TRUE(lockstep) << lockstep.error().message;
  for (int step = 0; step < 200; ++step) {
    const StepWord word{.num_tokens = step + me, .ticket = (*lockstep)->Ticket(), .stop = step == 199};
    const auto view = (*lockstep)->Exchange(word, Now() + 20s);
    ASSERT_TRUE(view) << view.error().message;
    ASSERT_EQ(view->TotalTokens(), step * ranks + ranks * (ranks - 1) / 2);
    if (step % 50 != 10) continue;
    if (me == step % ranks) {
      std::this_thread::sleep_for(5ms);
      (*lockstep)->Ring();
    }
    ASSERT_TRUE(*(*lockstep)->Sleep(*view, Now() + 20s));
  }
}

TEST(HostGroup, RanksOfSeveralHostsMeetAndStep) {
  for (const auto& layout : std::vector<std::vector<int>>{{1, 1}, {2, 2}, {2, 1, 2}})
    RunOnHosts(layout, MeetAndStep);
}

TEST(HostGroup, ARankThatDoesNotComeOrDiesIsNamedOnAllHosts) {
  RunOnHosts({2, 2}, [](fabric::Rendezvous& rendezvous) {
    if (rendezvous.rank() != 3) {
      const auto blobs =
          rendezvous.ExchangeBlobs("late", {}, "x", Now() + (rendezvous.rank() == 0 ? 300ms : 20s));
      ASSERT_FALSE(blobs);
      EXPECT_EQ(blobs.error().code, Code::kDeadlineExceeded);
      EXPECT_THAT(blobs.error().message, HasSubstr("rank 3 did not join 'late' within "));
    } else {
      std::this_thread::sleep_for(600ms);
    }
    ASSERT_TRUE(rendezvous.ExchangeBlobs("later", {}, "x", Now() + 20s));
    ASSERT_TRUE(rendezvous.ExchangeBlobs("late", {}, "x", Now() + 20s));
  });
  RunOnHosts(
      {2, 2},
      [](fabric::Rendezvous& rendezvous) {
        auto lockstep =
            Lockstep::Create({.rendezvous = &rendezvous, .spin = false, .join_deadline = Now() + 20s});
        ASSERT_TRUE(lockstep);
        ASSERT_TRUE((*lockstep)->Exchange({}, Now() + 20s));
        if (rendezvous.rank() == 2) raise(SIGKILL);
        const auto view = (*lockstep)->Exchange({}, Now() + 20s);
        ASSERT_FALSE(view);
        EXPECT_EQ(view.error().message, "rank 2 was killed by SIGKILL");
      },
      2,
      [](Parents& parents, const std::vector<pid_t>& pids) {
        siginfo_t info;
        ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pids[2]), &info, WEXITED | WNOWAIT), 0);
        parents.brokers[1]->control().Abort(2, "rank 2 was killed by SIGKILL");
      });
}

}  // namespace
}  // namespace cadre::group
