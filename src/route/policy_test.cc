#include "route/policy.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "route/facts.h"
#include "route/prefix.h"

namespace cadre::route {
namespace {

std::unique_ptr<Policy> Make(const std::string& name, size_t members) {
  PolicyOptions options;
  options.name = name;
  auto policy = std::move(*MakePolicy(options, 1));
  std::vector<std::string> names;
  for (size_t i = 0; i < members; ++i) names.push_back(Format("http://w{}:8000", i));
  policy->Members(names);
  return policy;
}

std::vector<Candidate> Members(const std::vector<size_t>& members) {
  std::vector<Candidate> candidates;
  for (const size_t member : members) candidates.push_back({member, 0});
  return candidates;
}

TEST(Policy, RoundRobinGoesInTurnAndPassesOverWhoIsDown) {
  const auto policy = Make("round_robin", 3);
  const auto pick = [&](const std::vector<size_t>& of) {
    const auto candidates = Members(of);
    return candidates[policy->Pick(candidates, {})].member;
  };
  const std::vector<size_t> all = {0, 1, 2};
  for (const size_t wanted : {0, 1, 2, 0, 1}) EXPECT_EQ(pick(all), wanted);
  EXPECT_EQ(pick({0, 1}), 0u);  // 2 is down
  EXPECT_EQ(pick({0, 2}), 2u);  // 1 is down
}

TEST(Policy, LeastLoadTakesTheLeastAndTurnsAmongEquals) {
  const auto policy = Make("least_load", 3);
  const std::vector<Candidate> uneven = {{0, 4}, {1, 1}, {2, 9}};
  EXPECT_EQ(policy->Pick(uneven, {}), 1u);
  std::set<size_t> seen;
  for (int i = 0; i < 3; ++i) seen.insert(policy->Pick(Members({0, 1, 2}), {}));
  EXPECT_EQ(seen.size(), 3u);
}

TEST(Policy, PowerOfTwoNeverTakesTheMoreLoadedOfTwo) {
  const auto policy = Make("power_of_two", 2);
  const std::vector<Candidate> two = {{0, 5}, {1, 4}};
  for (int i = 0; i < 50; ++i) EXPECT_EQ(policy->Pick(two, {}), 1u);
}

TEST(Policy, RandomReachesAll) {
  const auto policy = Make("random", 4);
  std::map<size_t, int> counts;
  for (int i = 0; i < 4000; ++i) ++counts[policy->Pick(Members({0, 1, 2, 3}), {})];
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(counts[i], 1000, 150) << i;
}

TEST(Policy, ConsistentHashKeepsKeysWhenMembersComeAndGo) {
  const auto pick = [](Policy& policy, const std::vector<size_t>& of, int key) {
    Facts facts;
    facts.key = Format("session-{}", key);
    const auto candidates = Members(of);
    return candidates[policy.Pick(candidates, facts)].member;
  };
  const auto four = Make("consistent_hash", 4), five = Make("consistent_hash", 5);
  std::map<size_t, int> share;
  int moved = 0;
  for (int key = 0; key < 4000; ++key) {
    const size_t home = pick(*four, {0, 1, 2, 3}, key);
    ++share[home];
    EXPECT_EQ(pick(*four, {0, 1, 2, 3}, key), home);
    const size_t later = pick(*five, {0, 1, 2, 3, 4}, key);
    EXPECT_TRUE(later == home || later == 4) << "a key moved between members that stayed";
    moved += later != home;
    if (home != 2) {
      EXPECT_EQ(pick(*four, {0, 1, 3}, key), home) << "2 going down moved a key of another";
    }
  }
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(share[i], 1000, 300) << i;
  EXPECT_NEAR(moved, 800, 300);
}

TEST(Policy, StickySessionsStayAndMoveOnlyWhenTheirWorkerIsDown) {
  const auto policy = Make("sticky_round_robin", 3);
  const auto pick = [&](const std::string& key, const std::vector<size_t>& of) {
    const auto candidates = Members(of);
    return candidates[policy->Pick(candidates, Facts{key, {}})].member;
  };
  EXPECT_EQ(pick("a", {0, 1, 2}), 0u);
  EXPECT_EQ(pick("b", {0, 1, 2}), 1u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(pick("a", {0, 1, 2}), 0u);
  EXPECT_EQ(pick("a", {1, 2}), 2u);
  EXPECT_EQ(pick("a", {0, 1, 2}), 2u);  // where its cache is now
  EXPECT_TRUE(policy->Finish("a"));
  EXPECT_FALSE(policy->Finish("a"));
}

TEST(Policy, CacheAwareFollowsThePrefixUnlessLoadsAreFarApart) {
  const auto policy = Make("cache_aware", 2);
  const std::string system(2000, 's');
  Facts first, same, other;
  first.chain = PrefixChain(system + std::string(200, 'a'), 0);
  same.chain = PrefixChain(system + std::string(200, 'b'), 0);
  other.chain = PrefixChain(std::string(2000, 'x'), 0);
  const std::vector<Candidate> idle = {{0, 0}, {1, 0}};
  const auto pick = [&](const std::vector<Candidate>& candidates, const Facts& facts) {
    const size_t chosen = policy->Pick(candidates, facts);
    policy->Sent(candidates[chosen].member, facts);
    return chosen;
  };
  EXPECT_EQ(policy->Held(0, first) + policy->Held(1, first), 0u);
  const size_t home = pick(idle, first);
  EXPECT_EQ(policy->Held(home, first), first.chain.size());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(pick(idle, same), home);
  EXPECT_NE(pick(idle, other), home);  // nobody has it: the next in turn
  std::vector<Candidate> uneven = idle;
  uneven[home].load = 100;
  EXPECT_NE(pick(uneven, same), home);
  uneven[home].load = 60;  // within --balance-abs-threshold
  EXPECT_EQ(pick(uneven, first), home);
}

TEST(Policy, CacheAwareBelievesAWorkerMoreThanWhatWasSentThere) {
  const auto policy = Make("cache_aware", 2);
  Facts facts;
  facts.chain = PrefixChain(std::string(640, 'p'), 0);
  policy->Sent(0, facts);
  std::vector<Candidate> candidates = {{0, 0}, {1, 0}};
  EXPECT_EQ(policy->Pick(candidates, facts), 0u);
  candidates[0].share = 0.1;  // it has evicted most of it
  candidates[1].share = 0.8;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(policy->Pick(candidates, facts), 1u);
  candidates[1].share = 0.2;  // too little on either side: by load
  std::set<size_t> seen;
  for (int i = 0; i < 2; ++i) seen.insert(policy->Pick(candidates, facts));
  EXPECT_EQ(seen.size(), 2u);
  // What one does not say is guessed, beside what the other says.
  candidates[0].share = -1;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(policy->Pick(candidates, facts), 0u);
}

TEST(Policy, NamesAreThoseOfTheList) {
  std::string_view rest = kPolicyNames;
  int count = 0;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(','), rest.size());
    PolicyOptions options;
    options.name = rest.substr(0, end);
    EXPECT_TRUE(MakePolicy(options, 0)) << options.name;
    rest.remove_prefix(std::min(end + 1, rest.size()));
    ++count;
  }
  EXPECT_EQ(count, 8);
  EXPECT_FALSE(MakePolicy({.name = "best"}, 0));
}

// The slow twin of SentPrefixes: all prompts, compared block by block.
size_t LongestCommon(const std::vector<std::string>& sent, const std::string& prompt) {
  size_t best = 0;
  for (const std::string& one : sent) {
    size_t blocks = 0;
    while ((blocks + 1) * kPrefixBlockBytes <= std::min(one.size(), prompt.size()) &&
           one.compare(blocks * kPrefixBlockBytes, kPrefixBlockBytes, prompt, blocks * kPrefixBlockBytes,
                       kPrefixBlockBytes) == 0)
      ++blocks;
    best = std::max(best, blocks);
  }
  return best;
}

RC_GTEST_PROP(Prefixes, MatchIsTheLongestCommonPrefix, ()) {
  // Few kinds of blocks, so that prompts share beginnings.
  const auto blocks = rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 2));
  std::vector<std::string> sent;
  SentPrefixes prefixes(1 << 20);
  const auto prompt = [&] {
    std::string text;
    for (const int block : *blocks) text += std::string(kPrefixBlockBytes, static_cast<char>('a' + block));
    return text + std::string(*rc::gen::inRange<size_t>(0, kPrefixBlockBytes), 'z');
  };
  const int count = *rc::gen::inRange(0, 12);
  for (int i = 0; i < count; ++i) {
    sent.push_back(prompt());
    prefixes.Insert(PrefixChain(sent.back(), 7));
  }
  const std::string asked = prompt();
  RC_ASSERT(prefixes.Match(PrefixChain(asked, 7)) == LongestCommon(sent, asked));
  RC_ASSERT(prefixes.Match(PrefixChain(asked, 8)) == 0u);  // another salt
}

TEST(Prefixes, MemoryIsBoundedAndEndsGoFirst) {
  SentPrefixes prefixes(100);
  const auto chain = PrefixChain(std::string(80 * kPrefixBlockBytes, 'a'), 0);
  prefixes.Insert(chain);
  EXPECT_EQ(prefixes.Match(chain), 80u);
  prefixes.Insert(PrefixChain(std::string(50 * kPrefixBlockBytes, 'b'), 0));
  EXPECT_EQ(prefixes.size(), 100u);
  EXPECT_EQ(prefixes.Match(chain), 50u);  // the last 30 blocks went
  prefixes.Insert(PrefixChain(std::string(1000 * kPrefixBlockBytes, 'c'), 0));
  EXPECT_EQ(prefixes.size(), 100u);
}

TEST(Facts, SaltsAndModelsShareNothingAndMessagesShareTheirBeginning) {
  const auto chain = [](const std::string& body) { return PromptChain(*Json::Parse(body)); };
  const std::string text(640, 'p');
  const auto plain = chain(R"({"prompt":")" + text + R"("})");
  EXPECT_EQ(plain.size(), 10u);
  EXPECT_NE(plain[0], chain(R"({"cache_salt":"1","prompt":")" + text + R"("})")[0]);
  EXPECT_NE(plain[0], chain(R"({"model":"m","prompt":")" + text + R"("})")[0]);
  const std::string turn = R"({"role":"user","content":")" + text + R"("})";
  const auto one = chain(R"({"messages":[)" + turn + "]}");
  const auto two = chain(R"({"messages":[)" + turn + R"(,{"role":"assistant","content":"yes"}]})");
  ASSERT_GE(one.size(), 9u);
  EXPECT_TRUE(std::equal(one.begin(), one.end(), two.begin()));
  EXPECT_TRUE(chain("{}").empty());
  EXPECT_EQ(chain(R"({"prompt":[1,2,3]})").size(), 0u);
}

TEST(Facts, SessionKeyFollowsTheOrder) {
  http::Request request;
  request.body = R"({"user":"u"})";
  const Json body = *Json::Parse(request.body);
  EXPECT_EQ(SessionKey(request, &body), "u");
  request.headers = {{"x-request-id", "r"}};
  EXPECT_EQ(SessionKey(request, &body), "r");
  request.headers.emplace_back("X-Session-Id", "s");
  EXPECT_EQ(SessionKey(request, &body), "s");
  http::Request bare;
  bare.body = "abc";
  const std::string key = SessionKey(bare, nullptr);
  EXPECT_EQ(key, SessionKey(bare, nullptr));
  bare.headers = {{"X-Session-ID", std::string(100'000, 's')}};
  EXPECT_EQ(SessionKey(bare, nullptr).size(), 16u);
  bare.headers.clear();
  bare.body = "abd";
  EXPECT_NE(key, SessionKey(bare, nullptr));
}

}  // namespace
}  // namespace cadre::route
