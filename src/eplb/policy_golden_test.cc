// The published balancer's answers (golden/eplb/eplb.json).
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "base/json.h"
#include "eplb/policy.h"

namespace cadre::eplb {
namespace {

std::vector<int64_t> IntsOf(const Json& array) {
  std::vector<int64_t> ints;
  for (const Json& value : array.AsArray())
    ints.push_back(value.is_int() ? value.AsInt() : static_cast<int64_t>(value.AsDouble()));
  return ints;
}

TEST(DefaultPolicyGolden, EveryCaseIsEqual) {
  const char* folder = std::getenv("CADRE_GOLDEN");
  const std::string path =
      (folder != nullptr ? std::string(folder) : std::string(CADRE_SOURCE_DIR) + "/../shared/golden") +
      "/eplb/eplb.json";
  std::ifstream file(path);
  if (!file) GTEST_SKIP() << "no " << path;
  const auto cases = Json::Parse(std::string(std::istreambuf_iterator<char>(file), {}));
  ASSERT_TRUE(cases) << cases.error().message;
  ASSERT_GE(cases->AsArray().size(), 22u);
  for (const Json& c : cases->AsArray()) {
    const auto number = [&](const char* key) { return static_cast<int32_t>(c.Find(key)->AsInt()); };
    const int32_t ranks = number("gpus");
    const SlotLayout layout{.num_slots = number("replicas"), .num_ranks = ranks};
    const PolicyInput input{
        .num_groups = number("groups"), .hosts = Hosts::Even(ranks, number("nodes")), .layout = layout};
    const Json::Array& weights = c.Find("weight")->AsArray();
    for (size_t layer = 0; layer < weights.size(); ++layer) {
      const std::string where = c.Find("name")->AsString() + " layer " + Format("{}", layer);
      const std::vector<int64_t> load = IntsOf(weights[layer]);
      const std::vector<int32_t> slots = (*FindPolicy("default"))->PlaceLayer(input, load);
      const auto want = IntsOf(c.Find("physical_to_logical")->AsArray()[layer]);
      EXPECT_EQ(std::vector<int64_t>(slots.begin(), slots.end()), want) << where;
      std::vector<int64_t> copies(load.size());
      for (const int32_t e : slots) ++copies[static_cast<size_t>(e)];
      EXPECT_EQ(copies, IntsOf(c.Find("logical_count")->AsArray()[layer])) << where;
      const auto loads = RankLoads(layout, slots, load);
      const Json::Array& rank_load = c.Find("rank_load")->AsArray()[layer].AsArray();
      ASSERT_EQ(loads.size(), rank_load.size()) << where;
      for (size_t r = 0; r < loads.size(); ++r)
        EXPECT_NEAR(loads[r], rank_load[r].AsDouble(), 1e-6 * loads[r]) << where;  // theirs are f32
      Balance balance;
      balance.Add(loads);
      EXPECT_NEAR(balance.balancedness(), c.Find("balancedness")->AsArray()[layer].AsDouble(), 1e-6) << where;
    }
  }
}

}  // namespace
}  // namespace cadre::eplb
