// What workers say to hold, and how a router follows it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "route/held_prefixes.h"
#include "route/kv_places.h"
#include "route/prompt_tokens.h"
#include "route/stub_testing.h"
#include "route/usage_scan.h"

namespace cadre::route {
namespace {

std::string Hex(const std::vector<uint64_t>& names) {
  std::string out;
  for (const uint64_t name : names) out += Format("{:016x}", name);
  return out;
}

std::string Answer(const std::vector<uint64_t>& added, const std::vector<uint64_t>& removed = {},
                   bool reset = false, bool more = false, int block_size = 4) {
  return Format(
      R"({{"names":"cadre-1","rank":0,"num_ranks":1,"block_size":{},"prefix_caching":true,"epoch":"00000000000000ab",)"
      R"("version":7,"base":0,"reset":{},"more":{},"removed":"{}","added":"{}"}})",
      block_size, reset, more, Hex(removed), Hex(added));
}

TEST(HeldPrefixes, MatchesAsFarAsAllIsHeld) {
  HeldPrefixes held;
  const std::vector<uint64_t> names = {1, 2, 3, 4};
  EXPECT_EQ(held.Match(names), -1);
  EXPECT_THAT(held.NextQuery(3), testing::HasSubstr("rank=3&epoch=0&since=0"));
  ASSERT_TRUE(held.Take(Answer({1, 2}, {}, true, true))->more);
  EXPECT_EQ(held.Match(names), -1);  // there is more to come
  ASSERT_TRUE(held.Take(Answer({4})));
  EXPECT_EQ(held.Match(names), 2);
  EXPECT_EQ(held.block_size(), 4);
  ASSERT_TRUE(held.Take(Answer({3}, {4})));
  EXPECT_EQ(held.Match(names), 3);
  EXPECT_THAT(held.NextQuery(0), testing::HasSubstr("epoch=ab&since=7"));
  ASSERT_TRUE(held.Take(Answer({9}, {}, true)));
  EXPECT_EQ(held.Match(names), 0);
}

TEST(HeldPrefixes, WhatIsNotedStaysUntilAnAnswerThatMustKnowIt) {
  HeldPrefixes held;
  const std::vector<uint64_t> names = {1, 2};
  held.NextQuery(0);
  ASSERT_TRUE(held.Take(Answer({}, {}, true)));
  held.NextQuery(0);
  held.Note(names);  // after the question
  ASSERT_TRUE(held.Take(Answer({})));
  EXPECT_EQ(held.Match(names), 2);
  held.NextQuery(0);
  ASSERT_TRUE(held.Take(Answer({1})));  // 2 has been evicted at once
  EXPECT_EQ(held.Match(names), 1);
}

TEST(HeldPrefixes, APromptOnItsWayCountsUntilItIsKeptOrBroken) {
  HeldPrefixes held;
  const std::vector<uint64_t> names = {1, 2}, longer = {1, 2, 3};
  const auto ask = [&] {
    held.NextQuery(0);
    return held.Take(Answer({})).has_value();
  };
  ASSERT_TRUE(held.Take(Answer({}, {}, true)));
  held.Promise(longer);
  held.Promise(names);
  ASSERT_TRUE(ask());
  EXPECT_EQ(held.Match(longer), 3);  // no answer ends it
  held.Settle(longer, false);
  EXPECT_EQ(held.Match(longer), 2);
  held.Settle(names, true);
  EXPECT_EQ(held.Match(names), 2);
  ASSERT_TRUE(ask());
  EXPECT_EQ(held.Match(names), 0);  // computed, and evicted
}

TEST(HeldPrefixes, NonsenseIsAnErrorAndBeginsAnew) {
  const std::string good = Answer({1});
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  for (const std::string& bad :
       {std::string("[]"), std::string("nonsense"), with("cadre-1", "other-1"),
        with(R"("block_size":4)", R"("block_size":0)"), with("00000000000000ab", "0000000000000a&b"),
        with("00000000000000ab", "ab"), with(R"("version":7)", R"("version":-1)"),
        with(R"("more":false)", R"("more":1)"), with("0000000000000001", "000000000000001"),
        with("0000000000000001", "00000000000000zz"), with(R"("num_ranks":1)", R"("num_ranks":0)")}) {
    HeldPrefixes held;
    ASSERT_TRUE(held.Take(good));
    EXPECT_FALSE(held.Take(bad)) << bad;
    EXPECT_EQ(held.Match({}), -1);
    EXPECT_THAT(held.NextQuery(0), testing::HasSubstr("since=0"));
  }
  HeldPrefixes held;
  EXPECT_FALSE(held.Take(Answer({}, {}, true, true)));  // more, but nothing: it would be asked for ever
}

TEST(PromptTokens, NamesWholeBlocksButTheLastToken) {
  const PromptTokens eight({1, 2, 3, 4, 5, 6, 7, 8}, "");
  EXPECT_EQ(eight.Names(4).size(), 1u);
  EXPECT_EQ(eight.Names(2).size(), 3u);
  EXPECT_EQ(eight.Names(2)[1], eight.Names(4)[0]);
  EXPECT_EQ(eight.Names(16).size(), 0u);
  EXPECT_NE(eight.Names(4)[0], PromptTokens({1, 2, 3, 4, 5}, "s").Names(4)[0]);
}

TEST(CachedTokens, AreFoundInAnyPieces) {
  const std::string text =
      R"(data: {"text":"\"cached_tokens\":99","usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":12}}})"
      "\n\ndata: [DONE]\n\n";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    CachedTokensScan scan;
    for (size_t at = 0; at < text.size(); at += piece) scan.Push(std::string_view(text).substr(at, piece));
    EXPECT_EQ(scan.value(), 12) << piece;
  }
  CachedTokensScan scan;
  scan.Push(R"({"usage":{"prompt_tokens_details":{"cached_tokens":null}},"x":"cached_tokens"})");
  scan.Push(std::string(1000, 'x'));
  EXPECT_FALSE(scan.value());
}

TEST(KvPlaces, ReadsWhatAWorkerSaysAndNothingElse) {
  const auto places = ParseKvPlaces(
      R"({"enabled":true,"push":true,"ranks":[{"rank":0,"engine_id":"a","host":"h","port":5600,"tp_size":1}]})");
  ASSERT_TRUE(places);
  EXPECT_TRUE(places->push);
  EXPECT_EQ(places->ranks[0].port, 5600);
  EXPECT_FALSE(ParseKvPlaces(R"({"push":false,"ranks":[]})")->push);
  for (const char* bad : {"", "[]", "{}", R"({"push":true,"ranks":[]})", R"({"push":true,"ranks":[1]})",
                          R"({"push":true,"ranks":[{"rank":1,"engine_id":"a","host":"h","port":1}]})",
                          R"({"push":true,"ranks":[{"rank":0,"engine_id":"a","host":"h","port":70000}]})",
                          R"({"push":true,"ranks":[{"rank":0,"engine_id":"a","host":"","port":1}]})",
                          R"({"push":1,"ranks":[]})"}) {
    EXPECT_FALSE(ParseKvPlaces(bad)) << bad;
  }
}

// Two workers, one of which says to hold the prompt, though it was never sent there.
TEST(Digests, ARequestGoesWhereItsPromptIsHeld) {
  const PromptTokens prompt({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, "");
  const auto behave =
      Answers(200, R"({"usage":{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":4}}})");
  Stub has(behave), has_not(behave), mute(behave);
  has.prefix_digest = [&](const http::Request&) { return JsonText(Answer(prompt.Names(4), {}, true)); };
  has_not.prefix_digest = [&](const http::Request&) { return JsonText(Answer({}, {}, true)); };
  Options options = House::Quick();
  House::Add(options, {&has_not, &mute, &has}, Role::kPlain);
  options.policy.name = "cache_aware";
  options.tokenize = [](std::string_view, const Json& body) -> Result<std::vector<int32_t>> {
    if (body.Find("prompt") == nullptr) return Fail(Code::kUnsupported, "no prompt");
    return std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  };
  House house(options, 3);
  ASSERT_TRUE(Eventually([&] {
    const int before = has.num_requests();
    house.Complete();
    const auto got = house.Complete();
    const std::string* header = http::FindHeader(got.headers, "X-Cadre-Predicted-Cached-Tokens");
    return has.num_requests() == before + 2 && header != nullptr && *header == "8";
  }));
  const int before = has.num_requests();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(house.Complete().status, 200);
  EXPECT_EQ(has.num_requests(), before + 5);
  EXPECT_GE(house.Metric("cadre_router_predicted_cached_tokens_total"), 40);
  EXPECT_GE(house.Metric("cadre_router_cached_tokens_total"), 20);
  EXPECT_EQ(house.Metric("cadre_router_prediction_error_blocks_bucket{le=\"0\"}"), 0);
  EXPECT_GE(house.Metric("cadre_router_prediction_error_blocks_bucket{le=\"1\"}"), 5);
  EXPECT_EQ(house.Complete(R"({"input":"x"})").status, 200);  // nothing is predicted, all goes on
}

}  // namespace
}  // namespace cadre::route
