#pragma once
// vLLM's metrics, by its names and buckets, so that existing dashboards and autoscalers work. Everything but
// what concerns the front alone carries the index of the engine (data-parallel rank) that it is about.
#include <mutex>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "engine/engine.h"
#include "session/generation.h"

namespace cadre::serve {

/// What the requests that one engine serves have to tell. Any thread.
class RequestMetrics {
 public:
  RequestMetrics(MetricsRegistry& registry, const MetricLabels& labels, int64_t max_model_len);

  void OnFirstToken(double seconds_since_arrival) { time_to_first_token_.Observe(seconds_since_arrival); }
  void OnNextToken(double seconds) { inter_token_latency_.Observe(seconds); }

  struct Ended {
    const session::SequenceEnd& end;
    TimePoint arrival;  ///< when its request came in
    int64_t num_prompt_tokens = 0;
    int64_t num_cached_tokens = 0;
    int max_tokens = 0;  ///< the request's parameter
  };
  void OnEnd(const Ended& ended);
  /// All n sequences of a prompt have ended; the longest has that many tokens.
  void OnPromptEnd(int64_t n, int max_num_tokens);

 private:
  Histogram& time_to_first_token_;
  Histogram& inter_token_latency_;
  Histogram& time_per_output_token_;
  Histogram& e2e_latency_;
  Histogram& queue_time_;
  Histogram& prefill_time_;
  Histogram& decode_time_;
  Histogram& inference_time_;
  Histogram& prompt_tokens_;
  Histogram& computed_tokens_;
  Histogram& generation_tokens_;
  Histogram& max_generation_tokens_;
  Histogram& params_max_tokens_;
  Histogram& params_n_;
  Histogram& num_preemptions_;
  std::map<engine::FinishReason, Counter*> success_;
};

class ServeMetrics {
 public:
  /// The metrics of all ranks that the engine has are there from the start. `registry` holds what this front
  /// counts of its requests; what the ranks count is kept apart, because every front hears it.
  ServeMetrics(MetricsRegistry& registry, const std::string& model_name, const engine::Engine& engine);

  /// Of one rank; lives as long as this. Any thread; takes a lock.
  RequestMetrics& OfRank(int rank);

  /// Brings the gauges and totals of all ranks up to date and prints everything, the registries of the
  /// deployment's other fronts (as text) added.
  std::string Serialize(const engine::Engine& engine, std::vector<std::string> other_fronts = {});

 private:
  void Update(const engine::RankStats& stats);
  void UpdateEplb(const std::vector<engine::RankStats>& all);
  void UpdateKvTransfer(const engine::RankStats& stats, const MetricLabels& labels);
  void UpdateSteps(const engine::RankStats& stats, const MetricLabels& labels);

  MetricsRegistry& registry_;
  MetricsRegistry engines_;
  const std::string model_name_;
  const engine::ModelInfo model_;
  std::mutex mutex_;  // guards what is below
  std::map<int, std::unique_ptr<RequestMetrics>> requests_;
  std::map<int, engine::KvTransferStats> printed_transfers_;  // what the histograms hold already
  std::map<int, engine::StepSizes> printed_steps_;            // what the histogram holds already
};

}  // namespace cadre::serve
