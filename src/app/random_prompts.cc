#include "app/random_prompts.h"

#include <cmath>

#include "base/random.h"

namespace cadre::app {
namespace {

// Streams of the generator, so that no two draws share a number.
enum Stream : uint64_t { kPrefix, kInputLength, kOutputLength, kOffset };

int64_t DrawLength(int64_t mean, double ratio, uint64_t seed, Stream stream, int64_t index) {
  const auto low = static_cast<int64_t>(std::floor(static_cast<double>(mean) * (1 - ratio)));
  const auto high = static_cast<int64_t>(std::ceil(static_cast<double>(mean) * (1 + ratio)));
  const double u = UniformAt(seed, stream, static_cast<uint64_t>(index));
  return std::max<int64_t>(1, low + static_cast<int64_t>(u * static_cast<double>(high - low + 1)));
}

}  // namespace

config::RandomDatasetOptions Effective(const config::RandomDatasetOptions& random,
                                       const std::optional<int64_t>& input_len,
                                       const std::optional<int64_t>& output_len) {
  config::RandomDatasetOptions out = random;
  out.input_len = input_len.value_or(out.input_len);
  out.output_len = output_len.value_or(out.output_len);
  return out;
}

Status CheckPromptCount(double num_prompts, double num_sequences, double prompt_len) {
  constexpr double kMaxTokens = 1 << 28, kMaxSequences = 1 << 22;
  if (num_sequences <= kMaxSequences && num_prompts * prompt_len <= kMaxTokens) return {};
  return Fail(Code::kInvalidArgument,
              "{:.0f} prompts of {:.0f} tokens with {:.0f} answers are more than one run takes: at most "
              "{:.0f} tokens and "
              "{:.0f} answers",
              num_prompts, prompt_len, num_sequences, kMaxTokens, kMaxSequences);
}

Status CheckPromptCount(const config::RandomDatasetOptions& shape, int64_t num_prompts, int64_t n) {
  const auto prompts = static_cast<double>(num_prompts);
  const double length = static_cast<double>(shape.input_len) * (1 + shape.range_ratio);
  return CheckPromptCount(prompts, prompts * static_cast<double>(n),
                          length + static_cast<double>(shape.prefix_len));
}

std::vector<int64_t> RandomTokens(int64_t length, int64_t vocab_size, uint64_t seed, uint64_t stream) {
  std::vector<int64_t> ids(static_cast<size_t>(length));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int64_t>(UniformAt(seed, stream, i) * static_cast<double>(vocab_size));
  }
  return ids;
}

std::vector<RandomPrompt> MakeRandomPrompts(const config::RandomDatasetOptions& options, int64_t num_prompts,
                                            int64_t vocab_size, uint64_t seed) {
  const std::vector<int64_t> prefix = RandomTokens(options.prefix_len, vocab_size, seed, kPrefix);
  std::vector<RandomPrompt> prompts(static_cast<size_t>(num_prompts));
  for (int64_t i = 0; i < num_prompts; ++i) {
    RandomPrompt& prompt = prompts[static_cast<size_t>(i)];
    prompt.ids = prefix;
    const int64_t length = DrawLength(options.input_len, options.range_ratio, seed, kInputLength, i);
    prompt.output_len = DrawLength(options.output_len, options.range_ratio, seed, kOutputLength, i);
    const auto offset = static_cast<int64_t>(UniformAt(seed, kOffset, static_cast<uint64_t>(i)) *
                                             static_cast<double>(vocab_size));
    for (int64_t j = 0; j < length; ++j) prompt.ids.push_back((offset + i + j) % vocab_size);
  }
  return prompts;
}

bool LongPrompts::Has(int64_t index) const {
  const auto up_to = [&](int64_t n) { return std::floor(share * static_cast<double>(n) + 0.5); };
  return up_to(index + 1) > up_to(index);
}

std::vector<RandomPrompt> MakeMixedPrompts(const config::RandomDatasetOptions& chats,
                                           const LongPrompts& longs, int64_t num_prompts, int64_t vocab_size,
                                           uint64_t seed) {
  constexpr uint64_t kOtherSeed = 0x9E3779B97F4A7C15;  // the long ones' lengths and tokens are their own
  auto prompts = MakeRandomPrompts(chats, num_prompts, vocab_size, seed);
  int64_t num_long = 0;
  for (int64_t i = 0; i < num_prompts; ++i) num_long += longs.Has(i);
  config::RandomDatasetOptions shape = chats;
  shape.input_len = longs.input_len;
  shape.output_len = longs.output_len;
  shape.prefix_len = 0;
  auto others = MakeRandomPrompts(shape, num_long, vocab_size, seed ^ kOtherSeed);
  for (int64_t i = num_prompts - 1; i >= 0; --i) {
    if (!longs.Has(i)) continue;
    prompts[static_cast<size_t>(i)] = std::move(others.back());
    prompts[static_cast<size_t>(i)].is_long = true;
    others.pop_back();
  }
  return prompts;
}

}  // namespace cadre::app
