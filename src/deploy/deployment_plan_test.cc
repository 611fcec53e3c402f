// Plans of published models against public figures, and against what a start plans.
#include "deploy/deployment_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "model/weights_testing.h"

namespace cadre::deploy {
namespace {

using testing::HasSubstr;

constexpr int64_t kGiB = 1 << 30;

config::PlanOptions Parsed(std::vector<std::string> args) {
  auto parsed = config::ParsePlan(args, {});
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? parsed->options : config::PlanOptions();
}

std::string Example(const char* name) {
  return std::string(CADRE_SOURCE_DIR "/examples/configs/") + name;
}

DeploymentPlan PlanOf(const char* model, std::vector<std::string> flags) {
  flags.insert(flags.begin(), Example(model));
  auto plan = PlanDeployment(Parsed(flags));
  EXPECT_TRUE(plan) << plan.error().message;
  return plan ? *std::move(plan) : DeploymentPlan();
}

const Remedy* Find(const DeploymentPlan& plan, const std::string& name) {
  for (const Remedy& remedy : plan.remedies)
    if (remedy.name == name) return &remedy;
  return nullptr;
}

// Relative to a public figure.
void ExpectNear(int64_t bytes, double figure, double share) {
  EXPECT_NEAR(static_cast<double>(bytes) / figure, 1.0, share) << static_cast<double>(bytes);
}

constexpr const char* kAsBf16 = R"({"quantization_config":null})";

TEST(DeploymentPlan, DeepSeekV3InBf16) {
  const auto plan =
      PlanOf("DeepSeek-V3", {"--hosts", "2", "--memory-per-host", "1T", "--hf-overrides", kAsBf16});
  // 58 layers x 256 experts x 3 x 7168 x 2048 parameters = 653.9 G.
  ExpectNear(plan.whole.expert_bytes, 1.308e12, 0.001);
  ExpectNear(plan.whole.dense_bytes, 34e9, 0.03);
  ExpectNear(plan.chosen.setup.spec.num_parameters(), 671.0e9, 0.001);
  // 576 numbers of two bytes in 61 layers: 0.6 GB for 8K.
  ExpectNear(plan.chosen.setup.memory_input.kv.PoolBytes(8192 / 16), 0.5757e9, 0.001);
  // Experts, dense layers, parameters: all of the model once.
  ExpectNear(plan.whole.total_bytes(), 2 * 671.03e9, 0.005);
}

TEST(DeploymentPlan, DeepSeekV3AsPublishedInFp8) {
  const auto plan = PlanOf("DeepSeek-V3", {"--hosts", "4", "--memory-per-host", "512G"});
  EXPECT_TRUE(plan.chosen.setup.fp8);
  // 654 GB of codes; a scale of four bytes for each row's 128 columns is 3.1 % more.
  ExpectNear(plan.whole.expert_bytes, 653.9e9 * (1 + 4.0 / 128), 0.001);
  EXPECT_LT(plan.whole.dense_bytes, int64_t{25} * 1000 * 1000 * 1000);
}

TEST(DeploymentPlan, DeepSeekV3MadeFp8WhileLoading) {
  const auto plan = PlanOf("DeepSeek-V3", {"--hosts", "4", "--memory-per-host", "512G", "--hf-overrides",
                                           kAsBf16, "--quantization", "fp8"});
  ExpectNear(plan.whole.expert_bytes, 654e9, 0.002);  // a scale a row is next to nothing
}

TEST(DeploymentPlan, OneRedundantExpertOfDeepSeekV3) {
  // docs/eplb.md: 256 + 32 slots over 32 ranks, 2.55 GB of copies a rank; the guides' "2.4 GB".
  const auto plan = PlanOf("DeepSeek-V3", {"--hosts", "4", "--ranks-per-host", "8", "--memory-per-host", "1T",
                                           "--enable-eplb", "--eplb-config.num_redundant_experts", "32",
                                           "--hf-overrides", kAsBf16, "--quantization", "fp8"});
  ASSERT_TRUE(plan.chosen.fits) << plan.chosen.fits.error().message;
  const engine::MemoryPlanInput& in = plan.chosen.setup.memory_input;
  ExpectNear(in.redundant_bytes, 2.55e9, 0.005);
  ExpectNear(in.expert_bytes, 23.0e9, 0.005);
  ExpectNear(in.spare_bytes, 0.40e9, 0.015);
}

TEST(DeploymentPlan, Qwen3AndMixtral) {
  auto plan = PlanOf("Qwen3-30B-A3B", {"--memory-per-host", "128G", "--ranks-per-host", "2"});
  ExpectNear(plan.chosen.setup.spec.num_parameters(), 30.5e9, 0.003);
  ExpectNear(plan.whole.total_bytes(), 2 * 30.5e9, 0.01);
  // 48 layers x 2 x 4 heads x 128 x 2 bytes.
  EXPECT_EQ(plan.chosen.setup.memory_input.kv.BytesPerToken(), 48 * 2 * 4 * 128 * 2);
  EXPECT_TRUE(plan.chosen.fits);
  EXPECT_TRUE(plan.chosen.layout.ep);
  plan = PlanOf("Mixtral-8x7B", {"--memory-per-host", "192G", "--cores-per-host", "32"});
  ExpectNear(plan.chosen.setup.spec.num_parameters(), 46.7e9, 0.002);
  EXPECT_TRUE(plan.chosen.fits);
}

TEST(DeploymentPlan, ALackNamesWhatHelps) {
  const auto plan = PlanOf("DeepSeek-V3", {"--hosts", "1", "--memory-per-host", "1T", "--max-model-len",
                                           "8192", "--hf-overrides", kAsBf16});
  ASSERT_FALSE(plan.chosen.fits);
  EXPECT_EQ(plan.chosen.fits.error().code, Code::kResourceExhausted);
  const Remedy* fp8 = Find(plan, "fp8");
  ASSERT_NE(fp8, nullptr);
  EXPECT_TRUE(fp8->fits) << fp8->text;
  const Remedy* hosts = Find(plan, "hosts");
  ASSERT_NE(hosts, nullptr);
  EXPECT_EQ(hosts->number, 2) << hosts->text;
  EXPECT_NE(Find(plan, "replicas"), nullptr);
  const Remedy* context = Find(plan, "context");
  ASSERT_NE(context, nullptr);
  EXPECT_FALSE(context->fits);
  EXPECT_THAT(context->text, HasSubstr("no context is short enough"));
  const Remedy* memory = Find(plan, "memory");
  ASSERT_NE(memory, nullptr);
  ExpectNear(memory->number, 1.342e12 / 0.92, 0.02);
}

// Each remedy is done, and then the plan fits; one unit less and it does not.
TEST(DeploymentPlan, RemediesAreEnoughAndNoMoreThanNeeded) {
  const std::vector<std::string> flags = {"--hosts",          "2", "--memory-per-host", "34G",
                                          "--ranks-per-host", "2"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> all = flags;
    all.insert(all.end(), more.begin(), more.end());
    return PlanOf("Qwen3-30B-A3B", all);
  };
  const auto plan = with({});
  ASSERT_FALSE(plan.chosen.fits);
  const Remedy *context = Find(plan, "context"), *hosts = Find(plan, "hosts"), *memory = Find(plan, "memory"),
               *fp8 = Find(plan, "fp8");
  ASSERT_TRUE(hosts && memory && fp8);
  EXPECT_TRUE(fp8->fits);
  EXPECT_TRUE(with({"--quantization", "fp8"}).chosen.fits);
  EXPECT_TRUE(with({"--hosts", std::to_string(hosts->number)}).chosen.fits);
  EXPECT_FALSE(with({"--hosts", std::to_string(hosts->number - 1)}).chosen.fits);
  EXPECT_TRUE(with({"--memory-per-host", std::to_string(memory->number / kGiB) + "G"}).chosen.fits);
  EXPECT_FALSE(with({"--memory-per-host", std::to_string(memory->number / kGiB - 1) + "G"}).chosen.fits);
  ASSERT_NE(context, nullptr);
  if (context->fits) {
    EXPECT_TRUE(with({"--max-model-len", std::to_string(context->number)}).chosen.fits);
    EXPECT_FALSE(with({"--max-model-len", std::to_string(context->number + 16)}).chosen.fits);
  }
}

TEST(DeploymentPlan, ShortContextIsFoundWhereOnlyTheCacheLacks) {
  const std::vector<std::string> flags = {"--memory-per-host", "72G", "--ranks-per-host", "2",
                                          "--concurrency",     "8"};
  const auto plan = PlanOf("Qwen3-30B-A3B", flags);
  ASSERT_FALSE(plan.chosen.fits);
  const Remedy* context = Find(plan, "context");
  ASSERT_NE(context, nullptr);
  ASSERT_TRUE(context->fits) << context->text;
  auto shorter = flags;
  shorter.insert(shorter.end(), {"--max-model-len", std::to_string(context->number)});
  EXPECT_TRUE(PlanOf("Qwen3-30B-A3B", shorter).chosen.fits);
}

// What is printed is what starts: every line parses, its ranks are one part of all, and its own plan on such
// a host is the one that was shown.
void ExpectLinesStart(const DeploymentPlan& plan) {
  ASSERT_EQ(plan.lines.size(), static_cast<size_t>(plan.chosen.num_hosts));
  int next = 0;
  for (const LaunchLine& line : plan.lines) {
    SCOPED_TRACE(ShellText(line.words));
    ASSERT_GE(line.words.size(), 3u);
    EXPECT_EQ(line.words[0], "cadre");
    EXPECT_EQ(line.words[1], "serve");
    const auto parsed = config::ParseServe(std::span(line.words).subspan(2), {});
    ASSERT_TRUE(parsed) << parsed.error().message;
    const config::EngineOptions& engine = parsed->options.engine;
    auto setup = DescribeModel(engine);
    ASSERT_TRUE(setup) << setup.error().message;
    EXPECT_EQ(setup->launch.first_rank, next);
    EXPECT_EQ(setup->launch.num_ranks, plan.chosen.layout.num_ranks());
    EXPECT_EQ(setup->launch.headless, line.host > 0);
    next += setup->launch.num_local_ranks;
    const Status fits = PlanMemory(engine, plan.host, *setup);
    ASSERT_TRUE(fits) << fits.error().message;
    if (line.host == 0) {
      EXPECT_EQ(setup->memory.host_bytes, plan.chosen.setup.memory.host_bytes);
      EXPECT_EQ(setup->memory.num_kv_blocks, plan.chosen.setup.memory.num_kv_blocks);
      EXPECT_EQ(setup->memory.table, plan.chosen.setup.memory.table);
    }
  }
  EXPECT_EQ(next, plan.chosen.layout.num_ranks());
}

TEST(DeploymentPlan, EveryLineParsesAndPlansTheSame) {
  for (const char* target : {"throughput", "latency", "prefill", "decode"}) {
    ExpectLinesStart(PlanOf("DeepSeek-V3", {"--hosts", "4", "--memory-per-host", "512G", "--cores-per-host",
                                            "128", "--target", target, "--max-model-len", "16k"}));
    ExpectLinesStart(
        PlanOf("Qwen3-30B-A3B", {"--memory-per-host", "128G", "--cores-per-host", "32", "--target", target}));
    ExpectLinesStart(
        PlanOf("Mixtral-8x7B", {"--hosts", "3", "--memory-per-host", "128G", "--target", target}));
  }
  ExpectLinesStart(PlanOf("Qwen3-30B-A3B", {"--hosts",
                                            "2",
                                            "--memory-per-host",
                                            "64",
                                            "-tp",
                                            "2",
                                            "-dp",
                                            "4",
                                            "--quantization",
                                            "fp8",
                                            "--eplb-config",
                                            R"({"window_size":100,"policy":"default"})",
                                            "--no-enable-prefix-caching",
                                            "--hf-overrides",
                                            R"({"rope_theta":10000})",
                                            "--data-parallel-address",
                                            "10.0.0.1",
                                            "--data-parallel-rpc-port",
                                            "4000",
                                            "--max-num-seqs",
                                            "32",
                                            "--gpu-memory-utilization",
                                            "0.9",
                                            "--all2all-backend",
                                            "mori"}));
}

TEST(DeploymentPlan, MatchesAStartOfTheDemoModel) {
  // A start of this machine: the plan is asked about this very host.
  auto options = Parsed({CADRE_SOURCE_DIR "/models/demo", "-dp", "2", "-ep", "--no-enable-eplb",
                         "--max-model-len", "512", "--all2all-backend", "pplx"});
  const auto plan = PlanDeployment(options);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_TRUE(plan->has_weights);
  const auto started = PrepareModel(plan->chosen.options);
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_EQ(plan->chosen.setup.memory.table, started->memory.table);
}

TEST(DeploymentPlan, MatchesTheMeasuredBenchCheckpoint) {
  // docs/eplb.md, Memory: two ranks of the bench checkpoint took 6.59 GiB (PSS) with these flags.
  const std::string folder = CADRE_SOURCE_DIR "/../q30";
  if (!std::filesystem::exists(folder + "/config.json")) GTEST_SKIP() << "no bench checkpoint in " << folder;
  const auto plan = PlanDeployment(
      Parsed({folder, "-dp", "2", "-ep", "--max-model-len", "2048", "--num-gpu-blocks-override", "400",
              "--max-num-batched-tokens", "512", "--enable-eplb", "--memory-per-host", "24G", "--eplb-config",
              R"({"num_redundant_experts":8,"window_size":12,"step_interval":40})", "--all2all-backend",
              "allgather_reducescatter"}));
  ASSERT_TRUE(plan) << plan.error().message;
  ASSERT_TRUE(plan->chosen.fits) << plan->chosen.fits.error().message;
  ExpectNear(plan->chosen.setup.memory.host_bytes, 6.59 * static_cast<double>(kGiB), 0.03);
}

TEST(DeploymentPlan, ReadsAConfigFileAlone) {
  const auto plan =
      PlanDeployment(Parsed({Example("Mixtral-8x7B") + "/config.json", "--memory-per-host", "200G"}));
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_FALSE(plan->has_weights);
}

TEST(DeploymentPlan, FindsHubNamesInTheCache) {
  const model::test::TempFolder cache;
  namespace fs = std::filesystem;
  const fs::path snapshot = fs::path(cache.path()) / "models--org--name" / "snapshots" / "abc";
  fs::create_directories(snapshot);
  fs::create_directories(snapshot.parent_path().parent_path() / "refs");
  std::ofstream(snapshot.parent_path().parent_path() / "refs" / "main") << "abc";
  fs::copy_file(Example("Mixtral-8x7B") + "/config.json", snapshot / "config.json");
  const std::vector<std::string> args = {"org/name", "--memory-per-host", "200G"};
  const auto parsed = config::ParsePlan(args, {{"HF_HUB_CACHE", cache.path()}});
  ASSERT_TRUE(parsed) << parsed.error().message;
  const auto plan = PlanDeployment(parsed->options);
  ASSERT_TRUE(plan) << plan.error().message;
  ASSERT_EQ(plan->lines.size(), 1u);
  EXPECT_EQ(plan->lines[0].words[2], "org/name");
}

// The largest numbers that config.json may hold: answers, however absurd, and no overflow.
TEST(DeploymentPlan, SurvivesTheLargestConfig) {
  const auto plan =
      PlanOf("Mixtral-8x7B",
             {"--memory-per-host", "1T", "--hosts", "1024", "--concurrency", "2000000000", "--hf-overrides",
              R"({"num_hidden_layers":1024,"num_attention_heads":4096,"num_key_value_heads":4096,
                                "head_dim":4096,"max_position_embeddings":2147483648,"num_local_experts":256,
                                "hidden_size":131072,"intermediate_size":1048576,"vocab_size":16777216})"});
  EXPECT_FALSE(plan.chosen.fits);
  EXPECT_FALSE(plan.remedies.empty());
}

TEST(DeploymentPlan, SaysWhatIsWrong) {
  const auto error = [](std::vector<std::string> args) {
    auto parsed = config::ParsePlan(args, {});
    if (!parsed) return parsed.error().message;
    const auto plan = PlanDeployment(parsed->options);
    return plan ? std::string("none") : plan.error().message;
  };
  EXPECT_THAT(error({"/no/such/model", "--memory-per-host", "1T"}), HasSubstr("/no/such/model"));
  EXPECT_THAT(error({Example("Mixtral-8x7B"), "--hosts", "0"}), HasSubstr("--hosts must be at least 1"));
  EXPECT_THAT(error({Example("Mixtral-8x7B"), "--target", "speed"}), HasSubstr("--target"));
  EXPECT_THAT(error({Example("Mixtral-8x7B"), "--headless"}), HasSubstr("cadre plan chooses"));
  EXPECT_THAT(error({Example("Mixtral-8x7B"), "--nnodes=2"}), HasSubstr("cadre plan chooses"));
  EXPECT_THAT(error({Example("Mixtral-8x7B"), "--hf-overrides", R"({"architectures":["Nobody"]})"}),
              HasSubstr("'Nobody'"));
  EXPECT_THAT(error({Example("Mixtral-8x7B"), "--memory-per-host", "200G", "-tp", "3"}), HasSubstr("heads"));
  EXPECT_THAT(error({Example("Mixtral-8x7B"), "--memory-per-host", "200G", "--max-model-len", "100000"}),
              HasSubstr("max_position_embeddings"));
}

// A host that holds next to nothing, and sizes at the ends of what is accepted, give an answer and end.
TEST(DeploymentPlan, ExtremesEnd) {
  auto plan = PlanOf("DeepSeek-V3", {"--memory-per-host", "1"});
  EXPECT_FALSE(plan.chosen.fits);
  const Remedy* hosts = Find(plan, "hosts");
  ASSERT_NE(hosts, nullptr);
  EXPECT_FALSE(hosts->fits);  // the dense layers alone are more than 1 GiB
  plan = PlanOf("Mixtral-8x7B", {"--hosts", "1024", "--cores-per-host", "128", "--memory-per-host", "256G"});
  EXPECT_EQ(plan.lines.size(), 1024u);
  plan = PlanOf("Qwen3-30B-A3B", {"--memory-per-host", "1000000t", "--ranks-per-host", "1"});
  EXPECT_TRUE(plan.chosen.fits);
}

TEST(ShellText, ReadsBackAsWritten) {
  EXPECT_EQ(ShellText({"cadre", "serve", "a b", "--x", R"({"y":1})", "it's", ""}),
            R"(cadre serve 'a b' --x '{"y":1}' 'it'\''s' '')");
}

}  // namespace
}  // namespace cadre::deploy
