// Parsing as a person meets it: the seeds' lines, vLLM's spellings, precedence, refusals, and the messages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "config/command_line.h"
#include "config/parse.h"
#include "config/value.h"

namespace cadre::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Args = std::vector<std::string>;

const Environment kNoEnv;

ServeOptions Serve(const Args& args, const Environment& env = kNoEnv) {
  auto parsed = ParseServe(args, env);
  EXPECT_TRUE(parsed.has_value()) << parsed.error().message;
  return parsed ? parsed->options : ServeOptions();
}

Error ServeError(const Args& args, const Environment& env = kNoEnv) {
  auto parsed = ParseServe(args, env);
  EXPECT_FALSE(parsed.has_value());
  return parsed ? Error() : parsed.error();
}

std::string ServeNotices(const Args& args, const Environment& env = kNoEnv) {
  auto parsed = ParseServe(args, env);
  EXPECT_TRUE(parsed.has_value()) << parsed.error().message;
  std::string text;
  if (parsed) {
    for (const Notice& notice : parsed->notices) text += (notice.warning ? "W " : "I ") + notice.text + "\n";
  }
  return text;
}

std::string TempFile(const std::string& text) {
  const std::string path = testing::TempDir() + "/config_" + std::to_string(::getpid()) + ".yaml";
  std::ofstream(path) << text;
  return path;
}

TEST(Parse, DefaultsOfTheTableAreThoseOfTheStructs) {
  ServeOptions expected;
  expected.engine.model.model = "m";
  EXPECT_EQ(Serve({"m"}), expected);
}

TEST(Parse, DefaultsOfTheOtherCommands) {
  GenerateOptions generate;
  generate.engine.model.model = "m";
  EXPECT_EQ(ParseGenerate(Args{"m"}, kNoEnv)->options, generate);
  InspectOptions inspect;
  inspect.engine.model.model = "m";
  EXPECT_EQ(ParseInspect(Args{"m"}, kNoEnv)->options, inspect);
  BenchLatencyOptions latency;
  latency.engine.model.model = "m";
  EXPECT_EQ(ParseBenchLatency(Args{"m"}, kNoEnv)->options, latency);
  BenchThroughputOptions throughput;
  throughput.engine.model.model = "m";
  EXPECT_EQ(ParseBenchThroughput(Args{"m"}, kNoEnv)->options, throughput);
  EXPECT_EQ(ParseBenchServe(Args{}, kNoEnv)->options, BenchServeOptions());
  EXPECT_EQ(ParseDemo(Args{}, kNoEnv)->options, DemoOptions());
}

TEST(Parse, ValuesReachTheirFields) {
  const ServeOptions o = Serve({"models/demo",
                                "--port",
                                "9000",
                                "--host=::1",
                                "--max-model-len",
                                "4k",
                                "--dtype",
                                "float",
                                "--seed",
                                "-7",
                                "--gpu-memory-utilization",
                                "0.5",
                                "--no-enable-prefix-caching",
                                "--served-model-name",
                                "a",
                                "b",
                                "--api-key",
                                "k1",
                                "k2",
                                "--allowed-origins",
                                R"(["http://x"])",
                                "--hf-overrides",
                                R"({"a":{"b":1}})",
                                "--disable-log-stats",
                                "-tp",
                                "2",
                                "-dp=3",
                                "-ep",
                                "--kv-cache-memory-bytes",
                                "2G",
                                "--max-num-batched-tokens",
                                "1.5k"});
  EXPECT_EQ(o.engine.model.model, "models/demo");
  EXPECT_EQ(o.http.port, 9000);
  EXPECT_EQ(o.http.host, "::1");
  EXPECT_EQ(o.engine.model.max_model_len, 4000);
  EXPECT_EQ(o.engine.model.dtype, "float32");
  EXPECT_EQ(o.engine.model.seed, -7);
  EXPECT_EQ(o.engine.cache.gpu_memory_utilization, 0.5);
  EXPECT_FALSE(o.engine.cache.enable_prefix_caching);
  EXPECT_THAT(o.engine.model.served_model_names, ElementsAre("a", "b"));
  EXPECT_THAT(o.http.api_keys, ElementsAre("k1", "k2"));
  EXPECT_THAT(o.http.allowed_origins, ElementsAre("http://x"));
  EXPECT_EQ(o.engine.model.hf_overrides.Dump(), R"({"a":{"b":1}})");
  EXPECT_FALSE(o.api.log_stats);
  EXPECT_EQ(o.engine.parallel.expert_parallel_size(), 6);
  EXPECT_TRUE(o.engine.parallel.enable_expert_parallel);
  EXPECT_EQ(o.engine.cache.kv_cache_memory_bytes, int64_t{2} << 30);
  EXPECT_EQ(o.engine.scheduler.max_num_batched_tokens, 1500);
}

TEST(Parse, UnderscoresPrefixesAndLastWins) {
  const ServeOptions o =
      Serve({"m", "--max_num_seqs=4", "--max-num-se", "9", "--tensor_parallel-size", "2", "--enable-exp"});
  EXPECT_EQ(o.engine.scheduler.max_num_seqs, 9);
  EXPECT_EQ(o.engine.parallel.tensor_parallel_size, 2);
  EXPECT_TRUE(o.engine.parallel.enable_expert_parallel);
  EXPECT_THAT(ServeError({"m", "--max-num", "4"}).message,
              HasSubstr("could match --max-num-seqs, --max-num-batched-tokens"));
}

TEST(Parse, MaxModelLen) {
  EXPECT_EQ(Serve({"m", "--max-model-len", "auto"}).engine.model.max_model_len, kAutoModelLen);
  EXPECT_EQ(Serve({"m", "--max-model-len", "-1"}).engine.model.max_model_len, kAutoModelLen);
  EXPECT_EQ(Serve({"m", "--max-model-len=1M"}).engine.model.max_model_len, 1 << 20);
  EXPECT_EQ(ServeError({"m", "--max-model-len", "0"}).param, "--max-model-len");
  EXPECT_EQ(ServeError({"m", "--max-model-len", "-2"}).param, "--max-model-len");
}

TEST(Values, HumanIntegers) {
  EXPECT_EQ(*ParseHumanInt("1k"), 1000);
  EXPECT_EQ(*ParseHumanInt("1K"), 1024);
  EXPECT_EQ(*ParseHumanInt("25.6k"), 25600);
  EXPECT_EQ(*ParseHumanInt("2m"), 2000000);
  EXPECT_EQ(*ParseHumanInt("3G"), int64_t{3} << 30);
  EXPECT_EQ(*ParseHumanInt("-1"), -1);
  for (const char* bad :
       {"", "k", "1.5K", "1.2.3k", "12x", "9e99", "99999999T", "1 k", "--1", "0x10", ".k"}) {
    EXPECT_FALSE(ParseHumanInt(bad).has_value()) << bad;
  }
}

TEST(Parse, JsonOptionsMergeMemberByMember) {
  const auto members = [](const Args& args) {
    Args all{"m", "--enable-expert-parallel", "--data-parallel-size", "2", "--enable-eplb"};
    all.insert(all.end(), args.begin(), args.end());
    return ServeError(all).message;
  };
  EXPECT_THAT(members({"--eplb-config.window_size", "0"}),
              HasSubstr("--eplb-config.window_size must be at least 1"));
  EXPECT_THAT(members({"--eplb-config", R"({"window":5})"}), HasSubstr("did you mean 'window_size'"));
  EXPECT_EQ(Serve({"m", "-dp", "2", "--enable-eplb", "--eplb-config",
                   R"({"window_size":5,"step_interval":9})", "--eplb-config.window-size", "10"})
                .engine.parallel.eplb,
            (EplbOptions{.window_size = 10, .step_interval = 9}));
  EXPECT_EQ(Serve({"m", "-dp", "2", "--enable-eplb", "--eplb-config.window-size", "10",
                   "--eplb-config.step_interval", "7", "--eplb-config", R"({"step_interval":9})"})
                .engine.parallel.eplb,
            (EplbOptions{.window_size = 10, .step_interval = 9}));
  EXPECT_THAT(members({"--eplb-config", "[1]"}), HasSubstr("a JSON object"));
  EXPECT_THAT(members({"--eplb-config.policy", "other"}), HasSubstr("not one of default"));
  EXPECT_EQ(Serve({"m", "--hf-overrides", R"({"a":1,"l":["x"]})", "--hf-overrides.b.c", "true",
                   "--hf-overrides.l+", "y,z"})
                .engine.model.hf_overrides.Dump(),
            R"({"a":1,"l":["x","y","z"],"b":{"c":true}})");
  EXPECT_THAT(ServeError({"m", "--port.x", "1"}).message, HasSubstr("no members"));
  EXPECT_THAT(ServeError({"m", "--hf-overrides..x", "1"}).message, HasSubstr("empty member"));
}

TEST(Parse, DefaultsOfWhatIsNotBuiltAreNotRefused) {
  Serve({"m", "--pipeline-parallel-size", "1", "--no-enable-lora", "--eplb-config", R"({"window_size":1000})",
         "--nnodes=1", "--no-enable-eplb", "--speculative-config", "None", "--quantization", "None",
         "--data-parallel-size-local", "1", "--kv-transfer-config", "{}", "--distributed-executor-backend",
         "mp"});
}

TEST(Parse, QuantizationsThatAreBuilt) {
  EXPECT_EQ(Serve({"m", "-q", "fp8"}).engine.model.quantization, "fp8");
  EXPECT_EQ(Serve({"m", "-qfp8"}).engine.model.quantization, "fp8");
  EXPECT_EQ(Serve({"m", "--quantization=compressed-tensors"}).engine.model.quantization,
            "compressed-tensors");
  EXPECT_EQ(Serve({"m", "--quantization", "None"}).engine.model.quantization, "");
}

TEST(Parse, RefusalsNameTheFlag) {
  struct Case {
    Args args;
    std::string param, text;
  };
  for (const Case& c : std::vector<Case>{
           {{"--lora-target-modules", "q_proj"}, "--lora-target-modules", "as a whole"},
           {{"--speculative-config", R"({"method":"ngram"})"}, "--speculative-config", "Speculative"},
           {{"-pp", "2"}, "--pipeline-parallel-size", "Pipeline"},
           {{"-qgptq"}, "--quantization", "later"},
           {{"--quantization=awq"}, "--quantization", "later"},
           {{"--kv-transfer-config", R"({"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"})"},
            "--kv-transfer-config.kv_connector",
            "LMCacheConnectorV1 is not built; use NixlConnector"},
           {{"--kv-events-config", R"({"enable_kv_cache_events":true})"}, "--kv-events-config", "Events"},
           {{"-dp", "2", "--eplb-record", "f"}, "--eplb-record", "wants --enable-eplb"},
           {{"--all2all-backend", "moonep"}, "--all2all-backend", "moonep: It fetches weights"},
           {{"--decode-all2all-backend", "moonep"}, "--decode-all2all-backend", "moonep"},
           {{"--all2all-fp8-dispatch", "--all2all-backend", "mori"},
            "--all2all-fp8-dispatch",
            "deepep_low_latency"},
           {{"--dtype", "half"}, "--dtype", "float16"},
           {{"--kv-cache-dtype", "fp8"}, "--kv-cache-dtype", "fp8"},
           {{"--tool-call-parser", "hermes"}, "--tool-call-parser", "later"},
           {{"--distributed-executor-backend", "ray"}, "--distributed-executor-backend", "Ray"},
           {{"--load-format", "dummy"}, "--load-format", "safetensors"},
           {{"--task", "embed"}, "--task", "unknown flag"},
       }) {
    Args all{"m"};
    all.insert(all.end(), c.args.begin(), c.args.end());
    const Error error = ServeError(all);
    EXPECT_EQ(error.param, c.param) << c.args[0];
    EXPECT_THAT(error.message, HasSubstr(c.text)) << c.args[0];
    EXPECT_THAT(error.message, HasSubstr(c.param)) << c.args[0];
  }
}

TEST(Parse, NoEffectIsSaidOnceAReason) {
  const std::string text =
      ServeNotices({"m", "--enforce-eager", "--trust-remote-code", "-O3", "-cc.mode", "3", "-O.level=2",
                    "--attention-backend", "FLASHINFER"},
                   {{"NCCL_DEBUG", "INFO"}, {"NCCL_IB_HCA", "x"}, {"VLLM_USE_DEEP_GEMM", "1"}});
  EXPECT_THAT(text, HasSubstr("--compilation-config, --optimization-level"));
  EXPECT_THAT(text, HasSubstr("--enforce-eager"));
  EXPECT_THAT(text, HasSubstr("--trust-remote-code: no effect here. No Python"));
  EXPECT_THAT(text, HasSubstr("NCCL_DEBUG, NCCL_IB_HCA: no effect here."));
  EXPECT_THAT(text, HasSubstr("VLLM_USE_DEEP_GEMM"));
  EXPECT_THAT(ServeNotices({"m"}), testing::IsEmpty());
}

TEST(Parse, VllmRulesOfParallelFlags) {
  const auto message = [](const Args& args) {
    Args all{"m"};
    all.insert(all.end(), args.begin(), args.end());
    return ServeError(all).message;
  };
  EXPECT_EQ(message({"-dpl", "4", "-dp", "2"}),
            "data_parallel_size_local (4) must be <= data_parallel_size (2)");
  EXPECT_EQ(message({"-dpn", "2", "-dp", "2"}), "data_parallel_rank (2) must be in the range [0, 2)");
  EXPECT_EQ(message({"-dpn", "1", "-dp", "4", "-dpl", "2"}),
            "data_parallel_size_local must be 1 when data_parallel_rank is set");
  EXPECT_EQ(message({"-dph", "-dp", "2"}),
            "data_parallel_size_local must be set to use data_parallel_hybrid_lb.");
  EXPECT_EQ(message({"-dph", "-dp", "2", "-dpl", "1", "--headless"}),
            "data_parallel_hybrid_lb is not applicable in headless mode");
  EXPECT_EQ(message({"-dpe"}), "data_parallel_external_lb can only be set when data_parallel_size > 1");
  EXPECT_THAT(message({"-dpe", "-dpm", "-dp", "2"}),
              HasSubstr("Cannot use more than one data parallel load balancing mode."));
  EXPECT_EQ(
      message({"--headless", "-asc", "2"}),
      "--api-server-count=2 cannot be used with --headless (no API servers are started in headless mode).");
  EXPECT_EQ(message({"--headless", "-dp", "2", "-dpl", "0"}),
            "data_parallel_size_local must be > 0 in headless mode");
  EXPECT_EQ(message({"-pcp", "2", "-dp", "2"}), "PCP does not support data parallelism yet.");
  EXPECT_EQ(message({"-tp", "3", "-dcp", "2"}), "tp_size=3 must be divisible by dcp_size=2.");
  EXPECT_EQ(message({"--enable-elastic-ep"}), "Elastic EP is only supported with enable_eplb=True.");
  EXPECT_EQ(message({"--max-num-batched-tokens", "8"}),
            "max_num_batched_tokens (8) must be greater than or equal to max_num_seqs (128).");
  EXPECT_THAT(message({"--no-enable-chunked-prefill", "--max-model-len", "4096"}),
              HasSubstr("is smaller than max_model_len (4096)"));
}

TEST(Parse, ApiServersAreCountedWithinReason) {
  EXPECT_EQ(ParseServe(Args{"m", "--api-server-count=8"}, kNoEnv)->options.engine.parallel.api_server_count,
            8);
  EXPECT_EQ(ParseServe(Args{"m", "-asc", "8", "-dp", "8", "--data-parallel-rank", "1"}, kNoEnv)
                ->options.engine.parallel.api_server_count,
            8);
  EXPECT_TRUE(ParseServe(Args{"m", "--headless", "-asc", "0", "-dp", "2", "-dpr", "1"}, kNoEnv).has_value());
  for (const char* bad : {"-1", "257", "1000000000000", "two", "1.5"})
    EXPECT_EQ(ParseServe(Args{"m", "--api-server-count", bad}, kNoEnv).error().code, Code::kInvalidArgument)
        << bad;
  EXPECT_THAT(ParseServe(Args{"m", "--api-server-count", "0"}, kNoEnv).error().message,
              HasSubstr("would answer nobody"));
}

TEST(Parse, UnknownFlags) {
  EXPECT_THAT(ServeError({"m", "--max-modle-len", "4"}).message, HasSubstr("did you mean --max-model-len"));
  EXPECT_THAT(ServeError({"m", "--num-iters", "4"}).message, HasSubstr("it belongs to cadre bench latency"));
  EXPECT_THAT(ServeError({"m", "-zz"}).message, HasSubstr("unknown flag -zz"));
  EXPECT_THAT(ServeError({"m", "--port"}).message, HasSubstr("--port expects one argument"));
  EXPECT_THAT(ServeError({"m", "--port", "--host", "x"}).message, HasSubstr("--port expects one argument"));
  EXPECT_THAT(ServeError({"m", "--port", "70000"}).message, HasSubstr("at most 65535, not 70000"));
  EXPECT_THAT(ServeError({"m", "--max-num-seqs", "3000000000"}).message, HasSubstr("at most 2147483647"));
  EXPECT_THAT(ServeError({"m", "--dtype", "int3"}).message, HasSubstr("not one of auto,bfloat16"));
  EXPECT_THAT(ServeError({"m", "x"}).message, HasSubstr("unexpected word 'x'"));
  EXPECT_THAT(ServeError({}).message, HasSubstr("no model"));
  EXPECT_THAT(ServeError({"m", "--model", "n"}).message, HasSubstr("two models"));
  EXPECT_EQ(Serve({"--model", "n"}).engine.model.model, "n");
  EXPECT_THAT(ServeError({std::string(100000, 'x'), "--" + std::string(100000, 'y')}).message,
              HasSubstr("unknown flag"));
}

TEST(Parse, CommentsBehindBackslashes) {
  // What bash passes for seed 001's first command as printed: one blank, and the rest of the line is lost.
  const Args seed{"deepseek-ai/DeepSeek-V3-0324", "--tensor-parallel-size", "1", " "};
  EXPECT_THAT(ServeError(seed).message, HasSubstr("argument 4 is a lone blank"));
  EXPECT_THAT(ServeError(seed).message, HasSubstr("very last character"));
  EXPECT_THAT(ServeError({"m", "#", "Tensor", "parallelism"}).message, HasSubstr("the word '#'"));
  EXPECT_THAT(ServeError({"m", "--served-model-name", "a", " "}).message, HasSubstr("lone blank"));
  EXPECT_THAT(ServeError({""}).message, HasSubstr("argument 1 is empty"));
}

TEST(Parse, LinesOfTheSeeds) {
  // Without the comments; what is not built answers by name.
  const std::string model = "deepseek-ai/DeepSeek-V3-0324";
  EXPECT_EQ(Serve({model, "--tensor-parallel-size", "1", "--data-parallel-size", "8",
                   "--enable-expert-parallel", "--all2all-backend", "pplx"})
                .engine.parallel.decode_backend(),
            "pplx");
  const ServeOptions phases =
      Serve({model, "-dp", "2", "-ep", "--prefill-all2all-backend", "deepep_high_throughput",
             "--decode-all2all-backend", "deepep_low_latency", "--all2all-fp8-dispatch"});
  EXPECT_EQ(phases.engine.parallel.prefill_backend(), "deepep_high_throughput");
  EXPECT_EQ(phases.engine.parallel.decode_backend(), "deepep_low_latency");
  EXPECT_TRUE(phases.engine.parallel.all2all_fp8_dispatch);
  const ServeOptions env_backend =
      Serve({model, "--tensor-parallel-size", "1", "--data-parallel-size", "8", "--enable-expert-parallel"},
            {{"VLLM_ALL2ALL_BACKEND", "naive"}, {"VLLM_USE_DEEP_GEMM", "1"}});
  EXPECT_EQ(env_backend.engine.parallel.all2all_backend, "naive");
  EXPECT_EQ(env_backend.engine.parallel.all2all_backend_source, "VLLM_ALL2ALL_BACKEND");
  EXPECT_EQ(env_backend.engine.parallel.data_parallel_size, 8);
  EXPECT_EQ(ServeError({model, "--tensor-parallel-size", "1", "--data-parallel-size", "8",
                        "--enable-expert-parallel"},
                       {{"VLLM_ALL2ALL_BACKEND", "moonep"}})
                .param,
            "VLLM_ALL2ALL_BACKEND");
  const Args two_nodes{model,
                       "--all2all-backend",
                       "deepep_low_latency",
                       "--tensor-parallel-size",
                       "1",
                       "--enable-expert-parallel",
                       "--data-parallel-size",
                       "16",
                       "--data-parallel-size-local",
                       "8",
                       "--data-parallel-address",
                       "192.168.1.100",
                       "--data-parallel-rpc-port",
                       "13345"};
  Args head = two_nodes, second = two_nodes;
  head.push_back("--api-server-count=8");
  second.insert(second.end(), {"--data-parallel-start-rank", "8", "--headless"});
  for (const Args& line : {head, second}) {
    const ParallelOptions parallel = Serve(line).engine.parallel;
    EXPECT_EQ(parallel.all2all_backend, "deepep_low_latency");
    EXPECT_EQ(parallel.data_parallel_size_local, 8);
    EXPECT_EQ(parallel.data_parallel_address, "192.168.1.100");
  }
  const KvTransferOptions kv = Serve({model, "--enable-expert-parallel", "--kv-transfer-config",
                                      R"({"kv_connector":"NixlConnector","kv_role":"kv_producer"})"})
                                   .engine.kv_transfer;
  EXPECT_EQ(kv.connector, "NixlConnector");
  EXPECT_EQ(kv.role, "kv_producer");
  EXPECT_EQ(
      Serve({model, "--expert-placement-strategy", "round_robin"}).engine.parallel.expert_placement_strategy,
      "round_robin");
}

TEST(Environment, Variables) {
  const Environment env{{"VLLM_API_KEY", "secret"},
                        {"VLLM_LOGGING_LEVEL", "DEBUG"},
                        {"VLLM_CPU_KVCACHE_SPACE", "1.5"},
                        {"VLLM_CPU_NUM_OF_RESERVED_CPU", "1"},
                        {"VLLM_CPU_OMP_THREADS_BIND", "0-2,5|7"},
                        {"CADRE_ISA", "avx2"},
                        {"HF_HOME", "/hf/"},
                        {"HOME", "/root"},
                        {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE", ""},
                        {"OMP_NUM_THREADS", "1"}};
  const ServeOptions o = Serve({"m"}, env);
  EXPECT_THAT(o.http.api_keys, ElementsAre("secret"));
  EXPECT_EQ(o.engine.log_level, "debug");
  EXPECT_EQ(o.engine.cache.kv_cache_memory_bytes, int64_t{3} << 29);
  EXPECT_EQ(o.engine.cpu.num_reserved_cpus, 1);
  EXPECT_EQ(o.engine.cpu.bind, CpuOptions::Bind::kList);
  EXPECT_THAT(o.engine.cpu.cpus_of_rank, ElementsAre(ElementsAre(0, 1, 2, 5), ElementsAre(7)));
  EXPECT_EQ(o.engine.cpu.isa, "avx2");
  EXPECT_FALSE(o.engine.cpu.threads.has_value());
  EXPECT_EQ(o.engine.model.hub_cache, "/hf/hub");
  EXPECT_EQ(o.engine.model.hub_cache_source, "HF_HOME");

  // Flags win over the environment.
  const ServeOptions flags = Serve({"m", "--api-key", "other", "--log-level", "error",
                                    "--kv-cache-memory-bytes", "7", "--download-dir", "/d"},
                                   env);
  EXPECT_THAT(flags.http.api_keys, ElementsAre("other"));
  EXPECT_EQ(flags.engine.log_level, "error");
  EXPECT_EQ(flags.engine.cache.kv_cache_memory_bytes, 7);
  EXPECT_EQ(flags.engine.model.hub_cache, "/d");

  EXPECT_EQ(
      Serve({"m"}, {{"VLLM_CPU_OMP_THREADS_BIND", "nobind"}, {"OMP_NUM_THREADS", "3"}}).engine.cpu.threads,
      3);
  for (const char* bad : {"", "a", "1-", "3-1", "0|", "0,0", "0-99999999", "-1", "0-3|x"}) {
    if (*bad) {
      EXPECT_EQ(ServeError({"m"}, {{"VLLM_CPU_OMP_THREADS_BIND", bad}}).param, "VLLM_CPU_OMP_THREADS_BIND")
          << bad;
    }
  }
  EXPECT_THAT(ServeError({"m", "-tp", "2"}, {{"VLLM_CPU_OMP_THREADS_BIND", "0-1"}}).message,
              HasSubstr("for 1 ranks, but 2"));
  EXPECT_EQ(ServeError({"m"}, {{"CADRE_ISA", "sse9"}}).param, "CADRE_ISA");
  EXPECT_EQ(Serve({"m"}, {{"VLLM_DP_SIZE", "2"}}).engine.parallel.data_parallel_size, 2);
}

TEST(Environment, UnknownNames) {
  const Environment env{{"VLLM_NO_SUCH_THING", "1"}, {"PATH", "/bin"}};
  EXPECT_EQ(ServeNotices({"m"}, env), "W Unknown vLLM environment variable detected: VLLM_NO_SUCH_THING\n");
  EXPECT_EQ(ServeError({"m", "--fail-on-environ-validation"}, env).message,
            "Unknown vLLM environment variable detected: VLLM_NO_SUCH_THING");
}

TEST(Environment, HubCacheInTheOrderOfHuggingFace) {
  EXPECT_EQ(FindHubCache({{"HOME", "/h"}}).folder, "/h/.cache/huggingface/hub");
  EXPECT_EQ(FindHubCache({{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}}).folder, "/x/huggingface/hub");
  EXPECT_EQ(FindHubCache({{"HOME", "/h"}, {"HF_HOME", "~/q"}}).folder, "/h/q/hub");
  EXPECT_EQ(FindHubCache({{"HF_HOME", "/q"}, {"HUGGINGFACE_HUB_CACHE", "/c"}}).folder, "/c");
  EXPECT_EQ(FindHubCache({{"HF_HUB_CACHE", "/b"}, {"HUGGINGFACE_HUB_CACHE", "/c"}}).folder, "/b");
  EXPECT_EQ(FindHubCache({}).folder, "");
}

TEST(ConfigFile, SetsWhatTheCommandLineDoesNot) {
  const std::string path = TempFile(
      "# a server\nmodel: models/demo\nport: 9000   # a comment\nmax_num_seqs: 4\nmax-model-len: 4k\n"
      "enable-expert-parallel: true\nenable-prefix-caching: false\nserved-model-name:\n- a\n- \"b c\"\n"
      "api-key: [x, 'y']\nhf-overrides:\n  rope_theta: 1e6\n  deep:\n    er: [1, 2]\nallowed-origins: "
      "[\"*\"]\n");
  const ServeOptions o = Serve({"--config", path, "--port", "9001"});
  EXPECT_EQ(o.engine.model.model, "models/demo");
  EXPECT_EQ(o.http.port, 9001);
  EXPECT_EQ(o.engine.scheduler.max_num_seqs, 4);
  EXPECT_EQ(o.engine.model.max_model_len, 4000);
  EXPECT_TRUE(o.engine.parallel.enable_expert_parallel);
  EXPECT_FALSE(o.engine.cache.enable_prefix_caching);
  EXPECT_THAT(o.engine.model.served_model_names, ElementsAre("a", "b c"));
  EXPECT_THAT(o.http.api_keys, ElementsAre("x", "y"));
  EXPECT_EQ(o.engine.model.hf_overrides.Dump(), R"({"rope_theta":1e+06,"deep":{"er":[1,2]}})");
}

TEST(ConfigFile, SaysWhatIsWrong) {
  const auto message = [](const std::string& text) {
    return ServeError({"m", "--config", TempFile(text)}).message;
  };
  EXPECT_THAT(message("no_such_flag: 1\n"), HasSubstr("unknown flag --no-such-flag"));
  EXPECT_THAT(message("port: [1]\n"), HasSubstr("wants an integer"));
  EXPECT_THAT(message("port\n"), HasSubstr("line 1: expected `name: value`"));
  EXPECT_THAT(message("a: &x 1\n"), HasSubstr("anchors"));
  EXPECT_THAT(message("\nchat-template: |\n  x\n"), HasSubstr("line 2: text over several lines"));
  EXPECT_THAT(message("port: 1\nport: 2\n"), HasSubstr("given twice"));
  EXPECT_THAT(message("\tport: 1\n"), HasSubstr("a tab"));
  EXPECT_THAT(message("port: 1\n   host: x\n"), HasSubstr("indentation"));
  EXPECT_THAT(message("config: x\n"), HasSubstr("another --config"));
  EXPECT_THAT(message("- a\n"), HasSubstr("not a list"));
  EXPECT_THAT(message("enable-mixed-moe-lora-format: true\n"), HasSubstr("LoRA on experts"));
  EXPECT_EQ(ServeError({"m", "--config", "/no/such/file.yaml"}).code, Code::kNotFound);
  EXPECT_EQ(ServeError({"m", "--config", "/"}).code, Code::kNotFound);
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_THAT(message(deep), HasSubstr("nested deeper"));
}

TEST(Http, TlsWantsBothFiles) {
  EXPECT_EQ(ServeError({"m", "--ssl-certfile", "c"}).param, "--ssl-keyfile");
  EXPECT_EQ(ServeError({"m", "--ssl-keyfile", "c"}).param, "--ssl-certfile");
  EXPECT_EQ(ServeError({"m", "--ssl-keyfile", "c", "--ssl-certfile", "c", "--ssl-cert-reqs", "2"}).param,
            "--ssl-ca-certs");
  EXPECT_EQ(ServeError({"m", "--api-key", ""}).code, Code::kInvalidArgument);
}

TEST(Bench, Flags) {
  const auto serve = ParseBenchServe(Args{"--model",
                                          "m",
                                          "--num-prompts",
                                          "128",
                                          "--random-input-len=64",
                                          "--random-output-len",
                                          "32",
                                          "--max-concurrency",
                                          "32",
                                          "--request-rate",
                                          "inf",
                                          "--percentile-metrics",
                                          "ttft,tpot",
                                          "--save-result",
                                          "--json",
                                          "f",
                                          "--goodput",
                                          "ttft:200",
                                          "tpot:50",
                                          "--dataset-name",
                                          "random",
                                          "--ignore-eos"},
                                     kNoEnv);
  ASSERT_TRUE(serve.has_value()) << serve.error().message;
  EXPECT_EQ(serve->options.num_prompts, 128);
  EXPECT_EQ(serve->options.random.input_len, 64);
  EXPECT_EQ(serve->options.max_concurrency, 32);
  EXPECT_THAT(serve->options.goodput, ElementsAre("ttft:200", "tpot:50"));
  EXPECT_EQ(ParseBenchServe(Args{"--dataset-name", "sharegpt"}, kNoEnv).error().param, "--dataset-name");
  const auto latency =
      ParseBenchLatency(Args{"m", "--input-len", "8", "--batch-size", "2", "--n", "1", "-tp", "2"}, kNoEnv);
  ASSERT_TRUE(latency.has_value());
  EXPECT_EQ(latency->options.input_len, 8);
  EXPECT_EQ(latency->options.engine.parallel.tensor_parallel_size, 2);
}

TEST(Help, Topics) {
  const auto help = [](const std::string& topic) {
    auto parsed = ParseServe(Args{topic.empty() ? "--help" : "--help=" + topic}, kNoEnv);
    return parsed ? parsed->help.value_or("none") : "ERROR " + parsed.error().message;
  };
  EXPECT_THAT(help(""), HasSubstr("usage: cadre serve MODEL"));
  EXPECT_THAT(help("all"), HasSubstr("--enable-lora"));
  EXPECT_THAT(help("ParallelConfig"), HasSubstr("-tp, --tensor-parallel-size N"));
  EXPECT_THAT(help("max-num-seqs"), HasSubstr("Default: 128"));
  EXPECT_THAT(help("eplb"), HasSubstr("--eplb-config"));
  EXPECT_THAT(help("nonsense-xyz"), HasSubstr("ERROR"));
}

}  // namespace
}  // namespace cadre::config
