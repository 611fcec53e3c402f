// Groups that span hosts, the hosts being groups of threads.
#include <gtest/gtest.h>

#include "base/format.h"
#include "base/random.h"
#include "fabric/fabric.h"
#include "fabric/ranks_testing.h"
#include "fabric/tcp_port_hello.h"
#include "fabric/wire.h"
#include "sys/sockets.h"

namespace cadre::fabric {
namespace {

using namespace std::chrono_literals;

TimePoint Soon() {
  return Now() + 30s;
}

#ifdef __SANITIZE_THREAD__
const std::vector<std::string> kLinks = {"loop", "tcp"};  // UCX is not compiled for it
#else
const std::vector<std::string> kLinks = {"loop", "tcp", "ucx"};
#endif
const std::vector<std::vector<int>> kLayouts = {{1, 1}, {2, 2}, {3, 1}, {1, 4}, {2, 1, 3}, {1, 1, 1, 1}};

struct Shape {
  size_t max_bytes = 4096;  // of a rank's part
  int rounds = 30;
  uint32_t first_round = 0xFFFFFFFF - 12;
  bool spin = false;
};

size_t PartBytes(const Shape& shape, uint32_t round, int rank) {
  return static_cast<size_t>(UniformAt(3, round, static_cast<uint64_t>(rank)) *
                             static_cast<double>(shape.max_bytes + 1));
}

std::byte ByteAt(uint32_t round, int rank, size_t i) {
  return static_cast<std::byte>(round * 31 + static_cast<uint32_t>(rank) * 7 + i * 13 + (i >> 8));
}

// Every rank shows a part of its own size to all; two sets of everything.
void Rounds(Rendezvous& rendezvous, const Shape& shape) {
  constexpr size_t kMembers = 16;  // more than any layout has
  const size_t part = (shape.max_bytes + 63) / 64 * 64;
  auto opened = rendezvous.Open({.name = "rounds",
                                 .segment_bytes = 2 * part,
                                 .num_flags = 2,
                                 .first_round = shape.first_round,
                                 .spin = shape.spin,
                                 .num_channels = 2,
                                 .landing_bytes = 2 * kMembers * part},
                                Soon());
  ASSERT_TRUE(opened) << opened.error().message;
  Fabric& f = **opened;
  for (int i = 0; i < shape.rounds; ++i) {
    const uint32_t round = shape.first_round + static_cast<uint32_t>(i);
    const int parity = static_cast<int>(round & 1);
    const size_t n = PartBytes(shape, round, f.rank());
    std::byte* own = f.own() + static_cast<size_t>(parity) * part;
    for (size_t b = 0; b < n; ++b) own[b] = ByteAt(round, f.rank(), b);
    f.Publish(parity, round, static_cast<uint32_t>(n));
    const WaitContext context{"test", i, Soon()};
    const Status met = f.AwaitAll(parity, round, nullptr, context);
    ASSERT_TRUE(met) << met.error().message;
    std::vector<uint32_t> bytes(static_cast<size_t>(f.num_hosts()));
    const size_t zone = static_cast<size_t>(parity) * kMembers * part;
    const Status traded =
        f.Trade(parity, round, zone, bytes.data(), context, [&](int, std::vector<Piece>& pieces) {
          const auto [begin, count] = f.local();
          for (int r = begin; r < begin + count; ++r) {
            pieces.push_back({f.peer(r) + static_cast<size_t>(parity) * part, PartBytes(shape, round, r)});
          }
        });
    ASSERT_TRUE(traded) << traded.error().message;
    for (int h = 0; h < f.num_hosts(); ++h) {
      const auto [begin, count] = f.members(h);
      const std::byte* at = f.landing(h) + zone;
      size_t total = 0;
      for (int r = begin; r < begin + count; ++r) {
        const size_t size = PartBytes(shape, round, r);
        if (h == f.own_host()) at = f.peer(r) + static_cast<size_t>(parity) * part;
        for (size_t b = 0; b < size; ++b)
          ASSERT_EQ(at[b], ByteAt(round, r, b)) << "rank " << r << " at " << b;
        at += size;
        total += size;
      }
      if (h != f.own_host()) {
        ASSERT_EQ(bytes[static_cast<size_t>(h)], total);
      }
    }
  }
  // Nobody unmaps while others read, and the last messages have come.
  ASSERT_TRUE(rendezvous.ExchangeBlobs("end", {}, "", Soon()));
}

TEST(Hosts, EverybodySeesEverybodysPart) {
  for (const std::string& link : kLinks) {
    for (const auto& layout : kLayouts) {
      for (const bool spin : {false, true}) {
        RunHosts(layout, link, [&](Rendezvous& r) { Rounds(r, {.spin = spin}); });
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

// Far more than sockets hold, both ways at once.
TEST(Hosts, LargeMessagesBothWays) {
  for (const std::string& link : kLinks) {
    RunHosts({2, 1}, link, [&](Rendezvous& r) { Rounds(r, {.max_bytes = 12 << 20, .rounds = 3}); });
  }
}

TEST(Hosts, SubgroupsAndSeveralFabrics) {
  for (const std::string& link : kLinks) {
    RunHosts({2, 2}, link, [&](Rendezvous& rendezvous) {
      const int me = rendezvous.rank();
      EXPECT_EQ(rendezvous.num_ranks(), 4);
      EXPECT_EQ(rendezvous.LocalRanks(), me < 2 ? (std::vector<int>{0, 1}) : (std::vector<int>{2, 3}));
      const std::vector<int> pair = me % 2 == 0 ? std::vector<int>{0, 2} : std::vector<int>{1, 3};
      std::vector<std::unique_ptr<Fabric>> fabrics;
      for (int i = 0; i < 3; ++i) {
        auto opened = rendezvous.Open({.name = "pair",
                                       .ranks = pair,
                                       .segment_bytes = 64,
                                       .num_flags = 1,
                                       .spin = false,
                                       .num_channels = 1,
                                       .landing_bytes = 8},
                                      Soon());
        ASSERT_TRUE(opened) << opened.error().message;
        fabrics.push_back(std::move(*opened));
      }
      for (uint32_t round = 1; round < 20; ++round) {
        for (auto& f : fabrics) {  // a message waits in one while the rank is in another
          const uint64_t mine = round * 1000 + static_cast<uint64_t>(me);
          std::memcpy(f->own(), &mine, 8);
          const Piece piece{f->own(), 8};
          f->Post(1 - f->own_host(), 0, round, 0, {&piece, 1});
        }
        for (auto& f : fabrics) {
          const int other = 1 - f->own_host();
          const auto got = f->AwaitHost(other, 0, round, {"pair", round, Soon()});
          ASSERT_TRUE(got) << got.error().message;
          uint64_t theirs;
          std::memcpy(&theirs, f->landing(other), 8);
          ASSERT_EQ(theirs, round * 1000 + static_cast<uint64_t>(pair[static_cast<size_t>(other)]));
        }
        ASSERT_TRUE(rendezvous.ExchangeBlobs("next", {}, "", Soon()));
      }
      auto shared = rendezvous.Share("weights", me < 2 ? 1 : 2, 1000, Soon());
      ASSERT_TRUE(shared);
      if (me == 1 || me == 2) shared->data[999] = static_cast<std::byte>(me);
      ASSERT_TRUE(rendezvous.ExchangeBlobs("written", {}, "", Soon()));
      EXPECT_EQ(shared->data[999], static_cast<std::byte>(me < 2 ? 1 : 2));
    });
  }
}

TEST(Hosts, AMissingHostAndAMissingRankAreNamed) {
  const FabricSpec spec{.name = "x",
                        .segment_bytes = 64,
                        .num_flags = 1,
                        .spin = false,
                        .num_channels = 1,
                        .landing_bytes = 64};
  const auto gather = [](int, std::vector<Piece>&) {};
  for (const std::string& link : kLinks) {
    for (const bool whole_host : {false, true}) {
      RunHosts({2, 2}, link, [&](Rendezvous& rendezvous) {
        auto opened = rendezvous.Open(spec, Soon());
        ASSERT_TRUE(opened) << opened.error().message;
        Fabric& f = **opened;
        const int me = f.rank();
        // All give up at about the same time, but only host1 knows which of its ranks is at fault.
        const WaitContext context{"dispatch", 17, Now() + 300ms};
        if (me == 3 || (whole_host && me == 2)) {
          std::this_thread::sleep_for(1500ms);  // its links stay open: it is late, not gone
          return;
        }
        f.Publish(0, 1, 0);
        Status status = f.AwaitAll(0, 1, nullptr, context);
        if (status) status = f.Trade(0, 1, 0, nullptr, context, gather);
        ASSERT_FALSE(status);
        const std::string want =
            whole_host ? "host 'host1' (ranks 2 and 3) did not send its part of dispatch of step 17 within "
                       : "rank 3 did not arrive at dispatch of step 17 within ";
        EXPECT_TRUE(status.error().message.starts_with(want)) << status.error().message;
      });
    }
  }
}

TEST(Hosts, ABrokenLinkEndsTheWaitUnlessSomebodyKnowsMore) {
  const FabricSpec spec{.name = "x",
                        .segment_bytes = 64,
                        .num_flags = 1,
                        .spin = false,
                        .num_channels = 1,
                        .landing_bytes = 64};
  for (const std::string& link : kLinks) {
    for (const bool explained : {false, true}) {
      LoopHost host({1, 2}, link);
      RunThreads(host, 3, [&](Rendezvous& rendezvous) {
        auto opened = rendezvous.Open(spec, Soon());
        ASSERT_TRUE(opened) << opened.error().message;
        if (rendezvous.rank() == 0) {
          opened->reset();
          std::this_thread::sleep_for(50ms);
          if (explained) host.control(0).Abort(0, "rank 0 was killed by SIGKILL");
          return;
        }
        const TimePoint start = Now();
        const auto got = (*opened)->AwaitHost(0, 0, 1, {"dispatch", 1, Soon()});
        ASSERT_FALSE(got);
        const std::string want =
            explained ? "rank 0 was killed by SIGKILL" : "the connection to host 'host0' (rank 0) broke: ";
        EXPECT_TRUE(got.error().message.starts_with(want)) << got.error().message;
        EXPECT_LT(SecondsSince(start), 5);
      });
    }
  }
}

TEST(Hosts, WhatDoesNotFitIsRefused) {
  // The sides disagree about the landing zone only in how much they send.
  RunHosts({1, 1}, "tcp", [](Rendezvous& rendezvous) {
    auto opened = rendezvous.Open({.name = "x",
                                   .segment_bytes = 64,
                                   .num_flags = 1,
                                   .spin = false,
                                   .num_channels = 1,
                                   .landing_bytes = rendezvous.rank() == 0 ? 64u : 128u},
                                  Soon());
    ASSERT_FALSE(opened);
    EXPECT_NE(opened.error().message.find("of 128 bytes"), std::string::npos) << opened.error().message;
  });
  // A round that has been: the link breaks, and says why.
  for (const std::string& link : kLinks) {
    RunHosts({1, 1}, link, [](Rendezvous& rendezvous) {
      auto opened = rendezvous.Open({.name = "x",
                                     .segment_bytes = 64,
                                     .num_flags = 1,
                                     .spin = false,
                                     .num_channels = 1,
                                     .landing_bytes = 64},
                                    Soon());
      ASSERT_TRUE(opened);
      if (rendezvous.rank() == 0) {
        (*opened)->Post(1, 0, 1, 0, {});
        (*opened)->Post(1, 0, 1, 0, {});
        std::this_thread::sleep_for(1500ms);
        return;
      }
      EXPECT_TRUE((*opened)->AwaitHost(0, 0, 1, {"a", 1, Soon()}));
      const auto got = (*opened)->AwaitHost(0, 0, 2, {"b", 1, Soon()});
      ASSERT_FALSE(got);
      EXPECT_NE(got.error().message.find("a message of round 1 came after that of round 1"),
                std::string::npos)
          << got.error().message;
    });
  }
}

// A port in the hands of strangers, while its real peer takes its time.
TEST(TcpPort, StrangersGetNowhere) {
  const auto wakers = Wakers::Create(2);
  ASSERT_TRUE(wakers);
  ControlBlock block = {};
  const Control control(&block, false);
  auto accepting =
      MakeTcpPort({.addresses = {"127.0.0.1"}, .waker = (*wakers)->fd(0), .connections_per_address = 3});
  auto calling = MakeTcpPort({.addresses = {"127.0.0.1"}, .waker = (*wakers)->fd(1)});
  ASSERT_TRUE(accepting && calling);
  uint16_t port;
  {
    // The address is opaque; a stranger scans.
    const std::string address = (*accepting)->address();
    uint32_t number;
    std::memcpy(&number, address.data(), 4);
    port = static_cast<uint16_t>(number);
  }
  struct Sink final : LinkSink {
    std::vector<std::byte> zone = std::vector<std::byte>(1 << 20);
    std::vector<MessageHead> heads;
    Result<std::byte*> Place(const MessageHead& head) override {
      if (head.bytes > zone.size()) return Fail(Code::kDataLoss, "too much");
      return zone.data();
    }
    void Arrived(const MessageHead& head) override { heads.push_back(head); }
  } sink_a, sink_b;
  std::thread peer([&, to = (*accepting)->address()] {
    std::vector<sys::Fd> strangers;
    const auto call = [&](std::string_view words) {
      auto fd = sys::ConnectTcp("127.0.0.1", port, Soon());
      ASSERT_TRUE(fd);
      ASSERT_TRUE(sys::SendAll(fd->get(), std::as_bytes(std::span(words)), Soon()));
      strangers.push_back(std::move(*fd));
    };
    call("");                                             // half-open: never says a word
    call("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");  // a scanner
    call(std::string(100'000, '\0'));
    PortHello hello;
    call({reinterpret_cast<const char*>(&hello), 20});             // stops in the middle
    call({reinterpret_cast<const char*>(&hello), sizeof(hello)});  // a key that nobody knows
    hello.key = 42;
    hello.rail = 1000;
    call({reinterpret_cast<const char*>(&hello), sizeof(hello)});
    std::this_thread::sleep_for(50ms);
    // An old version is told so.
    hello.version = 99;
    auto old = sys::ConnectTcp("127.0.0.1", port, Soon());
    ASSERT_TRUE(sys::SendAll(old->get(), std::as_bytes(std::span(&hello, 1)), Soon()));
    PortAnswer answer;
    ASSERT_TRUE(sys::RecvAll(old->get(), std::as_writable_bytes(std::span(&answer, 1)), Soon()));
    EXPECT_EQ(answer.accepted, 0u);
    EXPECT_EQ(answer.version, kPortVersion);
    const LinkRequest request{
        .peer_address = to, .peer_name = "rank 0", .key = 42, .active = true, .sink = &sink_b};
    auto links = (*calling)->Connect({&request, 1}, control, Soon());
    ASSERT_TRUE(links) << links.error().message;
    std::vector<std::byte> data(700'000);
    for (size_t i = 0; i < data.size(); ++i) data[i] = ByteAt(1, 2, i);
    const std::array<Piece, 3> pieces = {
        {{data.data(), 10}, {data.data() + 10, 400'000}, {data.data() + 400'010, 299'990}}};
    (*links)[0]->Send({.channel = 1, .round = 7, .bytes = data.size()}, pieces);
    while (sink_b.heads.empty() && (*links)[0]->status()) {
      if (!(*calling)->Progress()) (*calling)->Sleep(Now() + 10ms);
    }
    EXPECT_EQ(sink_b.heads.size(), 1u);
  });
  const LinkRequest request{
      .peer_address = {}, .peer_name = "rank 1", .key = 42, .active = false, .sink = &sink_a};
  auto links = (*accepting)->Connect({&request, 1}, control, Soon());
  ASSERT_TRUE(links) << links.error().message;
  const TimePoint deadline = Soon();
  while (sink_a.heads.empty() && Now() < deadline) {
    if (!(*accepting)->Progress()) (*accepting)->Sleep(Now() + 10ms);
  }
  ASSERT_EQ(sink_a.heads.size(), 1u);
  EXPECT_EQ(sink_a.heads[0].round, 7u);
  for (size_t i = 0; i < 700'000; ++i) ASSERT_EQ(sink_a.zone[i], ByteAt(1, 2, i));
  (*links)[0]->Send({.channel = 0, .round = 1}, {});
  peer.join();
  // Nobody comes any more.
  const auto late = (*accepting)->Connect({&request, 1}, control, Now() + 50ms);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().message, "no connection came from rank 1");
}

TEST(HostTable, TravelsAndIsChecked) {
  HostTable table;
  table.link = "tcp";
  table.connections = 3;
  table.hosts = {
      {.name = "a", .first_rank = 0, .num_ranks = 3, .addresses = {"10.0.0.1", "10.1.0.1"}, .info = "x"},
      {.name = "b", .first_rank = 3, .num_ranks = 1, .addresses = {}, .info = {}}};
  WireWriter to;
  table.Write(to);
  WireReader from(to.text());
  const HostTable read = HostTable::Read(from, 1);
  ASSERT_EQ(read.num_hosts(), 2);
  EXPECT_EQ(read.hosts[0].addresses, table.hosts[0].addresses);
  EXPECT_EQ(read.num_ranks(), 4);
  EXPECT_EQ(read.connections, 3);
  WireReader again(to.text());
  EXPECT_EQ(HostTable::Read(again, -1).num_hosts(), 2);  // a front without ranks
  EXPECT_EQ(read.host_of(3), 1);
  EXPECT_EQ(read.host_of(4), -1);
  EXPECT_EQ(NameHost(read.own_host()), "host 'b' (rank 3)");
  for (size_t n = 0; n < to.text().size(); ++n) {
    WireReader cut(to.text().substr(0, n));
    EXPECT_TRUE(HostTable::Read(cut, 1).hosts.empty());
  }
  table.hosts[1].first_rank = 2;  // overlaps
  WireWriter bad;
  table.Write(bad);
  WireReader reader(bad.text());
  EXPECT_TRUE(HostTable::Read(reader, 1).hosts.empty());
}

}  // namespace
}  // namespace cadre::fabric
