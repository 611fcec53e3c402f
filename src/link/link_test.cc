#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <random>
#include <thread>

#include "engine/eplb_testing.h"
#include "link/engine_client.h"
#include "link/engine_server.h"
#include "link/wire.h"
#include "sys/sockets.h"

namespace cadre::link {
namespace {

engine::Request FullRequest() {
  engine::Request request;
  request.id = "r1";
  request.prompt = {1, 2, 3};
  request.sampling.logit_bias = {{4, 0.5f}};
  request.sampling.bad_words = {{1, 2}, {}};
  request.sampling.logprobs = 3;
  request.sampling.stop_token_ids = {9};
  request.sampling.seed = ~0ull;
  request.cache_salt = "salt";
  request.adapter = "mine";
  request.deadline = TimePoint(Duration(12345));
  request.kv_transfer = engine::KvTransfer{.hold = true,
                                           .fetch = true,
                                           .hold_id = "h",
                                           .by_prompt = true,
                                           .source_engine = "e_dp1",
                                           .source_request = "cmpl-1-0",
                                           .source_host = "10.0.0.1",
                                           .source_port = 5600,
                                           .num_tokens = 3};
  return request;
}

TEST(Wire, ARequestComesBackWhole) {
  const std::string body = Encode(SubmitMessage{7, FullRequest()});
  const auto back = Decode<SubmitMessage>(body);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->id, 7);
  EXPECT_EQ(back->request.prompt, FullRequest().prompt);
  EXPECT_EQ(back->request.sampling.bad_words, FullRequest().sampling.bad_words);
  EXPECT_EQ(back->request.sampling.logprobs, 3);
  EXPECT_EQ(back->request.adapter, "mine");
  EXPECT_EQ(back->request.deadline, FullRequest().deadline);
  ASSERT_TRUE(back->request.kv_transfer.has_value());
  EXPECT_EQ(back->request.kv_transfer->source_host, "10.0.0.1");
  EXPECT_EQ(back->request.kv_transfer->source_port, 5600);
  EXPECT_EQ(Encode(*back), body);
}

TEST(Wire, WhatIsHeldComesBackWhole) {
  FinishMessage message{.id = 3, .last_tokens = {}, .finish = {}};
  message.finish.held = engine::HeldKv{.engine_id = "e",
                                       .request_id = "r",
                                       .host = "h",
                                       .port = 1,
                                       .tp_size = 2,
                                       .expires_s = 0.5,
                                       .blocks = {4, 5},
                                       .tokens = {6, 7, 8}};
  const auto back = Decode<FinishMessage>(Encode(message));
  ASSERT_TRUE(back.has_value() && back->finish.held.has_value());
  EXPECT_EQ(back->finish.held->tokens, (std::vector<int32_t>{6, 7, 8}));
  EXPECT_EQ(back->finish.held->blocks, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(Encode(*back), Encode(message));
}

TEST(Wire, DamagedBytesAreAnError) {
  const std::string body = Encode(SubmitMessage{7, FullRequest()});
  for (size_t length = 0; length < body.size(); ++length) {
    EXPECT_FALSE(Decode<SubmitMessage>(std::string_view(body).substr(0, length)).has_value()) << length;
  }
  EXPECT_FALSE(Decode<SubmitMessage>(body + "x").has_value());
  std::mt19937 rng(1);
  for (int i = 0; i < 5000; ++i) {  // whatever comes out, nothing may crash or take memory without bound
    std::string damaged = body;
    for (int flips = 0; flips < 4; ++flips) damaged[rng() % damaged.size()] = static_cast<char>(rng());
    (void)Decode<SubmitMessage>(damaged);
    (void)Decode<TokensMessage>(damaged);
    (void)Decode<FinishMessage>(damaged);
  }
  const std::string eplb =
      Encode(EplbMessage{.id = 1, .ok = true, .error = {}, .state = engine::SampleEplbState()});
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = eplb;
    for (int flips = 0; flips < 4; ++flips) damaged[rng() % damaged.size()] = static_cast<char>(rng());
    if (const auto read = Decode<EplbMessage>(damaged)) (void)read->state.IsWhole();
  }
}

// Answers each prompt with its tokens, from a thread of its own, or waits for cancellation if the prompt is
// {0}.
class EchoEngine : public engine::Engine {
 public:
  ~EchoEngine() override {
    for (auto& thread : threads_) thread.join();
  }
  const engine::ModelInfo& model_info() const override { return info_; }
  Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request request,
                                                        std::shared_ptr<engine::EventSink> sink) override {
    if (request.prompt.size() > 100) return Fail(Code::kInvalidArgument, "too long");
    const std::lock_guard lock(mutex_);
    auto cancelled = cancellations_.emplace_back(std::make_shared<std::atomic<bool>>(false));
    changed_.notify_all();
    threads_.emplace_back([this, request, sink, cancelled] {
      Answer(request, *sink, *cancelled);
      const std::lock_guard ending(mutex_);
      ++num_ended_;
      changed_.notify_all();
    });
    struct Handle : engine::RequestHandle {
      std::shared_ptr<std::atomic<bool>> cancelled;
      std::atomic<int>* num_cancelled = nullptr;
      void Cancel() override {
        ++*num_cancelled;
        EchoEngine::Cancel(*cancelled);
      }
      int rank() const override { return 3; }
    };
    auto handle = std::make_unique<Handle>();
    handle->cancelled = cancelled;
    handle->num_cancelled = &num_cancelled_;
    return handle;
  }
  std::vector<engine::RankStats> Stats() const override {
    engine::RankStats stats{.rank = 3};
    for (const int64_t tokens : {1, 1, 700, 20000}) stats.step_sizes.Add(tokens);
    stats.eplb = engine::SampleEplbState().stats;
    stats.eplb.version = eplb_version;
    stats.eplb.moving = eplb_moving;
    stats.prompt_tokens = ++num_stats_;
    return {stats};
  }
  Result<engine::EplbState> Eplb(TimePoint deadline) const override {
    while (eplb_hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return balanced ? engine::LargeEplbState(40, 256) : Engine::Eplb(deadline);
  }
  void Prefixes(engine::PrefixQuery query, engine::PrefixDone done) override {
    if (query.since == 99) return;  // for ever
    if (query.limit == 0) return done(Fail(Code::kInvalidArgument, "nothing is wanted"));
    done(engine::PrefixChanges{.epoch = query.epoch,
                               .version = query.since + query.base,
                               .reset = true,
                               .block_size = static_cast<int32_t>(query.limit),
                               .removed = {~0ull},
                               .added = {1, 2}});
  }
  void Control(engine::ControlRequest request, engine::ControlDone done) override {
    if (request.weights.folder == "hang") return;
    if (request.kind != engine::ControlKind::kWeights) return done(Fail(Code::kNotFound, "no such thing"));
    engine::ControlState state{.paused = request.clear_cache,
                               .generation = request.weights.port,
                               .seconds = 0.5,
                               .bytes = request.weights.timeout_s};
    if (request.weights.in_place)  // an adapter that the next report does not know yet
      state.adapters = {{{request.weights.name, request.weights.folder, 1, 2}}, 4};
    done(std::move(state));
  }
  std::atomic<bool> balanced = true, eplb_hangs = false, eplb_moving = false;
  std::atomic<int64_t> eplb_version = 1;
  Status Health() const override { return {}; }
  Status ResetPrefixCache() override { return {}; }
  int num_cancelled() const { return num_cancelled_; }
  // Waits until so many requests have come in all.
  void WaitForRequests(size_t number) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return cancellations_.size() >= number; });
  }
  // As a front that goes away ends what it has asked for.
  void Drain(TimePoint) override {
    std::unique_lock lock(mutex_);
    for (const auto& cancelled : cancellations_) Cancel(*cancelled);
    changed_.wait(lock, [&] { return num_ended_ == cancellations_.size(); });
  }

 private:
  static void Answer(const engine::Request& request, engine::EventSink& sink, std::atomic<bool>& cancelled) {
    if (request.prompt.front() == 0) {
      cancelled.wait(false);
      return sink.OnFinish({}, {.reason = engine::FinishReason::kAbort});
    }
    sink.OnPrompt(2, {});
    for (size_t i = 0; i + 1 < request.prompt.size(); ++i) sink.OnTokens({{.token = request.prompt[i]}});
    sink.OnFinish({{.token = request.prompt.back()}}, {.reason = engine::FinishReason::kLength});
  }
  static void Cancel(std::atomic<bool>& cancelled) {
    cancelled = true;
    cancelled.notify_all();
  }

  mutable std::atomic<int64_t> num_stats_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t num_ended_ = 0;
  std::atomic<int> num_cancelled_ = 0;
  std::vector<std::shared_ptr<std::atomic<bool>>> cancellations_;  // of all requests
  engine::ModelInfo info_{.vocab_size = 10, .max_model_len = 20, .num_kv_blocks = 30, .block_size = 16};
  std::vector<std::thread> threads_;
};

class Collector : public engine::EventSink {
 public:
  void OnPrompt(int num_cached, std::vector<engine::Logprobs>) override { num_cached_tokens = num_cached; }
  void OnTokens(std::vector<engine::GeneratedToken> generated) override {
    for (const auto& token : generated) tokens.push_back(token.token);
  }
  void OnFinish(std::vector<engine::GeneratedToken> last, engine::Finish finish) override {
    num_last_tokens = last.size();
    if (!last.empty()) OnTokens(std::move(last));
    done.set_value(std::move(finish));
  }
  engine::Finish Wait() { return done.get_future().get(); }

  int num_cached_tokens = -1;
  size_t num_last_tokens = 0;
  std::vector<int32_t> tokens;
  std::promise<engine::Finish> done;
};

// A front and a rank over one socket pair.
class Link : public testing::Test {
 protected:
  Link() {
    auto [front, rank] = *sys::SocketPair();
    server_ =
        std::thread([this, fd = std::move(rank)]() mutable { served_ = ServeEngine(echo_, std::move(fd)); });
    client_ = *EngineClient::Connect(std::move(front), {.rank = 3}, Now() + std::chrono::seconds(10));
  }
  ~Link() override {
    client_.reset();
    server_.join();
  }
  std::pair<std::shared_ptr<Collector>, std::unique_ptr<engine::RequestHandle>> Ask(
      std::vector<int32_t> prompt) {
    auto sink = std::make_shared<Collector>();
    engine::Request request;
    request.prompt = std::move(prompt);
    return {sink, *client_->Submit(std::move(request), sink)};
  }

  EchoEngine echo_;
  Status served_;
  std::thread server_;
  std::unique_ptr<EngineClient> client_;
};

TEST_F(Link, TokensComeInOrderAndEndOnce) {
  EXPECT_EQ(client_->model_info().num_kv_blocks, 30);
  std::vector<std::pair<std::shared_ptr<Collector>, std::unique_ptr<engine::RequestHandle>>> asked;
  for (int32_t i = 1; i < 50; ++i) asked.push_back(Ask({i, i + 1, i + 2}));
  for (int32_t i = 1; i < 50; ++i) {
    Collector& sink = *asked[static_cast<size_t>(i - 1)].first;
    EXPECT_EQ(sink.Wait().reason, engine::FinishReason::kLength);
    EXPECT_EQ(sink.tokens, (std::vector<int32_t>{i, i + 1, i + 2}));
    EXPECT_EQ(sink.num_cached_tokens, 2);
    EXPECT_EQ(sink.num_last_tokens, 1u);
  }
  EXPECT_EQ(client_->num_in_flight(), 0);
  EXPECT_EQ(asked[0].second->rank(), 3);
}

// A front that lists the adapters of its rank has to know them before anything has happened there.
TEST_F(Link, TheAnnouncementCarriesTheFirstStats) {
  const engine::StepSizes sizes = client_->Stats()[0].step_sizes;
  EXPECT_EQ(sizes.sum, 20702);
  EXPECT_EQ(sizes.counts, (std::vector<int64_t>{2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}));
}

TEST_F(Link, CancelAndRefusalTravel) {
  auto [waiting, handle] = Ask({0});
  handle->Cancel();
  EXPECT_EQ(waiting->Wait().reason, engine::FinishReason::kAbort);
  const engine::Finish refused = Ask(std::vector<int32_t>(200, 1)).first->Wait();
  EXPECT_EQ(refused.reason, engine::FinishReason::kError);
  EXPECT_EQ(refused.error.code, Code::kInvalidArgument);
}

// One more front at the rank of the fixture.
std::unique_ptr<EngineClient> OneMore(EngineClient& first) {
  auto [front, rank] = *sys::SocketPair();
  first.AddFront(std::move(rank), "");
  return *EngineClient::Connect(std::move(front),
                                {.rank = 3, .max_queued_requests = 4096, .owns_engine = false},
                                Now() + std::chrono::seconds(10));
}

TEST_F(Link, TheStateOfBalancingIsAskedFor) {
  const TimePoint soon = Now() + std::chrono::seconds(10);
  const auto state = client_->Eplb(soon);
  ASSERT_TRUE(state) << state.error().message;
  EXPECT_EQ(Encode(EplbMessage{.id = 1, .error = {}, .state = *state}),
            Encode(EplbMessage{.id = 1, .error = {}, .state = engine::LargeEplbState(40, 256)}));
  echo_.balanced = false;
  EXPECT_EQ(client_->Eplb(soon).error().code, Code::kNotFound);
  EXPECT_EQ(OneMore(*client_)->Eplb(soon).error().code, Code::kNotFound);  // any front may ask
}

TEST_F(Link, ARankThatHangsOrDiesLeavesNobodyWaitingForItsState) {
  echo_.eplb_hangs = true;
  const TimePoint start = Now();
  const auto hung = client_->Eplb(start + std::chrono::milliseconds(100));
  EXPECT_EQ(hung.error().code, Code::kUnavailable);
  EXPECT_NE(hung.error().message.find("rank 3"), std::string::npos);
  EXPECT_GE(Now() - start, std::chrono::milliseconds(100));
  std::thread dying([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    client_->Fail({Code::kUnavailable, "rank 3 was killed", {}});
  });
  EXPECT_EQ(client_->Eplb(Now() + std::chrono::minutes(5)).error().message, "rank 3 was killed");
  EXPECT_EQ(client_->Eplb(Now() + std::chrono::minutes(5)).error().message, "rank 3 was killed");
  dying.join();
  echo_.eplb_hangs = false;
}

// Waits until `until` is true of the client's stats.
template <typename Until>
bool WaitForStats(const EngineClient& client, Until until) {
  for (int i = 0; i < 2000; ++i) {
    if (until(client.Stats()[0])) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

TEST_F(Link, LongVectorsAreToldWhenTheyChangeAndKeptWhenNot) {
  // Without any request: a front knows from the start whether experts are balanced.
  EXPECT_TRUE(WaitForStats(*client_, [](const auto& s) { return s.eplb.expert_tokens.size() == 6; }));
  const int64_t first = client_->Stats()[0].prompt_tokens;
  Ask({1, 2}).first->Wait();
  EXPECT_TRUE(WaitForStats(*client_, [&](const auto& s) { return s.prompt_tokens > first; }));
  EXPECT_EQ(client_->Stats()[0].eplb.expert_tokens, engine::SampleEplbState().stats.expert_tokens);
  EXPECT_EQ(client_->Stats()[0].eplb.layer_balancedness.size(), 2u);
  const auto late = OneMore(*client_);  // has none to keep
  EXPECT_TRUE(WaitForStats(*late, [](const auto& s) { return s.eplb.rank_tokens.size() == 2; }));
  echo_.eplb_version = 2;
  Ask({1, 2}).first->Wait();
  EXPECT_TRUE(WaitForStats(
      *client_, [](const auto& s) { return s.eplb.version == 2 && s.eplb.rank_tokens.size() == 2; }));
}

TEST_F(Link, ARebalanceIsToldThoughNobodyAsksForTokens) {
  echo_.eplb_moving = true;
  Ask({1, 2}).first->Wait();
  EXPECT_TRUE(WaitForStats(*client_, [](const auto& s) { return s.eplb.moving; }));
  echo_.eplb_moving = false;  // no event tells it
  EXPECT_TRUE(WaitForStats(*client_, [](const auto& s) { return !s.eplb.moving; }));
}

TEST_F(Link, OrdersAreAnsweredAndEndWithTheRank) {
  const auto tell = [&](const engine::ControlRequest& request) {
    auto heard = std::make_shared<std::promise<Result<engine::ControlState>>>();
    client_->Control(request,
                     [heard](Result<engine::ControlState> state) { heard->set_value(std::move(state)); });
    return heard->get_future();
  };
  const auto done = tell({.kind = engine::ControlKind::kWeights,
                          .clear_cache = true,
                          .weights = {.folder = "/x", .port = 7, .timeout_s = 9}})
                        .get();
  ASSERT_TRUE(done.has_value());
  EXPECT_TRUE(done->paused);
  EXPECT_EQ(done->generation, 7);
  EXPECT_EQ(done->bytes, 9);
  // The generation is known with the answer.
  EXPECT_EQ(client_->Stats()[0].weight_generation, 7);
  // So are adapters, and all stay known whatever older report comes after it.
  const auto loaded = tell({.kind = engine::ControlKind::kWeights,
                            .weights = {.kind = engine::WeightOrder::Kind::kLoadAdapter,
                                        .folder = "/p",
                                        .name = "mine",
                                        .in_place = true}})
                          .get();
  ASSERT_TRUE(loaded.has_value());
  const int64_t reports = client_->Stats()[0].prompt_tokens;
  for (int i = 0; i < 2; ++i) {
    const engine::AdapterList adapters = client_->Stats()[0].adapters;
    EXPECT_EQ(adapters, loaded->adapters);
    ASSERT_NE(adapters.Find("mine"), nullptr);
    EXPECT_EQ(client_->Stats()[0].weight_generation, 7);
    EXPECT_EQ(adapters.Find("mine")->path, "/p");
    EXPECT_TRUE(WaitForStats(*client_, [&](const auto& s) { return s.prompt_tokens > reports; }));
  }
  EXPECT_EQ(tell({.kind = engine::ControlKind::kProbe}).get().error().message, "no such thing");
  auto hanging = tell({.kind = engine::ControlKind::kWeights, .weights = {.folder = "hang"}});
  client_->Fail({Code::kUnavailable, "rank 3 was killed", {}});
  EXPECT_EQ(hanging.get().error().message, "rank 3 was killed");
  EXPECT_EQ(tell({.kind = engine::ControlKind::kProbe}).get().error().message, "rank 3 was killed");
}

TEST_F(Link, WhatARankHoldsIsAskedForAndEndsWithIt) {
  const auto ask = [&](const engine::PrefixQuery& query) {
    auto heard = std::make_shared<std::promise<Result<engine::PrefixChanges>>>();
    client_->Prefixes(
        query, [heard](Result<engine::PrefixChanges> changes) { heard->set_value(std::move(changes)); });
    return heard->get_future();
  };
  const auto changes = ask({.epoch = 5, .since = 7, .base = 3, .limit = 16}).get();
  ASSERT_TRUE(changes.has_value());
  EXPECT_EQ(changes->epoch, 5u);
  EXPECT_EQ(changes->version, 10);
  EXPECT_TRUE(changes->reset);
  EXPECT_EQ(changes->block_size, 16);
  EXPECT_EQ(changes->removed, std::vector<uint64_t>{~0ull});
  EXPECT_EQ(changes->added, (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(ask({.limit = 0}).get().error().message, "nothing is wanted");
  auto hanging = ask({.since = 99});
  client_->Fail({Code::kUnavailable, "it died", {}});
  EXPECT_EQ(hanging.get().error().message, "it died");
  EXPECT_EQ(ask({}).get().error().message, "it died");
}

TEST_F(Link, AFailedRankEndsEveryRequestOnce) {
  auto [waiting, handle] = Ask({0});
  client_->Fail({Code::kUnavailable, "rank 3 was killed", {}});
  EXPECT_EQ(waiting->Wait().error.message, "rank 3 was killed");
  EXPECT_FALSE(client_->Health().has_value());
  EXPECT_FALSE(client_->Submit({}, std::make_shared<Collector>()).has_value());
}

std::pair<std::shared_ptr<Collector>, std::unique_ptr<engine::RequestHandle>> AskAt(
    EngineClient& front, std::vector<int32_t> prompt) {
  auto sink = std::make_shared<Collector>();
  engine::Request request;
  request.prompt = std::move(prompt);
  return {sink, *front.Submit(std::move(request), sink)};
}

TEST_F(Link, SeveralFrontsHaveIdsOfTheirOwn) {
  std::vector<std::unique_ptr<EngineClient>> fronts;
  for (int i = 0; i < 3; ++i) fronts.push_back(OneMore(*client_));
  std::vector<std::thread> users;  // ids begin at 0 in each
  for (size_t f = 0; f < fronts.size(); ++f) {
    users.emplace_back([&, f] {
      for (int32_t i = 1; i < 30; ++i) {
        const auto base = static_cast<int32_t>(1000 * f) + i;
        auto [sink, handle] = AskAt(*fronts[f], {base, base + 1});
        EXPECT_EQ(sink->Wait().reason, engine::FinishReason::kLength);
        EXPECT_EQ(sink->tokens, (std::vector<int32_t>{base, base + 1}));
      }
    });
  }
  for (auto& user : users) user.join();
  EXPECT_EQ(Ask({7}).first->Wait().reason, engine::FinishReason::kLength);
}

TEST_F(Link, AFrontThatDiesLosesItsOwnRequestsOnly) {
  auto lost = OneMore(*client_), kept = OneMore(*client_);
  auto [dying, dying_handle] = AskAt(*lost, {0});
  auto [living, living_handle] = AskAt(*kept, {0});
  auto [first, first_handle] = Ask({0});
  echo_.WaitForRequests(3);
  lost.reset();  // its socket closes
  EXPECT_EQ(dying->Wait().reason, engine::FinishReason::kError);
  for (int i = 0; i < 500 && echo_.num_cancelled() < 1; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(4));
  EXPECT_EQ(echo_.num_cancelled(), 1);  // the rank does not go on with it
  EXPECT_EQ(kept->num_in_flight(), 1);
  living_handle->Cancel();
  EXPECT_EQ(living->Wait().reason, engine::FinishReason::kAbort);
  first_handle->Cancel();
  EXPECT_EQ(first->Wait().reason, engine::FinishReason::kAbort);
  EXPECT_EQ(AskAt(*OneMore(*client_), {5}).first->Wait().reason, engine::FinishReason::kLength);
}

TEST_F(Link, AFrontThatSendsRubbishIsCutOffAlone) {
  auto [front, rank] = *sys::SocketPair();
  client_->AddFront(std::move(rank), "");
  const std::string rubbish(100, 'x');
  ASSERT_TRUE(sys::SendAll(front.get(), std::as_bytes(std::span(rubbish)), Now() + std::chrono::seconds(5)));
  while (sys::RecvFrame(front.get(), 1 << 20, Now() + std::chrono::seconds(5))) {
  }
  EXPECT_EQ(Ask({7}).first->Wait().reason, engine::FinishReason::kLength);
}

TEST_F(Link, AFurtherFrontDrainsItsOwnRequests) {
  auto other = OneMore(*client_);
  auto [mine, mine_handle] = Ask({0});
  auto [theirs, theirs_handle] = AskAt(*other, {0});
  other->Drain(Now() + std::chrono::milliseconds(20));
  EXPECT_EQ(theirs->Wait().reason, engine::FinishReason::kAbort);
  EXPECT_FALSE(other->Submit({}, std::make_shared<Collector>()).has_value());
  EXPECT_EQ(client_->num_in_flight(), 1);
  mine_handle->Cancel();
  EXPECT_EQ(mine->Wait().reason, engine::FinishReason::kAbort);
}

TEST_F(Link, TheEndOfTheFirstFrontEndsAll) {
  auto other = OneMore(*client_);
  auto [theirs, handle] = AskAt(*other, {0});
  echo_.WaitForRequests(1);
  client_->Drain(Now() + std::chrono::milliseconds(20));
  EXPECT_EQ(theirs->Wait().reason, engine::FinishReason::kAbort);
}

TEST_F(Link, DrainComesBack) {
  client_->Drain(Now() + std::chrono::seconds(5));
  EXPECT_FALSE(client_->Submit({}, std::make_shared<Collector>()).has_value());
}

}  // namespace
}  // namespace cadre::link
