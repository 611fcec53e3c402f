#pragma once
// vLLM's metrics, by its names and buckets, so that existing dashboards and autoscalers work.
#include <mutex>

#include "base/metrics.h"
#include "engine/engine.h"
#include "session/generation.h"

namespace cadre::serve {

class ServeMetrics {
 public:
  ServeMetrics(MetricsRegistry& registry, const std::string& model_name, const engine::ModelInfo& model);

  /// A request was accepted.
  void OnAccepted(int64_t n, int max_tokens);
  void OnFirstToken(double seconds_since_arrival) { time_to_first_token_.Observe(seconds_since_arrival); }
  void OnNextToken(double seconds) { inter_token_latency_.Observe(seconds); }
  /// One sequence has ended. `arrival`: when its request came in.
  void OnEnd(const session::SequenceEnd& end, TimePoint arrival, int64_t num_prompt_tokens);

  /// Brings the gauges and totals of all ranks up to date and prints everything.
  std::string Serialize(const engine::Engine& engine);

 private:
  struct RankMetrics;
  RankMetrics ForRank(int rank);

  MetricsRegistry& registry_;
  const std::string model_name_;
  const engine::ModelInfo model_;
  Histogram& time_to_first_token_;
  Histogram& inter_token_latency_;
  Histogram& time_per_output_token_;
  Histogram& e2e_latency_;
  Histogram& queue_time_;
  Histogram& prefill_time_;
  Histogram& decode_time_;
  Histogram& inference_time_;
  Histogram& prompt_tokens_;
  Histogram& generation_tokens_;
  Histogram& params_max_tokens_;
  Histogram& params_n_;
  Histogram& num_preemptions_;
  std::map<engine::FinishReason, Counter*> success_;
  std::mutex mutex_;  // one Serialize at a time
};

}  // namespace cadre::serve
