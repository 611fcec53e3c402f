#include "session/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>

#include "session/fake_engine.h"
#include "session/fake_text.h"
#include "session/hf_text.h"

namespace cadre::session {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Runs posted tasks on the test's thread and keeps what was heard.
class Recorder final : public Listener {
 public:
  void OnAccepted(Accepted a) override { accepted = std::move(a); }
  void OnPrompt(size_t sequence, PromptResult prompt) override { prompts[sequence] = std::move(prompt); }
  void OnDelta(size_t sequence, const Delta& delta, std::span<const TimePoint> steps) override {
    texts[sequence] += delta.text;
    pieces.emplace_back(delta.text);
    for (const auto& token : delta.tokens) tokens[sequence].push_back(token.token);
    num_steps += steps.size();
    if (delta.end != nullptr) {
      EXPECT_FALSE(ends.contains(sequence));
      ends[sequence] = *delta.end;
    }
  }
  void OnFailure(const Error& error) override {
    failure = error;
    done = true;
  }
  void OnBatchEnd(bool all_ended) override { done = all_ended; }

  PostFunction Post() {
    return [this](std::move_only_function<void()> task) {
      const std::lock_guard lock(mutex);
      if (closed) return;
      tasks.push_back(std::move(task));
      signal.notify_all();
    };
  }
  /// Runs nothing more: a task that was never run would hold the generation, which holds this listener.
  void Close() {
    std::deque<std::move_only_function<void()>> dropped;
    const std::lock_guard lock(mutex);
    closed = true;
    dropped.swap(tasks);
  }
  bool RunUntilDone(std::chrono::seconds limit = std::chrono::seconds(10)) {
    const TimePoint end = Now() + limit;
    while (!done) {
      std::unique_lock lock(mutex);
      if (!signal.wait_until(lock, end, [this] { return !tasks.empty(); })) return false;
      auto task = std::move(tasks.front());
      tasks.pop_front();
      lock.unlock();
      task();
      ++num_wakes;
    }
    return true;
  }

  Accepted accepted;
  std::map<size_t, PromptResult> prompts;
  std::map<size_t, std::string> texts;
  std::vector<std::string> pieces;
  std::map<size_t, std::vector<int32_t>> tokens;
  std::map<size_t, SequenceEnd> ends;
  Error failure;
  size_t num_steps = 0;
  int num_wakes = 0;
  bool done = false, closed = false;
  std::mutex mutex;
  std::condition_variable signal;
  std::deque<std::move_only_function<void()>> tasks;
};

struct Bench {
  explicit Bench(FakeEngineOptions options = {}, SessionOptions session_options = {}, bool with_text = true,
                 std::shared_ptr<const TextModel> text = std::make_shared<FakeText>())
      : engine([&] {
          options.model.vocab_size = 257;
          return options;
        }()),
        session(session_options, engine, with_text ? std::move(text) : nullptr) {}
  // Says `script`, then the end token.
  static FakeEngineOptions Saying(const std::string& script, bool end = true) {
    FakeEngineOptions options;
    options.next_token = [script, end](const engine::Request&, int i) -> int32_t {
      if (static_cast<size_t>(i) >= script.size()) return end ? FakeText::kEos : 'z';
      return static_cast<unsigned char>(script[static_cast<size_t>(i)]);
    };
    return options;
  }
  GenerateRequest Ask(const std::string& prompt) {
    GenerateRequest request;
    request.id = "test";
    request.prompts.emplace_back(TextPrompt{prompt});
    request.stream = true;
    return request;
  }
  std::shared_ptr<Recorder> Run(GenerateRequest request) {
    auto recorder = std::make_shared<Recorder>();
    const auto generation = session.Start(std::move(request), recorder, recorder->Post());
    EXPECT_TRUE(generation.has_value()) << generation.error().message;
    if (generation.has_value()) {
      EXPECT_TRUE(recorder->RunUntilDone());
    }
    recorder->Close();
    return recorder;
  }
  Error Refusal(GenerateRequest request) {
    auto recorder = std::make_shared<Recorder>();
    const auto generation = session.Start(std::move(request), recorder, recorder->Post());
    EXPECT_FALSE(generation.has_value());
    return generation.has_value() ? Error{} : generation.error();
  }

  FakeEngine engine;
  Session session;
};

TEST(Session, GeneratesAndDefaultsTo16Tokens) {
  Bench bench;
  const auto got = bench.Run(bench.Ask("abc"));
  EXPECT_EQ(got->texts[0], "abcabcabcabcabca");
  EXPECT_EQ(got->ends[0].reason, engine::FinishReason::kLength);
  EXPECT_EQ(got->ends[0].num_tokens, 16);
  EXPECT_EQ(got->num_steps, 16u);
}

TEST(Session, FillsTheContextForChats) {
  FakeEngineOptions options;
  options.model.max_model_len = 40;
  Bench bench(options);
  GenerateRequest request;
  ChatPrompt chat;
  chat.messages = Json::Array{Json::Object{{"role", "user"}, {"content", "hi"}}};
  request.prompts.emplace_back(chat);
  request.fill_context = true;
  const auto got = bench.Run(request);
  EXPECT_EQ(got->accepted.texts[0], "user: hi\nassistant:");
  EXPECT_EQ(got->tokens[0].size(), 40 - got->accepted.texts[0].size());
}

TEST(Session, EndTokenIsCountedNotShown) {
  Bench bench(Bench::Saying("hello"));
  auto request = bench.Ask("x");
  const auto got = bench.Run(request);
  EXPECT_EQ(got->texts[0], "hello");
  EXPECT_EQ(got->ends[0].num_tokens, 6);
  EXPECT_EQ(got->tokens[0].back(), FakeText::kEos);
  EXPECT_EQ(got->ends[0].reason, engine::FinishReason::kStop);
  EXPECT_EQ(got->ends[0].stop_reason.index(), 0u);

  request.sampling.skip_special_tokens = false;
  EXPECT_EQ(bench.Run(request)->texts[0], "hello");
  request.sampling.include_stop_str_in_output = true;
  EXPECT_EQ(bench.Run(request)->texts[0], "hello<eos>");
  request.sampling.include_stop_str_in_output = false;
  request.sampling.ignore_eos = true;
  request.sampling.max_tokens = 8;
  EXPECT_EQ(bench.Run(request)->texts[0], "hello<eos><eos><eos>");
}

TEST(Session, StopTokenIsReported) {
  Bench bench(Bench::Saying("hello"));
  auto request = bench.Ask("x");
  request.sampling.stop_token_ids = {'l'};
  const auto got = bench.Run(request);
  EXPECT_EQ(got->texts[0], "he");
  EXPECT_EQ(got->ends[0].num_tokens, 3);
  EXPECT_EQ(std::get<int32_t>(got->ends[0].stop_reason), 'l');
}

TEST(Session, StopStringEndsAndCancels) {
  FakeEngineOptions options = Bench::Saying("one two three four", false);
  options.step_time = std::chrono::milliseconds(1);
  Bench bench(options);
  auto request = bench.Ask("x");
  request.sampling.max_tokens = 4000;
  request.sampling.stop = {"xyz", "o t", "two th"};
  const auto got = bench.Run(request);
  EXPECT_EQ(got->texts[0], "one tw");
  EXPECT_EQ(std::get<std::string>(got->ends[0].stop_reason), "o t");
  EXPECT_EQ(got->ends[0].num_tokens, 9);
  EXPECT_EQ(got->tokens[0].size(), 9u);
  request.sampling.include_stop_str_in_output = true;
  EXPECT_EQ(bench.Run(request)->texts[0], "one two t");
  request.stream = false;
  EXPECT_EQ(bench.Run(request)->texts[0], "one two t");
  for (int i = 0; i < 500 && bench.engine.num_cancelled() < 3; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(4));
  EXPECT_EQ(bench.engine.num_cancelled(), 3);
}

TEST(Session, StopStringsWaitForMinTokens) {
  Bench bench(Bench::Saying("stop stop stop", false));
  auto request = bench.Ask("x");
  request.sampling.stop = {"stop"};
  request.sampling.min_tokens = 6;
  EXPECT_EQ(bench.Run(request)->texts[0], "stop ");
}

TEST(Session, TextThatMayBeAStopIsHeldBack) {
  Bench bench(Bench::Saying("aab aac", true));
  auto request = bench.Ask("x");
  request.sampling.stop = {"aac"};
  const auto got = bench.Run(request);
  EXPECT_EQ(got->texts[0], "aab ");
  for (const std::string& piece : got->pieces) EXPECT_EQ(piece.find('c'), std::string::npos);
}

TEST(Session, CodePointsAreNeverSplit) {
  const std::string script = "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80!";
  Bench bench(Bench::Saying(script));
  auto request = bench.Ask("x");
  request.sampling.max_tokens = 100;
  const auto got = bench.Run(request);
  EXPECT_EQ(got->texts[0], script);
  for (const std::string& piece : got->pieces) {
    EXPECT_TRUE(piece.empty() || (static_cast<unsigned char>(piece[0]) & 0xc0) != 0x80);
  }
  request.sampling.max_tokens = 3;  // ends inside the two bytes of the first umlaut
  EXPECT_EQ(bench.Run(request)->texts[0], "gr\xef\xbf\xbd");
}

TEST(Session, SeveralPromptsTimesNShareNothingButThePrompt) {
  Bench bench;
  auto request = bench.Ask("ab");
  request.prompts.emplace_back(TokenPrompt{{'x', 'y'}});
  request.sampling.n = 3;
  request.sampling.seed = 7;
  request.sampling.max_tokens = 4;
  const auto got = bench.Run(request);
  EXPECT_EQ(got->ends.size(), 6u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(got->texts[i], "abab");
  for (size_t i = 3; i < 6; ++i) EXPECT_EQ(got->texts[i], "xyxy");
  EXPECT_EQ(bench.engine.last_request().sampling.seed, 9u);
}

TEST(Session, WithoutAStreamFewWakes) {
  Bench bench;
  auto request = bench.Ask("ab");
  request.stream = false;
  request.sampling.max_tokens = 400;
  const auto got = bench.Run(request);
  EXPECT_EQ(got->tokens[0].size(), 400u);
  EXPECT_EQ(got->num_wakes, 1);
}

TEST(Session, TheEndComesWithTheLastText) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(3);  // every token has a wake of its own
  Bench bench(options);
  auto request = bench.Ask("abcd");
  request.sampling.max_tokens = 4;
  const auto got = bench.Run(request);
  // On a busy machine two tokens may share a wake.
  EXPECT_THAT(got->pieces.back(), testing::EndsWith("d"));
  EXPECT_LE(got->num_wakes, 4);
}

TEST(Session, StreamIntervalGathersTokens) {
  Bench bench;
  auto request = bench.Ask("abcdef");
  request.sampling.max_tokens = 21;
  request.stream_interval = 5;
  const auto got = bench.Run(request);
  EXPECT_EQ(got->texts[0], "abcdefabcdefabcdefabc");
  EXPECT_LE(got->pieces.size(), 6u);
  EXPECT_EQ(got->num_steps, 21u);
}

TEST(Session, DefaultsComeFromTheGenerationConfig) {
  SessionOptions options;
  options.defaults = *SamplingDefaults::FromJson(*Json::Parse(
      R"({"temperature":0.7,"top_p":0.9,"top_k":20,"max_new_tokens":5,"eos_token_id":[98,300],"do_sample":true})"));
  options.eos_token_ids = {99};
  Bench bench({}, options);
  auto request = bench.Ask("xyz");
  request.sampling.max_tokens = 9;
  EXPECT_EQ(bench.Run(request)->tokens[0].size(), 5u);  // a ceiling
  const engine::SamplingParams sampling = bench.engine.last_request().sampling;
  EXPECT_EQ(sampling.temperature, 0.7);
  EXPECT_EQ(sampling.top_p, 0.9);
  EXPECT_EQ(sampling.top_k, 20);
  EXPECT_THAT(sampling.eos_token_ids, ElementsAre(98, 99, 256));
  request.sampling.temperature = 0;
  request.sampling.top_k = -1;
  bench.Run(request);
  EXPECT_EQ(bench.engine.last_request().sampling.temperature, 0);
  EXPECT_EQ(bench.engine.last_request().sampling.top_k, 0);
  EXPECT_EQ(SamplingDefaults::FromJson(*Json::Parse(R"({"top_k":"x"})")).error().param, "top_k");
}

struct BadSampling {
  const char* param;
  std::function<void(GenerateRequest&)> change;
};

TEST(Session, RefusesWhatMakesNoSense) {
  FakeEngineOptions options;
  options.model.max_model_len = 20;
  Bench bench(options);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<BadSampling> cases = {
      {"temperature", [](auto& r) { r.sampling.temperature = -1; }},
      {"temperature", [&](auto& r) { r.sampling.temperature = nan; }},
      {"top_p", [](auto& r) { r.sampling.top_p = 0; }},
      {"top_p", [](auto& r) { r.sampling.top_p = 1.01; }},
      {"top_k", [](auto& r) { r.sampling.top_k = -2; }},
      {"min_p", [](auto& r) { r.sampling.min_p = 2; }},
      {"repetition_penalty", [](auto& r) { r.sampling.repetition_penalty = 0; }},
      {"presence_penalty", [](auto& r) { r.sampling.presence_penalty = 2.1; }},
      {"frequency_penalty", [](auto& r) { r.sampling.frequency_penalty = -3; }},
      {"n", [](auto& r) { r.sampling.n = 0; }},
      {"n", [](auto& r) { r.sampling.n = 1 << 30; }},
      {"n", [](auto& r) { r.sampling.n = 2, r.sampling.temperature = 0; }},
      {"min_tokens", [](auto& r) { r.sampling.min_tokens = -1; }},
      {"min_tokens", [](auto& r) { r.sampling.min_tokens = 5, r.sampling.max_tokens = 4; }},
      {"max_tokens", [](auto& r) { r.sampling.max_tokens = 0; }},
      {"max_tokens", [](auto& r) { r.sampling.max_tokens = 18; }},
      {"logprobs", [](auto& r) { r.sampling.logprobs = 21; }},
      {"logprobs", [](auto& r) { r.sampling.logprobs = -2; }},
      {"prompt_logprobs", [](auto& r) { r.sampling.prompt_logprobs = -1; }},
      {"stop", [](auto& r) { r.sampling.stop = {""}; }},
      {"stop_token_ids", [](auto& r) { r.sampling.stop_token_ids = {257}; }},
      {"allowed_token_ids", [](auto& r) { r.sampling.allowed_token_ids = {-1}; }},
      {"logit_bias",
       [](auto& r) {
         r.sampling.logit_bias = {{999, 1.0}};
       }},
      {"bad_words", [](auto& r) { r.sampling.bad_words = {" "}; }},
      {"bad_words", [](auto& r) { r.sampling.bad_words.assign(129, "a"); }},
      {"bad_words", [](auto& r) { r.sampling.bad_words.assign(2, std::string(600, 'a')); }},
      {"logit_bias",
       [](auto& r) {
         r.sampling.logit_bias.assign(258, {1, 1.0});
       }},
      {"logit_bias",
       [](auto& r) {
         r.sampling.logit_bias = {{1, std::numeric_limits<double>::infinity()}};
       }},
      {"allowed_token_ids",
       [](auto& r) { r.sampling.allowed_token_ids.assign(5000, 1), r.sampling.n = 1000; }},
      {"prompt", [](auto& r) { r.prompts.clear(); }},
      {"prompt", [](auto& r) { r.prompts = {TextPrompt{""}}; }},
      {"prompt",
       [](auto& r) {
         r.prompts = {TokenPrompt{{1, 257}}};
       }},
      {"prompt", [](auto& r) { r.prompts = {TokenPrompt{std::vector<int64_t>(20, 1)}}; }},
      {"prompt", [](auto& r) { r.prompts = {TextPrompt{std::string(100'000, 'x')}}; }},
      {"prompt", [](auto& r) { r.prompts.resize(600, TextPrompt{"a"}), r.sampling.n = 2; }},
      {"truncate_prompt_tokens", [](auto& r) { r.truncate_prompt_tokens = 21; }},
  };
  for (const BadSampling& bad : cases) {
    auto request = bench.Ask("abc");
    bad.change(request);
    const Error error = bench.Refusal(request);
    EXPECT_EQ(error.code, Code::kInvalidArgument) << error.message;
    EXPECT_EQ(error.param, bad.param) << error.message;
  }
  auto too_long = bench.Ask(std::string(30, 'x'));
  EXPECT_THAT(bench.Refusal(too_long).message, HasSubstr("This model's maximum context length is 20 tokens"));
  too_long.truncate_prompt_tokens = -1;
  too_long.sampling.max_tokens = 5;
  EXPECT_EQ(bench.Run(too_long)->accepted.prompts[0].size(), 15u);
}

TEST(Session, CapsMaxTokensWhereToldTo) {
  SessionOptions options;
  options.cap_max_tokens = true;
  FakeEngineOptions engine_options;
  engine_options.model.max_model_len = 20;
  Bench bench(engine_options, options);
  auto request = bench.Ask("abc");
  request.sampling.max_tokens = 1000;
  EXPECT_EQ(bench.Run(request)->tokens[0].size(), 17u);
}

TEST(Session, WorksOnTokenIdsAlone) {
  Bench bench({}, {}, false);
  auto request = bench.Ask("text");
  EXPECT_THAT(bench.Refusal(request).message, HasSubstr("--skip-tokenizer-init"));
  request.prompts = {TokenPrompt{{5, 6, 7}}};
  request.sampling.max_tokens = 4;
  const auto got = bench.Run(request);
  EXPECT_THAT(got->tokens[0], ElementsAre(5, 6, 7, 5));
  EXPECT_EQ(got->texts[0], "");
  request.sampling.stop = {"x"};
  EXPECT_EQ(bench.Refusal(request).param, "stop");
}

TEST(Session, AFullQueueHalfWayLeavesNothingBehind) {
  FakeEngineOptions options;
  options.max_running = 1;
  options.max_waiting = 3;
  options.step_time = std::chrono::milliseconds(5);
  Bench bench(options);
  auto request = bench.Ask("ab");
  request.sampling.n = 20;
  request.sampling.max_tokens = 100;
  EXPECT_EQ(bench.Refusal(request).code, Code::kResourceExhausted);
  const auto is_idle = [&] {
    return bench.engine.Stats()[0].num_running + bench.engine.Stats()[0].num_waiting == 0;
  };
  for (int i = 0; i < 500 && !is_idle(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(4));
  request.sampling.n = 1;
  request.sampling.max_tokens = 2;
  EXPECT_EQ(bench.Run(request)->texts[0], "ab");
}

TEST(Session, CancelSilencesTheListener) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(1);
  Bench bench(options);
  auto request = bench.Ask("ab");
  request.sampling.max_tokens = 4000;
  auto recorder = std::make_shared<Recorder>();
  const auto generation = bench.session.Start(request, recorder, recorder->Post());
  ASSERT_TRUE(generation.has_value());
  (*generation)->Cancel();
  EXPECT_FALSE(recorder->RunUntilDone(std::chrono::seconds(0)));
  for (int i = 0; i < 500 && bench.engine.num_cancelled() == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(4));
  EXPECT_EQ(bench.engine.num_cancelled(), 1);
  EXPECT_TRUE(recorder->ends.empty());
}

TEST(Session, ExceptionsEndTheirRequestAlone) {
  FakeEngineOptions options;
  options.step_time = std::chrono::milliseconds(1);
  const auto text = std::make_shared<FakeText>();
  Bench bench(options, {}, true, text);
  auto request = bench.Ask("ab");
  request.sampling.n = 3;
  request.sampling.max_tokens = 4000;
  text->before_encode = [] { throw std::bad_alloc(); };
  EXPECT_EQ(bench.Refusal(request).code, Code::kUnavailable);
  text->before_encode = [] { throw std::runtime_error("a foreign library"); };
  EXPECT_THAT(bench.Refusal(request).message, HasSubstr("a foreign library"));
  text->before_encode = nullptr;
  int num_pushed = 0;
  text->before_push = [&] {
    if (++num_pushed == 5) throw std::bad_alloc();
  };
  EXPECT_EQ(bench.Run(request)->failure.code, Code::kUnavailable);
  for (int i = 0; i < 500 && bench.engine.num_cancelled() < 3; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(4));
  EXPECT_EQ(bench.engine.num_cancelled(), 3);  // nothing runs on for nobody
  request.sampling.max_tokens = 4;
  EXPECT_EQ(bench.Run(request)->texts[2], "abab");
}

TEST(Session, EngineErrorsArrive) {
  FakeEngineOptions options;
  options.fail_after = 3;
  Bench bench(options);
  const auto got = bench.Run(bench.Ask("abc"));
  EXPECT_EQ(got->texts[0], "abc");
  EXPECT_EQ(got->ends[0].reason, engine::FinishReason::kError);
  EXPECT_THAT(got->ends[0].error.message, HasSubstr("told to fail"));
}

TEST(Chat, MessagesBecomeStringsOrParts) {
  const Json messages = *Json::Parse(
      R"([{"role":"system","content":"be"},{"role":"user","name":"u","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
          {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]}])");
  const Json strings = *NormalizeMessages(messages, ContentFormat::kString);
  EXPECT_EQ(strings.AsArray()[1].Find("content")->AsString(), "a\nb");
  EXPECT_EQ(strings.AsArray()[1].Find("name")->AsString(), "u");
  EXPECT_EQ(strings.AsArray()[2].Find("content")->AsString(), "");
  EXPECT_EQ(strings.AsArray()[2].Find("tool_calls")->AsArray()[0].Find("function")->Find("arguments")->Dump(),
            R"({"x":1})");
  const Json parts = *NormalizeMessages(messages, ContentFormat::kParts);
  EXPECT_EQ(parts.AsArray()[0].Find("content")->Dump(), R"([{"type":"text","text":"be"}])");
  EXPECT_EQ(parts.AsArray()[2].Find("content")->Dump(), "[]");
}

TEST(Chat, ReasoningGoesByBothItsNames) {
  const Json messages = *Json::Parse(
      R"([{"role":"assistant","content":"a","reasoning":"x"},{"role":"assistant","content":"b","reasoning_content":"y"},
          {"role":"assistant","content":"c","reasoning":"x","reasoning_content":"y"},
          {"role":"assistant","content":"d","reasoning":null,"reasoning_content":"z"},
          {"role":"assistant","content":"e","reasoning":null},{"role":"user","content":"f","reasoning":"x"}])");
  const Json got = *NormalizeMessages(messages, ContentFormat::kString);
  const auto at = [&](size_t i, const char* key) {
    const Json* found = got.AsArray()[i].Find(key);
    return found == nullptr ? std::string("none") : found->Dump();
  };
  const char* wanted[][2] = {{"\"x\"", "\"x\""}, {"\"y\"", "\"y\""}, {"\"x\"", "\"y\""},
                             {"\"z\"", "\"z\""}, {"null", "none"},   {"\"x\"", "none"}};
  for (size_t i = 0; i < std::size(wanted); ++i) {
    EXPECT_EQ(at(i, "reasoning"), wanted[i][0]) << i;
    EXPECT_EQ(at(i, "reasoning_content"), wanted[i][1]) << i;
  }
}

TEST(Chat, BadMessagesAreNamed) {
  for (const auto& [text, param] : std::vector<std::pair<const char*, const char*>>{
           {"[]", "messages"},
           {"{}", "messages"},
           {"[1]", "messages[0]"},
           {R"([{"content":"x"}])", "messages[0].role"},
           {R"([{"role":"user"}])", "messages[0].content"},
           {R"([{"role":"user","content":5}])", "messages[0].content"},
           {R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])", "messages[0].content[0]"},
           {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0]"},
           {R"([{"role":"assistant","tool_calls":5}])", "messages[0].tool_calls"},
           {R"([{"role":"assistant","tool_calls":[{"function":{"arguments":"{"}}]}])",
            "messages[0].tool_calls[0].function.arguments"},
       }) {
    EXPECT_EQ(NormalizeMessages(*Json::Parse(text), ContentFormat::kString).error().param, param) << text;
  }
}

TEST(Chat, DetectsHowATemplateReadsContent) {
  EXPECT_EQ(DetectContentFormat("{% for m in messages %}{{ m['content'] }}{% endfor %}"),
            ContentFormat::kString);
  EXPECT_EQ(DetectContentFormat("{%- for c in message['content'] -%}{{ c.text }}{% endfor %}"),
            ContentFormat::kParts);
  EXPECT_EQ(DetectContentFormat("{%for c in message.content | selectattr('type','equalto','text')%}"),
            ContentFormat::kParts);
  EXPECT_EQ(DetectContentFormat("{% for"), ContentFormat::kString);
}

TEST(Chat, ContinuesTheFinalMessage) {
  FakeText text;
  ChatPrompt chat;
  chat.messages = *Json::Parse(R"([{"role":"user","content":"hi"},{"role":"assistant","content":"Sure, "}])");
  chat.continue_final_message = true;
  EXPECT_EQ(RenderPrompt(chat, text, ContentFormat::kAuto).error().param, "continue_final_message");
  chat.add_generation_prompt = false;
  EXPECT_EQ(*RenderPrompt(chat, text, ContentFormat::kAuto), "user: hi\nassistant: Sure, ");
  chat.chat_template = "raise";
  EXPECT_EQ(RenderPrompt(chat, text, ContentFormat::kAuto).error().message, "roles must alternate");
}

TEST(HfText, DemoModelRoundTripAndTemplate) {
  const std::string folder = std::string(CADRE_SOURCE_DIR) + "/models/demo";
  const auto loaded = LoadHfText({folder, ""});
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  const TextModel& text = **loaded;
  const std::string prose = "What is 17 + 25? \xe2\x82\xac na\xc3\xafve";
  const std::vector<int32_t> ids = *text.Encode(prose, true);
  EXPECT_EQ(text.Decode(ids, true), prose);
  std::string streamed;
  const auto stream = text.NewStream({}, true);
  for (const int32_t id : ids) streamed += stream->Push(id);
  EXPECT_EQ(streamed + stream->Flush(), prose);
  EXPECT_EQ(text.eos(), 2);
  EXPECT_EQ(text.vocab_size(), 2048);
  ChatPrompt chat;
  chat.messages = *Json::Parse(R"([{"role":"user","content":"hi"}])");
  EXPECT_EQ(*RenderPrompt(chat, text, ContentFormat::kAuto),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(text.Encode("<|im_end|>", false)->size(), 1u);
  EXPECT_EQ(text.TokenBytes(2), "<|im_end|>");

  const auto own = LoadHfText({folder, "{{ raise_exception('no: ' + messages[0].role) }}"});
  ASSERT_TRUE(own.has_value());
  EXPECT_EQ(RenderPrompt(chat, **own, ContentFormat::kAuto).error().message, "no: user");
  EXPECT_EQ(LoadHfText({folder, "nowhere.jinja"}).error().param, "--chat-template");
  EXPECT_EQ(LoadHfText({folder, "{% if"}).error().param, "--chat-template");
  EXPECT_FALSE(LoadHfText({"/nowhere", ""}).has_value());
}

}  // namespace
}  // namespace cadre::session
