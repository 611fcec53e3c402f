#include "kernels/topk.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/every_isa_test.h"
#include "kernels/ref/row_reference.h"

namespace cadre::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class TopKTest : public EveryIsa {};
INSTANTIATE_TEST_SUITE_P(Isa, TopKTest, AllIsas(), IsaParamName);

struct Output {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Output RunRouter(const Device& device, TopKArgs args) {
  Output out;
  out.experts.assign(static_cast<size_t>(args.num_rows * args.top_k), -7);
  out.weights.assign(out.experts.size(), kNan);
  args.experts = out.experts.data();
  args.weights = out.weights.data();
  RouterTopK(device, args);
  return out;
}

TEST_P(TopKTest, EqualsTheReferenceForAllOptions) {
  const Device device = With(2);
  for (const RouterScore score :
       {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kSoftmaxAfterTopK}) {
    for (const auto& [experts, top_k, groups, top_groups] : {std::tuple{8, 2, 1, 1},
                                                             {60, 4, 1, 1},
                                                             {128, 8, 1, 1},
                                                             {64, 6, 8, 3},
                                                             {256, 8, 8, 4},
                                                             {16, 4, 4, 1},
                                                             {5, 5, 1, 1},
                                                             {1, 1, 1, 1},
                                                             {12, 2, 12, 5}}) {
      for (const GroupScore group_score : {GroupScore::kMax, GroupScore::kSumOfTop2}) {
        for (const bool biased : {false, true}) {
          for (const bool normalize : {false, true}) {
            const std::vector<float> logits = Normal(20 * experts, 2), bias = Normal(experts, 0.3f);
            TopKArgs args{.num_rows = 20,
                          .num_experts = experts,
                          .top_k = top_k,
                          .logits = logits.data(),
                          .score = score,
                          .selection_bias = biased ? bias.data() : nullptr,
                          .num_groups = groups,
                          .top_groups = top_groups,
                          .group_score = group_score,
                          .normalize = normalize,
                          .normalize_eps = 1e-20f,
                          .scale = 2.5f};
            const Output got = RunRouter(device, args);
            for (int t = 0; t < 20; ++t) {
              const ref::Routed want = ref::Route(args, logits.data() + t * experts);
              for (size_t k = 0; k < static_cast<size_t>(top_k); ++k) {
                const size_t at = static_cast<size_t>(t * top_k) + k;
                ASSERT_EQ(got.experts[at], want.experts[k]);
                ASSERT_NEAR(static_cast<double>(got.weights[at]), want.weights[k], 2e-6);
              }
            }
          }
        }
      }
    }
  }
}

// Worked by hand from the published routers, not from our reference.
TEST_P(TopKTest, DeepSeekRoutersMaskGroupsTheirOwnWay) {
  const Device device = With(1);
  // Two groups of three. Sigmoid of 0 is 0.5 everywhere; the bias alone chooses.
  const std::vector<float> zeros(6, 0.0f), bias = {0.9f, -0.8f, -0.7f, 0.1f, 0.2f, 0.05f};
  TopKArgs args{.num_rows = 1,
                .num_experts = 6,
                .top_k = 3,
                .logits = zeros.data(),
                .score = RouterScore::kSigmoid,
                .selection_bias = bias.data(),
                .num_groups = 2,
                .top_groups = 1,
                .group_score = GroupScore::kSumOfTop2,
                .normalize = true,
                .normalize_eps = 1e-20f};
  // V3: groups are worth 1.4 + -0.2 and 0.7 + 0.6: the second. All of its experts, by falling bias.
  Output got = RunRouter(device, args);
  EXPECT_EQ(got.experts, (std::vector<int32_t>{4, 3, 5}));
  for (const float w : got.weights) EXPECT_NEAR(w, 1.0f / 3, 1e-6f);
  // The first group's experts have negative scores, and still nobody else may be chosen.
  const std::vector<float> low = {2.0f, -0.8f, -0.7f, -3.0f, -3.0f, -3.0f};
  args.selection_bias = low.data();
  got = RunRouter(device, args);
  EXPECT_EQ(got.experts, (std::vector<int32_t>{0, 2, 1}));
  // V2: softmax, the group with the largest one wins, and masked scores are 0.
  const std::vector<float> logits = {0.0f, 1.0f, 1.5f, 3.0f, -1.0f, -2.0f};
  args = {.num_rows = 1,
          .num_experts = 6,
          .top_k = 2,
          .logits = logits.data(),
          .num_groups = 2,
          .top_groups = 1,
          .scale = 16.0f};
  got = RunRouter(device, args);
  EXPECT_EQ(got.experts, (std::vector<int32_t>{3, 4}));
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  EXPECT_NEAR(got.weights[0], 16 * std::exp(3.0) / sum, 1e-4);
}

TEST_P(TopKTest, TiesGoToTheLowestExpert) {
  const std::vector<float> logits = {1, 3, 3, 0, 3, 1};
  for (const RouterScore score :
       {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kSoftmaxAfterTopK}) {
    const Output got = RunRouter(
        With(1), {.num_rows = 1, .num_experts = 6, .top_k = 5, .logits = logits.data(), .score = score});
    EXPECT_EQ(got.experts, (std::vector<int32_t>{1, 2, 4, 0, 5}));
  }
}

TEST_P(TopKTest, NanAndInfiniteLogitsGiveDistinctExpertsInRange) {
  const Device device = With(2);
  for (const RouterScore score :
       {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kSoftmaxAfterTopK}) {
    for (const int groups : {1, 4}) {
      for (const GroupScore group_score : {GroupScore::kMax, GroupScore::kSumOfTop2}) {
        std::vector<float> logits = Normal(40 * 16);
        const float bad[] = {kNan, kInf, -kInf};
        for (float& x : logits) {
          if (random_() % 2 == 0) x = bad[random_() % 3];
        }
        std::fill_n(logits.begin(), 16, kNan);
        std::fill_n(logits.begin() + 16, 16, -kInf);
        const Output got = RunRouter(device, {.num_rows = 40,
                                              .num_experts = 16,
                                              .top_k = 6,
                                              .logits = logits.data(),
                                              .score = score,
                                              .num_groups = groups,
                                              .top_groups = groups / 4 + 1,
                                              .group_score = group_score});
        for (size_t t = 0; t < 40; ++t) {
          const std::set<int32_t> row(got.experts.begin() + static_cast<ptrdiff_t>(t * 6),
                                      got.experts.begin() + static_cast<ptrdiff_t>(t * 6 + 6));
          EXPECT_EQ(row.size(), 6u);
          EXPECT_GE(*row.begin(), 0);
          EXPECT_LT(*row.rbegin(), 16);
        }
      }
    }
  }
}

TEST_P(TopKTest, RowsDoNotDependOnTheirCompany) {
  const std::vector<float> logits = Normal(700 * 128);
  const TopKArgs args{
      .num_rows = 700, .num_experts = 128, .top_k = 8, .logits = logits.data(), .normalize = true};
  const Output all = RunRouter(With(3), args);
  for (int64_t t = 0; t < 700; t += 99) {
    TopKArgs one = args;
    one.num_rows = 1;
    one.logits += t * 128;
    const Output got = RunRouter(With(1), one);
    EXPECT_TRUE(std::equal(got.weights.begin(), got.weights.end(), all.weights.begin() + t * 8));
    EXPECT_TRUE(std::equal(got.experts.begin(), got.experts.end(), all.experts.begin() + t * 8));
  }
}

}  // namespace
}  // namespace cadre::kernels
