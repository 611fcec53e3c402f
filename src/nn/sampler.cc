#include "nn/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <unordered_map>

#include "base/random.h"
#include "kernels/elementwise.h"

namespace cadre::nn {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

using Candidate = std::pair<float, int32_t>;  // (logit or probability, token)

// Higher value first; the lower id first on ties, so that every order is total.
bool Better(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

int32_t ArgMax(const kernels::Device& device, std::span<const float> x) {
  return kernels::ArgMax(device, x.data(), static_cast<int64_t>(x.size()));
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

// Probabilities in (0, 1] by size, eight buckets an octave: their bits rise as they do.
constexpr size_t kNumBuckets = 1024;
size_t BucketOf(float p) {
  return (std::bit_cast<uint32_t>(1.0f) - std::bit_cast<uint32_t>(p)) >> 20;
}

// Keeps the fewest best candidates that weigh at least `wanted` together. Whole buckets from the top; only
// the bucket on the border is sorted.
void KeepMass(std::vector<Candidate>& candidates, double wanted) {
  std::array<double, kNumBuckets> mass = {};
  for (const Candidate& c : candidates) mass[BucketOf(c.first)] += c.first;
  size_t border = 0;
  while (border < kNumBuckets && mass[border] < wanted) wanted -= mass[border++];
  std::erase_if(candidates, [&](const Candidate& c) { return BucketOf(c.first) > border; });
  const auto inside = std::ranges::partition(candidates, [&](const Candidate& c) {
                        return BucketOf(c.first) < border;
                      }).begin();
  std::sort(inside, candidates.end(), Better);
  auto end = inside;
  while (end != candidates.end() && wanted > 0) wanted -= (end++)->first;
  candidates.erase(end, candidates.end());
}

// Fills `candidates` with the tokens that may be drawn, `first` holding probabilities relative to the best
// token's. Tokens below (1 - top_p) / V together weigh less than 1 - top_p: top-p never needs them.
void CollectCandidates(const kernels::Device& device, std::span<const float> logits, const SamplingOptions& o,
                       SamplerScratch& scratch) {
  const float max = logits[static_cast<size_t>(ArgMax(device, logits))];
  std::vector<float>& p = scratch.probabilities;
  p.resize(logits.size());
  kernels::ScaledExp(device, logits.data(), static_cast<int64_t>(p.size()), max,
                     static_cast<float>(1.0 / o.temperature), p.data());
  // min_p is relative to the best token's probability too. NaN is below any bound.
  float least = std::max(static_cast<float>(o.min_p), std::numeric_limits<float>::min());
  const auto width = static_cast<int64_t>(p.size());
  double total = kernels::SumAtLeast(device, p.data(), width, least);
  if (o.top_p < 1.0 && o.top_k == 0) {
    least = std::max(least, static_cast<float>(total * (1.0 - o.top_p) / static_cast<double>(p.size())));
  }
  auto& candidates = scratch.candidates;
  scratch.selected.resize(p.size());
  const auto count =
      static_cast<size_t>(kernels::SelectAtLeast(device, p.data(), width, least, scratch.selected.data()));
  candidates.clear();
  for (const int32_t token : std::span(scratch.selected).first(count)) {
    candidates.emplace_back(p[static_cast<size_t>(token)], token);
  }
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < count) {
    std::nth_element(candidates.begin(), candidates.begin() + o.top_k, candidates.end(), Better);
    candidates.resize(static_cast<size_t>(o.top_k));
    std::ranges::sort(candidates, Better);  // nth_element leaves an order of its own
    total = 0;
    for (const Candidate& c : candidates) total += c.first;
  }
  if (o.top_p < 1.0) KeepMass(candidates, o.top_p * total);
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

Logprobs ComputeLogprobs(const kernels::Device& device, std::span<const float> logits, int32_t token,
                         int num_best, SamplerScratch& scratch, bool as_logits) {
  const double lse =
      as_logits ? 0 : kernels::LogSumExp(device, logits.data(), static_cast<int64_t>(logits.size()));
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

namespace {

// The logits of the distribution that a token was drawn from, in scratch.probabilities: CollectCandidates has
// left in scratch.candidates what can be drawn.
std::span<const float> ProcessedLogits(std::span<const float> used, const SamplingOptions& options,
                                       SamplerScratch& scratch) {
  std::vector<float>& processed = scratch.probabilities;
  const auto factor = static_cast<float>(1.0 / options.temperature);
  const bool all = options.top_p >= 1.0 && options.top_k == 0 && options.min_p <= 0.0;
  processed.assign(used.size(), kMinusInfinity);
  if (all || scratch.candidates.empty()) {
    for (size_t i = 0; i < used.size(); ++i) processed[i] = used[i] * factor;
  } else {
    for (const Candidate& c : scratch.candidates) {
      const auto token = static_cast<size_t>(c.second);
      processed[token] = used[token] * factor;
    }
  }
  return processed;
}

}  // namespace

Sampled SampleToken(const kernels::Device& device, std::span<const float> logits, const SamplerInput& input,
                    SamplerScratch& scratch) {
  const SamplingOptions& options = *input.options;
  std::span<const float> used = logits;
  if (ChangesLogits(input)) {
    scratch.logits.assign(logits.begin(), logits.end());
    ChangeLogits(scratch.logits, input);
    used = scratch.logits;
  }
  Sampled sampled;
  if (options.temperature == 0.0) {
    sampled.token = ArgMax(device, used);
  } else {
    CollectCandidates(device, used, options, scratch);
    // Nothing left to draw from (all forbidden, or NaN everywhere): the greedy choice keeps the sequence
    // going.
    sampled.token = scratch.candidates.empty()
                        ? ArgMax(device, used)
                        : Draw(scratch.candidates, UniformAt(options.seed, 0, input.tokens.size()));
  }
  if (!options.logprobs) return sampled;
  const LogprobsMode mode = options.logprobs_mode;
  const bool processed = mode == LogprobsMode::kProcessedLogprobs || mode == LogprobsMode::kProcessedLogits;
  const bool as_logits = mode == LogprobsMode::kRawLogits || mode == LogprobsMode::kProcessedLogits;
  const std::span<const float> reported = !processed ? logits
                                          : options.temperature == 0.0
                                              ? used  // as vLLM: greedy has no temperature
                                              : ProcessedLogits(used, options, scratch);
  sampled.logprobs = ComputeLogprobs(device, reported, sampled.token, *options.logprobs, scratch, as_logits);
  return sampled;
}

}  // namespace cadre::nn
