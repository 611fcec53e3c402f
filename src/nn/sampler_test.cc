#include "nn/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

namespace cadre::nn {
namespace {

const kernels::Device kDevice{.isa = kernels::BestIsa()};

std::vector<float> RandomLogits(size_t size, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(rng);
  return logits;
}

// The slow twin: probabilities by the definitions, in f64, over all tokens.
std::vector<double> Probabilities(const std::vector<float>& logits, const SamplingOptions& o) {
  const double max = *std::ranges::max_element(logits);
  std::vector<std::pair<double, size_t>> sorted;
  for (size_t i = 0; i < logits.size(); ++i)
    sorted.emplace_back(std::exp((logits[i] - max) / o.temperature), i);
  std::ranges::sort(sorted, [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::erase_if(sorted, [&](const auto& c) { return c.first < o.min_p; });
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < sorted.size())
    sorted.resize(static_cast<size_t>(o.top_k));
  double total = 0;
  for (const auto& [p, i] : sorted) total += p;
  double mass = 0;
  size_t keep = 0;
  while (keep < sorted.size() && mass < o.top_p * total) mass += sorted[keep++].first;
  sorted.resize(std::max<size_t>(keep, 1));
  std::vector<double> probabilities(logits.size(), 0.0);
  for (const auto& [p, i] : sorted) probabilities[i] = p / mass;
  return probabilities;
}

// Draws at many positions; the frequencies must fit the definition's probabilities.
void ExpectFrequencies(const std::vector<float>& logits, const SamplingOptions& options) {
  constexpr int kDraws = 20000;
  SamplerScratch scratch;
  std::vector<int> counts(logits.size());
  std::vector<int32_t> tokens;
  for (int i = 0; i < kDraws; ++i) {
    tokens.push_back(0);  // moves the position on
    ++counts[static_cast<size_t>(
        SampleToken(kDevice, logits, {.options = &options, .tokens = tokens, .num_prompt_tokens = kDraws + 1},
                    scratch)
            .token)];
  }
  const std::vector<double> wanted = Probabilities(logits, options);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double deviation = std::sqrt(kDraws * wanted[i] * (1 - wanted[i]));
    EXPECT_NEAR(counts[i], kDraws * wanted[i], 5 * deviation + 1e-9) << "token " << i;
  }
}

TEST(Sampler, FrequenciesFollowTheDefinition) {
  const auto logits = RandomLogits(50, 1);
  for (const double temperature : {0.5, 1.0, 2.0}) {
    for (const int top_k : {0, 1, 7}) {
      for (const double top_p : {0.3, 0.9, 1.0}) {
        for (const double min_p : {0.0, 0.1}) {
          SCOPED_TRACE(temperature * 1000 + top_k * 100 + top_p * 10 + min_p);
          SamplingOptions options{.temperature = temperature, .top_p = top_p, .top_k = top_k, .min_p = min_p};
          options.seed = 3;
          ExpectFrequencies(logits, options);
        }
      }
    }
  }
}

// Large and flat or peaked vocabularies: what is drawn is always one that the definition allows, up to tokens
// on the very border, where sums in another order may differ.
TEST(Sampler, DrawsOnlyWhatTheDefinitionAllows) {
  SamplerScratch scratch;
  for (const float spread : {0.0f, 0.01f, 1.0f, 30.0f, 1e30f}) {
    auto logits = RandomLogits(3000, 7);
    for (float& logit : logits) logit *= spread;
    for (const double top_p : {0.001, 0.5, 0.9, 0.999, 1.0}) {
      for (const int top_k : {0, 3, 900}) {
        SamplingOptions options{.temperature = 0.8, .top_p = top_p, .top_k = top_k};
        SamplingOptions wider = options;
        wider.top_p = std::min(1.0, top_p + 1e-4);
        const std::vector<double> allowed = Probabilities(logits, wider);
        std::vector<int32_t> tokens;
        for (uint64_t i = 0; i < 300; ++i) {
          tokens.push_back(0);
          options.seed = i;
          const SamplerInput input{.options = &options, .tokens = tokens, .num_prompt_tokens = 301};
          const int32_t token = SampleToken(kDevice, logits, input, scratch).token;
          ASSERT_GT(allowed[static_cast<size_t>(token)], 0) << spread << " " << top_p << " " << top_k;
        }
      }
    }
  }
}

TEST(Sampler, GreedyTakesTheLowestOfEqualsAndSkipsNan) {
  SamplerScratch scratch;
  SamplingOptions greedy{.temperature = 0};
  const std::vector<float> logits = {NAN, 1, 3, 3, 2};
  EXPECT_EQ(SampleToken(kDevice, logits, {.options = &greedy}, scratch).token, 2);
}

TEST(Sampler, SeedAndPositionAloneDecide) {
  const auto logits = RandomLogits(1000, 2);
  SamplerScratch a, b;
  SamplingOptions options;
  options.seed = 9;
  const std::vector<int32_t> tokens = {1, 2, 3};
  const SamplerInput input{.options = &options, .tokens = tokens, .num_prompt_tokens = 3};
  const int32_t first = SampleToken(kDevice, logits, input, a).token;
  SampleToken(kDevice, RandomLogits(1000, 5), input, a);  // other company in the scratch
  EXPECT_EQ(SampleToken(kDevice, logits, input, a).token, first);
  EXPECT_EQ(SampleToken(kDevice, logits, input, b).token, first);
}

TEST(Sampler, WhatIsForbiddenIsNeverDrawn) {
  const std::vector<float> logits = {0, 5, 4, 3};
  SamplerScratch scratch;
  SamplingOptions options{.temperature = 0};
  const std::vector<int32_t> forbidden = {1};
  EXPECT_EQ(SampleToken(kDevice, logits, {.options = &options, .forbidden_tokens = forbidden}, scratch).token,
            2);
  options.allowed_token_ids = {0, 3};
  EXPECT_EQ(SampleToken(kDevice, logits, {.options = &options}, scratch).token, 3);
  options = {.temperature = 0};
  options.bad_words = {{7, 8, 1}, {2}};
  const std::vector<int32_t> tokens = {7, 8};
  EXPECT_EQ(
      SampleToken(kDevice, logits, {.options = &options, .tokens = tokens, .num_prompt_tokens = 2}, scratch)
          .token,
      3);
  options = {.temperature = 0};
  options.logit_bias = {{0, 100.0f}};
  EXPECT_EQ(SampleToken(kDevice, logits, {.options = &options}, scratch).token, 0);
}

TEST(Sampler, PenaltiesFollowTheDefinition) {
  const std::vector<float> logits = {2, 1.9f, -1, 0};
  SamplerScratch scratch;
  const std::vector<int32_t> tokens = {0, 1, 1};  // prompt: 0; output: 1 1
  SamplingOptions options{.temperature = 0};
  const SamplerInput input{.options = &options, .tokens = tokens, .num_prompt_tokens = 1};
  options.frequency_penalty = 1.0;  // token 1: 1.9 - 2
  EXPECT_EQ(SampleToken(kDevice, logits, input, scratch).token, 0);
  options = {.temperature = 0, .repetition_penalty = 4.0};  // 0: 0.5, 1: 0.475, 2: -1, 3: 0
  EXPECT_EQ(SampleToken(kDevice, logits, input, scratch).token, 0);
  options.presence_penalty = -2.0;  // lifts what was generated
  EXPECT_EQ(SampleToken(kDevice, logits, input, scratch).token, 1);
}

TEST(Sampler, LogprobsAreOfTheRawLogits) {
  const auto logits = RandomLogits(100, 4);
  SamplerScratch scratch;
  const Logprobs logprobs = ComputeLogprobs(kDevice, logits, 17, 3, scratch);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  ASSERT_EQ(logprobs.size(), 4u);
  EXPECT_EQ(logprobs[0].token, 17);
  EXPECT_NEAR(logprobs[0].logprob, logits[17] - std::log(sum), 1e-5);
  EXPECT_EQ(logprobs[0].rank, 1 + std::ranges::count_if(logits, [&](float l) { return l > logits[17]; }));
  EXPECT_EQ(logprobs[1].token, std::ranges::max_element(logits) - logits.begin());
  EXPECT_GE(logprobs[1].logprob, logprobs[2].logprob);
  EXPECT_EQ(ComputeLogprobs(kDevice, logits, 17, -1, scratch).size(), 101u);
}

// Over the options that cut the distribution: what is reported is the log of the probability that the slow
// twin draws with, and the token does not depend on what is reported.
TEST(Sampler, ProcessedLogprobsAreOfTheDistributionThatIsDrawnFrom) {
  SamplerScratch scratch;
  for (const double temperature : {0.3, 1.0, 2.0}) {
    for (const double top_p : {1.0, 0.8}) {
      for (const int top_k : {0, 1, 7}) {
        for (const double min_p : {0.0, 0.2}) {
          const auto logits = RandomLogits(200, static_cast<uint32_t>(top_k) + 1);
          SamplingOptions options{.temperature = temperature, .top_p = top_p, .top_k = top_k, .min_p = min_p};
          options.logprobs = -1;
          const Sampled raw = SampleToken(kDevice, logits, {.options = &options}, scratch);
          options.logprobs_mode = LogprobsMode::kProcessedLogprobs;
          const Sampled drawn = SampleToken(kDevice, logits, {.options = &options}, scratch);
          EXPECT_EQ(raw.token, drawn.token);
          const std::vector<double> expected = Probabilities(logits, options);
          ASSERT_EQ(drawn.logprobs.size(), 201u);
          for (const TokenLogprob& entry : drawn.logprobs) {
            const double p = expected[static_cast<size_t>(entry.token)];
            EXPECT_NEAR(std::exp(static_cast<double>(entry.logprob)), p, 1e-5 + 1e-4 * p) << entry.token;
          }
          options.logprobs_mode = LogprobsMode::kProcessedLogits;
          const Sampled scaled = SampleToken(kDevice, logits, {.options = &options}, scratch);
          EXPECT_NEAR(scaled.logprobs[0].logprob, logits[static_cast<size_t>(raw.token)] / temperature, 1e-4);
          options.logprobs_mode = LogprobsMode::kRawLogits;
          const Sampled plain = SampleToken(kDevice, logits, {.options = &options}, scratch);
          EXPECT_EQ(plain.logprobs[0].logprob, logits[static_cast<size_t>(raw.token)]);
          EXPECT_EQ(plain.logprobs[0].rank, raw.logprobs[0].rank);
        }
      }
    }
  }
}

TEST(Sampler, GreedyProcessedLogprobsKnowPenaltiesAndNoTemperature) {
  const std::vector<float> logits = {2, 1, 0};
  SamplerScratch scratch;
  SamplingOptions options{.temperature = 0, .logit_bias = {{0, -100.0f}}};
  options.logprobs_mode = LogprobsMode::kProcessedLogprobs;
  options.logprobs = 0;
  const Sampled sampled = SampleToken(kDevice, logits, {.options = &options}, scratch);
  EXPECT_EQ(sampled.token, 1);
  EXPECT_NEAR(sampled.logprobs[0].logprob, 1 - std::log(std::exp(1.0) + 1), 1e-5);
}

}  // namespace
}  // namespace cadre::nn
