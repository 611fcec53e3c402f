#include "base/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <sstream>
#include <thread>

#include "base/metrics_merge.h"

namespace cadre {
namespace {

using testing::HasSubstr;

TEST(Metrics, SerializesCountersGaugesAndHistograms) {
  MetricsRegistry registry;
  registry.AddCounter("vllm:prompt_tokens_total", "Tokens of prompts.", {{"engine", "0"}}).Add(3);
  registry.AddCounter("vllm:prompt_tokens_total", "Tokens of prompts.", {{"engine", "1"}}).Add(4);
  registry.AddGauge("vllm:num_requests_running", "Running.", {{"model_name", "a\"b\\c"}}).Set(2.5);
  Histogram& histogram = registry.AddHistogram("vllm:ttft", "First token.", {}, {0.1, 1});
  histogram.Observe(0.1);  // a bound belongs to its bucket
  histogram.Observe(0.5);
  histogram.Observe(7);
  const std::string text = registry.Serialize();
  EXPECT_THAT(text, HasSubstr("# HELP vllm:prompt_tokens_total Tokens of prompts.\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE vllm:prompt_tokens_total counter\n"));
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total{engine=\"0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total{engine=\"1\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running{model_name=\"a\\\"b\\\\c\"} 2.5\n"));
  EXPECT_THAT(text, HasSubstr("vllm:ttft_bucket{le=\"0.1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:ttft_bucket{le=\"1\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:ttft_bucket{le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:ttft_count 3\n"));
}

TEST(Metrics, SameNameAndLabelsAreTheSameMetricAndRegistriesDoNotMix) {
  MetricsRegistry one, two;
  Counter& first = one.AddCounter("x_total", "x", {{"a", "b"}});
  EXPECT_EQ(&first, &one.AddCounter("x_total", "x", {{"a", "b"}}));
  EXPECT_NE(&first, &one.AddCounter("x_total", "x", {{"a", "c"}}));
  first.RaiseTo(10);
  first.RaiseTo(7);
  EXPECT_EQ(first.value(), 10);
  EXPECT_EQ(two.AddCounter("x_total", "x", {{"a", "b"}}).value(), 0);
}

TEST(Metrics, TextsOfSeveralProcessesAddUp) {
  MetricsRegistry one, two, both;
  const auto fill = [](MetricsRegistry& to, int from) {
    to.AddCounter("requests_total", "Requests, ended.", {{"reason", "a b"}}).Add(from);
    if (from == 2) to.AddCounter("requests_total", "Requests, ended.", {{"reason", "else"}}).Add(0.5);
    Histogram& seconds = to.AddHistogram("seconds", "How long.", {}, {0.1, 1});
    for (int i = 0; i < from; ++i) seconds.Observe(0.25 * i);
  };
  fill(one, 1), fill(two, 2);
  fill(both, 1), fill(both, 2);
  const auto lines = [](const std::string& text) {
    std::multiset<std::string> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) all.insert(line);
    return all;
  };
  const std::string merged = MergeMetrics({one.Serialize(), two.Serialize()});
  EXPECT_EQ(lines(merged), lines(both.Serialize())) << merged;
  EXPECT_EQ(MergeMetrics({one.Serialize()}), one.Serialize());
}

TEST(Metrics, RubbishIsLeftOutOfASum) {
  const std::string good = "# HELP a b\n# TYPE a counter\na{x=\"1 2\"} 3\n";
  EXPECT_EQ(MergeMetrics({good, "", "a{x=\"1 2\"} three\n#\n# HELP\n\nlonely 4\n", good}),
            "# HELP a b\n# TYPE a counter\na{x=\"1 2\"} 6\n");
}

TEST(Metrics, CountsFromManyThreads) {
  MetricsRegistry registry;
  Counter& counter = registry.AddCounter("n_total", "n", {});
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i) counter.Add();
      });
    }
  }
  EXPECT_EQ(counter.value(), 4000);
}

}  // namespace
}  // namespace cadre
