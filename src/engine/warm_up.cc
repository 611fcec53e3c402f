#include "engine/warm_up.h"

#include <algorithm>
#include <numeric>

#include "kv/layout.h"

namespace cadre::engine {
namespace {

constexpr int kWarmUpSteps = 3;
constexpr int64_t kFirstTokens = 64;
constexpr int64_t kMaxSequences = 32;

// Rows over up to 32 sequences; token ids far apart, so that the rows go to many experts.
Status Step(Runner& runner, const WarmUpOptions& options, int64_t num_tokens, a2a::Phase phase) {
  const int64_t num_sequences =
      std::clamp<int64_t>(std::min(num_tokens, options.num_kv_blocks), 1, kMaxSequences);
  const int64_t blocks_each = options.num_kv_blocks / num_sequences;
  const int64_t length = std::clamp<int64_t>(
      num_tokens / num_sequences, 1, std::min(options.max_model_len, blocks_each * options.block_size));
  std::vector<Sequence> sequences(static_cast<size_t>(num_sequences));
  std::vector<ScheduledSequence> plan;
  int64_t first_block = 0, token = 1;
  for (Sequence& sequence : sequences) {
    for (int64_t i = 0; i < length; ++i, token += 7919) {
      sequence.tokens.push_back(static_cast<int32_t>(token % options.vocab_size));
    }
    sequence.request.prompt = sequence.tokens;
    sequence.block_table.resize(static_cast<size_t>(kv::BlocksFor(length, options.block_size)));
    std::iota(sequence.block_table.begin(), sequence.block_table.end(), static_cast<int32_t>(first_block));
    first_block += blocks_each;
    plan.push_back({.sequence = &sequence, .num_tokens = static_cast<int32_t>(length)});
  }
  CADRE_TRY(runner.Run(plan, phase));
  return {};
}

}  // namespace

Status WarmUp(Runner& runner, const WarmUpOptions& options) {
  int64_t num_tokens = std::min(kFirstTokens, options.max_tokens);
  for (int step = 0; step < kWarmUpSteps; ++step) {
    const TimePoint start = Now();
    const a2a::Phase phase = step % 2 == 1 ? a2a::Phase::kDecode : a2a::Phase::kPrefill;  // both exchanges
    CADRE_TRY(Step(runner, options, num_tokens, phase));
    const double share = Seconds(options.step_time) / std::max(SecondsSince(start), 1e-6);
    num_tokens = std::clamp(static_cast<int64_t>(static_cast<double>(num_tokens) * share), num_tokens,
                            options.max_tokens);
  }
  return {};
}

Status FollowWarmUp(Runner& runner) {
  for (int step = 0; step < kWarmUpSteps; ++step) CADRE_TRY(runner.Follow());
  return {};
}

}  // namespace cadre::engine
