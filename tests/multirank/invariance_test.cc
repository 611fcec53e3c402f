// A request's answer is the same bit by bit alone, in any batch, with or without prefix hits, chunked or not,
// preempted or not; and in bf16 over data-parallel ranks too, where it meets other company. Walks the product
// on the demo model.
#include <random>

#include "multirank/thread_ranks.h"

namespace cadre::test {
namespace {

constexpr const char* kDemo = CADRE_SOURCE_DIR "/models/demo";
constexpr int kMaxTokens = 12;

std::vector<engine::Request> Requests() {
  std::mt19937 rng(5);
  std::vector<engine::Request> requests;
  std::vector<int32_t> shared(40);
  for (auto& token : shared) token = static_cast<int32_t>(rng() % 2048);
  for (int i = 0; i < 7; ++i) {
    std::vector<int32_t> prompt(shared.begin(), shared.begin() + static_cast<int64_t>(rng() % 41));
    for (uint32_t n = 1 + rng() % 70; n > 0; --n) prompt.push_back(static_cast<int32_t>(rng() % 2048));
    auto request = GreedyRequest(std::move(prompt), kMaxTokens);
    request.sampling.temperature = i % 2 == 0 ? 0.0 : 0.9;
    request.sampling.top_p = i % 3 == 0 ? 0.8 : 1.0;
    request.sampling.seed = static_cast<uint64_t>(i) * 77;
    request.sampling.logprobs = 2;
    requests.push_back(std::move(request));
  }
  return requests;
}

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;  // all of them, to see every bit
  friend bool operator==(const Answer&, const Answer&) = default;
};

std::vector<Answer> Ask(engine::Engine& engine, const std::vector<engine::Request>& requests, bool at_once) {
  std::vector<std::shared_ptr<Collector>> collectors;
  std::vector<std::unique_ptr<engine::RequestHandle>> handles;
  std::vector<Answer> answers;
  for (const auto& request : requests) {
    collectors.push_back(std::make_shared<Collector>());
    auto handle = engine.Submit(request, collectors.back());
    EXPECT_TRUE(handle.has_value());
    handles.push_back(std::move(*handle));
    if (!at_once) collectors.back()->Wait();
  }
  for (const auto& collector : collectors) {
    if (at_once) collector->Wait();
    Answer answer{.tokens = collector->tokens};
    for (const auto& logprobs : collector->logprobs) {
      for (const auto& logprob : logprobs) answer.logprobs.push_back(logprob.logprob);
    }
    answers.push_back(std::move(answer));
  }
  return answers;
}

// The demo model in float32, bfloat16, or fp8 (with bfloat16 rows).
config::EngineOptions DemoOptions(const std::string& arithmetic) {
  config::EngineOptions options = TestOptions(kDemo, arithmetic == "fp8" ? "bfloat16" : arithmetic);
  if (arithmetic == "fp8") options.model.quantization = "fp8";
  return options;
}

std::vector<Answer> Alone(const std::string& arithmetic) {
  config::EngineOptions options = DemoOptions(arithmetic);
  options.cache.enable_prefix_caching = false;
  options.scheduler.max_num_batched_tokens = 512;
  ThreadRanks ranks(options);
  return Ask(*ranks.engine(), Requests(), false);
}

// The engine publishes its numbers after the last event of a step.
engine::RankStats StatsWhenIdle(engine::Engine& engine) {
  engine::RankStats stats;
  for (int i = 0; i < 1000; ++i) {
    stats = engine.Stats().front();
    if (stats.num_running == 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return stats;
}

class Invariance : public testing::TestWithParam<std::string> {};

TEST_P(Invariance, BatchChunksPrefixThreadsAndPreemption) {
  const std::vector<Answer> wanted = Alone(GetParam());
  for (const int64_t batched_tokens : {7, 512}) {
    for (const bool prefix_caching : {false, true}) {
      for (const int threads : {1, 3}) {
        for (const int64_t num_blocks : {32, 9}) {  // nine: two long sequences do not fit together
          SCOPED_TRACE(Format("step of {} tokens, prefix caching {}, {} threads, {} blocks", batched_tokens,
                              prefix_caching, threads, num_blocks));
          config::EngineOptions options = DemoOptions(GetParam());
          options.scheduler.max_num_batched_tokens = batched_tokens;
          options.cache.enable_prefix_caching = prefix_caching;
          options.cache.num_gpu_blocks_override = num_blocks;
          options.model.max_model_len = 144;
          options.cpu.threads = threads;
          ThreadRanks ranks(options);
          ASSERT_NE(ranks.engine(), nullptr) << ranks.error().message;
          EXPECT_EQ(Ask(*ranks.engine(), Requests(), true), wanted);
          EXPECT_EQ(Ask(*ranks.engine(), Requests(), true), wanted);  // now the prefixes are known
          const auto stats = StatsWhenIdle(*ranks.engine());
          if (prefix_caching && num_blocks == 32) {
            EXPECT_GT(stats.prefix_cache_hits, 0);
          }
          if (num_blocks == 9 && batched_tokens == 512) {
            EXPECT_GT(stats.num_preemptions, 0);
          }
          EXPECT_EQ(stats.num_running, 0);
        }
      }
    }
  }
}

// One expert-parallel rank or several: sums over experts are grouped by rank, so only f32 promises equal
// tokens.
TEST(InvarianceOverRanks, F32TokensAreEqualInEveryLayout) {
  const std::vector<Answer> wanted = Alone("float32");
  for (const auto& [tp, dp, ep] : {std::tuple(1, 2, true), {1, 3, false}, {2, 2, true}, {2, 1, false}}) {
    SCOPED_TRACE(Format("tp {} dp {} ep {}", tp, dp, ep));
    config::EngineOptions options = TestOptions(kDemo, "float32");
    options.parallel.tensor_parallel_size = tp;
    options.parallel.data_parallel_size = dp;
    options.parallel.enable_expert_parallel = ep;
    ThreadRanks ranks(options);
    ASSERT_NE(ranks.engine(), nullptr) << ranks.error().message;
    const auto answers = Ask(*ranks.engine(), Requests(), true);
    for (size_t i = 0; i < wanted.size(); ++i)
      EXPECT_EQ(answers[i].tokens, wanted[i].tokens) << "request " << i;
  }
}

// Exchanges that sum by k at home give the bits of one process, however many ranks share the experts and
// wherever these lie.
TEST(InvarianceOverRanks, SumsByKAreThoseOfOneProcess) {
  const std::vector<Answer> wanted = Alone("bfloat16");
  for (const char* backend : {"pplx", "deepep_low_latency"}) {
    for (const auto& [dp, placement] :
         {std::pair(1, "linear"), {2, "linear"}, {2, "round_robin"}, {3, "linear"}}) {
      SCOPED_TRACE(Format("{} dp {} {}", backend, dp, placement));
      config::EngineOptions options = TestOptions(kDemo, "bfloat16");
      options.parallel.data_parallel_size = dp;
      options.parallel.enable_expert_parallel = true;
      options.parallel.all2all_backend = backend;
      options.parallel.expert_placement_strategy = placement;
      ThreadRanks ranks(options);
      ASSERT_NE(ranks.engine(), nullptr) << ranks.error().message;
      EXPECT_EQ(Ask(*ranks.engine(), Requests(), true), wanted);
    }
  }
}

// Copies of experts do not change that: which copy a row takes shows neither in its bits nor in its
// company's.
TEST(InvarianceOverRanks, CopiesDoNotChangeABit) {
  const std::vector<Answer> wanted = Alone("bfloat16");
  for (const char* routing : {"hash", "nearest"}) {
    config::EngineOptions options = TestOptions(kDemo, "bfloat16");
    options.parallel.data_parallel_size = 3;
    options.parallel.enable_expert_parallel = true;
    options.parallel.all2all_backend = "pplx";
    options.parallel.enable_eplb = true;
    options.parallel.eplb.num_redundant_experts = 5;
    options.parallel.eplb.replica_routing = routing;
    ThreadRanks ranks(options);
    ASSERT_NE(ranks.engine(), nullptr) << ranks.error().message;
    EXPECT_EQ(Ask(*ranks.engine(), Requests(), true), wanted);
  }
  // An exchange that sums by rank: the copy that a row takes decides how its sums are grouped, so it must
  // depend on nothing but the row.
  config::EngineOptions options = TestOptions(kDemo, "bfloat16");
  options.parallel.data_parallel_size = 2;
  options.parallel.enable_expert_parallel = true;
  options.parallel.enable_eplb = true;
  options.parallel.eplb.num_redundant_experts = 16;
  options.cache.enable_prefix_caching = false;
  ThreadRanks ranks(options);
  ASSERT_NE(ranks.engine(), nullptr) << ranks.error().message;
  EXPECT_EQ(Ask(*ranks.engine(), Requests(), true), Ask(*ranks.engine(), Requests(), false));
  options.scheduler.max_num_batched_tokens = 11;  // other pieces of the prompts
  ThreadRanks chunked(options);
  EXPECT_EQ(Ask(*chunked.engine(), Requests(), true), Ask(*ranks.engine(), Requests(), false));
}

// Experts that move while requests run change no bit either, where sums go by k.
// fp8 experts travel with their scales.
TEST(InvarianceOverRanks, MovingExpertsDoNotChangeABit) {
  for (const auto& [use_async, arithmetic] :
       {std::pair(true, "bfloat16"), {false, "bfloat16"}, {true, "fp8"}, {false, "fp8"}}) {
    SCOPED_TRACE(Format("async {} {}", use_async, arithmetic));
    const std::vector<Answer> wanted = Alone(arithmetic);
    config::EngineOptions options = DemoOptions(arithmetic);
    options.parallel.data_parallel_size = 3;
    options.parallel.enable_expert_parallel = true;
    options.parallel.all2all_backend = "pplx";
    options.parallel.enable_eplb = true;
    options.parallel.eplb = {.window_size = 8,
                             .step_interval = 8,
                             .num_redundant_experts = 5,
                             .use_async = use_async,
                             .num_spare_slots = 2};
    ThreadRanks ranks(options);
    ASSERT_NE(ranks.engine(), nullptr) << ranks.error().message;
    // How far a rebalance in the background has come by some step is not decided: ask until one has ended.
    const TimePoint deadline = Now() + std::chrono::seconds(60);
    for (int i = 0; i < 3 || (ranks.engine()->Stats().front().eplb.num_rebalances < 1 && Now() < deadline);
         ++i)
      ASSERT_EQ(Ask(*ranks.engine(), Requests(), true), wanted);
    EXPECT_GE(ranks.engine()->Stats().front().eplb.num_rebalances, 1);
    EXPECT_GE(ranks.engine()->Stats().front().eplb.num_moved, 2);
  }
}

// Two exchanges in one, on ranks that share rows by tp and meet by dp: all take the same one in every step.
TEST(InvarianceOverRanks, TwoExchangesInOneSwitchTogether) {
  config::EngineOptions options = TestOptions(kDemo, "bfloat16");
  options.parallel.tensor_parallel_size = 2;
  options.parallel.data_parallel_size = 2;
  options.parallel.enable_expert_parallel = true;
  options.parallel.prefill_all2all_backend = "deepep_high_throughput";
  options.parallel.decode_all2all_backend = "deepep_low_latency";
  options.parallel.all2all_fp8_dispatch = true;
  ThreadRanks ranks(options);
  ASSERT_NE(ranks.engine(), nullptr) << ranks.error().message;
  const auto answers = Ask(*ranks.engine(), Requests(), true);
  for (const Answer& answer : answers) EXPECT_EQ(answer.tokens.size(), static_cast<size_t>(kMaxTokens));
}

// The same layout twice, with other company on the other rank: bits are equal in bf16.
TEST(InvarianceOverRanks, CompanyOnOtherRanksDoesNotChangeABit) {
  config::EngineOptions options = TestOptions(kDemo, "bfloat16");
  options.parallel.data_parallel_size = 2;
  options.parallel.enable_expert_parallel = true;
  ThreadRanks ranks(options);
  ASSERT_NE(ranks.engine(), nullptr) << ranks.error().message;
  EXPECT_EQ(Ask(*ranks.engine(), Requests(), true), Ask(*ranks.engine(), Requests(), false));
}

TEST(EngineLife, NoTokensAskedForNoneGiven) {
  ThreadRanks ranks(TestOptions(kDemo, "float32"));
  const std::vector<int32_t> prompt = {5, 6, 7, 8};
  const auto ask = [&](int max_tokens) {
    engine::Request request = GreedyRequest(prompt, max_tokens);
    request.sampling.prompt_logprobs = request.sampling.logprobs = 1;
    auto collector = std::make_shared<Collector>();
    EXPECT_TRUE(ranks.engine()->Submit(std::move(request), collector).has_value());
    EXPECT_EQ(collector->Wait().reason, engine::FinishReason::kLength);
    return collector;
  };
  const auto scored = ask(0), generated = ask(1);
  EXPECT_TRUE(scored->tokens.empty());
  EXPECT_EQ(generated->tokens.size(), 1u);
  ASSERT_EQ(scored->prompt_logprobs.size(), prompt.size());
  EXPECT_TRUE(scored->prompt_logprobs[0].empty());
  for (size_t i = 1; i < prompt.size(); ++i) {
    EXPECT_EQ(scored->prompt_logprobs[i][0].token, prompt[i]);
    EXPECT_EQ(scored->prompt_logprobs[i][0].logprob, generated->prompt_logprobs[i][0].logprob);
  }
  const auto generated_tokens = [&] { return ranks.engine()->Stats().front().generation_tokens; };
  for (int i = 0; i < 1000 && generated_tokens() == 0; ++i)  // published after the last event of a step
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(generated_tokens(), 1);
}

TEST(EngineLife, TheLastTokenComesWithTheEnd) {
  ThreadRanks ranks(TestOptions(kDemo, "bfloat16"));
  const auto got = std::make_shared<Collector>();
  ASSERT_TRUE(ranks.engine()->Submit(GreedyRequest({1, 2, 3}, 5), got).has_value());
  EXPECT_EQ(got->Wait().reason, engine::FinishReason::kLength);
  EXPECT_EQ(got->tokens.size(), 5u);
  EXPECT_EQ(got->num_last_tokens, 1u);
}

TEST(EngineLife, CancelEndsARequestAndDrainEndsAll) {
  ThreadRanks ranks(TestOptions(kDemo, "bfloat16"));
  const auto cancelled = std::make_shared<Collector>();
  auto handle = ranks.engine()->Submit(GreedyRequest({1, 2, 3}, 400), cancelled);
  ASSERT_TRUE(handle.has_value());
  (*handle)->Cancel();
  EXPECT_EQ(cancelled->Wait().reason, engine::FinishReason::kAbort);
  const auto running = std::make_shared<Collector>();
  ASSERT_TRUE(ranks.engine()->Submit(GreedyRequest({1, 2, 3}, 5), running).has_value());
  ranks.engine()->Drain(Now() + std::chrono::seconds(30));
  EXPECT_EQ(running->Wait().reason, engine::FinishReason::kLength);
  const auto late = ranks.engine()->Submit(GreedyRequest({1}, 1), std::make_shared<Collector>());
  ASSERT_FALSE(late.has_value());
  EXPECT_EQ(late.error().code, Code::kUnavailable);
}

INSTANTIATE_TEST_SUITE_P(Types, Invariance, testing::Values("bfloat16", "float32", "fp8"));

}  // namespace
}  // namespace cadre::test
