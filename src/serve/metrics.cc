#include "serve/metrics.h"

#include <algorithm>

#include "base/metrics_merge.h"

namespace cadre::serve {
namespace {

const std::vector<double> kFirstTokenBounds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                               0.25,  0.5,   0.75, 1.0,  2.5,  5.0,  7.5,  10,
                                               20,    40,    80,   160,  640,  2560};
const std::vector<double> kTokenBounds = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                          0.75, 1.0,   2.5,  5.0,   7.5, 10,   20,  40,  80};
const std::vector<double> kLatencyBounds = {0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10,   15,  20,
                                            30,  40,  50,  60,  120, 240, 480, 960, 1920, 7680};

// 1, 2, 5, 10, 20, 50, ... up to the largest that is not past `max`.
std::vector<double> OneTwoFive(int64_t max) {
  std::vector<double> out;
  for (int64_t decade = 1; decade <= max; decade *= 10) {
    for (const int64_t mantissa : {1, 2, 5}) {
      if (mantissa * decade <= max) out.push_back(static_cast<double>(mantissa * decade));
    }
  }
  return out;
}

MetricLabels Labels(const std::string& model_name, int rank) {
  return {{"model_name", model_name}, {"engine", std::to_string(rank)}};
}

}  // namespace

RequestMetrics::RequestMetrics(MetricsRegistry& registry, const MetricLabels& labels, int64_t max_model_len)
    :
#define CADRE_HISTOGRAM(name, help, bounds) registry.AddHistogram("vllm:" name, help, labels, bounds)
      time_to_first_token_(CADRE_HISTOGRAM(
          "time_to_first_token_seconds", "Histogram of time to first token in seconds.", kFirstTokenBounds)),
      inter_token_latency_(CADRE_HISTOGRAM("inter_token_latency_seconds",
                                           "Histogram of inter-token latency in seconds.", kTokenBounds)),
      time_per_output_token_(CADRE_HISTOGRAM("request_time_per_output_token_seconds",
                                             "Histogram of time_per_output_token_seconds per request.",
                                             kTokenBounds)),
      e2e_latency_(CADRE_HISTOGRAM("e2e_request_latency_seconds",
                                   "Histogram of e2e request latency in seconds.", kLatencyBounds)),
      queue_time_(CADRE_HISTOGRAM("request_queue_time_seconds",
                                  "Histogram of time spent in WAITING phase for request.", kLatencyBounds)),
      prefill_time_(CADRE_HISTOGRAM("request_prefill_time_seconds",
                                    "Histogram of time spent in PREFILL phase for request.", kLatencyBounds)),
      decode_time_(CADRE_HISTOGRAM("request_decode_time_seconds",
                                   "Histogram of time spent in DECODE phase for request.", kLatencyBounds)),
      inference_time_(CADRE_HISTOGRAM("request_inference_time_seconds",
                                      "Histogram of time spent in RUNNING phase for request.",
                                      kLatencyBounds)),
      prompt_tokens_(CADRE_HISTOGRAM("request_prompt_tokens", "Number of prefill tokens processed.",
                                     OneTwoFive(max_model_len))),
      computed_tokens_(
          CADRE_HISTOGRAM("request_prefill_kv_computed_tokens",
                          "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
                          OneTwoFive(max_model_len))),
      generation_tokens_(CADRE_HISTOGRAM(
          "request_generation_tokens", "Number of generation tokens processed.", OneTwoFive(max_model_len))),
      max_generation_tokens_(CADRE_HISTOGRAM("request_max_num_generation_tokens",
                                             "Histogram of maximum number of requested generation tokens.",
                                             OneTwoFive(max_model_len))),
      params_max_tokens_(CADRE_HISTOGRAM("request_params_max_tokens",
                                         "Histogram of the max_tokens request parameter.",
                                         OneTwoFive(max_model_len))),
      params_n_(CADRE_HISTOGRAM("request_params_n", "Histogram of the n request parameter.",
                                std::vector<double>({1, 2, 5, 10, 20}))),
      num_preemptions_(CADRE_HISTOGRAM("request_num_preemptions", "Histogram of preemptions per request.",
                                       std::vector<double>({1, 2, 3, 4, 5, 10, 20}))) {
#undef CADRE_HISTOGRAM
  using enum engine::FinishReason;
  for (const auto& [reason, name] :
       {std::pair{kStop, "stop"}, {kLength, "length"}, {kAbort, "abort"}, {kError, "error"}}) {
    MetricLabels with_reason = labels;
    with_reason["finished_reason"] = name;
    success_[reason] = &registry.AddCounter("vllm:request_success_total",
                                            "Count of successfully processed requests.", with_reason);
  }
}

void RequestMetrics::OnEnd(const Ended& ended) {
  const session::SequenceEnd& end = ended.end;
  success_[end.reason]->Add();
  const TimePoint unset{};
  const engine::RequestTimes& times = end.times;
  e2e_latency_.Observe(SecondsSince(ended.arrival));
  prompt_tokens_.Observe(static_cast<double>(ended.num_prompt_tokens));
  computed_tokens_.Observe(static_cast<double>(ended.num_prompt_tokens - ended.num_cached_tokens));
  generation_tokens_.Observe(end.num_tokens);
  num_preemptions_.Observe(end.num_preemptions);
  if (ended.max_tokens > 0) params_max_tokens_.Observe(ended.max_tokens);
  if (times.scheduled != unset) {
    queue_time_.Observe(Seconds(times.scheduled - times.queued));
    if (times.first_token != unset) {
      prefill_time_.Observe(Seconds(times.first_token - times.scheduled));
      inference_time_.Observe(Seconds(times.last_token - times.scheduled));
    }
  }
  if (times.first_token == unset) return;
  const double decode = Seconds(times.last_token - times.first_token);
  decode_time_.Observe(decode);
  time_per_output_token_.Observe(end.num_tokens > 1 ? decode / (end.num_tokens - 1) : 0);
}

void RequestMetrics::OnPromptEnd(int64_t n, int max_num_tokens) {
  params_n_.Observe(static_cast<double>(n));
  max_generation_tokens_.Observe(max_num_tokens);
}

ServeMetrics::ServeMetrics(MetricsRegistry& registry, const std::string& model_name,
                           const engine::Engine& engine)
    : registry_(registry), model_name_(model_name), model_(engine.model_info()) {
  for (const engine::RankStats& stats : engine.Stats()) {
    OfRank(stats.rank);
    engines_
        .AddGauge("vllm:cache_config_info", "Information of the LLMEngine CacheConfig",
                  {{"engine", std::to_string(stats.rank)},
                   {"block_size", std::to_string(model_.block_size)},
                   {"num_gpu_blocks", std::to_string(model_.num_kv_blocks)},
                   {"kv_cache_size_tokens", std::to_string(model_.num_kv_blocks * model_.block_size)}})
        .Set(1);
  }
}

RequestMetrics& ServeMetrics::OfRank(int rank) {
  const std::lock_guard lock(mutex_);
  auto& mine = requests_[rank];
  if (!mine) {
    mine = std::make_unique<RequestMetrics>(registry_, Labels(model_name_, rank), model_.max_model_len);
  }
  return *mine;
}

// One moment's numbers of a rank; counters are lifted to what the engine has counted.
void ServeMetrics::Update(const engine::RankStats& stats) {
  const MetricLabels labels = Labels(model_name_, stats.rank);
  MetricLabels capacity = labels;
  capacity["reason"] = "capacity";
  const auto gauge = [&](const char* name, const char* help, double value) {
    engines_.AddGauge(name, help, labels).Set(value);
  };
  const auto counter = [&](const char* name, const char* help, int64_t value) {
    engines_.AddCounter(name, help, labels).RaiseTo(static_cast<double>(value));
  };
  const auto waiting = static_cast<double>(stats.num_waiting);
  gauge("vllm:num_requests_running", "Number of requests in model execution batches.",
        static_cast<double>(stats.num_running));
  gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", waiting);
  engines_.AddGauge("vllm:num_requests_waiting_by_reason", "Number of waiting requests by reason.", capacity)
      .Set(waiting);
  gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", stats.kv_cache_usage);
  gauge("cadre:weight_generation", "The weights in use: 1 at the start, one more with each update.",
        static_cast<double>(stats.weight_generation));
  gauge("cadre:paused", "1 while the engine is paused, or about to be.", stats.paused ? 1 : 0);
  counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.",
          stats.num_preemptions);
  counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens.",
          stats.prefix_cache_queries);
  counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.",
          stats.prefix_cache_hits);
  counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", stats.prompt_tokens);
  counter("vllm:generation_tokens_total", "Number of generation tokens processed.", stats.generation_tokens);
  for (const auto& [phase, bytes] :
       {std::pair("dispatch", stats.dispatch_bytes), {"combine", stats.combine_bytes}}) {
    MetricLabels with_phase = labels;
    with_phase["phase"] = phase;
    engines_
        .AddCounter(
            "cadre:exchange_bytes_total",
            "Bytes that a rank drew from other ranks for their experts; KV blocks are not among them.",
            with_phase)
        .RaiseTo(static_cast<double>(bytes));
  }
  counter("cadre:exchange_wire_bytes_total",
          "Bytes of the exchange between experts' ranks that this rank received from other hosts.",
          stats.exchange_wire_bytes);
  if (stats.kv_transfer.enabled) UpdateKvTransfer(stats, labels);
  UpdateSteps(stats, labels);
}

void ServeMetrics::UpdateKvTransfer(const engine::RankStats& stats, const MetricLabels& labels) {
  const engine::KvTransferStats& kv = stats.kv_transfer;
  const auto gauge = [&](const char* name, const char* help, int64_t value) {
    engines_.AddGauge(name, help, labels).Set(static_cast<double>(value));
  };
  const auto counter = [&](const char* name, const char* help, double value) {
    engines_.AddCounter(name, help, labels).RaiseTo(value);
  };
  const auto count = [&](const char* name, const char* help, int64_t value) {
    counter(name, help, static_cast<double>(value));
  };
  const auto spread = [&](const char* name, const char* help, const auto& bounds, const auto& now,
                          auto& before) {
    Histogram& histogram =
        engines_.AddHistogram(name, help, labels, std::vector<double>(bounds.begin(), bounds.end()));
    if (now.sum < before.sum) return;  // an older message than the last one
    std::vector<double> more;
    for (size_t i = 0; i < now.counts.size(); ++i)
      more.push_back(static_cast<double>(now.counts[i] - before.counts[i]));
    histogram.ObserveCounted(more, now.sum - before.sum);
    before = now;
  };
  engine::KvTransferStats& printed = printed_transfers_[stats.rank];
  spread("vllm:nixl_xfer_time_seconds", "Histogram of transfer duration for NIXL KV Cache transfers.",
         kv.kSeconds, kv.seconds, printed.seconds);
  spread("vllm:nixl_bytes_transferred", "Histogram of bytes transferred per NIXL KV Cache transfers.",
         kv.kBytes, kv.bytes, printed.bytes);
  spread("vllm:nixl_post_time_seconds", "Histogram of transfer post time for NIXL KV Cache transfers.",
         kv.kPostSeconds, kv.post_seconds, printed.post_seconds);
  spread("vllm:nixl_num_descriptors", "Histogram of number of descriptors per NIXL KV Cache transfers.",
         kv.kDescriptors, kv.descriptors, printed.descriptors);
  count("vllm:nixl_num_failed_transfers_total", "Number of failed NIXL KV Cache transfers.",
        kv.num_failed_fetches);
  count("vllm:nixl_num_failed_notifications_total", "Number of failed NIXL KV Cache notifications.",
        kv.num_failed_notifications);
  count("vllm:nixl_num_kv_expired_reqs_total",
        "Number of requests that had their KV expire. NOTE: This metric is tracked on the P instance.",
        kv.num_expired);
  count("cadre:kv_fetches_total", "Fetches of KV blocks from another instance that were begun.",
        kv.num_fetches);
  count("cadre:kv_fetched_tokens_total", "Tokens whose keys and values came from another instance.",
        kv.tokens_fetched);
  count("cadre:kv_fetched_bytes_total", "Bytes of KV blocks that came from other instances.",
        kv.bytes_fetched);
  count(
      "cadre:kv_sent_bytes_total",
      "Bytes of KV blocks that were sent to other instances; those read through shared memory are not sent.",
      kv.bytes_sent);
  counter("cadre:kv_fetch_seconds_total", "Time that fetches took, from their order to their end.",
          kv.fetch_seconds);
  count("cadre:kv_recomputed_requests_total",
        "Requests that computed here what they could not fetch, in whole or in part.", kv.num_recomputed);
  gauge("cadre:kv_fetching_requests", "Requests that wait for KV blocks of another instance.",
        kv.num_fetching);
  gauge("cadre:kv_held_requests", "Ended requests whose KV blocks are held for another instance.",
        kv.num_held);
  gauge("cadre:kv_held_blocks", "KV blocks that are held for another instance, or until it lets go of them.",
        kv.held_blocks);
}

// All ranks know the same, so it is said once, by the one whose message is the newest.
void ServeMetrics::UpdateEplb(const std::vector<engine::RankStats>& all) {
  const auto newest =
      std::ranges::max_element(all, {}, [](const engine::RankStats& rank) { return rank.eplb.version; });
  if (newest == all.end() || newest->eplb.epoch == 0) return;
  const engine::EplbStats& eplb = newest->eplb;
  using Extra = std::vector<std::pair<std::string, std::string>>;
  const auto with = [&](const Extra& extra) {
    MetricLabels labels = {{"model_name", model_name_}};
    labels.insert(extra.begin(), extra.end());
    return labels;
  };
  const auto gauge = [&](const char* name, const char* help, double value, const Extra& extra = {}) {
    engines_.AddGauge(name, help, with(extra)).Set(value);
  };
  const auto counter = [&](const char* name, const char* help, double value, const Extra& extra = {}) {
    engines_.AddCounter(name, help, with(extra)).RaiseTo(value);
  };
  const auto number = [](size_t n) { return std::to_string(n); };
  gauge("cadre:eplb_balancedness", "Mean over maximum of the ranks' tokens, over the window; 1 is even.",
        eplb.balancedness);
  for (size_t l = 0; l < eplb.layer_balancedness.size(); ++l)
    gauge("cadre:eplb_layer_balancedness", "The same of one MoE layer.", eplb.layer_balancedness[l],
          {{"layer", number(l)}});
  for (size_t r = 0; r < eplb.rank_tokens.size(); ++r)
    gauge("cadre:eplb_rank_tokens", "Rows that a rank's experts had in the window, all layers.",
          eplb.rank_tokens[r], {{"rank", number(r)}});
  const size_t num_layers = eplb.layer_balancedness.size(), num_tokens = eplb.expert_tokens.size();
  const size_t num_experts = num_layers > 0 && num_tokens % num_layers == 0 && !eplb.one_row_of_experts
                                 ? num_tokens / num_layers
                                 : num_tokens;
  for (size_t i = 0; i < num_tokens; ++i) {
    const std::string layer = eplb.one_row_of_experts ? "all" : number(i / num_experts);
    gauge("cadre:eplb_expert_tokens", "Rows that an expert had in the window.", eplb.expert_tokens[i],
          {{"layer", layer}, {"expert", number(i % num_experts)}});
  }
  gauge("cadre:eplb_epoch", "Epoch of the newest expert map; it rises when experts have moved.",
        static_cast<double>(eplb.epoch));
  gauge("cadre:eplb_moving", "1 while a rebalance is under way.", eplb.moving);
  gauge("cadre:eplb_stalled", "1 while a rebalance takes longer than a minute for one wave.",
        std::ranges::any_of(all, [](const engine::RankStats& rank) { return rank.eplb.stalled; }));
  counter("cadre:eplb_rebalances_total", "Rebalances that have ended.",
          static_cast<double>(eplb.num_rebalances));
  counter("cadre:eplb_moved_experts_total", "Experts that went from one rank to another.",
          static_cast<double>(eplb.num_moved));
  counter("cadre:eplb_moved_bytes_total", "Their bytes.", static_cast<double>(eplb.moved_bytes));
  counter("cadre:eplb_failed_waves_total", "Tries to move experts that left the maps as they were.",
          static_cast<double>(eplb.num_failed_waves));
  for (const engine::RankStats& rank : all)
    counter("cadre:eplb_moving_seconds_total", "Time of a rank that went into moving experts.",
            rank.eplb.moving_seconds, {{"engine", std::to_string(rank.rank)}});
}

void ServeMetrics::UpdateSteps(const engine::RankStats& stats, const MetricLabels& labels) {
  using engine::StepSizes;
  Histogram& steps = engines_.AddHistogram(
      "vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", labels,
      std::vector<double>(StepSizes::kBounds.begin(), StepSizes::kBounds.end()));
  StepSizes& before = printed_steps_[stats.rank];
  if (stats.step_sizes.sum < before.sum) return;  // an older message than the last one
  std::vector<double> more;
  for (size_t i = 0; i < before.counts.size(); ++i) {
    more.push_back(static_cast<double>(stats.step_sizes.counts[i] - before.counts[i]));
  }
  steps.ObserveCounted(more, static_cast<double>(stats.step_sizes.sum - before.sum));
  before = stats.step_sizes;
}

std::string ServeMetrics::Serialize(const engine::Engine& engine, std::vector<std::string> other_fronts) {
  const std::vector<engine::RankStats> all = engine.Stats();
  const std::lock_guard lock(mutex_);
  for (const engine::RankStats& stats : all) Update(stats);
  UpdateEplb(all);
  std::string requests = registry_.Serialize();
  if (!other_fronts.empty()) {
    other_fronts.insert(other_fronts.begin(), std::move(requests));
    requests = MergeMetrics(other_fronts);
  }
  return requests + engines_.Serialize();
}

}  // namespace cadre::serve
