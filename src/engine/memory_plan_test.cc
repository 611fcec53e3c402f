#include "engine/memory_plan.h"

#include <gtest/gtest.h>

namespace cadre::engine {
namespace {

MemoryPlanInput SmallInput() {
  return {.total_bytes = 1 << 30,
          .total_source = "the host",
          .utilization = 0.5,
          .dense_bytes = 64 << 20,
          .expert_bytes = 128 << 20,
          .kv = {.num_layers = 4, .num_kv_heads = 2, .k_dim = 64, .v_dim = 64, .block_size = 16},
          .max_model_len = 4096,
          .max_num_seqs = 1000};
}

TEST(MemoryPlan, GivesTheRestToTheCache) {
  const auto plan = MakeMemoryPlan(SmallInput());
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  // 512 MiB - 192 MiB; a block is 4 layers x 2 heads x 128 columns x 16 tokens x 2 bytes = 32 KiB.
  EXPECT_EQ(plan->num_kv_blocks, (320 << 20) / (32 << 10));
  EXPECT_EQ(plan->host_bytes, 512 << 20);
}

TEST(MemoryPlan, SharesTheRestOverLocalRanks) {
  auto input = SmallInput();
  input.num_local_ranks = 2;
  const auto plan = MakeMemoryPlan(input);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->num_kv_blocks, ((512 - 64 - 256) << 20) / 2 / (32 << 10));
}

TEST(MemoryPlan, TakesNoMoreThanSequencesCanFill) {
  auto input = SmallInput();
  input.max_num_seqs = 2;
  EXPECT_EQ(MakeMemoryPlan(input)->num_kv_blocks, 2 * 4096 / 16);
}

TEST(MemoryPlan, CountsAdaptersOfEveryRank) {
  auto input = SmallInput();
  EXPECT_EQ(MakeMemoryPlan(input)->table.find("LoRA"), std::string::npos);
  input.adapter_bytes = 32 << 20;
  input.num_local_ranks = 2;
  const auto plan = MakeMemoryPlan(input);
  ASSERT_TRUE(plan.has_value());
  EXPECT_NE(plan->table.find("LoRA adapters"), std::string::npos) << plan->table;
  EXPECT_EQ(plan->num_kv_blocks, ((512 - 64 - 256 - 64) << 20) / 2 / (32 << 10));
}

TEST(MemoryPlan, TellsCopiesAndSparePlacesApart) {
  auto input = SmallInput();
  EXPECT_EQ(MakeMemoryPlan(input)->table.find("copies"), std::string::npos);
  input.redundant_bytes = 16 << 20;
  input.spare_bytes = 8 << 20;
  const auto plan = MakeMemoryPlan(input);
  EXPECT_NE(plan->table.find("of which 16 MiB a rank are further copies"), std::string::npos) << plan->table;
  EXPECT_NE(plan->table.find("spare expert places"), std::string::npos);
  // 512 MiB - 200 MiB: copies are part of the experts, spare places are not.
  EXPECT_EQ(plan->num_kv_blocks, (312 << 20) / (32 << 10));
}

TEST(MemoryPlan, SaysWhatIsMissing) {
  auto input = SmallInput();
  input.expert_bytes = 600 << 20;
  auto failed = MakeMemoryPlan(input);
  ASSERT_FALSE(failed.has_value());
  EXPECT_NE(failed.error().message.find("--gpu-memory-utilization"), std::string::npos);
  input = SmallInput();
  input.kv_cache_bytes = 1 << 20;
  failed = MakeMemoryPlan(input);
  ASSERT_FALSE(failed.has_value());
  EXPECT_NE(failed.error().message.find("--max-model-len to at most 512"), std::string::npos)
      << failed.error().message;
  EXPECT_NE(
      failed.error().message.find("raise --kv-cache-memory-bytes (or VLLM_CPU_KVCACHE_SPACE, now 1.0 MiB"),
      std::string::npos)
      << failed.error().message;
  input.kv_cache_bytes = 1;  // not one block: no length would do
  EXPECT_EQ(MakeMemoryPlan(input).error().message.find("--max-model-len to"), std::string::npos);
  input = SmallInput();
  input.num_kv_blocks = 3;
  failed = MakeMemoryPlan(input);
  ASSERT_FALSE(failed.has_value());
  EXPECT_NE(failed.error().message.find("raise --num-gpu-blocks-override (now 3) to 256"), std::string::npos)
      << failed.error().message;
  input = SmallInput();
  input.num_kv_blocks = 1 << 20;
  EXPECT_FALSE(MakeMemoryPlan(input).has_value());
}

}  // namespace
}  // namespace cadre::engine
