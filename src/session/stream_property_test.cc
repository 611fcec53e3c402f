// What a client hears does not depend on how it was cut: random bytes, stop strings and wakes.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "session/fake_text.h"
#include "session/generation.h"

namespace cadre::session {
namespace {

// Few letters, so that stop strings meet the text; some code points of several bytes, some of them broken.
rc::Gen<int32_t> Tokens() {
  return rc::gen::elementOf(std::vector<int32_t>{'a', 'b', 'c', 0xc3, 0xbc, 0xe2, 0x82, 0xac, 0xf0, 0x9f,
                                                 0x98, 0x80, 0xff, FakeText::kEos});
}
rc::Gen<std::string> StopStrings() {
  return rc::gen::nonEmpty(rc::gen::container<std::string>(rc::gen::elementOf(std::string("abc"))));
}

// Hands its tokens out where the test says, and runs nothing by itself.
class Puppet final : public engine::Engine {
 public:
  class Handle final : public engine::RequestHandle {
    void Cancel() override {}
    int rank() const override { return 0; }
  };
  const engine::ModelInfo& model_info() const override { return info_; }
  Result<std::unique_ptr<engine::RequestHandle>> Submit(engine::Request,
                                                        std::shared_ptr<engine::EventSink> to) override {
    sink = std::move(to);
    return std::make_unique<Handle>();
  }
  std::vector<engine::RankStats> Stats() const override { return {}; }
  Status Health() const override { return {}; }
  Status ResetPrefixCache() override { return {}; }
  void Drain(TimePoint) override {}

  std::shared_ptr<engine::EventSink> sink;

 private:
  engine::ModelInfo info_;
};

struct Heard final : Listener {
  void OnAccepted(Accepted) override {}
  void OnPrompt(size_t, PromptResult) override {}
  void OnDelta(size_t, const Delta& delta, std::span<const TimePoint>) override {
    RC_ASSERT(num_ends == 0);
    text += delta.text;
    num_tokens += delta.tokens.size();
    if (delta.end == nullptr) return;
    ++num_ends;
    if (const auto* stop = std::get_if<std::string>(&delta.end->stop_reason)) stopped_by = *stop;
  }
  void OnFailure(const Error&) override { RC_FAIL("failed"); }
  void OnBatchEnd(bool all_ended) override { ended = all_ended; }

  std::string text, stopped_by;
  size_t num_tokens = 0;
  int num_ends = 0;
  bool ended = false;
};

struct Scene {
  std::vector<int32_t> tokens;
  std::vector<std::string> stops;
  bool include_stop = false;
  int64_t interval = 1;
};

// `cuts`: after which tokens the io thread gets to run.
Heard Hear(const Scene& scene, const std::vector<bool>& cuts) {
  const FakeText text;
  Puppet engine;
  auto heard = std::make_shared<Heard>();
  std::vector<std::move_only_function<void()>> tasks;
  const auto run = [&] {
    for (auto& task : std::exchange(tasks, {})) task();
  };
  const auto generation = std::make_shared<Generation>(
      Generation::Options{true, scene.interval}, &text, heard,
      [&](std::move_only_function<void()> task) { tasks.push_back(std::move(task)); });
  SequenceSpec spec;
  spec.request.prompt = {'x'};
  spec.request.sampling.ignore_eos = true;
  spec.stop = scene.stops;
  spec.include_stop = scene.include_stop;
  if (!scene.stops.empty()) spec.stop_matcher.emplace(scene.stops, scene.include_stop);
  std::vector<SequenceSpec> specs;
  specs.push_back(std::move(spec));
  RC_ASSERT(generation->Start(engine, std::move(specs)).has_value());
  engine.sink->OnPrompt(0, {});
  for (size_t i = 0; i + 1 < scene.tokens.size(); ++i) {
    engine.sink->OnTokens({{.token = scene.tokens[i], .logprobs = {}}});
    if (cuts[i % cuts.size()]) run();
  }
  engine.sink->OnFinish(
      {{.token = scene.tokens.back(), .logprobs = {}}},
      {.reason = engine::FinishReason::kLength, .stop_token = {}, .error = {}, .times = {}});
  engine.sink.reset();
  run();
  RC_ASSERT(heard->ended);
  RC_ASSERT(heard->num_ends == 1);
  return *heard;
}

// The slow twin: all text at once, the first place where a stop string ends.
std::string Whole(const Scene& scene, std::string& stopped_by) {
  const std::string all = FakeText().Decode(scene.tokens, true);
  for (size_t end = 1; end <= all.size(); ++end) {
    for (const std::string& stop : scene.stops) {
      if (end < stop.size() || all.compare(end - stop.size(), stop.size(), stop) != 0) continue;
      stopped_by = stop;
      return all.substr(0, scene.include_stop ? end : end - stop.size());
    }
  }
  return all;
}

TEST(StreamProperty, CutsDoNotMatter) {
  EXPECT_TRUE(rc::check("a stream's text is the whole text up to its stop", [] {
    Scene scene;
    scene.tokens = *rc::gen::nonEmpty(rc::gen::container<std::vector<int32_t>>(Tokens()));
    scene.stops = *rc::gen::resize(4, rc::gen::container<std::vector<std::string>>(StopStrings()));
    scene.include_stop = *rc::gen::arbitrary<bool>();
    scene.interval = *rc::gen::inRange(1, 6);
    const auto cuts = *rc::gen::nonEmpty(rc::gen::container<std::vector<bool>>(rc::gen::arbitrary<bool>()));
    std::string stopped_by;
    const std::string whole = Whole(scene, stopped_by);
    const Heard heard = Hear(scene, cuts);
    RC_ASSERT(heard.text == whole);
    RC_ASSERT(heard.stopped_by == stopped_by);
    if (stopped_by.empty()) RC_ASSERT(heard.num_tokens == scene.tokens.size());
  }));
}

}  // namespace
}  // namespace cadre::session
