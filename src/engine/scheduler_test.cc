#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>

namespace cadre::engine {
namespace {

class SilentSink : public EventSink {
 public:
  void OnPrompt(int, std::vector<Logprobs>) override {}
  void OnTokens(std::vector<GeneratedToken>) override {}
  void OnFinish(std::vector<GeneratedToken>, Finish) override {}
};

std::unique_ptr<Sequence> MakeSequence(int64_t id, std::vector<int32_t> prompt, int priority = 0) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = SeqId(id);
  sequence->request.prompt = prompt;
  sequence->request.priority = priority;
  sequence->tokens = std::move(prompt);
  sequence->sink = std::make_shared<SilentSink>();
  return sequence;
}

std::vector<int32_t> Prompt(int32_t length, int32_t first = 0) {
  std::vector<int32_t> prompt(static_cast<size_t>(length));
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

// What the runner does, without a model: whoever is complete gets one more token.
void Finish(Scheduler& scheduler, const std::vector<ScheduledSequence>& plan) {
  for (const auto& scheduled : plan) {
    const bool completes = scheduled.completes();
    scheduler.Computed(scheduled);
    if (completes) scheduled.sequence->tokens.push_back(7);
  }
}

TEST(Scheduler, ChunksALongPromptAndDecodesBesideIt) {
  Scheduler scheduler({.max_num_seqs = 4, .max_num_batched_tokens = 8}, 100, 16);
  scheduler.Add(MakeSequence(0, Prompt(3)));
  Finish(scheduler, scheduler.Schedule(8));
  scheduler.Add(MakeSequence(1, Prompt(20, 100)));
  const auto plan = scheduler.Schedule(8);
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].num_tokens, 1);
  EXPECT_EQ(plan[1].num_tokens, 7);
  EXPECT_FALSE(plan[1].completes());
}

TEST(Scheduler, FindsTheSharedPrefixButComputesTheLastToken) {
  Scheduler scheduler({}, 100, 16);
  scheduler.Add(MakeSequence(0, Prompt(32)));
  Finish(scheduler, scheduler.Schedule(2048));
  scheduler.Remove(SeqId(0));
  scheduler.Add(MakeSequence(1, Prompt(32)));
  const auto plan = scheduler.Schedule(2048);
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].num_tokens, 16);
  EXPECT_EQ(plan[0].sequence->num_cached_tokens, 16);
  EXPECT_EQ(scheduler.counters().prefix_cache_hits, 16);
}

TEST(Scheduler, SaltSeparatesPrefixes) {
  Scheduler scheduler({}, 100, 16);
  scheduler.Add(MakeSequence(0, Prompt(64)));
  Finish(scheduler, scheduler.Schedule(2048));
  auto salted = MakeSequence(1, Prompt(64));
  salted->request.cache_salt = "tenant";
  scheduler.Add(std::move(salted));
  EXPECT_EQ(scheduler.Schedule(2048).back().num_tokens, 64);
}

// A salt that spells an adapter's key must not find its prefixes, nor the other way round.
TEST(Scheduler, AdaptersAndTheirVersionsSeparatePrefixes) {
  Scheduler scheduler({}, 100, 16);
  int64_t id = 0;
  const auto computed = [&](int32_t adapter, int64_t version, const std::string& salt = "") {
    auto sequence = MakeSequence(id, Prompt(64));
    sequence->adapter = adapter;
    sequence->adapter_version = version;
    sequence->request.cache_salt = salt;
    scheduler.Add(std::move(sequence));
    const auto plan = scheduler.Schedule(2048);
    const int32_t tokens = plan.back().num_tokens;
    Finish(scheduler, plan);
    scheduler.Remove(SeqId(id++));
    return tokens;
  };
  EXPECT_EQ(computed(-1, 0), 64);
  EXPECT_EQ(computed(0, 1), 64);
  EXPECT_EQ(computed(0, 1), 16);
  EXPECT_EQ(computed(0, 2), 64);
  EXPECT_EQ(computed(1, 3), 64);
  EXPECT_EQ(computed(0, 1, "tenant"), 64);
  for (const char* salt : {"adapter 1 ", "1 ", " ", "0"}) EXPECT_EQ(computed(-1, 0, salt), 64) << salt;
  EXPECT_EQ(computed(-1, 0), 16);
}

TEST(Scheduler, ForgetsWhatOneAdapterHasComputed) {
  Scheduler scheduler({}, 100, 16);
  for (int64_t id = 0; id < 4; ++id) {
    scheduler.Add(MakeSequence(id, Prompt(20, static_cast<int32_t>(100 * id))));
    scheduler.All().back()->adapter = static_cast<int32_t>(id % 2) - 1;
  }
  Finish(scheduler, scheduler.Schedule(2048));
  for (Sequence* sequence : scheduler.All())
    if (sequence->adapter == 0) sequence->adapter_version = 2;
  scheduler.ForgetComputedOf(0);
  scheduler.pool().CheckIntegrity();
  EXPECT_EQ(scheduler.num_waiting(), 2);
  std::map<int64_t, int32_t> planned;
  for (const auto& s : scheduler.Schedule(2048)) planned[s.sequence->id.value] = s.num_tokens;
  EXPECT_EQ(planned, (std::map<int64_t, int32_t>{{0, 1}, {1, 21}, {2, 1}, {3, 21}}));
}

TEST(Scheduler, PreemptsTheLastAndBringsItBackInOrder) {
  Scheduler scheduler({.enable_prefix_caching = false}, 4, 16);
  scheduler.Add(MakeSequence(0, Prompt(31)));
  scheduler.Add(MakeSequence(1, Prompt(31, 50)));
  Finish(scheduler, scheduler.Schedule(2048));  // both hold two blocks, 32 tokens known
  Finish(scheduler, scheduler.Schedule(2048));  // both blocks full
  const auto plan = scheduler.Schedule(2048);   // the first needs a third block
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].sequence->id, SeqId(0));
  EXPECT_EQ(scheduler.counters().num_preemptions, 1);
  EXPECT_EQ(scheduler.num_waiting(), 1);
  scheduler.Remove(SeqId(0));
  const auto again = scheduler.Schedule(2048);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].num_tokens, 33);
}

TEST(Scheduler, PriorityComesBeforeArrival) {
  Scheduler scheduler({.max_num_seqs = 1, .policy = SchedulingPolicy::kPriority}, 100, 16);
  scheduler.Add(MakeSequence(0, Prompt(4), 5));
  scheduler.Add(MakeSequence(1, Prompt(4), -1));
  EXPECT_EQ(scheduler.Schedule(2048)[0].sequence->id, SeqId(1));
}

// Random arrivals, lengths and departures: budgets hold, nobody loses a token, nothing leaks, everybody ends.
TEST(Scheduler, RandomLoadEndsWithEveryBlockFree) {
  std::mt19937 rng(11);
  for (int round = 0; round < 20; ++round) {
    const SchedulerOptions options{.max_num_seqs = 1 + static_cast<int32_t>(rng() % 6),
                                   .max_num_batched_tokens = 4 + static_cast<int32_t>(rng() % 60),
                                   .long_prefill_token_threshold = static_cast<int32_t>(rng() % 3) * 5,
                                   .enable_chunked_prefill = rng() % 3 != 0,
                                   .enable_prefix_caching = rng() % 2 == 0};
    Scheduler scheduler(options, 12, 16);
    std::map<int64_t, int64_t> wanted;  // id -> tokens at the end
    int64_t next_id = 0;
    for (int step = 0; step < 4000 && (next_id < 30 || !scheduler.empty()); ++step) {
      if (next_id < 30 && rng() % 3 == 0) {
        const auto length = static_cast<int32_t>(1 + rng() % 120);
        wanted[next_id] = length + 1 + static_cast<int64_t>(rng() % 40);
        scheduler.Add(MakeSequence(next_id++, Prompt(length)));
      }
      const auto plan = scheduler.Schedule(options.max_num_batched_tokens);
      int32_t total = 0;
      for (const auto& s : plan) {
        total += s.num_tokens;
        ASSERT_GT(s.num_tokens, 0);
        ASSERT_GE(static_cast<int64_t>(s.sequence->block_table.size()) * 16,
                  s.sequence->num_computed + s.num_tokens);
      }
      ASSERT_LE(total, options.max_num_batched_tokens);
      Finish(scheduler, plan);
      for (Sequence* sequence : scheduler.All()) {
        if (sequence->num_tokens() >= wanted[sequence->id.value] || rng() % 500 == 0)
          scheduler.Remove(sequence->id);
      }
      scheduler.pool().CheckIntegrity();
    }
    EXPECT_TRUE(scheduler.empty());
    EXPECT_EQ(scheduler.pool().num_available(), 12);
  }
}

}  // namespace
}  // namespace cadre::engine
