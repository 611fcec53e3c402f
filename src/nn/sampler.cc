#include "nn/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "base/random.h"

namespace cadre::nn {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

using Candidate = std::pair<float, int32_t>;  // (logit or probability, token)

// Higher value first; the lower id first on ties, so that every order is total.
bool Better(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

// The lowest index of the largest value; a NaN never wins.
int32_t ArgMax(std::span<const float> x) {
  size_t best = 0;
  float value = kMinusInfinity;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] > value) {
      value = x[i];
      best = i;
    }
  }
  return static_cast<int32_t>(best);
}

// log(sum(exp(x))) with f64 sums in index order.
double LogSumExp(std::span<const float> x, float max) {
  if (max == kMinusInfinity) return max;
  double sum = 0;
  for (const float v : x) sum += std::exp(v - max);
  return max + std::log(sum);
}

bool ChangesLogits(const SamplerInput& input) {
  const SamplingOptions& o = *input.options;
  return o.repetition_penalty != 1.0 || o.presence_penalty != 0.0 || o.frequency_penalty != 0.0 ||
         !o.logit_bias.empty() || !o.allowed_token_ids.empty() || !o.bad_words.empty() ||
         !input.forbidden_tokens.empty();
}

void KeepOnly(std::vector<float>& logits, std::span<const int32_t> allowed) {
  std::vector<Candidate> kept;
  for (const int32_t token : allowed) kept.emplace_back(logits[static_cast<size_t>(token)], token);
  std::ranges::fill(logits, kMinusInfinity);
  for (const auto& [logit, token] : kept) logits[static_cast<size_t>(token)] = logit;
}

// Forbids the last token of every bad word whose other tokens the sequence now ends with.
void ForbidBadWords(std::vector<float>& logits, const SamplerInput& input) {
  for (const auto& word : input.options->bad_words) {
    if (word.empty() || word.size() - 1 > input.tokens.size()) continue;
    const auto head = std::span(word).first(word.size() - 1);
    if (std::ranges::equal(input.tokens.last(head.size()), head)) {
      logits[static_cast<size_t>(word.back())] = kMinusInfinity;
    }
  }
}

// Repetition looks at prompt and output (factor), presence and frequency at the output alone (difference).
void ApplyPenalties(std::vector<float>& logits, const SamplerInput& input) {
  const SamplingOptions& o = *input.options;
  std::unordered_map<int32_t, int> output_count;
  for (const int32_t token : input.tokens.subspan(static_cast<size_t>(input.num_prompt_tokens)))
    ++output_count[token];
  if (o.repetition_penalty != 1.0) {
    const auto penalize = [&](int32_t token) {
      float& logit = logits[static_cast<size_t>(token)];
      const auto factor = static_cast<float>(o.repetition_penalty);
      logit = logit > 0 ? logit / factor : logit * factor;
    };
    std::unordered_map<int32_t, int> seen = output_count;
    for (const int32_t token : input.tokens.first(static_cast<size_t>(input.num_prompt_tokens)))
      seen[token] = 1;
    for (const auto& [token, count] : seen) penalize(token);
  }
  if (o.presence_penalty == 0.0 && o.frequency_penalty == 0.0) return;
  for (const auto& [token, count] : output_count) {
    logits[static_cast<size_t>(token)] -=
        static_cast<float>(o.frequency_penalty * count + o.presence_penalty);
  }
}

void ChangeLogits(std::vector<float>& logits, const SamplerInput& input) {
  const SamplingOptions& o = *input.options;
  if (!o.allowed_token_ids.empty()) KeepOnly(logits, o.allowed_token_ids);
  for (const int32_t token : input.forbidden_tokens) logits[static_cast<size_t>(token)] = kMinusInfinity;
  ForbidBadWords(logits, input);
  for (const auto& [token, bias] : o.logit_bias) logits[static_cast<size_t>(token)] += bias;
  ApplyPenalties(logits, input);
}

// Fills `candidates` with the tokens that may be drawn, best first, `first` holding probabilities that need
// not sum to one. Only what top-p can ever need is sorted: tokens below (1 - top_p) / V together weigh less
// than 1 - top_p.
void CollectCandidates(std::span<const float> logits, const SamplingOptions& o,
                       std::vector<Candidate>& candidates) {
  const float max = logits[static_cast<size_t>(ArgMax(logits))];
  const auto scale = static_cast<float>(1.0 / o.temperature);
  const bool sorted = o.top_p < 1.0 || o.top_k > 0;
  double total = 0;
  candidates.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const float p = std::exp((logits[i] - max) * scale);
    if (!(p > 0) || p < o.min_p) continue;  // p is relative to the best token's, as min_p is; NaN is dropped
    total += p;
    candidates.emplace_back(p, static_cast<int32_t>(i));
  }
  if (!sorted) return;
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + o.top_k, candidates.end(), Better);
    candidates.resize(static_cast<size_t>(o.top_k));
    total = 0;
    for (const Candidate& c : candidates) total += c.first;
  } else if (o.top_p < 1.0) {
    const auto floor = static_cast<float>(total * (1.0 - o.top_p) / static_cast<double>(candidates.size()));
    std::erase_if(candidates, [&](const Candidate& c) { return c.first < floor; });
  }
  std::ranges::sort(candidates, Better);
  if (o.top_p >= 1.0) return;
  double mass = 0;
  size_t keep = 0;
  while (keep < candidates.size() && mass < o.top_p * total) mass += candidates[keep++].first;
  candidates.resize(std::max<size_t>(keep, 1));
}

int32_t Draw(const std::vector<Candidate>& candidates, double uniform) {
  double total = 0;
  for (const Candidate& c : candidates) total += c.first;
  double left = uniform * total;
  for (const Candidate& c : candidates) {
    left -= c.first;
    if (left < 0) return c.second;
  }
  return candidates.back().second;  // rounding: the last one closes the interval
}

}  // namespace

Logprobs ComputeLogprobs(std::span<const float> logits, int32_t token, int num_best,
                         SamplerScratch& scratch) {
  const float max = logits[static_cast<size_t>(ArgMax(logits))];
  const double lse = LogSumExp(logits, max);
  const auto logprob = [&](float logit) { return static_cast<float>(logit - lse); };
  const float own = logits[static_cast<size_t>(token)];
  const auto above = std::ranges::count_if(logits, [&](float v) { return v > own; });
  Logprobs result = {{token, logprob(own), static_cast<int32_t>(above) + 1}};
  if (num_best == 0) return result;
  auto& best = scratch.candidates;
  best.clear();
  for (size_t i = 0; i < logits.size(); ++i) best.emplace_back(logits[i], static_cast<int32_t>(i));
  const size_t count = num_best < 0 ? best.size() : std::min(best.size(), static_cast<size_t>(num_best));
  std::partial_sort(best.begin(), best.begin() + static_cast<int64_t>(count), best.end(), Better);
  for (size_t i = 0; i < count; ++i) {
    result.push_back({best[i].second, logprob(best[i].first), static_cast<int32_t>(i) + 1});
  }
  return result;
}

Sampled SampleToken(std::span<const float> logits, const SamplerInput& input, SamplerScratch& scratch) {
  const SamplingOptions& options = *input.options;
  std::span<const float> used = logits;
  if (ChangesLogits(input)) {
    scratch.logits.assign(logits.begin(), logits.end());
    ChangeLogits(scratch.logits, input);
    used = scratch.logits;
  }
  Sampled sampled;
  if (options.temperature == 0.0) {
    sampled.token = ArgMax(used);
  } else {
    CollectCandidates(used, options, scratch.candidates);
    // Nothing left to draw from (all forbidden, or NaN everywhere): the greedy choice keeps the sequence
    // going.
    sampled.token = scratch.candidates.empty()
                        ? ArgMax(used)
                        : Draw(scratch.candidates, UniformAt(options.seed, 0, input.tokens.size()));
  }
  if (options.logprobs) sampled.logprobs = ComputeLogprobs(logits, sampled.token, *options.logprobs, scratch);
  return sampled;
}

}  // namespace cadre::nn
