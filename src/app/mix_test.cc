// A mixed load: which prompts are long, how results are told apart, drawn, and which servers are started.
#include <gmock/gmock.h>

#include <set>

#include "app/latency_picture.h"
#include "app/mix_report.h"
#include "app/random_prompts.h"
#include "app/serve_load.h"
#include "app/server_set.h"

namespace cadre::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(LongPrompts, AreSpreadEvenly) {
  for (const double share : {0.0, 0.01, 0.1, 0.3, 0.5, 0.77, 1.0}) {
    const LongPrompts longs{.share = share, .input_len = 100, .output_len = 1};
    int64_t count = 0, since = 0;
    for (int64_t i = 0; i < 1000; ++i) {
      count += longs.Has(i);
      EXPECT_NEAR(static_cast<double>(count), share * static_cast<double>(i + 1), 0.51) << share << " " << i;
      since = longs.Has(i) ? 0 : since + 1;
      if (share > 0) {
        EXPECT_LE(static_cast<double>(since), 1 / share + 1) << share;
      }
    }
  }
}

TEST(LongPrompts, StandInThePlaceOfChats) {
  const config::RandomDatasetOptions chats{.input_len = 20, .output_len = 10, .range_ratio = 0.2};
  const LongPrompts longs{.share = 0.25, .input_len = 1000, .output_len = 3};
  const auto plain = MakeRandomPrompts(chats, 40, 500, 7);
  const auto mixed = MakeMixedPrompts(chats, longs, 40, 500, 7);
  int num_long = 0;
  for (size_t i = 0; i < mixed.size(); ++i) {
    num_long += mixed[i].is_long;
    EXPECT_EQ(mixed[i].is_long, longs.Has(static_cast<int64_t>(i)));
    if (mixed[i].is_long) {
      EXPECT_THAT(mixed[i].ids.size(), testing::AllOf(testing::Ge(800u), testing::Le(1200u)));
      EXPECT_THAT(mixed[i].output_len, testing::AllOf(testing::Ge(2), testing::Le(4)));
      for (const int64_t id : mixed[i].ids) EXPECT_TRUE(id >= 0 && id < 500);
    } else {
      EXPECT_EQ(mixed[i].ids, plain[i].ids);  // chats are the same with and without
    }
  }
  EXPECT_EQ(num_long, 10);
  EXPECT_EQ(MakeMixedPrompts(chats, longs, 40, 500, 7)[1].ids, mixed[1].ids);
}

TEST(LongPrompts, CountForTheLimit) {
  config::BenchServeOptions options;
  options.num_prompts = 1'000'000;
  options.random = {.input_len = 10, .output_len = 10};
  EXPECT_TRUE(CheckLoad(options).has_value());
  options.long_prompt_share = 0.5;
  EXPECT_FALSE(CheckLoad(options).has_value());  // 2 G tokens
}

// A chat of three tokens 10 and 30 ms apart, and a long prompt's answer of two, 500 ms apart.
LoadRun SmallRun() {
  LoadRun run{.name = "this one", .commands = {}, .load = {}, .recomputed = {}};
  run.load.start = Now();
  run.load.duration = 2;
  run.load.records = {{.success = true,
                       .start = run.load.start,
                       .ttft = 0.1,
                       .latency = 0.14,
                       .itl = {0.01, 0.03},
                       .prompt_len = 10,
                       .output_tokens = 3},
                      {.success = true,
                       .start = run.load.start + std::chrono::seconds(1),
                       .ttft = 0.4,
                       .latency = 0.9,
                       .itl = {0.5},
                       .prompt_len = 1000,
                       .output_tokens = 2,
                       .is_long = true}};
  return run;
}

TEST(MixReport, TellsTheKindsApart) {
  const LoadRun run = SmallRun();
  const std::string table = MixTable({run});
  const auto row = [&](const std::string& name) {
    const size_t at = table.find(name);
    if (at == std::string::npos) return std::string("no such row");
    const std::string line = table.substr(at, table.find('\n', at) - at);
    return line.substr(line.rfind(' ') + 1);
  };
  EXPECT_EQ(row("chats: first token, P50"), "100.00") << table;
  EXPECT_EQ(row("chats: between tokens, P50"), "20.00");
  EXPECT_EQ(row("chats: between tokens, longest"), "30.00");
  EXPECT_EQ(row("long prompts: first token, P99"), "400.00");
  EXPECT_EQ(row("long prompts: between, longest"), "500.00");
  EXPECT_EQ(row("output tokens a second"), "2.50");
  EXPECT_EQ(row("failed requests"), "0");
  const Json json = MixResult(run.load, {.selected = {"itl"}, .percentiles = {99}});
  EXPECT_EQ(json.Find("chats")->Find("completed")->AsInt(), 1);
  EXPECT_NEAR(json.Find("chats")->Find("mean_itl_ms")->AsDouble(), 20, 1e-9);
  EXPECT_NEAR(json.Find("long_prompts")->Find("mean_ttft_ms")->AsDouble(), 400, 1e-9);
}

TEST(MixReport, WithoutLongPromptsSaysNothingOfThem) {
  LoadRun run = SmallRun();
  run.load.records.pop_back();
  EXPECT_THAT(MixTable({run}), testing::Not(HasSubstr("long prompts")));
}

size_t Count(const std::string& text, std::string_view what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

TEST(LatencyPicture, DrawsEveryRun) {
  LoadRun other = SmallRun();
  other.name = "the <other>";
  const std::string svg = LatencySvg("Title & more", "what", {SmallRun(), other});
  EXPECT_THAT(svg, HasSubstr("<svg xmlns"));
  EXPECT_THAT(svg, HasSubstr("Title &amp; more"));
  EXPECT_EQ(Count(svg, "the &lt;other&gt;"), 2u);  // its strip, and in the legend
  EXPECT_EQ(Count(svg, "<polyline"), 2u);
  EXPECT_THAT(svg, HasSubstr("99% 29.8 ms"));  // of 10 and 30, as numpy counts it
  EXPECT_EQ(Count(svg, "<svg"), Count(svg, "</svg>"));
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(LatencyPicture, HasABoundedSizeAndNeedsNoTokens) {
  LoadRun none{.name = "none", .commands = {}, .load = {}, .recomputed = {}};
  const std::string empty = LatencySvg("t", "s", {none});
  EXPECT_EQ(empty.find("nan"), std::string::npos) << empty;
  EXPECT_EQ(Count(empty, "<polyline"), 0u);
  LoadRun large = SmallRun();
  large.load.records[0].itl.assign(200'000, 1e-5);
  EXPECT_LT(LatencySvg("t", "s", {large}).size(), 200'000u);
}

TEST(ServerSet, APairHasTheCoresOfTheOne) {
  config::BenchServeOptions options;
  EXPECT_EQ(PlanServerSets(options, {0, 1}, {1, 2, 3, 4}).error().param, "--model");
  options.model = "m";
  options.serve_args = " --max-model-len  4096 ";
  options.decode_args = "--block-size 32";
  options.prefill_cores = 3;
  const auto sets = PlanServerSets(options, {0, 1, 2, 5}, {81, 82, 83, 84});
  ASSERT_TRUE(sets.has_value()) << sets.error().message;
  const auto& one = sets->at(0).servers;
  const auto& pair = sets->at(1).servers;
  ASSERT_EQ(one.size(), 1u);
  ASSERT_EQ(pair.size(), 3u);
  EXPECT_THAT(one[0].CommandLine(), HasSubstr("VLLM_CPU_OMP_THREADS_BIND=0-2,5 "));
  EXPECT_THAT(one[0].CommandLine(), testing::Not(HasSubstr("kv-transfer")));
  EXPECT_THAT(pair[0].CommandLine(), HasSubstr("VLLM_CPU_OMP_THREADS_BIND=0-2 "));
  EXPECT_THAT(pair[0].CommandLine(),
              HasSubstr(R"('{"kv_connector":"NixlConnector","kv_role":"kv_producer"}')"));
  EXPECT_THAT(pair[1].CommandLine(), HasSubstr("VLLM_CPU_OMP_THREADS_BIND=5 "));
  for (const auto& server : {one[0], pair[0], pair[1]})
    EXPECT_THAT(server.CommandLine(), HasSubstr("--max-model-len 4096"));
  EXPECT_THAT(pair[1].CommandLine(), HasSubstr("--block-size 32"));
  EXPECT_THAT(pair[0].CommandLine(), testing::Not(HasSubstr("--block-size")));
  EXPECT_THAT(pair[2].CommandLine(), HasSubstr("--prefill http://127.0.0.1:82 --decode http://127.0.0.1:83"));
  options.prefill_cores = 4;
  EXPECT_EQ(PlanServerSets(options, {0, 1, 2, 5}, {1, 2, 3, 4}).error().param, "--prefill-cores");
  options.prefill_cores.reset();
  EXPECT_EQ(PlanServerSets(options, {0}, {1, 2, 3, 4}).error().param, "--prefill-cores");
}

TEST(ServerSet, SumsAMetricOverItsLabels) {
  const char* text =
      "# HELP x y\n# TYPE x counter\nx{a=\"1 {\"} 3\nx{a=\"2\"} 4.5\nx_more{a=\"1\"} 100\ny 7\nx 1";
  EXPECT_EQ(SumOfMetric(text, "x"), 8.5);
  EXPECT_EQ(SumOfMetric(text, "y"), 7);
  EXPECT_EQ(SumOfMetric(text, "z"), 0);
}

TEST(ServerSet, PortsDiffer) {
  const auto ports = FreePorts(20);
  ASSERT_TRUE(ports.has_value());
  EXPECT_EQ(std::set<int>(ports->begin(), ports->end()).size(), 20u);
  EXPECT_THAT(Words("  a -b  c "), ElementsAre("a", "-b", "c"));
}

}  // namespace
}  // namespace cadre::app
