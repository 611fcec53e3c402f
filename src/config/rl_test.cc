// `cadre rl`: composition, overrides, both shapes, what is refused and how it is said. The files are
// prime-rl's shapes; texts that its own tests look for are looked for here.
#include "config/rl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "config/rl_keys.h"
#include "config/rl_layers.h"
#include "config/toml_file.h"

namespace cadre::config {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using Args = std::vector<std::string>;

class Rl : public testing::Test {
 protected:
  Rl() : folder_(std::filesystem::temp_directory_path() / ("cadre_rl_test_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_ / "sub");
    machine_ = {.cpus = {0, 1, 2, 3},
                .port_is_free = [this](const std::string&, int port) { return !used_.contains(port); },
                .find_program =
                    [this](const std::string& name) {
                      return installed_.contains(name) ? "/bin/" + name : std::string();
                    }};
  }
  ~Rl() override { std::filesystem::remove_all(folder_); }

  std::string File(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }
  Result<Parsed<RlOptions>> Try(const Args& args, const Environment& env = {}, bool inference = false) {
    return ParseRl(args, env, machine_, inference);
  }
  RlOptions Plan(const Args& args, const Environment& env = {}, bool inference = false) {
    auto parsed = Try(args, env, inference);
    EXPECT_TRUE(parsed) << parsed.error().message;
    if (!parsed) return {};
    notices_.clear();
    for (const Notice& notice : parsed->notices) notices_ += notice.text + "\n";
    return parsed->options;
  }
  /// The plan of one file with this text.
  RlOptions PlanOf(const std::string& text, Args more = {}) {
    more.insert(more.begin(), {"@", File("a.toml", text)});
    return Plan(more);
  }
  std::string ErrorOf(const std::string& text, Args more = {}) {
    more.insert(more.begin(), {"@", File("a.toml", text)});
    auto parsed = Try(more);
    EXPECT_FALSE(parsed) << text;
    return parsed ? "" : parsed.error().message;
  }
  /// The value behind a flag; "" for a switch, "-" if it is not there.
  static std::string After(const RlProcess& process, const std::string& flag) {
    for (size_t i = 0; i < process.args.size(); ++i) {
      if (process.args[i] != flag) continue;
      return i + 1 < process.args.size() && !process.args[i + 1].starts_with("--") ? process.args[i + 1] : "";
    }
    return "-";
  }
  static std::string Variable(const RlProcess& process, const std::string& name) {
    for (const auto& [key, value] : process.env) {
      if (key == name) return value;
    }
    return "-";
  }
  static Args Titles(const RlOptions& options) {
    Args titles;
    for (const RlProcess& process : options.processes) titles.push_back(process.title);
    return titles;
  }

  std::filesystem::path folder_;
  std::set<int> used_;
  std::set<std::string> installed_;
  RlMachine machine_;
  std::string notices_;
};

constexpr const char* kMinimal = "[model]\nname = \"m\"\n[inference]\n";

TEST_F(Rl, AChildsOwnKeyWinsOverAnInheritedOneMemberByMember) {
  File("base.toml",
       "[model]\nname = \"dense\"\n[inference]\nenforce_eager = true\nall2all_backend = \"naive\"\n"
       "served_model_name = [\"a\", \"b\"]\n");
  const auto options = PlanOf(
      "toml_files = [\"base.toml\"]\n[model]\nname = \"moe\"\n[inference]\nenable_expert_parallel = true\n"
      "all2all_backend = \"pplx\"\nserved_model_name = [\"c\"]\n");
  ASSERT_THAT(Titles(options), ElementsAre("inference"));
  const RlProcess& server = options.processes[0];
  EXPECT_EQ(server.args[1], "moe");
  EXPECT_EQ(After(server, "--all2all-backend"), "pplx");
  EXPECT_EQ(After(server, "--enforce-eager"), "");           // inherited
  EXPECT_EQ(After(server, "--enable-expert-parallel"), "");  // of another member of the same table
  EXPECT_EQ(After(server, "--served-model-name"), "c");      // lists are replaced whole
  EXPECT_THAT(server.args, Not(Contains("b")));
}

TEST_F(Rl, InheritanceIsRelativeToTheFileAndRecursive) {
  File("sub/deep.toml", "[inference]\nseed = 1\nmax_num_seqs = 7\n");
  File("sub/base.toml", "toml_files = [\"deep.toml\"]\n[inference]\nseed = 2\n");
  const auto options = PlanOf(std::string("toml_files = [\"sub/base.toml\"]\n") + kMinimal);
  EXPECT_EQ(After(options.processes[0], "--seed"), "2");
  EXPECT_EQ(After(options.processes[0], "--max-num-seqs"), "7");
}

TEST_F(Rl, AnInheritanceThatLeadsBackIsNamed) {
  File("b.toml", "toml_files = [\"a.toml\"]\n");
  EXPECT_THAT(ErrorOf("toml_files = [\"b.toml\"]\n"), AllOf(HasSubstr("lead back"), HasSubstr("b.toml")));
  EXPECT_THAT(ErrorOf("toml_files = [\"a.toml\"]\n"), HasSubstr("lead back"));
  EXPECT_THAT(ErrorOf("\ntoml_files = [\"gone.toml\"]\n"),
              AllOf(HasSubstr("gone.toml"), HasSubstr("a.toml:2")));
  EXPECT_THAT(ErrorOf("toml_files = [1]\n"), AllOf(HasSubstr("a.toml:1"), HasSubstr("list of file names")));
}

TEST_F(Rl, LaterFilesWinAndWordsWinOverAll) {
  const std::string first = File("1.toml", std::string(kMinimal) + "seed = 1\nmax_num_seqs = 5\n");
  const std::string second = File("2.toml", "[inference]\nseed = 2\n");
  const auto seed = [&](const Args& args, const Environment& env = {}) {
    return After(Plan(args, env).processes.at(0), "--seed");
  };
  EXPECT_EQ(seed({"@", first, "@", second}), "2");
  EXPECT_EQ(seed({"@", second, "@", first}), "1");
  EXPECT_EQ(seed({"@", first, "--inference.seed", "3", "@", second}), "3");
  EXPECT_EQ(seed({"@", first, "--inference.seed=3", "--inference.seed=4"}), "4");
  EXPECT_EQ(seed({"@", first, "@", second}, {{"PRIME_INFERENCE__SEED", "9"}}), "2");
  EXPECT_EQ(seed({"--model.name", "m"}, {{"PRIME_INFERENCE__PARALLEL__TP", "1"}, {"PRIME_API_KEY", "x"}}),
            "-");
  EXPECT_EQ(After(Plan({"@", first}, {{"PRIME_INFERENCE__ALL2ALL_BACKEND", "pplx"}}).processes[0], "--port"),
            "-");
}

TEST_F(Rl, AVariableOfOneOfOurTablesIsNeverDropped) {
  const std::string file = File("a.toml", kMinimal);
  const auto server = [&](const Environment& env) { return Plan({"@", file}, env).processes.at(0); };
  EXPECT_EQ(After(server({{"PRIME_INFERENCE__MAX_NUM_SEQS", "7"}}), "--max-num-seqs"), "7");
  EXPECT_EQ(After(server({{"PRIME_INFERENCE__VLLM__MAX_NUM_SEQS", "7"}}), "--max-num-seqs"), "7");
  EXPECT_THAT(
      Try({"@", file}, {{"PRIME_INFERENCE__PARALEL__TP", "2"}}).error().message,
      AllOf(HasSubstr("PRIME_INFERENCE__PARALEL__TP"), HasSubstr("did you mean inference.parallel.tp?")));
  EXPECT_EQ(After(server({{"PRIME_OTHERS__KEY", "1"}, {"PRIME_TEAM_ID", "1"}, {"PRIME_INFERENCE__", "1"}}),
                  "--max-num-seqs"),
            "-");
}

TEST_F(Rl, WordsAreWrittenAsPydanticAndAsFlags) {
  const std::string file = File("a.toml", kMinimal);
  const auto with = [&](Args words) {
    words.insert(words.begin(), {"@", file});
    return Plan(words).processes.at(0);
  };
  EXPECT_EQ(After(with({"--inference.enable-expert-parallel"}), "--enable-expert-parallel"), "");
  EXPECT_EQ(After(with({"--inference.enable_expert_parallel", "true"}), "--enable-expert-parallel"), "");
  EXPECT_EQ(After(with({"--no-inference.model.enforce_eager"}), "--no-enforce-eager"), "");
  EXPECT_EQ(After(with({"--inference.model.no-enforce-eager"}), "--no-enforce-eager"), "");
  EXPECT_EQ(After(with({"--inference-gpu-ids", "0,1"}), "--data-parallel-size"), "2");
  EXPECT_EQ(After(with({"--inference_gpu_ids", "0", "1", "2"}), "--data-parallel-size"), "3");
  EXPECT_EQ(After(with({"--inference_gpu_ids", "[4, 5]"}), "--data-parallel-size"), "2");
  EXPECT_TRUE(Plan({"--dry-run", "@", file}).dry_run);
  EXPECT_EQ(Plan({"@", file, "--dump-config", "d"}).dump_config, "d");
  EXPECT_THAT(Try({"a.toml"}).error().message, HasSubstr("behind an @"));
  EXPECT_THAT(Try({"@"}).error().message, HasSubstr("missing"));
  EXPECT_THAT(Try({"@", "--dry-run"}).error().message, HasSubstr("missing"));
  for (const char* word : {"--dump-config", "--model.name", "--inference.parallel.tp", "--inference.seed"})
    EXPECT_THAT(Try({"@", file, word, "--dry-run"}).error().message, HasSubstr("wants a value")) << word;
  EXPECT_THAT(Try({}).error().message, HasSubstr("nothing to start"));
  EXPECT_THAT(Try({"@", file, "--a..b", "1"}).error().message, HasSubstr("empty name"));
}

TEST_F(Rl, AFileBelowAKeyAndNoneUnsets) {
  const std::string part = File("part.toml", "seed = 5\nmax_num_seqs = \"None\"\n");
  const std::string file = File("a.toml", std::string(kMinimal) + "seed = 1\nmax_num_seqs = 5\n");
  const auto server = Plan({"@", file, "--inference", "@", part}).processes.at(0);
  EXPECT_EQ(After(server, "--seed"), "5");
  EXPECT_EQ(After(server, "--max-num-seqs"), "-");
}

TEST_F(Rl, UnknownKeysNameFileLineAndTheNearest) {
  EXPECT_THAT(ErrorOf("[inference]\nenable_expert_paralel = true\n"),
              AllOf(HasSubstr("a.toml:2"), HasSubstr("did you mean inference.enable_expert_parallel?")));
  EXPECT_THAT(ErrorOf("[pd_disag]\nenabled = true\n"),
              AllOf(HasSubstr("a.toml:2"), HasSubstr("did you mean pd_disagg.enabled?")));
  EXPECT_THAT(ErrorOf("enabled_eplb = true\n"), AllOf(HasSubstr("a.toml:1"), HasSubstr("unknown key")));
  EXPECT_THAT(ErrorOf("enable_eplb = true\n"), HasSubstr("did you mean inference.enable_eplb?"));
  EXPECT_THAT(ErrorOf(kMinimal, {"--inference.paralel.tp", "2"}),
              AllOf(HasSubstr("--inference.paralel"), HasSubstr("inference.parallel.tp")));
  EXPECT_THAT(ErrorOf("[inference.vllm]\nmax_num_seq = 1\n"),
              AllOf(HasSubstr("a.toml:2"), HasSubstr("inference.vllm.max_num_seqs")));
  EXPECT_THAT(ErrorOf("[inference\n"), HasSubstr("a.toml:1"));
  EXPECT_THAT(ErrorOf("inference = 3\n"), HasSubstr("must be a table"));
}

TEST_F(Rl, WrongValuesNameFileLineAndKey) {
  EXPECT_THAT(ErrorOf(std::string(kMinimal) + "all2all_backend = \"deepep\"\n"),
              AllOf(HasSubstr("a.toml:4: inference.all2all_backend"), HasSubstr("deepep_low_latency")));
  EXPECT_THAT(ErrorOf(std::string(kMinimal) + "[inference.parallel]\ntp = 0\n"),
              AllOf(HasSubstr("a.toml:5: inference.parallel.tp"), HasSubstr("at least 1")));
  EXPECT_THAT(ErrorOf(std::string(kMinimal) + "enable_lora = true\nmax_lora_rank = 700\n"),
              AllOf(HasSubstr("a.toml:5"), HasSubstr("512")));
  EXPECT_THAT(ErrorOf("[inference.deployment]\ntype = \"multi_node\"\n"),
              AllOf(HasSubstr("a.toml:2"), HasSubstr("multi_node"), HasSubstr("docs/hosts.md")));
  EXPECT_THAT(ErrorOf("inference_gpu_ids = [0, 0]\n" + std::string(kMinimal)), HasSubstr("a.toml:1"));
  EXPECT_THAT(
      ErrorOf("inference_gpu_ids = [0, 1, 2]\n" + std::string(kMinimal) + "[inference.parallel]\ntp = 2\n"),
      AllOf(HasSubstr("a.toml:1"), HasSubstr("divisible by the tensor parallel size")));
  EXPECT_THAT(ErrorOf("[inference]\n"), HasSubstr("no model"));
}

TEST_F(Rl, EplbConfigIsOpenInFull) {
  const std::string text =
      std::string(kMinimal) +
      "enable_expert_parallel = true\nenable_eplb = true\n[inference.eplb_config]\n"
      "window_size = 8\nstep_interval = 9\nnum_redundant_experts = 4\nuse_async = false\n";
  for (const char* shape : {"inference", "inference.vllm"}) {
    std::string shaped = text;
    shaped.replace(shaped.find("[inference.eplb"), 10, Format("[{}", shape));
    EXPECT_THAT(After(PlanOf(shaped).processes[0], "--eplb-config"),
                AllOf(HasSubstr("\"window_size\":8"), HasSubstr("\"num_redundant_experts\":4")));
  }
  EXPECT_THAT(
      After(PlanOf(text, {"--inference.eplb-config.window_size", "16"}).processes[0], "--eplb-config"),
      HasSubstr("\"window_size\":16"));
  EXPECT_THAT(After(PlanOf(text, {"--inference.eplb-config.window_size", "16", "--inference.eplb_config",
                                  R"({"step_interval":32})", "--inference.eplb_config.use_async", "true"})
                        .processes[0],
                    "--eplb-config"),
              AllOf(HasSubstr("\"window_size\":16"), HasSubstr("\"step_interval\":32"),
                    HasSubstr("\"num_redundant_experts\":4"), HasSubstr("\"use_async\":true")));
  EXPECT_THAT(ErrorOf(text + "windowsize = 3\n"),
              AllOf(HasSubstr("inference.eplb_config"), HasSubstr("did you mean 'window_size'")));
}

TEST_F(Rl, TheNewerShapeMeansTheSameLine) {
  const auto older = PlanOf(
      "[inference]\nenable_expert_parallel = true\nall2all_backend = \"pplx\"\nseed = 4\n[inference.model]\n"
      "name = \"m\"\nmax_model_len = 128\n[inference.parallel]\ntp = 2\ndp = 2\n");
  const auto newer = PlanOf(
      "[inference.vllm]\nmodel = \"m\"\nmax-model-len = 128\ntensor_parallel_size = 2\ndata_parallel_size = "
      "2\n"
      "enable_expert_parallel = true\nall2all_backend = \"pplx\"\nseed = 4\n");
  EXPECT_EQ(older.processes[0].args, newer.processes[0].args);
  EXPECT_EQ(older.processes[0].resolved, newer.processes[0].resolved);
  EXPECT_THAT(older.processes[0].means, HasSubstr("EP 4 = TP 2 x DP 2"));
  // Explicit vllm.* wins, vllm_extra over it.
  const auto both = PlanOf(std::string(kMinimal) +
                           "seed = 1\n[inference.vllm]\nseed = 2\n[inference.vllm_extra]\nseed = 3\n");
  EXPECT_EQ(After(both.processes[0], "--seed"), "3");
}

TEST_F(Rl, RanksAreCountedByIdsOrByNumber) {
  const auto dp = [&](const std::string& text) {
    return After(PlanOf(text).processes[0], "--data-parallel-size");
  };
  EXPECT_EQ(dp("inference_gpu_ids = [0,1,2,3]\n" + std::string(kMinimal) + "[inference.parallel]\ntp = 2\n"),
            "2");
  EXPECT_EQ(dp(std::string(kMinimal) + "[inference.parallel]\ndp = 4\n"), "4");
  EXPECT_EQ(dp("[deployment]\nnum_infer_gpus = 6\n" + std::string(kMinimal)), "6");
  EXPECT_EQ(dp("inference_gpu_ids = [0]\n" + std::string(kMinimal) + "[inference.parallel]\ndp = 4\n"), "1");
  EXPECT_THAT(notices_, HasSubstr("DP becomes 1"));
}

TEST_F(Rl, ARouterTakesTheServersPort) {
  const auto options = PlanOf(std::string(kMinimal) +
                              "[inference.server]\nport = 9000\n[inference.router]\n"
                              "type = \"vllm-router\"\n");
  ASSERT_THAT(Titles(options), ElementsAre("inference", "router"));
  EXPECT_EQ(After(options.processes[0], "--port"), "9100");
  EXPECT_EQ(After(options.processes[1], "--port"), "9000");
  EXPECT_EQ(After(options.processes[1], "--policy"), "consistent_hash");
  EXPECT_EQ(options.port, 9000);
  const auto quiet = PlanOf(std::string(kMinimal) + "[inference.router]\n[log]\nlevel = \"warn\"\n");
  for (const RlProcess& process : quiet.processes) EXPECT_EQ(After(process, "--log-level"), "warning");
  EXPECT_THAT(ErrorOf(std::string(kMinimal) + "[inference.router]\npolicy = \"best\"\n"),
              AllOf(HasSubstr("a.toml:5"), HasSubstr("round_robin")));
}

constexpr const char* kPairs =
    "[model]\nname = \"m\"\n[inference]\n[pd_disagg]\nenabled = true\nprefill_gpu_ids = [0, 1]\n"
    "decode_gpu_ids = [2, 3]\n";

TEST_F(Rl, PairsWithoutExpertParallelismAreOneInstanceATpGroup) {
  const auto options = PlanOf(kPairs);
  ASSERT_THAT(Titles(options), ElementsAre("prefill 0", "prefill 1", "decode 0", "decode 1", "router"));
  EXPECT_EQ(After(options.processes[1], "--port"), "8101");
  EXPECT_EQ(After(options.processes[4], "--prefill"), "http://127.0.0.1:8100,http://127.0.0.1:8101");
  EXPECT_EQ(After(options.processes[4], "--decode-kv-addrs"), "127.0.0.1:14581,127.0.0.1:14582");
  EXPECT_EQ(options.port, 8000);
  EXPECT_EQ(Variable(options.processes[3], "VLLM_CPU_OMP_THREADS_BIND"), "3");
  EXPECT_THAT(options.processes[3].means, HasSubstr("rank 0 is id 3 on CPU 3"));
  // All share the memory that one would have.
  EXPECT_EQ(After(options.processes[0], "--gpu-memory-utilization"), "0.23");
}

TEST_F(Rl, WithExpertParallelismEachIdOfARoleIsOneRankOfIt) {
  const auto options = PlanOf(std::string(kPairs) + "prefill_all2all_backend = \"deepep_high_throughput\"\n",
                              {"--inference.enable_expert_parallel", "--inference.all2all-backend", "mori",
                               "--pd_disagg.decode_tp", "2"});
  ASSERT_THAT(Titles(options), ElementsAre("prefill 0", "decode 0", "router"));
  const RlProcess &prefill = options.processes[0], &decode = options.processes[1],
                  &router = options.processes[2];
  EXPECT_THAT(prefill.means, HasSubstr("EP 2 = TP 1 x DP 2, deepep_high_throughput"));
  EXPECT_THAT(decode.means, HasSubstr("EP 2 = TP 2 x DP 1, mori"));
  EXPECT_THAT(decode.means, HasSubstr("rank 1 is id 3 on CPU 3"));
  EXPECT_EQ(Variable(prefill, "VLLM_CPU_OMP_THREADS_BIND"), "0|1");
  EXPECT_EQ(After(router, "--prefill"), "http://127.0.0.1:8100@0,http://127.0.0.1:8100@1");
  EXPECT_EQ(After(router, "--prefill-kv-addrs"), "127.0.0.1:14579,127.0.0.1:14580");
  EXPECT_EQ(After(router, "--decode-kv-addrs"), "127.0.0.1:14581");
  EXPECT_THAT(After(prefill, "--kv-transfer-config"),
              AllOf(HasSubstr("P2pNcclConnector"), HasSubstr("kv_producer")));
  // A role with one id: EP = 1.
  const auto one = PlanOf(std::string(kPairs),
                          {"--inference.enable_expert_parallel", "--pd_disagg.prefill_gpu_ids", "[0]"});
  EXPECT_THAT(one.processes[0].means, HasSubstr("EP 1 = TP 1 x DP 1"));
}

TEST_F(Rl, MoreRanksThanCoresShareThem) {
  machine_.cpus = {0, 1};
  const auto options = PlanOf(kPairs);
  EXPECT_EQ(Variable(options.processes[0], "VLLM_CPU_OMP_THREADS_BIND"), "nobind");
  EXPECT_EQ(Variable(options.processes[0], "OMP_NUM_THREADS"), "1");
  EXPECT_THAT(options.processes[0].means, HasSubstr("4 ranks share 2 cores"));
}

TEST_F(Rl, NixlPairsMeetByParameters) {
  const auto options = PlanOf(std::string(kPairs) + "kv_connector = \"NixlConnector\"\n");
  EXPECT_EQ(After(options.processes[0], "--kv-transfer-config"),
            R"({"kv_connector":"NixlConnector","kv_role":"kv_both"})");
  EXPECT_EQ(After(options.processes.back(), "--prefill-kv-addrs"), "-");
}

TEST_F(Rl, PortsThatAreInUseAreSkipped) {
  used_ = {8000, 8101, 14579};
  const auto options = PlanOf(kPairs);
  EXPECT_EQ(options.port, 8001);
  EXPECT_EQ(After(options.processes[0], "--port"), "8102");  // 8100 alone is no pair
  EXPECT_EQ(After(options.processes[2], "--port"), "8200");
  std::set<std::string> ports;
  for (size_t i = 0; i < 4; ++i) {
    ports.insert(After(options.processes[i], "--port"));
    ports.insert(After(options.processes[i], "--kv-transfer-config"));
  }
  EXPECT_EQ(ports.size(), 8u);
  EXPECT_THAT(ErrorOf(std::string(kPairs) + "auto_ports = false\n"),
              HasSubstr("port ranges must all be distinct"));
  EXPECT_EQ(Titles(PlanOf(std::string(kPairs) + "auto_ports = false\ndecode_kv_port = 15000\n")).size(), 5u);
}

TEST_F(Rl, PairsThatMakeNoSenseAreRefused) {
  const std::string head = "[model]\nname = \"m\"\n", pairs = "[pd_disagg]\nenabled = true\n";
  EXPECT_THAT(ErrorOf(head + pairs),
              AllOf(HasSubstr("a.toml:4"), HasSubstr("requires an [inference] config")));
  EXPECT_THAT(ErrorOf(std::string(kMinimal) + pairs), HasSubstr("cannot be empty"));
  EXPECT_THAT(ErrorOf(std::string(kMinimal) + pairs + "prefill_gpu_ids = [0]\n"),
              HasSubstr("decode_gpu_ids cannot be empty"));
  EXPECT_THAT(ErrorOf(kPairs, {"--pd_disagg.prefill_tp", "3"}),
              HasSubstr("must be a multiple of prefill_tp"));
  EXPECT_THAT(ErrorOf(kPairs, {"--pd_disagg.decode_tp", "4"}), HasSubstr("must be a multiple of decode_tp"));
  EXPECT_THAT(ErrorOf(kPairs, {"--pd_disagg.decode_gpu_ids", "[1, 2]"}), HasSubstr("must not overlap"));
  EXPECT_THAT(ErrorOf(kPairs, {"--orchestrator.client.elastic.hostname", "x"}),
              HasSubstr("not supported with orchestrator.client.elastic"));
  EXPECT_THAT(ErrorOf(kPairs, {"--weight_broadcast.type", "nccl", "--pd_disagg.decode_tp", "2"}),
              HasSubstr("requires matching prefill_tp and decode_tp"));
  EXPECT_THAT(ErrorOf(kPairs, {"--pd_disagg.decode_all2all_backend", "fast"}),
              AllOf(HasSubstr("--pd_disagg.decode_all2all_backend"), HasSubstr("deepep_low_latency")));
  EXPECT_THAT(ErrorOf(kPairs, {"--pd_disagg.kv_connector", "Other"}), HasSubstr("NixlConnector"));
}

TEST_F(Rl, TheNewerShapeOfPairs) {
  const auto options = PlanOf(
      "[inference.vllm]\nmodel = \"m\"\n[inference.deployment]\ntype = \"disaggregated\"\ngpus_per_node = 2\n"
      "num_decode_replicas = 2\n[inference.deployment.decode_vllm_overrides]\nmax_num_seqs = 3\n");
  ASSERT_THAT(Titles(options), ElementsAre("prefill 0", "decode 0", "decode 1", "router"));
  EXPECT_THAT(options.processes[0].means, HasSubstr("EP 2 = TP 1 x DP 2, deepep_high_throughput"));
  EXPECT_THAT(options.processes[2].means, HasSubstr("deepep_low_latency"));
  EXPECT_THAT(After(options.processes[2], "--kv-transfer-config"), HasSubstr("kv_both"));
  EXPECT_EQ(After(options.processes[2], "--max-num-seqs"), "3");
  EXPECT_EQ(After(options.processes[0], "--max-num-seqs"), "-");
}

TEST_F(Rl, TrainerAndOrchestratorAreStartedWhereInstalled) {
  const std::string text =
      "trainer_gpu_ids = [4, 5]\nmax_steps = 20\nseq_len = 64\n" + std::string(kMinimal) +
      "[trainer.optim]\nlr = 3e-6\n[orchestrator]\nseq_len = 32\n[[orchestrator.env]]\nid = \"x\"\n";
  auto options = PlanOf(text);
  EXPECT_THAT(notices_, AllOf(HasSubstr("serves inference only"), HasSubstr("orchestrator, torchrun")));
  EXPECT_EQ(options.processes.size(), 3u);
  EXPECT_TRUE(options.processes[1].absent && options.processes[2].absent);

  installed_ = {"orchestrator", "torchrun"};
  options = PlanOf(text, {"--output-dir", "out"});
  EXPECT_THAT(notices_, Not(HasSubstr("serves inference only")));
  ASSERT_THAT(Titles(options), ElementsAre("inference", "orchestrator", "trainer"));
  const RlProcess &orchestrator = options.processes[1], &trainer = options.processes[2];
  EXPECT_THAT(orchestrator.args, ElementsAre("@", "out/configs/orchestrator.toml"));
  EXPECT_THAT(trainer.args, Contains("--nproc-per-node=2"));
  EXPECT_TRUE(trainer.trains && !trainer.absent);
  EXPECT_EQ(Variable(trainer, "CUDA_VISIBLE_DEVICES"), "4,5");
  const std::string own = orchestrator.resolved.Dump();
  EXPECT_THAT(own,
              AllOf(HasSubstr(R"("seq_len":32)"), HasSubstr(R"("max_steps":20)"), HasSubstr(R"("name":"m")"),
                    HasSubstr("http://127.0.0.1:8000/v1"), HasSubstr(R"([{"id":"x"}])")));
  EXPECT_THAT(trainer.resolved.Dump(), AllOf(HasSubstr(R"("seq_len":64)"), HasSubstr(R"("lr":3e-06)")));

  installed_ = {"mine"};
  options =
      PlanOf(text, {"--cadre.trainer_command", R"(["mine", "-x"])", "--cadre.orchestrator_command", "mine"});
  EXPECT_EQ(options.processes[2].program, "/bin/mine");
  EXPECT_EQ(options.processes[2].args[0], "-x");
  EXPECT_THAT(ErrorOf(text, {"--orchestrator.client.base_url", R"(["http://h:9/v1"])"}),
              AllOf(HasSubstr("port (9) does not match inference endpoint port (8000)")));
}

TEST_F(Rl, ATeacherIsOneMoreServer) {
  const auto options = PlanOf("teacher_gpu_ids = [1]\n" + std::string(kMinimal));
  ASSERT_THAT(Titles(options), ElementsAre("inference", "teacher"));
  EXPECT_EQ(After(options.processes[1], "--port"), "8001");
  EXPECT_THAT(ErrorOf(std::string(kMinimal) + "[teacher_inference]\n"),
              HasSubstr("teacher_gpu_ids is not set"));
}

TEST_F(Rl, InferenceAloneHasItsKeysAtTheTop) {
  const std::string file =
      File("i.toml", "enable_expert_parallel = true\n[server]\nport = 9\n[parallel]\ndp = 2\n");
  const auto options = Plan({"@", file, "--model.name", "m", "--max-num-seqs", "4"}, {}, true);
  ASSERT_THAT(Titles(options), ElementsAre("inference"));
  EXPECT_EQ(options.processes[0].args[1], "m");
  EXPECT_EQ(After(options.processes[0], "--port"), "9");
  EXPECT_EQ(After(options.processes[0], "--max-num-seqs"), "4");
  EXPECT_THAT(options.processes[0].means, HasSubstr("EP 2"));
}

TEST_F(Rl, AResolvedFileMeansTheSameProcess) {
  const auto options = PlanOf(std::string(kPairs) + "kv_connector = \"NixlConnector\"\n",
                              {"--inference.enable_expert_parallel", "--inference.eplb_config.window_size",
                               "5", "--inference.enable_eplb"});
  for (const RlProcess& process : options.processes) {
    if (process.resolved.is_null()) continue;
    const std::string file = File("resolved.toml", TomlText(process.resolved));
    EXPECT_EQ(Plan({"@", file}, {}, true).processes.at(0).args, process.args);
  }
}

TEST_F(Rl, TheDebugFilesPlan) {
  const std::string folder = std::string(CADRE_SOURCE_DIR) + "/configs/debug/";
  auto options = Plan({"@", folder + "rl_ep.toml"});
  EXPECT_THAT(options.processes[0].means, HasSubstr("EP 2 = TP 2 x DP 1, allgather_reducescatter"));
  options = Plan({"@", folder + "rl_pd_disagg.toml"});
  EXPECT_THAT(Titles(options), ElementsAre("prefill 0", "decode 0", "router", "orchestrator", "trainer"));
  options = Plan({"@", folder + "rl_pd_disagg_ep.toml"});
  EXPECT_THAT(options.processes[0].means, HasSubstr("EP 2 = TP 1 x DP 2, deepep_high_throughput"));
  EXPECT_THAT(options.processes[1].means, HasSubstr("EP 2 = TP 1 x DP 2, deepep_low_latency"));
  EXPECT_THAT(options.processes[3].resolved.Dump(), HasSubstr(R"("batch_size":64)"));  // the child's, not 128
}

TEST_F(Rl, EveryRowIsFoundByItsName) {
  for (const Group& group : RlGroups()) {
    for (const Setting& row : group.settings) {
      const std::string path = (group.name == "Inference" ? "inference." : "") + std::string(row.name);
      EXPECT_EQ(FindRlKey(path), &row) << path;
    }
  }
}

TEST(Toml, LinesTypesAndNone) {
  const auto document = ParseToml("a = 1\n[b]\nc = \"None\"\nd = [1.5, true]\n[[e]]\nf = 1979-05-27\n");
  ASSERT_TRUE(document) << document.error().message;
  EXPECT_EQ(document->values.Dump(), R"({"a":1,"b":{"c":null,"d":[1.5,true]},"e":[{"f":"1979-05-27"}]})");
  EXPECT_EQ(document->lines.at("b.c"), 3);
  EXPECT_EQ(document->lines.at("e.0.f"), 6);
  EXPECT_THAT(ParseToml("a = 1\na = 2\n").error().message, HasSubstr("line 2"));
  for (const char* text :
       {"a = 1\n[=]\n", "a = 1\n  [[ \x0f]]\n", "[a]\n[\xc3\xa4]\n", "[a]\n[.b]\n", "[a]\nmo\xc6\xa8 = 1\n"})
    EXPECT_THAT(ParseToml(text).error().message, HasSubstr("line 2")) << text;
  EXPECT_FALSE(ParseToml("a = " + std::string(100000, '[')));
  EXPECT_EQ(ParseToml(TomlText(document->values))->values.Find("e")->Dump(), R"([{"f":"1979-05-27"}])");
}

TEST(Toml, NumbersAreWrittenAsShortAsTheyReadBack) {
  const char* const text = "a = 0.46\nb = 1e-06\nc = 3.0\nd = -1.7976931348623157e+308\ne = 7\n";
  const auto document = ParseToml(text);
  ASSERT_TRUE(document) << document.error().message;
  EXPECT_EQ(TomlText(document->values), text);
}

}  // namespace
}  // namespace cadre::config
