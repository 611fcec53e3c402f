// Every back end over several hosts against the reference, bit by bit: ranks are threads that share memory
// only with those of their host.
#include <gmock/gmock.h>

#include <atomic>

#include "a2a/a2a.h"
#include "a2a/exchange_testing.h"

namespace cadre::a2a {
namespace {

using namespace test;

const std::vector<std::vector<int>> kLayouts = {{1, 1}, {2, 1}, {1, 1, 1}, {2, 2},       {1, 3},
                                                {4, 1}, {4, 4}, {3, 1, 4}, {1, 1, 1, 1}, {1, 2, 2}};

#ifdef __SANITIZE_THREAD__
const std::vector<std::string> kLinks = {"tcp"};  // UCX is not compiled for it
#else
const std::vector<std::string> kLinks = {"tcp", "ucx"};
#endif

void RunOver(Case c, const std::vector<int>& hosts, const std::string& link = "loop") {
  c.hosts = hosts;
  c.ranks = std::accumulate(hosts.begin(), hosts.end(), 0);
  fabric::RunHosts(hosts, link, [&](fabric::Rendezvous& r) { RunRank(c, r); });
}

TEST(Hosts, EveryBackendEqualsTheReferenceOverLayoutsLoadsAndTypes) {
  for (const char* backend : kBackends) {
    for (const auto& hosts : kLayouts) {
      for (const Load load : kLoads) {
        for (const bool sharded : {false, true}) {
          for (const DType type : {DType::kBf16, DType::kF32}) {
            Case c;
            c.backend = backend;
            c.load = load;
            c.sharded = sharded;
            c.type = type;
            c.hidden = load == Load::kFull ? 1301 : 47;  // odd: nothing is aligned by chance
            c.chunk_rows = type == DType::kF32 ? 4 : 0;
            c.first_round = 0xFFFFFFFE;
            c.rounds = 3;
            RunOver(c, hosts);
            if (testing::Test::HasFailure()) return;
          }
        }
      }
    }
  }
}

TEST(Hosts, RealLinksGiveTheSame) {
  for (const std::string& link : kLinks) {
    for (const char* backend : kBackends) {
      for (const auto& hosts : std::vector<std::vector<int>>{{2, 2}, {1, 2, 1}}) {
        for (const Load load : {Load::kRandom, Load::kEmptyRanks}) {
          Case c;
          c.backend = backend;
          c.load = load;
          c.max_rows = 40;
          c.hidden = 1301;
          c.chunk_rows = load == Load::kRandom ? 7 : 0;
          RunOver(c, hosts, link);
          if (testing::Test::HasFailure()) return;
        }
      }
    }
  }
}

TEST(Hosts, RowsThatTravelAsFp8) {
  for (const DType type : {DType::kBf16, DType::kF32}) {
    for (const auto& hosts : kLayouts) {
      Case c;
      c.backend = "deepep_low_latency";
      c.hidden = 301;  // the last block of channels is not full, and rows are not aligned
      c.fp8 = true;
      c.type = type;
      c.chunk_rows = hosts.size() == 2 ? 4 : 0;
      RunOver(c, hosts);
    }
  }
}

TEST(Hosts, ManyRoundsAcrossTheWrapOfTheCounterWithASlowRank) {
  for (const char* backend : kBackends) {
    for (const int slow : {-1, 0, 2, 3}) {  // carriers and others
      Case c;
      c.backend = backend;
      c.rounds = slow < 0 ? 150 : 10;
      c.first_round = 0xFFFFFFF0;
      c.slow_rank = slow;
      c.chunk_rows = slow % 2 == 0 ? 3 : 0;
      for (const Load load : {Load::kRandom, Load::kEmptyRanks}) {
        c.load = load;
        RunOver(c, {2, 2});
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

// Shapes, loads, back ends and hosts as they come; CADRE_TEST_SEED repeats one.
TEST(Hosts, DrawnShapesEqualTheReference) {
  const char* given = std::getenv("CADRE_TEST_SEED");
  const uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
  for (uint64_t seed = first; seed < first + (given != nullptr ? 1 : 150); ++seed) {
    uint64_t counter = 0;
    const auto draw = [&](int64_t from, int64_t to) {
      return from + static_cast<int64_t>(UniformAt(seed, 78, counter++) * static_cast<double>(to - from + 1));
    };
    Case c;
    c.seed = seed;
    c.backend = kBackends[draw(0, std::ssize(kBackends) - 1)];
    std::vector<int> hosts;
    for (int64_t n = draw(2, 5); n > 0; --n) hosts.push_back(static_cast<int>(draw(1, n > 3 ? 2 : 4)));
    c.hidden = static_cast<int32_t>(draw(1, 300));
    c.slots = static_cast<int32_t>(draw(1, 40));  // also fewer than ranks
    c.top_k = static_cast<int32_t>(draw(1, 12));
    c.max_rows = draw(0, 25);
    c.type = draw(0, 1) == 0 ? DType::kBf16 : DType::kF32;
    c.sharded = draw(0, 4) == 0;
    c.load = kLoads[draw(0, std::ssize(kLoads) - 1)];
    c.chunk_rows = draw(0, 2) == 0 ? 0 : draw(1, 12);
    c.fp8 = c.backend == std::string("deepep_low_latency") && draw(0, 1) == 1;
    c.rounds = static_cast<int>(draw(1, 6));
    c.threads = static_cast<int>(draw(1, 2));
    c.jitter = static_cast<uint64_t>(draw(0, 1)) * seed;
    c.first_round = draw(0, 1) == 0 ? 1 : 0xFFFFFFFA;
    RunOver(c, hosts);
    if (testing::Test::HasFailure()) return;
  }
}

Options OverHosts(const char* backend, int ranks, fabric::Rendezvous& rendezvous) {
  Options options = OptionsOf({.backend = backend, .ranks = ranks});
  options.rendezvous = &rendezvous;
  return options;
}

// What lies between Send and Receive is done while the rows travel: a host gets all rows of another one that
// has not come to its Receive yet.
TEST(Hosts, RowsTravelBeforeTheSenderReceives) {
  for (const char* backend : kBackends) {
    std::atomic<bool> received = false;
    fabric::RunHosts({1, 1}, "loop", [&](fabric::Rendezvous& rendezvous) {
      auto made = Create(OverHosts(backend, 2, rendezvous));
      ASSERT_TRUE(made);
      (*made)->BeginStep(1, Now() + 20s);
      const int32_t slots[] = {0, 5, 9};
      const float weights[] = {1, 1, 1};
      std::memset((*made)->Stage(1), 0, 48 * 2);
      ASSERT_TRUE((*made)->Send({1, slots, weights}));
      if (rendezvous.rank() == 0) {
        const TimePoint end = Now() + 20s;
        while (!received && Now() < end) std::this_thread::sleep_for(1ms);
      }
      EXPECT_TRUE(received || rendezvous.rank() == 1) << backend;
      const auto table = (*made)->Receive();
      ASSERT_TRUE(table) << table.error().message;
      received = true;
      const std::vector<float> experts(static_cast<size_t>(table->num_rows * 48));
      std::vector<float> out(48);
      ASSERT_TRUE((*made)->Combine(experts.data(), out.data(), false));
    });
  }
}

TEST(Hosts, AHostThatNeverArrivesIsNamedAndAnAbortFreesAll) {
  for (const char* backend : kBackends) {
    for (const bool in_combine : {false, true}) {
      fabric::RunHosts({2, 1}, "loop", [&](fabric::Rendezvous& rendezvous) {
        auto made = Create(OverHosts(backend, 3, rendezvous));
        ASSERT_TRUE(made);
        (*made)->BeginStep(41, Now() + (rendezvous.rank() == 0 ? 200ms : 60000ms));
        (*made)->Stage(0);
        const bool late = rendezvous.rank() == 2;
        if (late && !in_combine) {  // there, but silent, until the others have given up
          while (rendezvous.control().Check()) std::this_thread::sleep_for(1ms);
          return;
        }
        const auto table = (*made)->Dispatch({});
        Status status = table ? Status() : std::unexpected(table.error());
        if (in_combine) {
          ASSERT_TRUE(table) << table.error().message;
          if (late) {
            while (rendezvous.control().Check()) std::this_thread::sleep_for(1ms);
            return;
          }
          status = (*made)->Combine(nullptr, nullptr, false);
        }
        ASSERT_FALSE(status);
        const std::string want = std::string("host 'host1' (rank 2) did not send its part of ") +
                                 (in_combine ? "combine" : "dispatch") + " of step 41 within ";
        EXPECT_THAT(status.error().message, testing::HasSubstr(want)) << backend;
      });
    }
  }
}

// A host that believes in other slots sends what nobody here can compute: that is an error, not a crash.
TEST(Hosts, MessagesThatDoNotFitAreErrors) {
  for (const char* backend : kBackends) {
    fabric::RunHosts({1, 1}, "loop", [&](fabric::Rendezvous& rendezvous) {
      Options options = OverHosts(backend, 2, rendezvous);
      options.poison = false;
      options.max_rows = 10;  // with which the sizes of all parts round up to the same
      if (rendezvous.rank() == 0) options.layout.num_slots = 8;
      auto made = Create(options);
      ASSERT_TRUE(made) << made.error().message;
      (*made)->BeginStep(1, Now() + 20s);
      const int32_t slots[] = {rendezvous.rank() == 1 ? 4 : 0, rendezvous.rank() == 1 ? 9 : 7, -1};
      const float weights[] = {1, 1, 1};
      std::memset((*made)->Stage(1), 0, 48 * 2);
      const auto table = (*made)->Dispatch({1, slots, weights});
      if (rendezvous.rank() == 0) {
        ASSERT_FALSE(table) << backend;
        EXPECT_EQ(table.error().code, Code::kDataLoss) << table.error().message;
      }
    });
  }
  // What is of another size is found at the start.
  fabric::RunHosts({1, 1}, "loop", [&](fabric::Rendezvous& rendezvous) {
    Options options = OverHosts("mori", 2, rendezvous);
    options.hidden += rendezvous.rank();
    EXPECT_EQ(Create(options).error().code, Code::kInvalidArgument);
  });
}

// By k: one process, one host, several hosts: the same bits.
TEST(Hosts, SumsByKDoNotDependOnTheHosts) {
  for (const char* backend : {"pplx", "deepep_low_latency"}) {
    std::vector<float> alone;
    for (const auto& hosts : std::vector<std::vector<int>>{{1}, {3}, {1, 2}, {2, 2, 1}, {1, 1}}) {
      Case c;
      c.backend = backend;
      c.ranks = std::accumulate(hosts.begin(), hosts.end(), 0);
      c.load = Load::kFull;
      fabric::RunHosts(hosts, "loop", [&](fabric::Rendezvous& rendezvous) {
        const auto out = ExchangeOnce(c, rendezvous, MakeInput(c, 0, rendezvous.rank()));
        ASSERT_TRUE(out) << out.error().message;
        if (rendezvous.rank() != 0) return;
        if (hosts.size() == 1 && c.ranks == 1) alone = *out;
        EXPECT_EQ(*out, alone) << backend << " " << fmt::format("{}", fmt::join(hosts, "+"));
      });
    }
  }
}

TEST(Hosts, TwoInOneSwitchByPhaseAndSayWhatTheyDo) {
  fabric::RunHosts({2, 1}, "loop", [&](fabric::Rendezvous& rendezvous) {
    Case prefill, decode;
    prefill.backend = "deepep_high_throughput";
    decode.backend = "nixl_ep";
    prefill.ranks = decode.ranks = 3;
    prefill.hosts = decode.hosts = {2, 1};
    Options options = OptionsOf(prefill);
    options.rendezvous = &rendezvous;
    auto made = CreatePhased(options, prefill.backend, decode.backend);
    ASSERT_TRUE(made) << made.error().message;
    ByteCounts counted;
    for (int round = 0; round < 12; ++round) {
      const bool decodes = round % 5 > 1;
      (*made)->SetPhase(decodes ? Phase::kDecode : Phase::kPrefill);
      RunRound(decodes ? decode : prefill, **made, round, rendezvous.rank(), HostsOf(rendezvous), counted);
    }
    const std::string text = (*made)->Describe();
    EXPECT_THAT(text, testing::HasSubstr("deepep_low_latency (asked for as nixl_ep): no size exchange"));
    EXPECT_THAT(text,
                testing::HasSubstr("3 ranks on 2 hosts: shared memory in a host, one message each way a "
                                   "chunk over loop between hosts"));
    EXPECT_THAT(text, testing::HasSubstr("K expert rows f32 back"));
    EXPECT_THAT(text, testing::HasSubstr("the two sum differently"));
    // All others sum over hosts by host, then rank.
    auto alike = CreatePhased(options, "mori", "deepep_high_throughput");
    ASSERT_TRUE(alike);
    EXPECT_THAT((*alike)->Describe(), testing::Not(testing::HasSubstr("the two sum differently")));
  });
}

TEST(Hosts, BuffersStayWithinTheirBound) {
  // DeepSeek-V3's shapes. What a rank holds is its rows, results, and the landing zones of the busiest rank.
  Options options = OptionsOf({.hidden = 7168, .top_k = 8, .slots = 256, .max_rows = 2048});
  options.poison = false;
  for (const char* backend :
       {"pplx", "deepep_low_latency", "deepep_high_throughput", "flashinfer_all2allv", "mori"}) {
    for (const auto& hosts : std::vector<std::vector<int>>{
             {1, 1}, {8, 8}, std::vector<int>(8, 8), std::vector<int>(32, 8), {1, 8}}) {
      options.backend = backend;
      options.ranks_per_host = hosts;
      options.layout.num_ranks = std::accumulate(hosts.begin(), hosts.end(), 0);
      const int64_t rows = options.max_rows * 7168 * 2;
      EXPECT_LE(*BufferBytes(options), rows + (int64_t{256 + 512 + 200} << 20))
          << backend << " " << fmt::format("{}", fmt::join(hosts, "+"));
    }
  }
  // Both take all rows at once; a message between hosts is 4 GiB at most, and that is said at start.
  options.backend = "allgather_reducescatter";
  options.ranks_per_host = {2, 2};
  options.layout.num_ranks = 4;
  EXPECT_GT(*BufferBytes(options), 2048 * (int64_t{7168} * 2 * (1 + 2 + 2) + 3 * 7168 * 4));
  fabric::RunHosts({1, 1}, "loop", [](fabric::Rendezvous& rendezvous) {
    Options huge = OptionsOf({.hidden = 7168, .max_rows = 400'000});
    huge.rendezvous = &rendezvous;
    const auto made = Create(huge);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, Code::kInvalidArgument);
    EXPECT_THAT(made.error().message, testing::HasSubstr("at most 4096 are possible"));
  });
}

}  // namespace
}  // namespace cadre::a2a
