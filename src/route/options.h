#pragma once
// What the room can be told. Times are durations, sizes are bytes.
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "http/server.h"
#include "route/address.h"

namespace cadre::route {

struct PolicyOptions {
  std::string name = "cache_aware";
  double cache_threshold = 0.3;  ///< share of the prompt that must be held for cache_aware to prefer a worker
  int64_t balance_abs = 64;      ///< cache_aware gives way to load where the loads differ by more than this,
  double balance_rel = 1.5;      ///< and by more than this factor
  int64_t max_tree_bytes = 1 << 24;  ///< of prompts remembered for each worker
};

struct HealthOptions {
  std::string path = "/health";
  Duration interval = std::chrono::seconds(5);
  Duration startup_interval = std::chrono::seconds(1);  ///< while a worker has never been healthy
  Duration timeout = std::chrono::seconds(5);
  int failure_threshold = 3;
  int success_threshold = 2;
};

struct BreakerOptions {
  bool enabled = true;
  int failure_threshold = 10;
  int success_threshold = 3;
  Duration open_time = std::chrono::seconds(60);
  Duration window = std::chrono::seconds(120);
};

struct RetryOptions {
  int max_attempts = 5;  ///< of one request, the first included
  Duration initial_backoff = std::chrono::milliseconds(50);
  Duration max_backoff = std::chrono::seconds(30);
  double multiplier = 1.5;
  double jitter = 0.2;  ///< a wait is drawn from 1 +- jitter
};

/// How a pair is asked: decode when prefill has ended (pull), or both at once (push).
enum class KvTransferMode {
  kAuto,  ///< push where both sides say that they can
  kPull,
  kPush,  ///< a pair that cannot gets no request
};

/// The tokens of a request's prompt as a worker will count them. Errors: there is no prompt, or nothing of it
/// can be in a cache. Any thread.
using Tokenize = std::function<Result<std::vector<int32_t>>(std::string_view path, const Json& body)>;

/// A headless service: each address of the name is a worker.
struct DnsSource {
  WorkerAddress service;
};

struct Options {
  http::ServerOptions http;
  std::vector<WorkerAddress> workers;
  std::string worker_file;  ///< empty: none
  std::vector<DnsSource> dns;
  Duration dns_interval = std::chrono::seconds(10);
  Duration file_interval = std::chrono::seconds(1);
  bool pairs = false;  ///< prefill and decode workers; else plain ones
  PolicyOptions policy, prefill_policy, decode_policy;
  HealthOptions health;
  BreakerOptions breaker;
  RetryOptions retry;
  Duration request_timeout = std::chrono::seconds(1800);
  Duration connect_timeout = std::chrono::seconds(5);
  int64_t max_concurrent_requests = 32768;
  std::string api_key;  ///< sent to workers with requests that bring no Authorization; empty: none
  std::vector<std::string> request_id_headers = {"X-Request-Id"};
  KvTransferMode kv_transfer_mode = KvTransferMode::kAuto;
  /// Prompts of which decode does not hold as many tokens go to decode alone; 0: none.
  int64_t prefill_threshold = 0;
  /// Null: nothing is known of tokens, and what was sent to a worker stands for what it holds.
  Tokenize tokenize;
  int metrics_port = -1;  ///< a listener for /metrics alone; -1: none
  std::string metrics_host = "127.0.0.1";
};

}  // namespace cadre::route
