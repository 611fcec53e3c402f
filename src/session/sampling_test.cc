#include "session/sampling.h"

#include <gtest/gtest.h>

#include "session/fake_text.h"

namespace cadre::session {
namespace {

TEST(CheckSampling, RefusesWithoutAModelInTheWordsOfTheChecksWithOne) {
  struct Bad {
    const char* param;
    void (*change)(SamplingRequest&);
  };
  const Bad cases[] = {
      {"temperature", [](auto& s) { s.temperature = -1; }},
      {"top_p", [](auto& s) { s.top_p = 0; }},
      {"n", [](auto& s) { s.n = 2, s.temperature = 0; }},
      {"n", [](auto& s) { s.n = 1'000'000'000; }},
      {"min_tokens", [](auto& s) { s.min_tokens = 5, s.max_tokens = 4; }},
      {"logprobs", [](auto& s) { s.logprobs = -2; }},
      {"stop",
       [](auto& s) {
         s.stop = {"a", ""};
       }},
      {"stop", [](auto& s) { s.stop = {std::string(5000, 'a')}; }},
      {"bad_words", [](auto& s) { s.bad_words = {"  "}; }},
  };
  const FakeText text;
  for (const Bad& bad : cases) {
    SamplingRequest request;
    bad.change(request);
    const Status checked = CheckSampling(request);
    ASSERT_FALSE(checked) << bad.param;
    EXPECT_EQ(checked.error().param, bad.param);
    const auto resolved = ResolveSampling(request, {}, {.vocab_size = 257}, &text);
    ASSERT_FALSE(resolved) << bad.param;
    EXPECT_EQ(checked.error().message, resolved.error().message);
  }
  SamplingRequest none;
  none.max_tokens = 0;
  EXPECT_FALSE(CheckSampling(none));
}

TEST(CheckSampling, LeavesToTheModelWhatOnlyItCanTell) {
  SamplingRequest open;
  open.stop = {"a"};
  open.bad_words = {"b"};
  open.stop_token_ids = open.allowed_token_ids = {1'000'000};
  open.logprobs = open.prompt_logprobs = -1;
  open.max_tokens = 1'000'000'000;
  EXPECT_TRUE(CheckSampling(open));
}

}  // namespace
}  // namespace cadre::session
