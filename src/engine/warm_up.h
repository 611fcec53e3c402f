#pragma once
// Steps of made-up prompts before the first client comes: they touch the buffers, pages and code that a step
// needs, so that the first client does not wait for page faults. Nothing is left of them but values in KV
// blocks that nobody refers to.
#include "engine/runner.h"

namespace cadre::engine {

struct WarmUpOptions {
  int64_t max_tokens = 0;  ///< most rows of a step
  int64_t max_model_len = 0;
  int64_t vocab_size = 0;
  int64_t num_kv_blocks = 0;
  int32_t block_size = 16;
  Duration step_time = std::chrono::milliseconds(100);  ///< how long the longer steps may take, about
};

/// Takes kWarmUpSteps steps, each as large as the speed of the one before lets it be. Collective over the
/// ranks that step together, each with its own numbers of rows; ranks without a scheduler call FollowWarmUp.
/// Errors: those of the steps.
Status WarmUp(Runner& runner, const WarmUpOptions& options);
Status FollowWarmUp(Runner& runner);

}  // namespace cadre::engine
