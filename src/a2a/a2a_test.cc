// Every back end against the reference, bit by bit, over ranks as threads and as processes.
#include "a2a/a2a.h"

#include <gmock/gmock.h>

#include "a2a/exchange_testing.h"

namespace cadre::a2a {
namespace {

using namespace std::chrono_literals;
using namespace test;

TEST(AllToAll, EqualsTheReferenceOverRanksLoadsAndTypes) {
  for (const char* backend : kBackends) {
    for (const int ranks : {1, 2, 3, 4, 8}) {
      for (const Load load : kLoads) {
        for (const bool sharded : {false, true}) {
          Case c;
          c.backend = backend;
          c.ranks = ranks;
          c.load = load;
          c.sharded = sharded;
          c.type = ranks % 2 == 0 ? DType::kBf16 : DType::kF32;
          c.hidden = ranks == 3 ? 1300 : 48;
          c.chunk_rows = ranks == 4 ? 4 : 0;
          c.rounds = ranks == 8 ? 3 : 4;
          fabric::RunThreads(ranks, [&](fabric::Rendezvous& r) { RunRank(c, r); });
          if (testing::Test::HasFailure()) return;
        }
      }
    }
  }
}

TEST(AllToAll, FewSlotsManyChoicesManyThreads) {
  for (const auto& [ranks, slots, top_k] :
       std::vector<std::tuple<int, int, int>>{{8, 3, 3}, {4, 64, 64}, {5, 7, 1}}) {
    for (const char* backend : kBackends) {
      Case c;
      c.backend = backend;
      c.ranks = ranks;
      c.slots = slots;
      c.top_k = top_k;
      c.max_rows = 30;
      c.hidden = 700;
      c.threads = 3;
      fabric::RunThreads(ranks, [&](fabric::Rendezvous& r) { RunRank(c, r); });
    }
  }
}

TEST(AllToAll, ManyRoundsAcrossTheWrapOfTheCounterWithASlowRank) {
  for (const char* backend : kBackends) {
    for (const int slow : {-1, 0, 2}) {
      Case c;
      c.backend = backend;
      c.ranks = 3;
      c.rounds = slow < 0 ? 200 : 10;
      c.first_round = 0xFFFFFFF0;
      c.slow_rank = slow;
      for (const Load load : {Load::kRandom, Load::kEmptyRanks}) {
        c.load = load;
        fabric::RunThreads(c.ranks, [&](fabric::Rendezvous& r) { RunRank(c, r); });
      }
    }
  }
}

TEST(AllToAll, ProcessesEqualTheReference) {
  for (const char* backend : kBackends) {
    for (const int ranks : {2, 3, 8}) {
      Case c;
      c.backend = backend;
      c.ranks = ranks;
      c.rounds = 20;
      c.load = ranks == 3 ? Load::kEmptyRanks : Load::kRandom;
      c.slow_rank = ranks == 2 ? 1 : -1;
      fabric::RunProcesses(ranks, [&](fabric::Rendezvous& r) { RunRank(c, r); });
    }
  }
}

TEST(AllToAll, ARankThatNeverArrivesIsNamedAndAnAbortFreesAll) {
  for (const char* backend : kBackends) {
    for (const bool in_combine : {false, true}) {
      fabric::RunThreads(3, [&](fabric::Rendezvous& rendezvous) {
        Options options;
        options.backend = backend;
        options.hidden = 8;
        options.top_k = 1;
        options.max_rows = 2;
        options.layout = {.num_slots = 3, .num_ranks = 3};
        options.rendezvous = &rendezvous;
        auto made = Create(options);
        ASSERT_TRUE(made);
        (*made)->BeginStep(41, Now() + (rendezvous.rank() == 0 ? 100ms : 60000ms));
        (*made)->Stage(0);
        const bool late = rendezvous.rank() == 1;
        if (late && !in_combine) return;
        const auto table = (*made)->Dispatch({});
        Status status = table ? Status() : std::unexpected(table.error());
        if (in_combine) {
          ASSERT_TRUE(table);
          if (late) return;
          status = (*made)->Combine(nullptr, nullptr, false);
        }
        ASSERT_FALSE(status);
        const std::string want = std::string("rank 1 did not arrive at ") +
                                 (in_combine ? "combine" : "dispatch") + " of step 41 within ";
        EXPECT_TRUE(status.error().message.starts_with(want)) << status.error().message;
      });
    }
  }
}

TEST(AllToAll, BufferBytesCoverTheSegments) {
  Options options;
  options.hidden = 64;
  options.top_k = 4;
  options.max_rows = 100;
  options.layout = {.num_slots = 8, .num_ranks = 1};
  EXPECT_EQ(*BufferBytes(options), 100 * 64 * 2);
  options.layout.num_ranks = 4;
  EXPECT_GE(*BufferBytes(options), 100 * (64 * 2 + 4 * 8) + 3 * 100 * 64 * 4);
  options.backend = "naive";
  EXPECT_GE(*BufferBytes(options), 5 * 100 * 64 * 4);
}

// Shapes, loads and back ends as they come; CADRE_TEST_SEED repeats one.
TEST(AllToAll, DrawnShapesEqualTheReference) {
  const char* given = std::getenv("CADRE_TEST_SEED");
  const uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
  for (uint64_t seed = first; seed < first + (given != nullptr ? 1 : 80); ++seed) {
    uint64_t counter = 0;
    const auto draw = [&](int64_t from, int64_t to) {
      return from + static_cast<int64_t>(UniformAt(seed, 77, counter++) * static_cast<double>(to - from + 1));
    };
    Case c;
    c.seed = seed;
    c.backend = kBackends[draw(0, std::ssize(kBackends) - 1)];
    c.ranks = static_cast<int>(draw(1, 9));
    c.hidden = static_cast<int32_t>(draw(1, 300));
    c.slots = static_cast<int32_t>(draw(1, 40));
    c.top_k = static_cast<int32_t>(draw(1, 12));
    c.max_rows = draw(0, 25);
    c.type = draw(0, 1) == 0 ? DType::kBf16 : DType::kF32;
    c.sharded = draw(0, 4) == 0;
    c.load = kLoads[draw(0, std::ssize(kLoads) - 1)];
    c.chunk_rows = draw(0, 2) == 0 ? 0 : draw(1, 12);
    c.fp8 = c.backend == std::string("deepep_low_latency") && c.ranks > 1 && draw(0, 1) == 1;
    c.ranks_per_host = static_cast<int32_t>(draw(0, 4));
    c.rounds = static_cast<int>(draw(1, 6));
    c.threads = static_cast<int>(draw(1, 2));
    c.jitter = draw(0, 1) * seed;
    c.first_round = draw(0, 1) == 0 ? 1 : 0xFFFFFFFA;
    fabric::RunThreads(c.ranks, [&](fabric::Rendezvous& r) { RunRank(c, r); });
    if (testing::Test::HasFailure()) return;
  }
}

// The reference has no delays, so equality with it is equality over all of them.
TEST(AllToAll, RandomDelaysChangeNothing) {
  for (const char* backend : kBackends) {
    for (uint64_t jitter = 1; jitter <= 6; ++jitter) {
      Case c;
      c.backend = backend;
      c.ranks = 3;
      c.rounds = 6;
      c.max_rows = 12;
      c.chunk_rows = jitter % 2 == 0 ? 5 : 0;
      c.jitter = jitter;
      fabric::RunThreads(c.ranks, [&](fabric::Rendezvous& r) { RunRank(c, r); });
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(AllToAll, SumsByHostThenRank) {
  for (const int ranks : {2, 4, 8}) {
    for (const int32_t per_host : {1, 2, 3}) {
      Case c;
      c.backend = "deepep_high_throughput";
      c.ranks = ranks;
      c.ranks_per_host = per_host;
      c.top_k = 6;
      fabric::RunThreads(ranks, [&](fabric::Rendezvous& r) { RunRank(c, r); });
    }
  }
}

TEST(AllToAll, RowsThatTravelAsFp8) {
  for (const int ranks : {2, 3}) {
    for (const DType type : {DType::kBf16, DType::kF32}) {
      Case c;
      c.backend = "deepep_low_latency";
      c.ranks = ranks;
      c.hidden = 300;  // the last block of channels is not full
      c.fp8 = true;
      c.type = type;
      c.chunk_rows = ranks == 3 ? 4 : 0;
      fabric::RunThreads(ranks, [&](fabric::Rendezvous& r) { RunRank(c, r); });
    }
  }
  Options options = OptionsOf({.backend = "mori"});
  options.fp8_dispatch = true;
  EXPECT_EQ(BufferBytes(options).error().message,
            "rows travel as fp8 only with deepep_low_latency, not with mori");
}

// By k: one process, any number of ranks, any map: the same bits.
TEST(AllToAll, SumsByKDoNotDependOnTheRanks) {
  for (const char* backend : {"pplx", "deepep_low_latency"}) {
    std::vector<float> alone;
    for (const int ranks : {1, 2, 5}) {
      fabric::RunThreads(ranks, [&](fabric::Rendezvous& rendezvous) {
        Case c;
        c.backend = backend;
        c.ranks = ranks;
        c.load = Load::kFull;
        // The rows of rank 0 are the same whatever the others bring.
        const auto out = ExchangeOnce(c, rendezvous, MakeInput(c, 0, rendezvous.rank()));
        ASSERT_TRUE(out) << out.error().message;
        if (rendezvous.rank() != 0) return;
        if (ranks == 1) alone = *out;
        EXPECT_EQ(*out, alone) << backend << " " << ranks;
      });
    }
  }
}

TEST(AllToAll, TwoInOneSwitchByPhase) {
  fabric::RunThreads(3, [&](fabric::Rendezvous& rendezvous) {
    Case prefill, decode;
    prefill.backend = "deepep_high_throughput";
    decode.backend = "deepep_low_latency";
    prefill.ranks = decode.ranks = 3;
    Options options = OptionsOf(prefill);
    options.rendezvous = &rendezvous;
    auto made = CreatePhased(options, prefill.backend, decode.backend);
    ASSERT_TRUE(made) << made.error().message;
    ByteCounts counted;
    for (int round = 0; round < 12; ++round) {
      const bool decodes = round % 5 > 1;
      (*made)->SetPhase(decodes ? Phase::kDecode : Phase::kPrefill);
      EXPECT_STREQ((*made)->name(), decodes ? "deepep_low_latency" : "deepep_high_throughput");
      RunRound(decodes ? decode : prefill, **made, round, rendezvous.rank(), HostsOf(rendezvous), counted);
    }
    EXPECT_THAT((*made)->Describe(), testing::StartsWith("prefill steps: deepep_high_throughput: counts"));
    EXPECT_THAT((*made)->Describe(), testing::HasSubstr("the two sum differently"));
    auto alike = CreatePhased(options, "mori", "flashinfer_all2allv");
    ASSERT_TRUE(alike);
    EXPECT_THAT((*alike)->Describe(), testing::Not(testing::HasSubstr("the two sum differently")));
  });
  fabric::RunThreads(2, [&](fabric::Rendezvous& rendezvous) {
    Options options = OptionsOf({});
    options.rendezvous = &rendezvous;
    auto same = CreatePhased(options, "mori", "mori_low_latency");
    ASSERT_TRUE(same);
    EXPECT_THAT((*same)->Describe(), testing::StartsWith("mori (asked for as mori_low_latency): a row once"));
  });
  EXPECT_EQ(CreatePhased({}, "mori", "gather").error().code, Code::kInvalidArgument);
}

TEST(AllToAll, PeersThatSendNonsenseAreNamed) {
  // A slot that is not there is found before anything is sent.
  for (const char* backend : kBackends) {
    if (backend == std::string("naive")) continue;  // finds it when it receives
    fabric::RunThreads(2, [&](fabric::Rendezvous& rendezvous) {
      Options options = OptionsOf({.backend = backend});
      options.rendezvous = &rendezvous;
      auto made = Create(options);
      ASSERT_TRUE(made);
      (*made)->Stage(1);
      const int32_t slots[] = {10, -1, -1};
      const float weights[] = {1, 1, 1};
      EXPECT_EQ((*made)->Send({1, slots, weights}).error().message,
                "a row was routed to slot 10; there are 10 slots");
    });
  }
}

TEST(AllToAll, BuffersStayWithinTheirBound) {
  // DeepSeek-V3's shapes: what the plan takes per rank must not grow with the choices that could come.
  Options options = OptionsOf({.hidden = 7168, .top_k = 8, .slots = 256, .max_rows = 2048});
  for (const char* backend :
       {"pplx", "deepep_low_latency", "deepep_high_throughput", "flashinfer_all2allv", "mori"}) {
    for (const int ranks : {2, 8, 64, 256}) {
      options.backend = backend;
      options.layout.num_ranks = ranks;
      const int64_t rows = options.max_rows * 7168 * 2;
      EXPECT_LE(*BufferBytes(options), rows + (int64_t{260} << 20)) << backend << " " << ranks;
    }
  }
}

TEST(Reference, TreesDifferOnlyInGrouping) {
  // Two ranks with one slot each; one row with both slots; by hand.
  const int32_t slots[] = {1, 0, 1};
  const float weights[] = {0.5f, 2.0f, 0.25f};
  const ReferenceInput inputs[] = {{1, slots, weights}, {0, nullptr, nullptr}};
  const auto expert = [](int, int32_t slot, int, int64_t, float* out) { out[0] = slot == 0 ? 3.0f : 1e8f; };
  ReferenceArgs args{3, 1, {.num_slots = 2, .num_ranks = 2}, inputs, Tree::kByRank, 0, expert};
  EXPECT_EQ(ReferenceCombine(args, 0)[0], 6.0f + (0.5f * 1e8f + 0.25f * 1e8f));
  args.tree = Tree::kByK;
  EXPECT_EQ(ReferenceCombine(args, 0)[0], (0.5f * 1e8f + 6.0f) + 0.25f * 1e8f);
}

}  // namespace
}  // namespace cadre::a2a
