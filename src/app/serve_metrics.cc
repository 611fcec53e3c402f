#include "app/serve_metrics.h"

#include <algorithm>
#include <cmath>

#include "app/statistics.h"

namespace cadre::app {
namespace {

constexpr size_t kWidth = 50;

bool KeepsLimits(const RequestRecord& record, const Goodput& goodput) {
  for (const auto& [key, limit_ms] : goodput) {
    const double seconds = key == "ttft" ? record.ttft : key == "tpot" ? record.tpot() : record.latency;
    if (seconds * 1e3 > limit_ms) return false;
  }
  return true;
}

// Tokens and requests in each second since the first request was sent.
void FindPeaks(const LoadResult& load, ServeMetrics& metrics) {
  TimePoint first = TimePoint::max();
  double last_s = 0;
  for (const RequestRecord& record : load.records) {
    if (record.success) first = std::min(first, record.start);
  }
  for (const RequestRecord& record : load.records) {
    if (record.success) last_s = std::max(last_s, Seconds(record.start - first) + record.latency);
  }
  const auto num_seconds = static_cast<size_t>(std::ceil(last_s)) + 1;
  std::vector<int64_t> tokens(num_seconds), requests(num_seconds);
  for (const RequestRecord& record : load.records) {
    if (!record.success) continue;
    const double begin_s = Seconds(record.start - first);
    double at_s = begin_s + record.ttft;
    ++tokens[std::min(static_cast<size_t>(at_s), num_seconds - 1)];
    for (const double gap : record.itl) ++tokens[std::min(static_cast<size_t>(at_s += gap), num_seconds - 1)];
    const auto end = std::min(static_cast<size_t>(begin_s + record.latency), num_seconds - 1);
    for (auto second = static_cast<size_t>(begin_s); second <= end; ++second) ++requests[second];
  }
  metrics.max_output_tokens_per_s = static_cast<double>(*std::max_element(tokens.begin(), tokens.end()));
  metrics.max_concurrent_requests = *std::max_element(requests.begin(), requests.end());
}

std::string Row(const std::string& name, const std::string& value) {
  return Format("{:<40} {:<10}\n", name, value);
}
std::string Row(const std::string& name, double value) {
  return Row(name, Format("{:.2f}", value));
}
std::string Row(const std::string& name, int64_t value) {
  return Row(name, Format("{}", value));
}

Json Numbers(const std::vector<double>& values) {
  Json list = Json::Array();
  for (const double value : values) list.Push(value);
  return list;
}

void AddDetails(Json& result, const LoadResult& load) {
  Json inputs = Json::Array(), outputs = Json::Array(), starts = Json::Array(), ttfts = Json::Array(),
       itls = Json::Array(), texts = Json::Array(), errors = Json::Array();
  for (const RequestRecord& record : load.records) {
    inputs.Push(record.prompt_len);
    outputs.Push(record.success ? record.output_tokens : 0);
    starts.Push(Seconds(record.start - load.start));
    ttfts.Push(record.ttft);
    itls.Push(Numbers(record.itl));
    texts.Push(record.text);
    errors.Push(record.error);
  }
  result.Set("input_lens", std::move(inputs));
  result.Set("output_lens", std::move(outputs));
  result.Set("start_times", std::move(starts));
  result.Set("ttfts", std::move(ttfts));
  result.Set("itls", std::move(itls));
  result.Set("generated_texts", std::move(texts));
  result.Set("errors", std::move(errors));
}

}  // namespace

ServeMetrics Summarize(const LoadResult& load, const Goodput& goodput) {
  ServeMetrics metrics;
  metrics.duration = load.duration;
  Measure ttft{"ttft", "TTFT", "Time to First Token", {}};
  Measure tpot{"tpot", "TPOT", "Time per Output Token (excl. 1st token)", {}};
  Measure itl{"itl", "ITL", "Inter-token Latency", {}};
  Measure e2el{"e2el", "E2EL", "End-to-end Latency", {}};
  int64_t num_good = 0;
  for (const RequestRecord& record : load.records) {
    if (!record.success) {
      ++metrics.failed;
      continue;
    }
    ++metrics.completed;
    metrics.total_input_tokens += record.prompt_len;
    metrics.total_output_tokens += record.output_tokens;
    ttft.ms.push_back(record.ttft * 1e3);
    e2el.ms.push_back(record.latency * 1e3);
    if (record.output_tokens > 1) tpot.ms.push_back(record.tpot() * 1e3);
    for (const double gap : record.itl) itl.ms.push_back(gap * 1e3);
    num_good += KeepsLimits(record, goodput);
  }
  const double seconds = std::max(load.duration, 1e-9);
  metrics.request_throughput = static_cast<double>(metrics.completed) / seconds;
  metrics.output_throughput = static_cast<double>(metrics.total_output_tokens) / seconds;
  metrics.total_token_throughput =
      static_cast<double>(metrics.total_input_tokens + metrics.total_output_tokens) / seconds;
  if (!goodput.empty()) metrics.request_goodput = static_cast<double>(num_good) / seconds;
  if (metrics.completed > 0) FindPeaks(load, metrics);
  metrics.measures = {std::move(ttft), std::move(tpot), std::move(itl), std::move(e2el)};
  return metrics;
}

std::string ServeTable(const ServeMetrics& metrics, const ReportOptions& options) {
  std::string table = Format("{:=^{}}\n", " Serving Benchmark Result ", kWidth);
  table += Row("Successful requests:", metrics.completed);
  table += Row("Failed requests:", metrics.failed);
  if (options.max_concurrency) table += Row("Maximum request concurrency:", *options.max_concurrency);
  if (std::isfinite(options.request_rate))
    table += Row("Request rate configured (RPS):", options.request_rate);
  table += Row("Benchmark duration (s):", metrics.duration);
  table += Row("Total input tokens:", metrics.total_input_tokens);
  table += Row("Total generated tokens:", metrics.total_output_tokens);
  table += Row("Request throughput (req/s):", metrics.request_throughput);
  if (metrics.request_goodput) table += Row("Request goodput (req/s):", *metrics.request_goodput);
  table += Row("Output token throughput (tok/s):", metrics.output_throughput);
  table += Row("Peak output token throughput (tok/s):", metrics.max_output_tokens_per_s);
  table += Row("Peak concurrent requests:", metrics.max_concurrent_requests);
  table += Row("Total token throughput (tok/s):", metrics.total_token_throughput);
  for (const Measure& measure : metrics.measures) {
    if (std::ranges::find(options.selected, measure.key) == options.selected.end()) continue;
    table += Format("{:-^{}}\n", measure.header, kWidth);
    table += Row(Format("Mean {} (ms):", measure.title), Mean(measure.ms));
    table += Row(Format("Median {} (ms):", measure.title), Median(measure.ms));
    for (const double p : options.percentiles) {
      table += Row(Format("P{} {} (ms):", PercentileName(p), measure.title), Percentile(measure.ms, p));
    }
  }
  return table + std::string(kWidth, '=') + "\n";
}

Json ServeResult(const ServeMetrics& metrics, const LoadResult& load, const ReportOptions& options,
                 bool detailed) {
  Json result =
      Json::Object{{"duration", metrics.duration},
                   {"completed", metrics.completed},
                   {"failed", metrics.failed},
                   {"total_input_tokens", metrics.total_input_tokens},
                   {"total_output_tokens", metrics.total_output_tokens},
                   {"request_throughput", metrics.request_throughput},
                   {"request_goodput", metrics.request_goodput ? Json(*metrics.request_goodput) : Json()},
                   {"output_throughput", metrics.output_throughput},
                   {"total_token_throughput", metrics.total_token_throughput},
                   {"max_output_tokens_per_s", metrics.max_output_tokens_per_s},
                   {"max_concurrent_requests", metrics.max_concurrent_requests}};
  if (detailed) AddDetails(result, load);
  for (const Measure& measure : metrics.measures) {
    result.Set(Format("mean_{}_ms", measure.key), Mean(measure.ms));
    result.Set(Format("median_{}_ms", measure.key), Median(measure.ms));
    result.Set(Format("std_{}_ms", measure.key), StandardDeviation(measure.ms));
    if (std::ranges::find(options.selected, measure.key) == options.selected.end()) continue;
    for (const double p : options.percentiles) {
      result.Set(Format("p{}_{}_ms", PercentileName(p), measure.key), Percentile(measure.ms, p));
    }
  }
  return result;
}

}  // namespace cadre::app
