#include "engine/local_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <new>
#include <semaphore>

namespace cadre::engine {
namespace {

// Lets the engine sleep, and then finds no memory.
class PoorGate : public StepGate {
 public:
  void BeginTurn() override {}
  Result<Turn> Agree(const Offer& offer) override {
    if (offer.num_tokens > 0) throw std::bad_alloc();
    return Turn::kSleep;
  }
  a2a::Phase phase() const override { return a2a::Phase::kDecode; }
  int64_t most_tokens() const override { return 0; }
  bool anybody_generates() const override { return false; }
  Status Sleep(Duration) override {
    woken_.acquire();
    return {};
  }
  void Wake() override { woken_.release(); }

 private:
  std::counting_semaphore<> woken_{0};
};

class Ending : public EventSink {
 public:
  void OnPrompt(int, std::vector<Logprobs>) override {}
  void OnTokens(std::vector<GeneratedToken>) override {}
  void OnFinish(std::vector<GeneratedToken>, Finish finish) override { ended.set_value(std::move(finish)); }
  std::promise<Finish> ended;
};

TEST(LocalEngine, MemoryThatRunsOutInAStepEndsTheEngineAndSaysWhatToDo) {
  std::promise<Error> told;
  LocalEngine engine(
      {.rank = 3,
       .model_info = {.vocab_size = 10, .max_model_len = 64, .num_kv_blocks = 8, .block_size = 16},
       .scheduler = {},
       .on_out_of_memory = [&](const Error& error) { told.set_value(error); }},
      nullptr, std::make_unique<PoorGate>());
  auto sink = std::make_shared<Ending>();
  Request request;
  request.prompt = {1, 2, 3};
  ASSERT_TRUE(engine.Submit(request, sink).has_value());
  const Finish finish = sink->ended.get_future().get();
  EXPECT_EQ(finish.reason, FinishReason::kError);
  EXPECT_THAT(finish.error.message, testing::HasSubstr("rank 3 has run out of memory"));
  EXPECT_THAT(finish.error.message, testing::HasSubstr("--kv-cache-memory-bytes"));
  EXPECT_EQ(told.get_future().get().code, Code::kResourceExhausted);
  EXPECT_FALSE(engine.Health().has_value());
  EXPECT_FALSE(engine.Submit(request, std::make_shared<Ending>()).has_value());
  engine.Drain(Now());
}

TEST(TokenIds, CopiesShare) {
  TokenIds ids({1, 2, 3});
  const TokenIds copy = ids;
  EXPECT_EQ(copy.data(), ids.data());
  EXPECT_EQ(copy, TokenIds({1, 2, 3}));
  ids = std::vector<int32_t>{4};
  EXPECT_EQ(copy.size(), 3u);
  EXPECT_TRUE(TokenIds().empty());
}

}  // namespace
}  // namespace cadre::engine
