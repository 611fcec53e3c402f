#pragma once
// Prompts of random tokens, in the shape of vLLM's random data set: each is a common prefix and a run of
// consecutive ids from a random start, (offset + index + position) mod vocabulary; lengths are even within
// floor(len * (1 - ratio)) .. ceil(len * (1 + ratio)).
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "config/command_options.h"

namespace cadre::app {

struct RandomPrompt {
  std::vector<int64_t> ids;
  int64_t output_len = 0;
  bool is_long = false;  ///< of a mixed load: no chat
};

/// Input and output lengths of the flags that win over random.* where given.
config::RandomDatasetOptions Effective(const config::RandomDatasetOptions& random,
                                       const std::optional<int64_t>& input_len,
                                       const std::optional<int64_t>& output_len);

/// Errors: kInvalidArgument where so many prompts would not fit into memory; they are all made before the
/// first is sent.
Status CheckPromptCount(double num_prompts, double num_sequences, double prompt_len);
Status CheckPromptCount(const config::RandomDatasetOptions& shape, int64_t num_prompts, int64_t n);

/// The same prompts for the same seed, everywhere.
std::vector<RandomPrompt> MakeRandomPrompts(const config::RandomDatasetOptions& options, int64_t num_prompts,
                                            int64_t vocab_size, uint64_t seed);

/// Long prompts among others. share: of all prompts, 0 to 1; lengths vary as those of the others do.
struct LongPrompts {
  double share = 0;
  int64_t input_len = 0, output_len = 0;

  /// Whether prompt `index` is long: evenly spread, and of any n prompts share * n, rounded.
  bool Has(int64_t index) const;
};

/// MakeRandomPrompts, some of which are long ones in place.
std::vector<RandomPrompt> MakeMixedPrompts(const config::RandomDatasetOptions& chats,
                                           const LongPrompts& longs, int64_t num_prompts, int64_t vocab_size,
                                           uint64_t seed);

/// `length` tokens drawn evenly.
std::vector<int64_t> RandomTokens(int64_t length, int64_t vocab_size, uint64_t seed, uint64_t stream);

}  // namespace cadre::app
