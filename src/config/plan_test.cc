// What `cadre plan` keeps of its command line.
#include "config/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/parse.h"

namespace cadre::config {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Args = std::vector<std::string>;

PlanOptions Of(Args args, const Environment& env = {}) {
  args.insert(args.begin(), "m");
  auto parsed = ParsePlan(args, env);
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? parsed->options : PlanOptions();
}

std::string ErrorOf(Args args) {
  args.insert(args.begin(), "m");
  const auto parsed = ParsePlan(args, {});
  return parsed ? "none" : parsed.error().param + ": " + parsed.error().message;
}

TEST(Plan, MemoryIsGiBWhereNoHostHasSoLittle) {
  EXPECT_EQ(Of({"--memory-per-host", "768"}).memory_per_host, int64_t{768} << 30);
  EXPECT_EQ(Of({"--memory-per-host", "768G"}).memory_per_host, int64_t{768} << 30);
  EXPECT_EQ(Of({"--memory-per-host", "1.5t"}).memory_per_host, 1'500'000'000'000);
  EXPECT_EQ(Of({"--memory-per-host", "64m"}).memory_per_host, 64'000'000);
  EXPECT_FALSE(Of({}).memory_per_host.has_value());
}

TEST(Plan, PassesOnWhatItDoesNotWriteItself) {
  const PlanOptions plan =
      Of({"--hosts", "2", "-tp", "2", "-ep", "--max-model-len", "4k", "--no-enable-prefix-caching",
          "--hf-overrides", R"({"a":1})", "--num-redundant-experts", "4", "--enable-eplb"});
  EXPECT_THAT(plan.given, Contains("tensor-parallel-size"));
  EXPECT_THAT(plan.given, Contains("enable-expert-parallel"));
  EXPECT_EQ(plan.eplb_config.Dump(), R"({"num_redundant_experts":4})");
  // In the order of the tables.
  EXPECT_THAT(plan.passed_on, ElementsAre("--max-model-len", "4000", "--hf-overrides", R"({"a":1})",
                                          "--no-enable-prefix-caching"));
  EXPECT_THAT(Of({"--hosts", "8", "--json"}).passed_on, IsEmpty());
  EXPECT_THAT(Of({"--max-model-len", "auto"}).passed_on, ElementsAre("--max-model-len=-1"));
  EXPECT_THAT(Of({}, {{"VLLM_ALL2ALL_BACKEND", "mori"}}).given, Contains("all2all-backend"));
}

// The words read back as the same options.
TEST(Plan, PassedOnWordsReadBack) {
  const Args args = {"--max-model-len",
                     "auto",
                     "--max-num-seqs",
                     "7",
                     "--quantization",
                     "fp8",
                     "--dtype",
                     "float32",
                     "--kv-cache-memory-bytes",
                     "4G",
                     "--hf-overrides",
                     R"({"x":{"y":"it's"}})",
                     "--threads",
                     "3"};
  const PlanOptions plan = Of(args);
  const PlanOptions again = Of(plan.passed_on);
  EXPECT_EQ(plan.engine, again.engine);
  EXPECT_EQ(plan.passed_on, again.passed_on);
}

TEST(Plan, OneHostsPartIsRefused) {
  for (const Args& args : {Args{"--headless"},
                           {"-dpl", "4"},
                           {"--nnodes", "2"},
                           {"--data-parallel-start-rank", "1"},
                           {"--data-parallel-hybrid-lb"},
                           {"--node-rank", "1"}})
    EXPECT_THAT(ErrorOf(args), HasSubstr("which cadre plan chooses for every host")) << args[0];
}

TEST(Plan, ChecksItsOwnFlags) {
  EXPECT_THAT(ErrorOf({"--hosts", "0"}), HasSubstr("--hosts must be at least 1"));
  EXPECT_THAT(ErrorOf({"--hosts", "1025"}), HasSubstr("at most 1024"));
  EXPECT_THAT(ErrorOf({"--target", "speed"}), HasSubstr("throughput"));
  EXPECT_THAT(ErrorOf({"--memory-per-host", "768GB"}), HasSubstr("--memory-per-host"));
  EXPECT_THAT(ErrorOf({"--memory-per-host", "0"}), HasSubstr("--memory-per-host must be at least 1"));
  EXPECT_THAT(ErrorOf({"--port", "1"}), HasSubstr("cadre serve"));
}

// A launcher's variables and bound CPUs are those of the machine that plans, not of the planned ones.
TEST(Plan, DoesNotLookAtThisProcessPlace) {
  const PlanOptions plan = Of({"-dp", "8"}, {{"SLURM_NTASKS", "4"},
                                             {"SLURM_PROCID", "1"},
                                             {"OMP_NUM_THREADS", "2"},
                                             {"VLLM_CPU_OMP_THREADS_BIND", "nobind"}});
  EXPECT_EQ(plan.engine.parallel.nnodes, 1);
  EXPECT_EQ(plan.engine.cpu.bind, CpuOptions::Bind::kAuto);
}

}  // namespace
}  // namespace cadre::config
