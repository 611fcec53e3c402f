// The arithmetic of the benchmarks, against numbers worked out by hand or by numpy.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "app/bench_report.h"
#include "app/floor.h"
#include "app/load_generator.h"
#include "app/random_prompts.h"
#include "app/serve_metrics.h"
#include "app/serve_target.h"
#include "app/statistics.h"
#include "app/terminal.h"

namespace cadre::app {
namespace {

TEST(Statistics, AsNumpy) {
  const std::vector<double> values = {9, 1, 4, 2.5};
  EXPECT_DOUBLE_EQ(Mean(values), 4.125);
  EXPECT_NEAR(StandardDeviation(values), 3.0078023538789913, 1e-12);
  EXPECT_DOUBLE_EQ(Median(values), 3.25);
  EXPECT_NEAR(Percentile(values, 99), 8.85, 1e-12);
  EXPECT_NEAR(Percentile(values, 25), 2.125, 1e-12);
  EXPECT_DOUBLE_EQ(Percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(Percentile(values, 100), 9);
  EXPECT_DOUBLE_EQ(Percentile({7}, 33), 7);
  EXPECT_DOUBLE_EQ(Percentile({}, 50), 0);
  EXPECT_DOUBLE_EQ(Mean({}), 0);
}

TEST(Statistics, Percentiles) {
  EXPECT_EQ(*ParsePercentiles("50, 99.9", "--p"), (std::vector<double>{50, 99.9}));
  EXPECT_EQ(PercentileName(50), "50");
  EXPECT_EQ(PercentileName(99.9), "99.9");
  for (const char* bad : {"x", "101", "-1", "nan", "50,,90"})
    EXPECT_FALSE(ParsePercentiles(bad, "--p")) << bad;
}

TEST(Floor, DistinctExperts) {
  EXPECT_NEAR(ExpectedDistinctExperts(8, 2, 1), 2, 1e-12);
  EXPECT_NEAR(ExpectedDistinctExperts(8, 2, 2), 3.5, 1e-12);  // 2 + 2 * 6/8
  EXPECT_NEAR(ExpectedDistinctExperts(8, 8, 5), 8, 1e-12);
  EXPECT_NEAR(ExpectedDistinctExperts(8, 2, 1e6), 8, 1e-9);
  EXPECT_EQ(ExpectedDistinctExperts(0, 0, 3), 0);
}

ModelCost SmallCost() {
  ModelCost cost;
  cost.dense_bytes = 1000;
  cost.expert_bytes = 10;
  cost.num_moe_layers = 2, cost.num_experts = 8, cost.top_k = 2;
  cost.operations_per_row = 500, cost.head_operations = 100, cost.attention_operations = 3;
  cost.kv_bytes = 5;
  cost.windows = {0, 4};
  cost.max_rows_per_step = 16, cost.max_sequences_per_step = 2;
  return cost;
}

TEST(Floor, DecodeStep) {
  // 1000 dense, 2 layers of 3.5 experts, and of 10 positions 10 in one layer and 4 in the other.
  const Work work = DecodeWork(SmallCost(), 2, 10);
  EXPECT_NEAR(work.bytes, 1000 + 2 * 3.5 * 10 + 2 * 14 * 5, 1e-9);
  EXPECT_NEAR(work.operations, 2 * (500 + 100 + 14 * 3), 1e-9);
}

TEST(Floor, DecodeOfManyGoesInTurns) {
  const Work one = DecodeWork(SmallCost(), 2, 8.0 + 2.5);
  const Work all = DecodeWork(SmallCost(), 4, 8, 5);  // two turns of two, four steps each
  EXPECT_NEAR(all.bytes, 8 * one.bytes, 1e-6);
  EXPECT_NEAR(all.operations, 8 * one.operations, 1e-6);
  EXPECT_EQ(DecodeWork(SmallCost(), 4, 8, 1).bytes, 0);
}

TEST(Floor, Prefill) {
  // 3 prompts of 8 are 24 rows in 2 steps; rows see 1..8 positions (36), with a window of 4: 1+2+3+4*5 = 26.
  const Work work = PrefillWork(SmallCost(), 3, 8);
  const double experts = ExpectedDistinctExperts(8, 2, 12);
  EXPECT_NEAR(work.bytes, 2 * (1000 + 2 * experts * 10) + 3 * (8 + 4) * 5, 1e-9);
  EXPECT_NEAR(work.operations, 24 * 500 + 3 * ((36 + 26) * 3 + 100), 1e-9);
}

TEST(Floor, TheSlowerOneBounds) {
  const kernels::MachineRates rates{.read_bytes_per_s = 100, .operations_per_s = 1000};
  const Floor memory = FloorOf({.bytes = 300, .operations = 2000}, rates);
  EXPECT_DOUBLE_EQ(memory.seconds(), 3);
  EXPECT_STREQ(memory.bound(), "memory");
  const Floor products = FloorOf({.bytes = 100, .operations = 2000}, rates);
  EXPECT_DOUBLE_EQ(products.seconds(), 2);
  EXPECT_STREQ(products.bound(), "products");
  EXPECT_DOUBLE_EQ((memory + products).seconds(), 5);
  const SpeedLine line{.name = "x", .tokens = 30, .seconds = 6, .work = {}, .floor = memory};
  EXPECT_DOUBLE_EQ(line.per_second(), 5);
  EXPECT_DOUBLE_EQ(line.floor_per_second(), 10);
  EXPECT_DOUBLE_EQ(line.share(), 0.5);
}

TEST(RandomPrompts, ShapeOfVllm) {
  const config::RandomDatasetOptions options{
      .input_len = 20, .output_len = 10, .prefix_len = 3, .range_ratio = 0.5};
  const auto prompts = MakeRandomPrompts(options, 500, 50, 7);
  std::set<size_t> inputs;
  std::set<int64_t> outputs;
  for (const RandomPrompt& prompt : prompts) {
    inputs.insert(prompt.ids.size() - 3);
    outputs.insert(prompt.output_len);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(prompt.ids[i], prompts[0].ids[i]);
    for (size_t i = 4; i < prompt.ids.size(); ++i) EXPECT_EQ(prompt.ids[i], (prompt.ids[i - 1] + 1) % 50);
    for (const int64_t id : prompt.ids) EXPECT_TRUE(id >= 0 && id < 50);
  }
  EXPECT_EQ(*inputs.begin(), 10u);
  EXPECT_EQ(*inputs.rbegin(), 30u);
  EXPECT_EQ(inputs.size(), 21u);
  EXPECT_EQ(*outputs.begin(), 5);
  EXPECT_EQ(*outputs.rbegin(), 15);
  EXPECT_EQ(MakeRandomPrompts(options, 1, 50, 7)[0].ids, prompts[0].ids);
  EXPECT_NE(MakeRandomPrompts(options, 1, 50, 8)[0].ids, prompts[0].ids);
}

TEST(LoadGenerator, ArrivalTimes) {
  EXPECT_TRUE(ArrivalTimes(5, INFINITY, 1, 0).empty());
  for (const double burstiness : {0.2, 1.0, 5.0}) {
    const auto times = ArrivalTimes(1000, 50, burstiness, 3);
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
    EXPECT_NEAR(times.back(), 20, 1e-9);
    std::vector<double> gaps;
    for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
    // A gamma distribution of that shape varies by 1 / sqrt(shape) of its mean.
    EXPECT_NEAR(StandardDeviation(gaps) / Mean(gaps), 1 / std::sqrt(burstiness), 0.2 / std::sqrt(burstiness));
  }
}

RequestRecord Read(std::initializer_list<std::string_view> pieces, bool stream = true, int status = 200) {
  RequestRecord record;
  record.start = Now();
  AnswerReader reader(record, stream, true);
  reader.OnHead(status);
  for (const std::string_view piece : pieces) reader.OnBody(piece);
  reader.OnDone({});
  return record;
}

TEST(AnswerReader, Streams) {
  const auto good =
      Read({"data: {\"choices\":[{\"text\":\"a \\\"choices\\\":[]\"}]}\n", "\ndata: {\"choices\": [ {\"te",
            "xt\":\"b\"}]}\r\n\r\ndata: "
            "{\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5}}\n\n",
            "data: [DONE]\n\n"});
  EXPECT_TRUE(good.success) << good.error;
  EXPECT_EQ(good.itl.size(), 1u);
  EXPECT_EQ(good.output_tokens, 5);
  EXPECT_EQ(good.prompt_len, 9);
  EXPECT_EQ(good.text, "a \"choices\":[]b");
  EXPECT_GT(good.ttft, 0);
  EXPECT_NEAR(good.latency, good.ttft + good.itl[0], 1e-9);
  const auto chat = Read({"data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n"});
  EXPECT_TRUE(chat.success);
  EXPECT_EQ(chat.text, "hi");
  EXPECT_EQ(chat.output_tokens, 1);  // no usage: a token a chunk
}

TEST(AnswerReader, FailuresSayWhy) {
  EXPECT_EQ(Read({}).error, "the stream ended without a token");
  EXPECT_EQ(Read({"data: {\"choices\":[{}]}\n\n"}).error, "the stream ended without [DONE]");
  EXPECT_EQ(Read({"data: {\"choices\":[{}]}\n\ndata: {\"error\":{\"message\":\"boom\"}}\n\ndata: [DONE]\n\n"})
                .error,
            "boom");
  EXPECT_EQ(Read({"{\"error\":{\"message\":\"no\"}}"}, true, 400).error, "HTTP status 400: no");
  EXPECT_EQ(Read({"<html>"}, true, 502).error, "HTTP status 502: <html>");
  EXPECT_FALSE(Read({"data: nonsense\n\ndata: [DONE]\n\n"}).success);
  EXPECT_FALSE(Read({"{}"}, false).success);
  const auto whole = Read({"{\"choices\":[{\"text\":\"t\"}],\"usage\":{\"completion_tokens\":4}}"}, false);
  EXPECT_TRUE(whole.success) << whole.error;
  EXPECT_EQ(whole.output_tokens, 4);
}

TEST(ServeMetrics, NumbersAndNames) {
  LoadResult load;
  load.start = Now();
  load.duration = 2;
  RequestRecord a{.success = true,
                  .start = load.start,
                  .ttft = 0.1,
                  .latency = 0.5,
                  .itl = {0.1, 0.3},
                  .prompt_len = 10,
                  .output_tokens = 3};
  RequestRecord b{.success = true,
                  .start = load.start,
                  .ttft = 0.3,
                  .latency = 0.3,
                  .prompt_len = 20,
                  .output_tokens = 1};
  RequestRecord bad{
      .success = false, .error = "x", .start = load.start, .ttft = 9, .latency = 9, .prompt_len = 30};
  load.records = {a, b, bad};
  const ServeMetrics metrics = Summarize(load, {{"ttft", 200}});
  EXPECT_EQ(metrics.completed, 2);
  EXPECT_EQ(metrics.failed, 1);
  EXPECT_EQ(metrics.total_input_tokens, 30);
  EXPECT_EQ(metrics.total_output_tokens, 4);
  EXPECT_DOUBLE_EQ(*metrics.request_goodput, 0.5);
  EXPECT_EQ(metrics.max_concurrent_requests, 2);
  EXPECT_EQ(metrics.max_output_tokens_per_s, 4);
  const ReportOptions options{
      .selected = {"ttft", "tpot"}, .percentiles = {50, 99.9}, .request_rate = INFINITY};
  const Json result = ServeResult(metrics, load, options, true);
  EXPECT_NEAR(result.Find("mean_ttft_ms")->AsDouble(), 200, 1e-9);
  EXPECT_NEAR(result.Find("mean_tpot_ms")->AsDouble(), 200, 1e-9);  // of the first alone
  EXPECT_NEAR(result.Find("p50_ttft_ms")->AsDouble(), 200, 1e-9);
  EXPECT_NE(result.Find("p99.9_tpot_ms"), nullptr);
  EXPECT_EQ(result.Find("p50_e2el_ms"), nullptr);
  EXPECT_EQ(result.Find("errors")->AsArray()[2].AsString(), "x");
  const std::string table = ServeTable(metrics, options);
  EXPECT_NE(table.find("Mean TTFT (ms):                          200.00"), std::string::npos) << table;
  EXPECT_EQ(table.find("E2EL"), std::string::npos);
}

TEST(ServeMetrics, NothingCompleted) {
  LoadResult load;
  load.records.resize(2);
  EXPECT_EQ(Summarize(load, {}).failed, 2);
}

TEST(ServerUrl, Forms) {
  const auto v6 = ParseServerUrl("https://[::1]:8443/a/");
  ASSERT_TRUE(v6.has_value());
  EXPECT_EQ(v6->Text(), "https://[::1]:8443/a");
  EXPECT_EQ(ParseServerUrl("http://host")->port, 80);
  for (const char* bad :
       {"host:80", "http://", "http://h:0", "http://h:99999", "http://h:x", "http://[::1", "http://a b"}) {
    EXPECT_FALSE(ParseServerUrl(bad)) << bad;
  }
}

TEST(Terminal, ControlsAreReplaced) {
  EXPECT_EQ(WithoutControls("a\x1b[2Jb\n\tc\x7f"), "a\xEF\xBF\xBD[2Jb\n\tc\xEF\xBF\xBD");
  EXPECT_EQ(WithoutControls("\xC2\x9B"
                            "5n \xC3\xA9"),
            "\xEF\xBF\xBD"
            "5n \xC3\xA9");
}

}  // namespace
}  // namespace cadre::app
