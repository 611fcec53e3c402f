#include "deploy/stats_log.h"

#include <algorithm>

#include "base/log.h"

namespace cadre::deploy {
namespace {

// All ranks together; the cache usage is that of the fullest.
engine::RankStats Total(const engine::Engine& engine) {
  engine::RankStats total;
  for (const engine::RankStats& rank : engine.Stats()) {
    total.num_running += rank.num_running;
    total.num_waiting += rank.num_waiting;
    total.kv_cache_usage = std::max(total.kv_cache_usage, rank.kv_cache_usage);
    total.prefix_cache_queries += rank.prefix_cache_queries;
    total.prefix_cache_hits += rank.prefix_cache_hits;
    total.prompt_tokens += rank.prompt_tokens;
    total.generation_tokens += rank.generation_tokens;
  }
  return total;
}

double Percent(double part, double whole) {
  return whole > 0 ? 100 * part / whole : 0;
}

}  // namespace

StatsLog::StatsLog(const engine::Engine& engine, Duration interval)
    : engine_(engine), interval_(interval), thread_([this] { Loop(); }) {}

StatsLog::~StatsLog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopped_.notify_all();
  thread_.join();
}

void StatsLog::Loop() {
  engine::RankStats last = Total(engine_);
  TimePoint last_time = Now();
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, interval_, [&] { return stop_; })) {
    const engine::RankStats now = Total(engine_);
    const double seconds = SecondsSince(last_time);
    const int64_t prompt = now.prompt_tokens - last.prompt_tokens,
                  generated = now.generation_tokens - last.generation_tokens;
    if (prompt + generated + now.num_running + now.num_waiting > 0) {
      LogInfo(
          "Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, Running: {} "
          "reqs, "
          "Waiting: {} reqs, KV cache usage: {:.1f}%, Prefix cache hit rate: {:.1f}%",
          static_cast<double>(prompt) / seconds, static_cast<double>(generated) / seconds, now.num_running,
          now.num_waiting, 100 * now.kv_cache_usage,
          Percent(static_cast<double>(now.prefix_cache_hits), static_cast<double>(now.prefix_cache_queries)));
    }
    last = now;
    last_time = Now();
  }
}

}  // namespace cadre::deploy
