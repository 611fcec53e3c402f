#include "cluster/engine_cluster.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "cluster/load.h"

namespace cadre::cluster {
namespace {

// Keeps what it is given until told to end it.
class HoldingEngine : public engine::Engine {
 public:
  HoldingEngine() { info.block_size = 16, info.num_kv_blocks = 1000; }
  const engine::ModelInfo& model_info() const override { return info; }
  Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request request,
                                                        std::shared_ptr<engine::EventSink> sink) override {
    if (full) return Fail(Code::kResourceExhausted, "full");
    prompts.push_back(request.prompt);
    sinks.push_back(std::move(sink));
    return nullptr;
  }
  std::vector<engine::RankStats> Stats() const override { return {stats}; }
  Status Health() const override { return health; }
  Result<engine::EplbState> Eplb(TimePoint deadline) const override {
    ++num_eplb;
    if (!eplb) return Engine::Eplb(deadline);
    return *eplb;
  }
  Status ResetPrefixCache() override { return {}; }
  void Control(engine::ControlRequest request, engine::ControlDone done) override {
    orders.push_back(std::move(request));
    answers.push_back(std::move(done));
  }
  void Prefixes(engine::PrefixQuery query, engine::PrefixDone done) override {
    done(engine::PrefixChanges{.version = query.since, .block_size = 16, .removed = {}, .added = {name}});
  }
  uint64_t name = 0;
  std::vector<engine::ControlRequest> orders;
  std::vector<engine::ControlDone> answers;
  void Drain(TimePoint) override { drained = true; }
  void EndAll() {
    for (const auto& sink : sinks) {
      sink->OnPrompt(0, {});
      sink->OnFinish({{.token = 1, .logprobs = {}}}, {});
    }
    sinks.clear();
  }

  engine::ModelInfo info;
  engine::RankStats stats;
  Status health;
  bool full = false, drained = false;
  std::optional<Result<engine::EplbState>> eplb;
  mutable int num_eplb = 0;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::shared_ptr<engine::EventSink>> sinks;
};

class Deaf : public engine::EventSink {
  void OnPrompt(int, std::vector<engine::Logprobs>) override {}
  void OnTokens(std::vector<engine::GeneratedToken>) override {}
  void OnFinish(std::vector<engine::GeneratedToken>, engine::Finish) override {}
};

TEST(Cluster, EachRankIsAskedForWhatItHoldsAndWhereItIsReached) {
  std::vector<HoldingEngine> engines(2);
  for (size_t i = 0; i < 2; ++i) {
    engines[i].name = 10 + i;
    engines[i].info.kv_transfer.source = {.engine_id = Format("e_dp{}", i), .host = "h", .port = 5600};
  }
  const auto cluster = *EngineCluster::Create({&engines[0], &engines[1]});
  ASSERT_EQ(cluster->KvSources().size(), 2u);
  EXPECT_EQ(cluster->KvSources()[1].engine_id, "e_dp1");
  for (const int rank : {-1, 0, 1, 2}) {
    std::optional<Result<engine::PrefixChanges>> heard;
    cluster->Prefixes({.rank = rank, .since = 4},
                      [&](Result<engine::PrefixChanges> c) { heard = std::move(c); });
    ASSERT_TRUE(heard.has_value());
    ASSERT_EQ(heard->has_value(), rank == 0 || rank == 1) << rank;
    if (!heard->has_value()) continue;
    EXPECT_EQ((*heard)->num_ranks, 2);
    EXPECT_EQ((*heard)->version, 4);
    EXPECT_EQ((*heard)->added.front(), static_cast<uint64_t>(10 + rank));
  }
}

struct Ranks {
  explicit Ranks(size_t n, int num_fronts = 1) : engines(n) {
    auto board = *LoadBoard::Create(
        {.num_fronts = num_fronts, .num_ranks = static_cast<int>(n), .num_kv_blocks = 1000});
    for (int front = 0; front < num_fronts; ++front) {
      std::vector<engine::Engine*> all;
      for (auto& engine : engines) all.push_back(&engine);
      fronts.push_back(*EngineCluster::Create(all, {.board = board, .front = front}));
    }
  }
  bool Ask(std::vector<int32_t> prompt, int max_tokens, int rank = -1, size_t front = 0) {
    engine::Request request;
    request.prompt = std::move(prompt);
    request.sampling.max_tokens = max_tokens;
    request.data_parallel_rank = rank;
    return fronts[front]->Submit(std::move(request), std::make_shared<Deaf>()).has_value();
  }
  std::vector<size_t> Counts() const {
    std::vector<size_t> counts;
    for (const auto& engine : engines) counts.push_back(engine.prompts.size());
    return counts;
  }
  LoadBoard& board() { return *fronts[0]->board(); }

  std::vector<HoldingEngine> engines;
  std::vector<std::unique_ptr<EngineCluster>> fronts;
};

// Tokens that no other seed has.
std::vector<int32_t> Prompt(int seed, size_t length) {
  std::mt19937 rng(static_cast<unsigned>(seed));
  std::vector<int32_t> tokens(length);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % 100000);
  return tokens;
}

std::vector<int32_t> Join(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(EngineCluster, ABurstOverIdleRanksIsSpreadEvenly) {
  for (const size_t num_ranks : {2u, 3u, 4u, 8u}) {
    for (const bool same_prompt : {false, true}) {
      Ranks ranks(num_ranks, 3);
      const size_t each = 10;
      for (size_t i = 0; i < each * num_ranks; ++i)
        ASSERT_TRUE(ranks.Ask(Prompt(same_prompt ? 1 : static_cast<int>(i), 100), 50, -1, i % 3));
      EXPECT_EQ(ranks.Counts(), std::vector<size_t>(num_ranks, each)) << num_ranks << same_prompt;
    }
  }
}

TEST(EngineCluster, SkewedLengthsBalanceByWork) {
  Ranks ranks(4);
  std::mt19937 rng(7);
  for (int i = 0; i < 400; ++i) {
    const bool is_long = rng() % 10 == 0;
    ASSERT_TRUE(ranks.Ask(Prompt(i, is_long ? 4000 : 40 + rng() % 40), static_cast<int>(1 + rng() % 200)));
  }
  int64_t least = INT64_MAX, most = 0;
  for (int rank = 0; rank < 4; ++rank) {
    const int64_t work = ranks.board().Of(rank).work;
    least = std::min(least, work);
    most = std::max(most, work);
  }
  // No request is larger than 4,800, and each went to the one with the least.
  EXPECT_LE(most - least, 4800);
  EXPECT_GT(least, 40000);
}

TEST(EngineCluster, ALongPromptHoldsOthersOffUntilItIsComputed) {
  Ranks ranks(2);
  ASSERT_TRUE(ranks.Ask(Prompt(1, 5000), 1, 0));
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(ranks.Ask(Prompt(10 + i, 50), 10));
  EXPECT_EQ(ranks.Counts(), (std::vector<size_t>{1, 10}));
  ranks.engines[0].sinks[0]->OnPrompt(0, {});
  EXPECT_EQ(ranks.board().Of(0).work, OutputWork(1));
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(ranks.Ask(Prompt(30 + i, 50), 10));
  EXPECT_EQ(ranks.Counts(), (std::vector<size_t>{11, 10}));
}

TEST(EngineCluster, APrefixGoesBackToItsRankAndStarvesNobody) {
  for (const size_t num_ranks : {2u, 3u, 4u}) {
    Ranks ranks(num_ranks);
    const auto system = Prompt(1, 800);
    for (int i = 0; i < 20; ++i) {  // one after the other: all on the rank that has the prefix
      ASSERT_TRUE(ranks.Ask(Join(system, Prompt(100 + i, 20)), 20));
      for (auto& engine : ranks.engines) engine.EndAll();
    }
    EXPECT_EQ(std::ranges::max(ranks.Counts()), 20u);
    // Many at once: everybody gets work, and computes the prefix once.
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(ranks.Ask(Join(system, Prompt(1000 + i, 20)), 20));
    for (size_t r = 0; r < num_ranks; ++r) {
      const auto load = ranks.board().Of(static_cast<int>(r));
      EXPECT_NEAR(static_cast<double>(load.requests), 200.0 / static_cast<double>(num_ranks), 12) << r;
    }
  }
}

TEST(EngineCluster, ManyPrefixesStayApart) {
  Ranks ranks(2);
  std::vector<int> home(6, -1);
  for (int round = 0; round < 5; ++round) {
    for (int p = 0; p < 6; ++p) {
      const auto before = ranks.Counts();
      ASSERT_TRUE(ranks.Ask(Join(Prompt(p, 320), Prompt(100 * p + round, 16)), 8));
      const int went = ranks.Counts()[0] > before[0] ? 0 : 1;
      if (round == 0) home[static_cast<size_t>(p)] = went;
      EXPECT_EQ(went, home[static_cast<size_t>(p)]) << round << " " << p;
    }
    for (auto& engine : ranks.engines) engine.EndAll();
  }
}

TEST(EngineCluster, AnAnswerIsPartOfTheNextPrompt) {
  Ranks ranks(4);
  auto conversation = Prompt(1, 160);
  ASSERT_TRUE(ranks.Ask(conversation, 64, 2));
  ranks.engines[2].sinks[0]->OnPrompt(0, {});
  const auto answer = Prompt(2, 160);
  for (const int32_t token : answer) ranks.engines[2].sinks[0]->OnTokens({{.token = token, .logprobs = {}}});
  ranks.engines[2].EndAll();
  // Rank 2 now has 100 tokens of other work: less than the answer alone saves.
  ASSERT_TRUE(ranks.Ask(Prompt(3, 250), 1, 2));
  ASSERT_TRUE(ranks.Ask(Join(conversation, answer), 1));
  EXPECT_EQ(ranks.engines[2].prompts.size(), 3u);
}

TEST(EngineCluster, ForgottenAndSaltedPrefixesAreNone) {
  Ranks ranks(2);
  const auto prompt = Prompt(1, 320);
  ASSERT_TRUE(ranks.Ask(prompt, 1, 0));
  ranks.engines[0].EndAll();
  ASSERT_TRUE(ranks.Ask(Prompt(2, 100), 1, 0));  // the prefix is worth more than this
  engine::Request salted;
  salted.prompt = prompt;
  salted.cache_salt = "other";
  ASSERT_TRUE(ranks.fronts[0]->Submit(salted, std::make_shared<Deaf>()).has_value());
  EXPECT_EQ(ranks.Counts(), (std::vector<size_t>{2, 1}));
  for (auto& engine : ranks.engines) engine.EndAll();
  ASSERT_TRUE(ranks.Ask(Prompt(3, 100), 1, 0));
  ASSERT_TRUE(ranks.fronts[0]->ResetPrefixCache().has_value());
  ASSERT_TRUE(ranks.Ask(prompt, 1));
  EXPECT_EQ(ranks.Counts(), (std::vector<size_t>{3, 2}));
}

TEST(EngineCluster, HonoursTheRankAskedFor) {
  Ranks ranks(2);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(ranks.Ask(Prompt(i, 50), 1, 1));
  EXPECT_EQ(ranks.Counts(), (std::vector<size_t>{0, 3}));
  EXPECT_FALSE(ranks.Ask({1}, 1, 2));
}

TEST(EngineCluster, ARefusedRequestLeavesTheBoard) {
  Ranks ranks(1);
  ranks.engines[0].full = true;
  EXPECT_FALSE(ranks.Ask(Prompt(1, 50), 10));
  EXPECT_EQ(ranks.board().Of(0).requests, 0);
  EXPECT_EQ(ranks.board().Of(0).work, 0);
}

TEST(EngineCluster, IsAsWellAsItsWorstAndDrainsAll) {
  Ranks ranks(2);
  EngineCluster& cluster = *ranks.fronts[0];
  EXPECT_TRUE(cluster.Health().has_value());
  ranks.engines[1].health = Fail(Code::kUnavailable, "rank 1 is gone");
  EXPECT_EQ(cluster.Health().error().message, "rank 1 is gone");
  ASSERT_TRUE(ranks.Ask(Prompt(1, 50), 10, 0));
  ASSERT_TRUE(ranks.Ask(Prompt(1, 50), 10, 0));
  ranks.engines[0].stats.num_running = 1;
  EXPECT_EQ(cluster.Stats()[0].num_waiting, 1);
  EXPECT_EQ(cluster.Stats()[1].num_waiting, 0);
  cluster.Drain(Now());
  EXPECT_TRUE(ranks.engines[0].drained && ranks.engines[1].drained);
}

TEST(LoadBoard, IsOneForAllWhoMapIt) {
  auto mine = *LoadBoard::Create({.num_fronts = 2, .num_ranks = 3, .num_kv_blocks = 100});
  auto theirs = *LoadBoard::Map(sys::Fd(fcntl(mine->fd(), F_DUPFD_CLOEXEC, 0)));
  mine->Add(0, 2, {.requests = 1, .work = 10});
  theirs->Add(1, 2, {.requests = 2, .work = 20});
  EXPECT_EQ(mine->Of(2).requests, 3);
  EXPECT_EQ(theirs->Of(2).work, 30);
  EXPECT_EQ(mine->Of(1).work, 0);
  mine->ClearFront(1);  // its process has died
  EXPECT_EQ(theirs->Of(2).work, 10);
  theirs->RememberBlock(1, 0x12345);
  EXPECT_TRUE(mine->HoldsBlock(1, 0x12345));
  EXPECT_FALSE(mine->HoldsBlock(0, 0x12345));
  mine->ForgetBlocks();
  EXPECT_FALSE(theirs->HoldsBlock(1, 0x12345));
}

TEST(LoadBoard, OtherMemoryIsRefused) {
  auto other = *sys::CreateSegment("other", 4096, false);
  EXPECT_EQ(LoadBoard::Map(std::move(other.fd)).error().code, Code::kDataLoss);
  EXPECT_FALSE(LoadBoard::Create({.num_fronts = 0}).has_value());
  EXPECT_TRUE(LoadBoard::Create({.num_fronts = 4, .num_ranks = 1024, .num_kv_blocks = 1 << 20}).has_value());
}

TEST(BlockNames, DependOnAllThatStandsBefore) {
  const auto name = [](std::vector<int32_t> tokens, std::string_view salt = "") {
    std::vector<uint64_t> names;
    BlockNames(4, salt).Add(tokens, names);
    return names;
  };
  EXPECT_EQ(name({1, 2, 3}).size(), 0u);
  const auto base = name({1, 2, 3, 4, 5, 6, 7, 8, 9});
  ASSERT_EQ(base.size(), 2u);
  EXPECT_EQ(name({1, 2, 3, 4})[0], base[0]);
  EXPECT_NE(name({1, 2, 3, 5, 5, 6, 7, 8})[1], base[1]);
  EXPECT_NE(name({1, 2, 3, 4, 5, 6, 7, 8}, "salt")[0], base[0]);
  std::vector<uint64_t> portions;
  BlockNames names(4, "");
  for (const int32_t token : {1, 2, 3, 4, 5, 6, 7, 8, 9}) names.Add({&token, 1}, portions);
  EXPECT_EQ(portions, base);
}

TEST(Cluster, TheFirstRankThatAnswersTellsHowExpertsAreBalanced) {
  Ranks ranks(3);
  const TimePoint soon = Now() + std::chrono::seconds(1);
  EXPECT_EQ(ranks.fronts[0]->Eplb(soon).error().code, Code::kNotFound);
  EXPECT_EQ(ranks.engines[1].num_eplb, 0);  // one knows it for all
  ranks.engines[0].eplb = Fail(Code::kUnavailable, "rank 0 was killed");
  ranks.engines[1].eplb = engine::EplbState{.num_layers = 5};
  EXPECT_EQ(ranks.fronts[0]->Eplb(soon)->num_layers, 5);
  EXPECT_EQ(ranks.engines[2].num_eplb, 0);
  for (auto& engine : ranks.engines) engine.eplb = Fail(Code::kUnavailable, "gone");
  EXPECT_EQ(ranks.fronts[0]->Eplb(soon).error().message, "gone");
}

TEST(Cluster, AnOrderGoesToAllAndIsAnsweredWhenAllHave) {
  Ranks ranks(3);
  std::vector<Result<engine::ControlState>> heard;
  const auto hear = [&](Result<engine::ControlState> state) { heard.push_back(std::move(state)); };
  ranks.fronts[0]->Control({.kind = engine::ControlKind::kPause, .mode = engine::PauseMode::kWait}, hear);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(heard.empty());
    ASSERT_EQ(ranks.engines[i].orders.size(), 1u);
    EXPECT_EQ(ranks.engines[i].orders[0].mode, engine::PauseMode::kWait);
    ranks.engines[2 - i].answers[0](
        engine::ControlState{.paused = true, .generation = static_cast<int64_t>(i)});
  }
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_TRUE(heard[0]->paused);
  EXPECT_EQ(heard[0]->generation, 2);
  ranks.fronts[0]->Control({.kind = engine::ControlKind::kProbe}, hear);
  ranks.engines[0].answers[1](engine::ControlState());
  ranks.engines[1].answers[1](Fail(Code::kUnavailable, "rank 1 is gone"));
  ranks.engines[2].answers[1](engine::ControlState());
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[1].error().message, "rank 1 is gone");
}

}  // namespace
}  // namespace cadre::cluster
