// Deployments far larger than the machine of the test: 1,024 ranks on 128 hosts, in one process. What is
// asserted is how many messages and bytes there are, against formulas, never how long it takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <future>
#include <map>

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

// Sanitizers make each thread and connection many times dearer; the formulas are the same.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kHosts = 16;
#else
constexpr int kHosts = 128;
#endif
constexpr int kRanksPerHost = 8, kRanks = kHosts * kRanksPerHost;

HostHello HelloOf(int host) {
  HostHello hello;
  hello.num_ranks_in_all = kRanks;
  hello.entry = {.name = Format("host{:03}", host),
                 .first_rank = host * kRanksPerHost,
                 .num_ranks = kRanksPerHost,
                 .addresses = {"127.0.0.1"},
                 .info = "info"};
  hello.links = {"tcp"};
  hello.config = {{"version", "1"}};
  return hello;
}

// A host that says no more than it must, and counts what it hears.
struct Listener {
  explicit Listener(uint16_t port) {
    auto fd = sys::ConnectTcp("127.0.0.1", port, Now() + 20s);
    EXPECT_TRUE(fd) << fd.error().message;
    stream = std::make_unique<FrameStream>(std::move(*fd), kMaxFrameBytes);
  }
  void Hear() {
    std::vector<HostFrame> frames;
    stream->Read(frames);
    for (const HostFrame& frame : frames) {
      ++counts[frame.kind];
      bytes[frame.kind] += frame.body.size();
    }
  }
  std::unique_ptr<FrameStream> stream;
  std::map<uint32_t, int64_t> counts;
  std::map<uint32_t, size_t> bytes;
};

// Hears all until `done`, and beats for them as their parents would.
template <typename Done>
bool HearUntil(std::vector<std::unique_ptr<Listener>>& hosts, Duration interval, Done done) {
  const TimePoint end = Now() + 60s;
  TimePoint next = Now();
  while (Now() < end) {
    for (const auto& host : hosts) host->Hear();
    if (done()) return true;
    if (Now() >= next) {
      next = Now() + interval;
      for (const auto& host : hosts) host->stream->Send(kBeat, "");
    }
    std::this_thread::sleep_for(1ms);
  }
  return false;
}

TEST(Scale, AJoinOf128HostsSendsEachOneTableAndFewReports) {
  constexpr auto kBeatInterval = 50ms;
  const TimePoint start = Now();
  auto coordinator = Coordinator::Start({.address = "127.0.0.1",
                                         .own = HelloOf(0),
                                         .beat_interval = kBeatInterval,
                                         .timeout = 60s,
                                         .hello_time = 30s,
                                         .report_interval = 3s});
  ASSERT_TRUE(coordinator) << coordinator.error().message;
  std::vector<std::unique_ptr<Listener>> hosts;
  // Last rank first: the order must not matter.
  for (int h = kHosts - 1; h >= 0; --h) {
    hosts.push_back(std::make_unique<Listener>((*coordinator)->port()));
    hosts.back()->stream->Send(kHello, HelloOf(h).Encode());
  }
  const auto all_have = [&](uint32_t kind) {
    return std::ranges::all_of(hosts, [&](const auto& host) { return host->counts[kind] > 0; });
  };
  ASSERT_TRUE(HearUntil(hosts, kBeatInterval, [&] { return all_have(kTable); }));
  const auto beats = static_cast<int64_t>((Now() - start) / kBeatInterval) + 2;
  fabric::WireWriter table;
  fabric::HostTable one;
  one.link = "tcp";
  for (int h = 0; h < kHosts; ++h) one.hosts.push_back(HelloOf(h).entry);
  table.Put(int32_t{0});  // the host's number
  one.Write(table);
  const fabric::HostEntry first = HelloOf(0).entry;  // who coordinates, and where
  table.PutText(first.info).Put(static_cast<uint32_t>(first.addresses.size()));
  for (const std::string& address : first.addresses) table.PutText(address);
  for (const auto& host : hosts) {
    EXPECT_EQ(host->counts[kTable], 1);
    EXPECT_EQ(host->bytes[kTable], table.text().size());
    EXPECT_LE(host->counts[kWaiting], beats);  // at most one a beat, however many join
    EXPECT_EQ(host->counts[kRefused], 0);
    EXPECT_EQ(host->counts[kRelay], 0);
  }
  // A table grows with the hosts, by less than 100 bytes for one of these; not with ranks.
  EXPECT_LT(table.text().size(), size_t{kHosts} * 100);

  // Signs of life: one a beat and host from the coordinator; hosts do not talk to each other.
  for (const auto& host : hosts) host->counts.clear();
  const TimePoint begin = Now();
  ASSERT_TRUE(HearUntil(hosts, kBeatInterval, [&] { return Now() - begin > 20 * kBeatInterval; }));
  const auto most = static_cast<int64_t>((Now() - begin) / kBeatInterval) + 2;
  for (const auto& host : hosts) {
    EXPECT_GE(host->counts[kBeat], 1);
    EXPECT_LE(host->counts[kBeat], most);
    for (const auto& [kind, count] : host->counts) EXPECT_EQ(kind, kBeat) << count;
  }
}

TEST(Scale, ParentsOf128HostsThatStartAtOnceAllJoin) {
  auto coordinator = Coordinator::Start({.address = "127.0.0.1", .own = HelloOf(0), .timeout = 30s});
  ASSERT_TRUE(coordinator) << coordinator.error().message;
  std::vector<std::future<Result<std::unique_ptr<HostGroup>>>> joining;
  for (int h = 0; h < kHosts; ++h) {
    joining.push_back(std::async(std::launch::async, [h, port = (*coordinator)->port()] {
      return HostGroup::Join(
          {.address = "127.0.0.1", .port = port, .own = HelloOf(h), .deadline = Now() + 60s, .timeout = 30s});
    }));
  }
  std::vector<std::unique_ptr<HostGroup>> groups;
  for (int h = 0; h < kHosts; ++h) {
    auto joined = joining[static_cast<size_t>(h)].get();
    ASSERT_TRUE(joined) << joined.error().message;
    EXPECT_EQ((*joined)->table().own, h);
    EXPECT_EQ((*joined)->table().num_ranks(), kRanks);
    groups.push_back(std::move(*joined));
  }
}

TEST(Scale, AStepsWordsOf1024RanksAreOneMessageForEachPairOfHosts) {
  constexpr int kSteps = 3;
  constexpr int64_t kWordSpace = 64;  // a rank's word on the way
  fabric::LoopHost loop(std::vector<int>(kHosts, kRanksPerHost), "loop");
  std::atomic<int> wrong = 0;
  fabric::RunThreads(loop, kRanks, [&](fabric::Rendezvous& rendezvous) {
    const TimePoint deadline = Now() + 300s;
    auto lockstep = Lockstep::Create({.rendezvous = &rendezvous, .spin = false, .join_deadline = deadline});
    if (!lockstep) {
      ADD_FAILURE() << lockstep.error().message;
      return;
    }
    for (int step = 0; step < kSteps; ++step) {
      const auto view = (*lockstep)->Exchange({.num_tokens = rendezvous.rank() + step}, deadline);
      if (!view) {
        ADD_FAILURE() << view.error().message;
        return;
      }
      wrong += view->TotalTokens() != int64_t{kRanks} * (kRanks - 1) / 2 + int64_t{step} * kRanks;
    }
  });
  EXPECT_EQ(wrong, 0);
  const auto traffic = loop.traffic();
  EXPECT_EQ(traffic.num_messages, int64_t{kSteps} * kHosts * (kHosts - 1));
  // A host hears every other host's ranks once: bytes grow with the ranks a host, messages with hosts.
  EXPECT_EQ(traffic.bytes, int64_t{kSteps} * (kHosts - 1) * kRanks * kWordSpace);
}

}  // namespace
}  // namespace cadre::group
