// The "when to use" tables, row by row.
#include "deploy/plan_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cadre::deploy {
namespace {

using testing::Contains;
using testing::HasSubstr;

constexpr ModelTraits kWideMoe = {.dense_bytes = int64_t{34} << 30,
                                  .expert_bytes = int64_t{1300} << 30,
                                  .num_experts = 256,
                                  .num_heads = 128,
                                  .num_kv_heads = 1,
                                  .latent = true};
constexpr ModelTraits kMostlyDense = {.dense_bytes = int64_t{30} << 30,
                                      .expert_bytes = int64_t{10} << 30,
                                      .num_experts = 8,
                                      .num_heads = 32,
                                      .num_kv_heads = 8};
constexpr ModelTraits kDense = {.dense_bytes = int64_t{30} << 30, .num_heads = 32, .num_kv_heads = 8};

Layout Of(const ModelTraits& model, const PlanHosts& hosts, PlanTarget target,
          const LayoutWishes& wishes = {}) {
  auto layout = ChooseLayout(model, hosts, target, wishes);
  EXPECT_TRUE(layout) << layout.error().message;
  return layout.value_or(Layout());
}

std::string ErrorOf(const PlanHosts& hosts, const LayoutWishes& wishes, const ModelTraits& model = kWideMoe) {
  const auto layout = ChooseLayout(model, hosts, PlanTarget::kThroughput, wishes);
  return layout ? "none" : layout.error().param + ": " + layout.error().message;
}

TEST(PlanLayout, ManyRanksAndMostlyExpertsIsEpWithDp) {
  const Layout layout = Of(kWideMoe, {.num_hosts = 2, .cores = 128}, PlanTarget::kThroughput);
  EXPECT_EQ(layout.tp, 1);
  EXPECT_EQ(layout.dp, 16);
  EXPECT_EQ(layout.ranks_per_host, 8);
  EXPECT_TRUE(layout.ep);
  EXPECT_EQ(layout.prefill_backend, "deepep_high_throughput");
  EXPECT_EQ(layout.decode_backend, "deepep_low_latency");
  EXPECT_TRUE(layout.eplb);
  EXPECT_EQ(layout.redundant, 32);
  EXPECT_THAT(layout.reasons, Contains(HasSubstr("EP = TP x DP = 16")));
}

TEST(PlanLayout, BackEndsFollowThePurpose) {
  const PlanHosts one = {.num_hosts = 1, .cores = 128}, two = {.num_hosts = 2, .cores = 128};
  EXPECT_EQ(Of(kWideMoe, one, PlanTarget::kThroughput).decode_backend, "pplx");
  EXPECT_EQ(Of(kWideMoe, two, PlanTarget::kPrefill).decode_backend, "deepep_high_throughput");
  EXPECT_EQ(Of(kWideMoe, two, PlanTarget::kDecode).prefill_backend, "deepep_low_latency");
  const Layout given =
      Of(kWideMoe, two, PlanTarget::kThroughput, {.prefill_backend = "mori", .decode_backend = "mori"});
  EXPECT_EQ(given.prefill_backend, "mori");
  EXPECT_EQ(given.decode_backend, "mori");
}

TEST(PlanLayout, LatencyPutsAllRanksOfAHostToOneRequest) {
  const Layout layout = Of(kWideMoe, {.num_hosts = 2, .cores = 128}, PlanTarget::kLatency);
  EXPECT_EQ(layout.ranks_per_host, 2);
  EXPECT_EQ(layout.tp, 2);
  EXPECT_EQ(layout.dp, 2);
  EXPECT_TRUE(layout.ep);
  EXPECT_FALSE(layout.eplb);
}

TEST(PlanLayout, FewRanksAndMostlyDenseIsTpOnly) {
  const Layout few = Of(kMostlyDense, {.num_hosts = 1, .cores = 64}, PlanTarget::kThroughput);
  EXPECT_EQ(few.ranks_per_host, 4);
  EXPECT_EQ(few.tp, 4);
  EXPECT_EQ(few.dp, 1);
  EXPECT_FALSE(few.ep);
  EXPECT_EQ(few.redundant, 0);
  const Layout many = Of(kMostlyDense, {.num_hosts = 4, .cores = 64}, PlanTarget::kThroughput);
  EXPECT_EQ(many.tp, 1);
  EXPECT_TRUE(many.ep);
}

TEST(PlanLayout, DenseModelsHaveNoExchange) {
  const Layout layout = Of(kDense, {.num_hosts = 2, .cores = 32}, PlanTarget::kThroughput);
  EXPECT_EQ(layout.dp, 4);
  EXPECT_FALSE(layout.ep);
  EXPECT_EQ(layout.prefill_backend, "");
}

TEST(PlanLayout, NeverMoreRanksThanAnExchangeTakes) {
  EXPECT_EQ(Of(kWideMoe, {.num_hosts = 200, .cores = 128}, PlanTarget::kThroughput).num_ranks(), 1000);
  EXPECT_EQ(Of(kWideMoe, {.num_hosts = 1024}, PlanTarget::kThroughput).num_ranks(), 1024);
}

TEST(PlanLayout, OneRankHasNothingToSpread) {
  const Layout layout = Of(kWideMoe, {.num_hosts = 1}, PlanTarget::kLatency);
  EXPECT_EQ(layout.num_ranks(), 1);
  EXPECT_FALSE(layout.ep);
  EXPECT_EQ(layout.decode_backend, "");
}

TEST(PlanLayout, WishesWinOrAreRefused) {
  Layout layout = Of(kWideMoe, {.num_hosts = 2, .cores = 128}, PlanTarget::kThroughput,
                     {.tp = 2, .dp = 8, .ep = false, .eplb = false});
  EXPECT_EQ(layout.ranks_per_host, 8);
  EXPECT_FALSE(layout.ep);
  layout = Of(kWideMoe, {.num_hosts = 2, .cores = 128}, PlanTarget::kThroughput,
              {.ranks_per_host = 3, .redundant = 2});
  EXPECT_EQ(layout.num_ranks(), 6);
  EXPECT_EQ(layout.redundant, 2);
  EXPECT_THAT(ErrorOf({.num_hosts = 3}, {.dp = 16}),
              HasSubstr("--data-parallel-size: TP 1 x DP 16 = 16 ranks"));
  EXPECT_THAT(ErrorOf({.num_hosts = 2}, {.dp = 16, .ranks_per_host = 4}), HasSubstr("--ranks-per-host"));
  EXPECT_THAT(ErrorOf({.num_hosts = 1}, {.dp = 65}), HasSubstr("65 ranks on a host"));
  EXPECT_THAT(ErrorOf({.num_hosts = 1}, {.tp = 3}), HasSubstr("128 heads"));
  EXPECT_THAT(ErrorOf({.num_hosts = 1}, {.tp = 4, .ranks_per_host = 6}), HasSubstr("no multiple of TP 4"));
  EXPECT_THAT(ErrorOf({.num_hosts = 1}, {.tp = 16}, kDense), "none");  // two ranks share a KV head
  EXPECT_THAT(ErrorOf({.num_hosts = 1}, {.tp = 32, .ranks_per_host = 32}, kDense), "none");
}

TEST(PlanLayout, CopiesDivideAndFillEveryRank) {
  EXPECT_EQ(RedundantFor(256, 32), 32);
  EXPECT_EQ(RedundantFor(256, 16), 32);
  EXPECT_EQ(RedundantFor(256, 8), 8);
  EXPECT_EQ(RedundantFor(256, 2), 2);
  EXPECT_EQ(RedundantFor(128, 24), 40);  // 168 = 7 x 24
  EXPECT_EQ(RedundantFor(8, 16), 40);    // 48 = 3 x 16
  for (int experts : {1, 8, 60, 128, 256})
    for (int ranks : {2, 3, 8, 24, 64, 300}) {
      const int64_t copies = RedundantFor(experts, ranks);
      EXPECT_EQ((experts + copies) % ranks, 0) << experts << " on " << ranks;
      EXPECT_GE(experts + copies, ranks);
    }
  EXPECT_LE(RedundantFor(8, 8192), 1023);
}

TEST(PlanLayout, TargetsHaveNames) {
  EXPECT_EQ(*ParsePlanTarget("decode"), PlanTarget::kDecode);
  EXPECT_EQ(ParsePlanTarget("speed").error().param, "--target");
}

}  // namespace
}  // namespace cadre::deploy
