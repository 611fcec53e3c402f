// The demo's numbers against plain loops over the same seeds, and its page against its numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "app/commands.h"
#include "app/demo/drawing.h"
#include "app/demo/ranks.h"
#include "sys/gpus.h"

namespace cadre::app::demo {
namespace {

using ::testing::HasSubstr;
using Matrix = std::vector<std::vector<double>>;

// Tensors as app/demo/layer.h describes them.
Matrix Drawn(const Shape& s, int tensor, int64_t index, int64_t rows, int64_t columns) {
  std::vector<float> numbers(static_cast<size_t>(rows * columns));
  Draw(s.seed, tensor, index, 0, std::sqrt(3.0 / static_cast<double>(tensor == 4 ? 1 : columns)), numbers);
  Matrix matrix;
  for (int64_t r = 0; r < rows; ++r) {
    matrix.emplace_back(numbers.begin() + r * columns, numbers.begin() + (r + 1) * columns);
  }
  return matrix;
}

std::vector<double> Times(const Matrix& m, const std::vector<double>& x) {
  std::vector<double> y;
  for (const auto& row : m) y.push_back(std::inner_product(row.begin(), row.end(), x.begin(), 0.0));
  return y;
}

struct Choice {
  int32_t expert;
  double weight;
};

// In double, one token after the other.
std::vector<Choice> RouteSlowly(const Shape& s, const Matrix& router, const std::vector<double>& x) {
  const std::vector<double> logits = Times(router, x);
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  std::vector<Choice> choices;
  double sum = 0;
  for (int32_t k = 0; k < s.top_k; ++k) {
    const int32_t e = order[static_cast<size_t>(k)];
    choices.push_back({e, std::exp(logits[static_cast<size_t>(e)] - logits[static_cast<size_t>(order[0])])});
    sum += choices.back().weight;
  }
  for (Choice& c : choices) c.weight /= sum;
  return choices;
}

std::vector<double> ComputeSlowly(const Shape& s, const std::vector<Choice>& choices,
                                  const std::vector<double>& x) {
  std::vector<double> out(static_cast<size_t>(s.hidden));
  for (const Choice& c : choices) {
    std::vector<double> gate = Times(Drawn(s, 1, c.expert, s.inter, s.hidden), x);
    const std::vector<double> up = Times(Drawn(s, 2, c.expert, s.inter, s.hidden), x);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    const std::vector<double> y = Times(Drawn(s, 3, c.expert, s.hidden, s.inter), gate);
    for (size_t i = 0; i < y.size(); ++i) out[i] += c.weight * y[i];
  }
  return out;
}

constexpr const char* kBackends[] = {
    "allgather_reducescatter", "naive", "pplx", "deepep_high_throughput", "deepep_low_latency",
    "flashinfer_all2allv",     "mori"};

Plan SmallPlan() {
  Plan plan;
  plan.shape = {.num_experts = 8, .top_k = 3, .hidden = 37, .inter = 21, .num_tokens = 5, .seed = 11};
  plan.isa = kernels::BestIsa();
  return plan;
}

TEST(Demo, EveryTokenIsWhatPlainLoopsCompute) {
  for (const int ranks : {1, 2, 3}) {
    Plan plan = SmallPlan();
    plan.num_ranks = ranks;
    const auto outcome = RunDemo(plan);
    ASSERT_TRUE(outcome) << outcome.error().message;
    const Shape& s = plan.shape;
    const Matrix router = Drawn(s, 0, 0, s.num_experts, s.hidden);
    for (int r = 0; r < ranks; ++r) {
      const RankReport& report = outcome->ranks[static_cast<size_t>(r)];
      const Matrix tokens = Drawn(s, 4, r, s.num_tokens, s.hidden);
      for (int64_t t = 0; t < s.num_tokens; ++t) {
        const auto at = static_cast<size_t>(t);
        const auto choices = RouteSlowly(s, router, tokens[at]);
        for (size_t k = 0; k < choices.size(); ++k) {
          EXPECT_EQ(report.experts[at * choices.size() + k], choices[k].expert);
          EXPECT_NEAR(report.weights[at * choices.size() + k], choices[k].weight, 1e-5);
        }
        const auto out = ComputeSlowly(s, choices, tokens[at]);
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_NEAR(report.out[at * out.size() + i], out[i], 1e-4) << "rank " << r << " token " << t;
        }
      }
    }
  }
}

TEST(Demo, SumsByKAreTheSameBitsOnAnyNumberOfRanks) {
  for (const char* backend : kBackends) {
    for (const int ranks : {2, 3, 5}) {
      for (const auto placement : {eplb::Placement::kLinear, eplb::Placement::kRoundRobin}) {
        Plan plan = SmallPlan();
        plan.shape.num_tokens = 23;
        plan.backend = backend;
        plan.num_ranks = ranks;
        plan.placement = placement;
        const auto outcome = RunDemo(plan);
        ASSERT_TRUE(outcome) << backend << ": " << outcome.error().message;
        EXPECT_LE(outcome->worst_share, 1.0) << backend;
        EXPECT_GT(outcome->largest_output, 0.1);
        const std::string name = backend;
        if (name == "pplx" || name == "deepep_low_latency") {
          EXPECT_EQ(outcome->num_different, 0) << backend;
        }
      }
    }
  }
}

TEST(Demo, HalfTheExpertsTakeHalfTheMemory) {
  Plan plan;
  plan.isa = kernels::BestIsa();
  const auto outcome = RunDemo(plan);
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_EQ(outcome->all_expert_bytes, 8 * 3 * 128 * 256 * 4);
  int64_t rows = 0;
  for (const RankReport& rank : outcome->ranks) {
    EXPECT_EQ(rank.held.size(), 4u);
    EXPECT_EQ(rank.expert_bytes * 2, outcome->all_expert_bytes);
    rows += std::accumulate(rank.slot_rows.begin(), rank.slot_rows.end(), int64_t{0});
  }
  EXPECT_EQ(rows, 2 * 6 * 2);  // every choice of every token was computed once
  const std::string page = Draw(plan, *outcome);
  EXPECT_THAT(page, HasSubstr("rank 1: 4 of 8 experts, 1.5 MiB, 50.0 % of what one process needs"));
  EXPECT_THAT(page, HasSubstr(Format("rank 0 ==== {:>3} row", outcome->traffic[0][1].rows)));
  EXPECT_THAT(page, HasSubstr("largest difference 0: the same bits"));
}

TEST(Demo, DrawsDependOnTheSeedAlone) {
  std::vector<float> whole(50), part(9);
  Draw(3, 1, 7, 0, 1.0, whole);
  Draw(3, 1, 7, 21, 1.0, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 21));
  std::vector<float> other(50);
  Draw(4, 1, 7, 0, 1.0, other);
  EXPECT_NE(whole, other);
  for (const float x : whole) EXPECT_LE(std::fabs(x), 1.0f);
}

TEST(Demo, RefusesWhatMakesNoSense) {
  const auto refusal = [](auto change) {
    Plan plan = SmallPlan();
    change(plan);
    const auto outcome = RunDemo(plan);
    return outcome ? std::string() : outcome.error().message;
  };
  EXPECT_THAT(refusal([](Plan& p) { p.num_ranks = 9; }),
              HasSubstr("--nproc-per-node 9 is more than --num-experts 8"));
  EXPECT_THAT(refusal([](Plan& p) { p.shape.top_k = 9; }), HasSubstr("--top-k 9 of --num-experts 8"));
  EXPECT_THAT(refusal([](Plan& p) { p.backend = "ring"; }), HasSubstr("all2all backend 'ring' is unknown"));
  EXPECT_THAT(refusal([](Plan& p) {
                p.shape.num_experts = 4096;
                p.shape.hidden = 65536;
                p.shape.inter = 262144;
              }),
              HasSubstr("Make one of these smaller"));
}

TEST(Demo, ALayerOfAModel) {
  const std::string folder = CADRE_SOURCE_DIR "/models/demo";
  for (const char* backend : {"allgather_reducescatter", "deepep_low_latency"}) {
    Plan plan;
    plan.isa = kernels::BestIsa();
    plan.num_ranks = 3;
    plan.backend = backend;
    plan.shape.num_tokens = 4;
    const auto part = FindModelPart(folder, "", "What is 17 + 25?", 12);
    ASSERT_TRUE(part) << part.error().message;
    plan.shape.model = *part;
    const nn::MoeSpec& moe = (*part)->spec.moe;
    plan.shape.num_experts = moe.num_experts;
    plan.shape.top_k = moe.top_k;
    plan.shape.hidden = (*part)->spec.hidden;
    plan.shape.inter = moe.inter;
    const auto outcome = RunDemo(plan);
    ASSERT_TRUE(outcome) << outcome.error().message;
    EXPECT_GT(outcome->largest_output, 0);
    EXPECT_LE(outcome->worst_share, 1.0);
    int64_t bytes = 0;
    for (const RankReport& rank : outcome->ranks) bytes += rank.expert_bytes;
    EXPECT_EQ(bytes, outcome->all_expert_bytes);
    EXPECT_THAT(Draw(plan, *outcome), HasSubstr("'What"));
    // The same token is routed alike wherever it stands: a prompt that repeats.
    const auto repeated = FindModelPart(folder, "", "x", 12);
    ASSERT_TRUE(repeated) << repeated.error().message;
    plan.shape.model = *repeated;
    const auto same = RunDemo(plan);
    ASSERT_TRUE(same) << same.error().message;
    for (const RankReport& rank : same->ranks) {
      EXPECT_TRUE(std::equal(rank.out.begin() + plan.shape.hidden, rank.out.end(), rank.out.begin()));
      EXPECT_EQ(rank.out, same->ranks[0].out);
    }
  }
}

TEST(Demo, TheCommandAnswersWrongWords) {
  const auto run = [](std::vector<std::string> words) {
    words.insert(words.begin(), "demo");
    return RunCommand(words, {});
  };
  EXPECT_EQ(run({"--nproc-per-node", "0"}), 2);
  EXPECT_EQ(run({"--nproc-per-node", "9"}), 2);
  EXPECT_EQ(run({"--all2all-backend", "ring"}), 2);
  EXPECT_EQ(run({"--num-tokens", "many"}), 2);
  EXPECT_EQ(run({"models/demo"}), 2);
  EXPECT_EQ(run({"--prompt", "x"}), 2);
  EXPECT_EQ(run({"--model", "/no/such/model"}), 3);
  EXPECT_EQ(run({"--model", CADRE_SOURCE_DIR "/models/demo", "--seed", "1"}), 2);
  EXPECT_EQ(run({"--python", "--model", "x"}), 5);
  EXPECT_EQ(run({"--json", "/no/such/folder/x"}), 2);
}

TEST(FindGpus, SaysWhatItLookedAt) {
  EXPECT_EQ(sys::FindGpus("/no/such/root").count, 0);
  EXPECT_THAT(sys::FindGpus("/no/such/root").where, HasSubstr("/dev/nvidia0"));
}

}  // namespace
}  // namespace cadre::app::demo
