// Blocks between engines, with agents that do what the test says: who holds which block when, and that
// answers are those of one engine.
#include "engine/kv_hand_off.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <numeric>
#include <random>

#include "a2a/a2a.h"
#include "base/check.h"
#include "engine/agent_testing.h"
#include "engine/local_engine.h"
#include "eplb/placement.h"
#include "model/loader.h"
#include "model/tiny.h"

namespace cadre::engine {
namespace {

constexpr int32_t kBlockSize = 16;

std::vector<int32_t> Prompt(int32_t length, int32_t salt = 0) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < length; ++i) prompt.push_back((i * 31 + salt * 17 + 5) % 90 + 1);
  return prompt;
}

class Collector : public EventSink {
 public:
  void OnPrompt(int cached, std::vector<Logprobs>) override { num_cached = cached; }
  void OnTokens(std::vector<GeneratedToken> more) override { Add(more); }
  void OnFinish(std::vector<GeneratedToken> last, Finish finish) override {
    Add(last);
    ended.set_value(std::move(finish));
  }
  std::vector<int32_t> tokens;
  int num_cached = -1;
  std::promise<Finish> ended;

 private:
  void Add(const std::vector<GeneratedToken>& more) {
    for (const GeneratedToken& token : more) tokens.push_back(token.token);
  }
};

// A checkpoint that is gone with the process.
struct TinyModel {
  TinyModel() {
    std::string name = (std::filesystem::temp_directory_path() / "cadre-hand-off-XXXXXX").string();
    CADRE_CHECK(mkdtemp(name.data()) != nullptr);
    folder = name;
    EXPECT_TRUE(model::WriteTinyCheckpoint(folder, {.type = DType::kF32}).has_value());
  }
  ~TinyModel() { std::filesystem::remove_all(folder); }
  TinyModel(const TinyModel&) = delete;
  TinyModel& operator=(const TinyModel&) = delete;
  std::string folder;
};

// An engine over a tiny model, with an agent in the net.
class Instance {
 public:
  Instance(FakeNet& net, uint16_t port, bool recompute = true, int64_t num_blocks = 40,
           bool prefix_caching = true)
      : pool_({.num_threads = 1, .cpus = {}, .spin = false}) {
    static const TinyModel tiny;
    loaded_ =
        std::make_unique<model::LoadedModel>(*model::LoadModel(tiny.folder, {.type = DType::kF32}, pool_));
    const model::ModelSpec& spec = loaded_->spec;
    const kernels::Device device{.isa = kernels::Isa::kPortable, .pool = &pool_};
    const kv::Layout layout{.num_layers = spec.num_layers(),
                            .num_kv_heads = spec.attention.num_kv_heads,
                            .k_dim = spec.attention.cache_k_dim(),
                            .v_dim = spec.attention.cache_v_dim(),
                            .block_size = kBlockSize,
                            .type = DType::kF32,
                            .note_bytes = int64_t{2} * spec.num_moe_layers() * spec.moe.top_k};
    kv_ = *sys::AllocateRegion(static_cast<size_t>(layout.AllBytes(num_blocks)));
    constexpr int64_t kMaxTokens = 64;
    map_ = *eplb::StartMap(spec.moe.num_experts, 0, 1, eplb::Placement::kLinear);
    exchange_ = *a2a::Create({.hidden = spec.hidden,
                              .act_type = DType::kF32,
                              .top_k = spec.moe.top_k,
                              .max_rows = kMaxTokens,
                              .layout = map_->layout(),
                              .device = device});
    decoder_ = std::make_unique<model::Decoder>(
        spec, loaded_->weights,
        model::DecoderOptions{.max_num_tokens = kMaxTokens, .max_expert_rows = kMaxTokens * spec.moe.top_k});
    agent = std::make_unique<FakeAgent>(net, port, layout, num_blocks, kv_.data());
    auto runner = std::make_unique<Runner>(
        *decoder_, RunnerOptions{.device = device,
                                 .kv = {.layout = layout, .num_blocks = num_blocks, .base = kv_.data()},
                                 .exchange = exchange_.get(),
                                 .expert_maps = std::vector<const eplb::ExpertMap*>(
                                     static_cast<size_t>(spec.num_moe_layers()), &*map_),
                                 .agent = agent.get(),
                                 .vocab_size = spec.vocab_size});
    LocalEngineOptions options;  // g++ 12 takes strings of a nested initializer for uninitialized
    options.model_info.vocab_size = spec.vocab_size;
    options.model_info.max_model_len = 256;
    options.model_info.num_kv_blocks = num_blocks;
    options.model_info.block_size = kBlockSize;
    options.scheduler = {.max_num_batched_tokens = kMaxTokens, .enable_prefix_caching = prefix_caching};
    options.agent = agent.get();
    options.hand_off.recompute = recompute;
    engine = std::make_unique<LocalEngine>(std::move(options), std::move(runner), nullptr);
    agent->wake = [this] { engine->Wake(); };
  }
  ~Instance() {
    engine->Drain(Now());
    agent->wake = nullptr;
  }

  struct Run {
    std::shared_ptr<Collector> sink = std::make_shared<Collector>();
    std::unique_ptr<RequestHandle> handle;
    std::future<Finish> future = sink->ended.get_future();
    Finish Wait() {
      EXPECT_EQ(future.wait_for(std::chrono::seconds(30)), std::future_status::ready);
      return future.get();
    }
  };
  Run Start(std::vector<int32_t> prompt, int max_tokens, std::optional<KvTransfer> kv = {}) {
    Run run;
    Request request;
    request.id = "r";
    request.prompt = std::move(prompt);
    request.sampling.max_tokens = max_tokens;
    request.sampling.temperature = 0;
    request.kv_transfer = std::move(kv);
    auto handle = engine->Submit(std::move(request), run.sink);
    EXPECT_TRUE(handle.has_value());
    run.handle = std::move(*handle);
    return run;
  }
  std::vector<int32_t> Answer(std::vector<int32_t> prompt, int max_tokens) {
    Run run = Start(std::move(prompt), max_tokens);
    run.Wait();
    return run.sink->tokens;
  }
  // The experts of all its tokens but the last.
  std::vector<uint16_t> Experts(std::vector<int32_t> prompt, int max_tokens) {
    return Start(std::move(prompt), max_tokens).Wait().routed.experts;
  }
  // Computes the prompt and tells how to fetch it.
  KvTransfer Prefill(std::vector<int32_t> prompt) {
    const Finish finish = Start(std::move(prompt), 1, KvTransfer{.hold = true}).Wait();
    EXPECT_TRUE(finish.held.has_value());
    return FetchOf(*finish.held);
  }
  static KvTransfer FetchOf(const HeldKv& held) {
    return {.fetch = true,
            .source_engine = held.engine_id,
            .source_request = held.request_id,
            .source_host = held.host,
            .source_port = held.port,
            .num_tokens = static_cast<int64_t>(held.tokens.size())};
  }
  KvTransferStats Stats() { return engine->Stats().front().kv_transfer; }
  // The figures come a moment after the answer.
  bool Holds(int64_t num_held) {
    const TimePoint end = Now() + std::chrono::seconds(20);
    while (Stats().num_held != num_held && Now() < end) std::this_thread::yield();
    return Stats().num_held == num_held;
  }
  // Until nothing is running, held or fetched: then every block is free or cached.
  bool ComesToRest() {
    const TimePoint end = Now() + std::chrono::seconds(20);
    while (Now() < end) {
      const RankStats stats = engine->Stats().front();
      if (stats.kv_cache_usage == 0 && stats.kv_transfer.num_held == 0 &&
          stats.kv_transfer.num_fetching == 0 && stats.num_running == 0 && stats.num_waiting == 0)
        return true;
      engine->Wake();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

 private:
  sys::ThreadPool pool_;
  std::unique_ptr<model::LoadedModel> loaded_;
  sys::Region kv_;
  std::optional<eplb::ExpertMap> map_;
  std::unique_ptr<a2a::AllToAll> exchange_;
  std::unique_ptr<model::Decoder> decoder_;

 public:
  std::unique_ptr<FakeAgent> agent;
  std::unique_ptr<LocalEngine> engine;
};

TEST(HandOff, AnswersAreThoseOfOneEngine) {
  FakeNet net;
  Instance one(net, 1), prefill(net, 2), decode(net, 3);
  for (const int32_t length : {1, 2, 15, 16, 17, 31, 32, 33, 100, 150}) {
    const auto prompt = Prompt(length, length);
    const KvTransfer kv = prefill.Prefill(prompt);
    EXPECT_EQ(kv.num_tokens, length);
    auto run = decode.Start(prompt, 20, kv);
    const Finish finish = run.Wait();
    EXPECT_EQ(finish.reason, FinishReason::kLength);
    EXPECT_EQ(run.sink->tokens, one.Answer(prompt, 20)) << length;
    EXPECT_EQ(finish.routed.experts.size(),
              static_cast<size_t>((length + 19) * finish.routed.num_layers * finish.routed.top_k));
    EXPECT_EQ(finish.routed.experts, one.Experts(prompt, 20)) << length;
    EXPECT_EQ(run.sink->num_cached, length - 1);  // only the last token is computed here
  }
  EXPECT_TRUE(prefill.ComesToRest());
  EXPECT_TRUE(decode.ComesToRest());
}

TEST(HandOff, OnlyWhatIsMissingIsFetched) {
  FakeNet net;
  Instance one(net, 1), prefill(net, 2), decode(net, 3);
  const auto prompt = Prompt(70);
  decode.Answer(std::vector<int32_t>(prompt.begin(), prompt.begin() + 40), 1);  // two whole blocks
  decode.agent->hold_back = true;
  auto run = decode.Start(prompt, 8, prefill.Prefill(prompt));
  while (decode.agent->orders().empty()) std::this_thread::yield();
  EXPECT_EQ(decode.agent->orders().begin()->second.first_token, 32);
  EXPECT_EQ(decode.agent->orders().begin()->second.num_tokens, 69);
  decode.agent->Deliver();
  run.Wait();
  EXPECT_EQ(run.sink->tokens, one.Answer(prompt, 8));
  // Now all of it is here: the source is told, and nothing is fetched.
  const auto shorter = std::vector<int32_t>(prompt.begin(), prompt.begin() + 65);
  auto again = decode.Start(shorter, 8, prefill.Prefill(shorter));
  again.Wait();
  EXPECT_EQ(decode.agent->rejects(), 1);
  EXPECT_EQ(again.sink->tokens, one.Answer(shorter, 8));
  EXPECT_TRUE(prefill.ComesToRest());
}

TEST(HandOff, OthersGoOnWhileOneWaits) {
  FakeNet net;
  Instance one(net, 1), prefill(net, 2), decode(net, 3);
  decode.agent->hold_back = true;
  const auto prompt = Prompt(50);
  auto waits = decode.Start(prompt, 6, prefill.Prefill(prompt));
  EXPECT_EQ(decode.Answer(Prompt(20, 3), 12), one.Answer(Prompt(20, 3), 12));
  EXPECT_EQ(waits.future.wait_for(std::chrono::milliseconds(0)), std::future_status::timeout);
  EXPECT_EQ(decode.Stats().num_fetching, 1);  // published by the other one's steps
  decode.agent->Deliver();
  waits.Wait();
  EXPECT_EQ(waits.sink->tokens, one.Answer(prompt, 6));
}

TEST(HandOff, AFetchThatFailsIsComputedFromItsFirstBadToken) {
  FakeNet net;
  Instance one(net, 1), prefill(net, 2), decode(net, 3, true, 40, false);
  decode.agent->hold_back = true;
  for (const int64_t valid : {0, 1, 16, 23, 49}) {
    const auto prompt = Prompt(50, static_cast<int32_t>(valid));
    auto run = decode.Start(prompt, 10, prefill.Prefill(prompt));
    while (decode.agent->orders().empty()) std::this_thread::yield();
    decode.agent->Deliver(true, valid);
    const Finish finish = run.Wait();
    EXPECT_EQ(finish.reason, FinishReason::kLength);
    EXPECT_EQ(run.sink->num_cached, valid);
    EXPECT_EQ(run.sink->tokens, one.Answer(prompt, 10)) << valid;
    EXPECT_EQ(finish.routed.experts, one.Experts(prompt, 10)) << valid;
  }
  EXPECT_TRUE(decode.ComesToRest());
  EXPECT_EQ(decode.Stats().num_recomputed, 5);
}

TEST(HandOff, ThePolicyFailGivesTheErrorAndReleasesTheBlocks) {
  FakeNet net;
  Instance prefill(net, 2), decode(net, 3, false);
  decode.agent->hold_back = true;
  auto run = decode.Start(Prompt(50), 10, prefill.Prefill(Prompt(50)));
  while (decode.agent->orders().empty()) std::this_thread::yield();
  decode.agent->Deliver(true, 20);
  const Finish finish = run.Wait();
  EXPECT_EQ(finish.reason, FinishReason::kError);
  EXPECT_EQ(finish.error.code, Code::kInternal);
  EXPECT_THAT(finish.error.message, testing::HasSubstr("could not be fetched from fake:2: the test says so"));
  EXPECT_TRUE(run.sink->tokens.empty());
  EXPECT_TRUE(decode.ComesToRest());
}

TEST(HandOff, ACancelledFetchKeepsItsBlocksUntilNothingIsWrittenAnyMore) {
  FakeNet net;
  Instance prefill(net, 2), decode(net, 3);
  decode.agent->hold_back = true;
  auto run = decode.Start(Prompt(50), 10, prefill.Prefill(Prompt(50)));
  while (decode.agent->orders().empty()) std::this_thread::yield();
  run.handle->Cancel();
  EXPECT_EQ(run.Wait().reason, FinishReason::kAbort);
  while (decode.Stats().held_blocks == 0) std::this_thread::yield();
  EXPECT_EQ(decode.Stats().held_blocks, 4);
  EXPECT_GT(decode.engine->Stats().front().kv_cache_usage, 0);
  decode.agent->Deliver();
  EXPECT_TRUE(decode.ComesToRest());
}

TEST(HandOff, OneThatWaitsForRoomAsksItsSourceToWait) {
  FakeNet net;
  Instance one(net, 1), prefill(net, 2), decode(net, 3, true, 6);
  decode.agent->hold_back = true;
  auto first = decode.Start(Prompt(60), 4, prefill.Prefill(Prompt(60)));
  auto second = decode.Start(Prompt(60, 1), 4, prefill.Prefill(Prompt(60, 1)));
  const TimePoint end = Now() + std::chrono::seconds(20);
  while (decode.agent->touches() == 0 && Now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_GT(decode.agent->touches(), 0);  // though nothing else wakes the engine
  EXPECT_EQ(decode.agent->orders().size(), 1u);
  decode.agent->Deliver();
  first.Wait();
  while (decode.agent->orders().empty() && Now() < end) std::this_thread::yield();
  decode.agent->Deliver();
  second.Wait();
  EXPECT_EQ(first.sink->tokens, one.Answer(Prompt(60), 4));
  EXPECT_EQ(second.sink->tokens, one.Answer(Prompt(60, 1), 4));
}

TEST(HandOff, WhatIsHeldStaysUntilTheLeaseEnds) {
  FakeNet net;
  Instance prefill(net, 2, true, 40, false);
  const KvTransfer kv = prefill.Prefill(Prompt(50));
  EXPECT_TRUE(prefill.Holds(1));
  EXPECT_EQ(prefill.Stats().held_blocks, 4);
  const auto known = prefill.agent->known().at(kv.source_request);
  EXPECT_TRUE(known.leased);
  EXPECT_EQ(known.blocks.size(), 4u);
  for (const auto& [layer, written] : known.written) EXPECT_EQ(written, 50) << layer;
  prefill.agent->EndLease(kv.source_request, handoff::LeaseEnd::kExpired);
  EXPECT_TRUE(prefill.ComesToRest());
  EXPECT_EQ(prefill.Stats().num_expired, 1);
}

TEST(HandOff, AnAnswerIsHeldForTheNextTurn) {
  FakeNet net;
  Instance one(net, 1), first(net, 2), second(net, 3);
  const auto prompt = Prompt(20);
  KvTransfer kv = first.Prefill(prompt);
  kv.hold = kv.with_answer = true;
  auto run = second.Start(prompt, 20, kv);
  const Finish finish = run.Wait();
  ASSERT_TRUE(finish.held.has_value());
  std::vector<int32_t> turn = prompt;
  turn.insert(turn.end(), run.sink->tokens.begin(), run.sink->tokens.end());
  EXPECT_EQ(finish.held->tokens,
            std::vector<int32_t>(turn.begin(), turn.end() - 1));  // the last is not computed
  for (const int32_t token : Prompt(11, 9)) turn.push_back(token);
  first.engine->ResetPrefixCache();
  auto back = first.Start(turn, 10, Instance::FetchOf(*finish.held));
  const Finish there = back.Wait();
  EXPECT_EQ(back.sink->num_cached, 39);
  EXPECT_EQ(back.sink->tokens, one.Answer(turn, 10));
  EXPECT_EQ(there.routed.experts, one.Experts(turn, 10));  // those of the first answer's tokens too
  EXPECT_TRUE(second.ComesToRest());
}

TEST(HandOff, IdsOfClientsNameThePromptToo) {
  FakeNet net;
  Instance one(net, 1), prefill(net, 2), decode(net, 3);
  const auto ask = [&](const std::vector<int32_t>& prompt) {
    prefill.Start(prompt, 1, KvTransfer{.hold = true, .hold_id = "c", .by_prompt = true}).Wait();
  };
  ask(Prompt(40));
  ask(Prompt(40));  // the client tries again: what is held is as good
  EXPECT_TRUE(prefill.Holds(1));
  const KvTransfer kv{
      .fetch = true, .by_prompt = true, .source_request = "c", .source_host = "fake", .source_port = 2};
  auto other = decode.Start(Prompt(40, 1), 10, kv);
  other.Wait();
  EXPECT_EQ(other.sink->tokens, one.Answer(Prompt(40, 1), 10));
  auto same = decode.Start(Prompt(40), 10, kv);
  same.Wait();
  EXPECT_EQ(same.sink->num_cached, 39);
  EXPECT_EQ(same.sink->tokens, one.Answer(Prompt(40), 10));
  EXPECT_TRUE(prefill.ComesToRest());
}

// A sequence of an adapter, over a scheduler alone.
struct OfAdapter {
  OfAdapter() { scheduler.Attach(hand_off); }
  Sequence* Add(KvTransfer kv, std::string name = "a") {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = SeqId(next_id++);
    sequence->tokens = sequence->request.prompt = Prompt(40);
    sequence->request.adapter = name;
    sequence->request.kv_transfer = std::move(kv);
    if (!name.empty())
      sequence->UseAdapter({.name = name, .slot = name == "a" ? 0 : 1, .version = 1, .digest = 7});
    Sequence* const added = sequence.get();
    scheduler.Add(std::move(sequence));
    return added;
  }
  FakeNet net;
  FakeAgent agent{net, 1};
  Scheduler scheduler{{.max_num_batched_tokens = 256}, 40, kBlockSize};
  KvHandOff hand_off{agent, scheduler.pool(), {.name = "test"}};
  int64_t next_id = 0;
};

TEST(HandOff, AgentsHearOfTheAdapterAndItsContent) {
  OfAdapter of;
  of.agent.hold_back = true;
  const KvTransfer fetch{.fetch = true, .source_request = "r", .source_host = "x", .source_port = 9};
  of.Add(fetch);
  of.Add(fetch, "");
  of.scheduler.Schedule(256);
  ASSERT_EQ(of.agent.orders().size(), 2u);
  EXPECT_EQ(of.agent.orders().at(0).adapter, "'a' (0000000000000007)");
  EXPECT_EQ(of.agent.orders().at(1).adapter, "");
  const Sequence* const held = of.Add({.hold = true});
  of.scheduler.Schedule(256);
  EXPECT_EQ(of.agent.known().at(held->hold_id).adapter, "'a' (0000000000000007)");
}

TEST(HandOff, IdsOfClientsNameTheAdapterToo) {
  OfAdapter of;
  const KvTransfer hold{.hold = true, .hold_id = "c", .by_prompt = true};
  std::set<std::string> ids;
  for (const char* name : {"a", "b", "", "a"}) {
    const Sequence* const sequence = of.Add(hold, name);
    of.scheduler.Schedule(256);
    ids.insert(sequence->hold_id);
    of.hand_off.Hold(*of.scheduler.All().front());
    of.scheduler.Remove(SeqId(of.next_id - 1));
  }
  EXPECT_EQ(ids.size(), 3u);
}

// What an adapter has computed, or waits for, is of no use when it is replaced; others' is.
TEST(HandOff, AReplacedAdapterForgetsWhatIsOnItsWay) {
  OfAdapter of;
  of.agent.hold_back = of.agent.keep_drops = true;
  const KvTransfer fetch{.fetch = true, .source_request = "r", .source_host = "x", .source_port = 9};
  for (const char* name : {"a", "b"}) {
    of.Add(fetch, name);
    of.Add({.hold = true}, name);
  }
  of.scheduler.Schedule(256);
  ASSERT_EQ(of.scheduler.num_running(), 2);
  ASSERT_EQ(of.hand_off.Stats().num_fetching, 2);
  of.scheduler.ForgetComputedOf(0);
  EXPECT_EQ(of.scheduler.num_running(), 1);
  EXPECT_EQ(of.hand_off.Stats().num_fetching, 1);
  int dropped = 0;
  for (const auto& [id, known] : of.agent.known()) dropped += known.dropped;
  EXPECT_EQ(dropped, 1);
  EXPECT_EQ(of.hand_off.Stats().held_blocks, 3 + 3);  // of the drop, and of the fetch that was given up
  for (Sequence* sequence : of.scheduler.All()) {
    if (sequence->adapter == 0) sequence->UseAdapter({.name = "a", .slot = 0, .version = 2, .digest = 8});
  }
  of.scheduler.Schedule(256);  // both of them are computed here now, and held under the new content
  EXPECT_EQ(of.scheduler.num_running(), 3);
  of.agent.Deliver();
  for (const auto& [id, known] : of.agent.known()) {
    if (known.dropped) of.agent.EndLease(id, handoff::LeaseEnd::kDropped);
  }
  for (const auto& fetched : of.hand_off.Poll()) of.scheduler.Fetched(fetched.id, fetched.num_tokens);
  EXPECT_EQ(of.hand_off.Stats().held_blocks, 0);
  std::multiset<std::string> held;
  for (const auto& [id, known] : of.agent.known()) held.insert(known.adapter);
  EXPECT_THAT(held, testing::UnorderedElementsAre("'a' (0000000000000008)", "'b' (0000000000000007)"));
  of.scheduler.pool().CheckIntegrity();
}

TEST(HandOff, WhatIsOfferedBeginsAnewWhereOthersKeepTheirs) {
  for (const bool of_one : {true, false}) {
    OfAdapter of;
    of.agent.keep_drops = true;
    of.Add({.hold = true});
    of.Add({}), of.Add({.hold = true}, "");
    of.scheduler.Schedule(256);
    ASSERT_EQ(of.scheduler.num_running(), 3);
    of.scheduler.ForgetOffered(of_one ? std::optional(0) : std::nullopt);
    EXPECT_EQ(of.scheduler.num_running(), of_one ? 2 : 1);
    int dropped = 0;
    for (const auto& [id, known] : of.agent.known()) dropped += known.dropped;
    EXPECT_EQ(dropped, of_one ? 1 : 2);
  }
}

TEST(HandOff, FollowersHearOfTheSameBlocks) {
  Sequence held, plain;
  plain.tokens = Prompt(20);
  plain.block_table = {7, 8};
  held.tokens = Prompt(40);
  held.block_table = {3, 1, 2};
  held.num_computed = 16;
  held.hold_open = true;
  held.hold_id = "an id of some length";
  const std::vector<ScheduledSequence> plan = {{&plain, 20}, {&held, 20}};
  const Batch batch(plan, kBlockSize);
  const Batch copy = Batch::Deserialize(batch.Serialize(), kBlockSize);
  ASSERT_EQ(copy.sources().size(), 1u);
  EXPECT_EQ(copy.sources()[0].sequence, 1);
  EXPECT_EQ(copy.sources()[0].id, held.hold_id);
  EXPECT_TRUE(copy.sources()[0].first);
  EXPECT_THAT(copy.BlocksOf(copy.sources()[0]), testing::ElementsAre(3, 1, 2));
  EXPECT_EQ(copy.Serialize(), batch.Serialize());
}

// Random arrivals of all kinds, in too small a pool; agents that answer late, fail, and keep what was
// dropped. Nobody waits for ever, and every block comes back.
TEST(HandOff, RandomLoadEndsWithEveryBlockFree) {
  std::mt19937 rng(7);
  for (int round = 0; round < 30; ++round) {
    FakeNet net;
    FakeAgent agent(net, 1);
    agent.hold_back = true;
    agent.keep_drops = rng() % 2 == 0;
    Scheduler scheduler({.max_num_seqs = 1 + static_cast<int32_t>(rng() % 6),
                         .max_num_batched_tokens = 16 + static_cast<int32_t>(rng() % 60),
                         .enable_chunked_prefill = rng() % 3 != 0,
                         .enable_prefix_caching = rng() % 2 == 0},
                        14, kBlockSize);
    KvHandOff hand_off(agent, scheduler.pool(), {.name = "test"});
    scheduler.Attach(hand_off);
    int64_t next_id = 0;
    std::map<int64_t, int64_t> wanted;  // id -> tokens at the end
    int step = 0;
    for (; step < 6000 && (next_id < 40 || !scheduler.empty() || hand_off.Stats().held_blocks > 0); ++step) {
      if (next_id < 40 && rng() % 3 == 0) {
        auto sequence = std::make_unique<Sequence>();
        sequence->id = SeqId(next_id);
        sequence->tokens = Prompt(static_cast<int32_t>(1 + rng() % 120), static_cast<int32_t>(rng() % 3));
        sequence->request.prompt = sequence->tokens;
        sequence->request.id = Format("{}", next_id);
        const auto kind = rng() % 4;
        if (kind > 0) {
          sequence->request.kv_transfer =
              KvTransfer{.hold = kind != 2,
                         .fetch = kind >= 2,
                         .source_host = "x",
                         .source_port = 9,
                         .num_tokens = rng() % 2 ? 0 : static_cast<int64_t>(1 + rng() % 130)};
        }
        wanted[next_id++] = sequence->num_tokens() + 1 + static_cast<int64_t>(rng() % 40);
        scheduler.Add(std::move(sequence));
      }
      if (rng() % 5 == 0) agent.Deliver(true, static_cast<int64_t>(rng() % 140));
      for (const auto& [id, known] : agent.known()) {
        if ((known.leased || known.dropped) && rng() % 6 == 0)
          agent.EndLease(id, known.leased ? handoff::LeaseEnd::kFetched : handoff::LeaseEnd::kDropped);
      }
      for (const auto& fetched : hand_off.Poll()) scheduler.Fetched(fetched.id, fetched.num_tokens);
      const auto plan = scheduler.Schedule(1000);
      for (const auto& s : plan) {
        ASSERT_GT(s.num_tokens, 0);
        ASSERT_GE(std::ssize(s.sequence->block_table) * kBlockSize, s.sequence->num_computed + s.num_tokens);
      }
      for (const auto& s : plan) {
        const bool completes = s.completes();
        scheduler.Computed(s);
        if (completes) s.sequence->tokens.push_back(7);
      }
      for (Sequence* sequence : scheduler.All()) {
        const bool ends =
            sequence->num_generated() > 0 && sequence->num_tokens() >= wanted[sequence->id.value];
        if (ends && sequence->request.kv_transfer && sequence->request.kv_transfer->hold)
          hand_off.Hold(*sequence);
        if (ends || rng() % 300 == 0) scheduler.Remove(sequence->id);
      }
      scheduler.pool().CheckIntegrity();
    }
    EXPECT_TRUE(scheduler.empty()) << "round " << round;
    EXPECT_EQ(scheduler.pool().num_available(), 14) << "round " << round;
    EXPECT_LT(step, 6000) << "round " << round;
  }
}

}  // namespace
}  // namespace cadre::engine
