#include "nn/simulated_routing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace cadre::nn {
namespace {

std::vector<int> CountsOf(const SimulatedRouting& routing, int64_t step, int32_t experts, int32_t top_k) {
  constexpr int64_t kRows = 20000;
  std::vector<int32_t> tokens, positions, chosen(kRows * top_k);
  std::vector<float> weights(chosen.size());
  for (int32_t i = 0; i < kRows; ++i) {
    tokens.push_back(i * 7919 % 32000);
    positions.push_back(i % 512);
  }
  routing.Choose(step, 3, kRows, tokens.data(), positions.data(), chosen.data(), weights.data());
  std::vector<int> counts(static_cast<size_t>(experts));
  for (int64_t row = 0; row < kRows; ++row) {
    const auto first = chosen.begin() + row * top_k;
    EXPECT_EQ(std::set<int32_t>(first, first + top_k).size(), static_cast<size_t>(top_k));
    for (int32_t k = 0; k < top_k; ++k) ++counts[static_cast<size_t>(first[k])];
  }
  EXPECT_FLOAT_EQ(weights[5], 1.0f / static_cast<float>(top_k));
  return counts;
}

TEST(SimulatedRouting, ChoosesAsOftenAsTheStrategySays) {
  // One choice a row: shares are those of the law itself.
  const auto zipf = SimulatedRouting::Create("zipf:1.0", 8, 1);
  ASSERT_TRUE(zipf);
  const std::vector<int> counts = CountsOf(*zipf, 0, 8, 1);
  const double all = 1 + 1 / 2. + 1 / 3. + 1 / 4. + 1 / 5. + 1 / 6. + 1 / 7. + 1 / 8.;
  for (size_t e = 0; e < 8; ++e)
    EXPECT_NEAR(counts[e] / 20000., 1 / (1. + static_cast<double>(e)) / all, 0.03) << e;
  const auto uniform = SimulatedRouting::Create("uniform_random", 16, 4);
  ASSERT_TRUE(uniform);
  for (const int count : CountsOf(*uniform, 0, 16, 4)) EXPECT_NEAR(count / 20000., 4. / 16, 0.03);
  const auto many = SimulatedRouting::Create("zipf", 128, 8);
  const std::vector<int> hot = CountsOf(*many, 0, 128, 8);
  EXPECT_GT(hot[0], hot[20]);
  EXPECT_GT(hot[20], hot[127]);
}

TEST(SimulatedRouting, TheHeatMovesWhereItIsToldTo) {
  const auto routing = SimulatedRouting::Create("zipf:1.0:100", 9, 2);
  ASSERT_TRUE(routing);
  const auto hottest = [&](int64_t step) {
    const std::vector<int> counts = CountsOf(*routing, step, 9, 2);
    return std::ranges::max_element(counts) - counts.begin();
  };
  EXPECT_EQ(hottest(99), 0);
  EXPECT_EQ(hottest(100), 3);
  EXPECT_EQ(hottest(250), 6);
  EXPECT_EQ(hottest(300), 0);
}

TEST(SimulatedRouting, RefusesWhatItDoesNotKnow) {
  for (const char* text :
       {"", "best", "zipf:", "zipf:x", "zipf:-1", "zipf:1:", "zipf:1:-5", "zipf1", "zipf:99"})
    EXPECT_FALSE(SimulatedRouting::Check(text)) << text;
  for (const char* text : {"uniform_random", "zipf", "zipf:0.5", "zipf:1:2000"})
    EXPECT_TRUE(SimulatedRouting::Check(text)) << text;
}

}  // namespace
}  // namespace cadre::nn
