#pragma once
// Keys and values that travel between engines, as requests ask for them and as answers tell of them: what
// vLLM calls kv_transfer_params, without its JSON.
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cadre::engine {

/// Where one rank's blocks are fetched from.
struct KvSource {
  std::string engine_id, host;
  uint16_t port = 0;  ///< 0: nobody can
  int32_t tp_size = 1;
};

/// What an engine can do of it, for the front.
struct KvTransferInfo {
  bool enabled = false;
  bool by_request_id = false;  ///< the pair meets by the client's request id alone (P2pNcclConnector)
  bool produces = false;       ///< prefill is its role
  bool consumes = false;       ///< decode is
  bool holds_answers = false;  ///< what a decoding request has computed is held too, for the next turn
  int first_port = 0;          ///< of rank 0, where asked for; each rank has the next one
  int tp_size = 1, dp_size = 1;

  /// The DP rank that is reached at a port in a request's id; -1: there is but one. Rank 0 where the port is
  /// none of ours: it is behind a translation, and most likely the one that was said.
  int ReplicaAt(int port) const {
    if (dp_size <= 1) return -1;
    const int replica = (port - first_port) / std::max(tp_size, 1);
    return port >= first_port && replica < dp_size ? replica : 0;
  }

  KvSource source;  ///< this rank's own
};

/// What a request wants. Both may be wanted: a conversation's next turn, whose blocks go back and forth.
struct KvTransfer {
  bool hold = false;         ///< keep what is computed of it until another engine has fetched it
  bool fetch = false;        ///< begin with what another engine has computed
  bool with_answer = false;  ///< of `hold`: the generated tokens too, for the conversation's next turn
  /// Under which it is held; empty: an id of the engine's choosing, new for each try.
  std::string hold_id;
  /// Both sides name it by the client's id, which need not be unique: the prompt becomes part of the name.
  bool by_prompt = false;
  // Where `fetch`: the source.
  std::string source_engine, source_request, source_host;
  uint16_t source_port = 0;
  int64_t num_tokens = 0;  ///< how many of the prompt's first tokens the source has; 0: all
  bool push = false;       ///< the source may still compute, or not even know of the request
};

/// What is held for others when a request has ended.
struct HeldKv {
  std::string engine_id, request_id, host;
  uint16_t port = 0;
  int32_t tp_size = 1;
  double expires_s = 0;         ///< Unix time at which the lease ends
  std::vector<int32_t> blocks;  ///< of rank tp 0
  std::vector<int32_t> tokens;  ///< whose keys and values they hold
  bool with_answer = false;     ///< the answer's too: they are for the conversation's next turn
};

/// How something has been spread: counts up to each bound and beyond the last, and the sum.
template <size_t kNumBounds>
struct Spread {
  std::vector<int64_t> counts = std::vector<int64_t>(kNumBounds + 1);
  double sum = 0;

  void Add(const std::array<double, kNumBounds>& bounds, double value) {
    ++counts[static_cast<size_t>(std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin())];
    sum += value;
  }
};

/// Counters from the start, and gauges.
struct KvTransferStats {
  // vLLM's bounds of vllm:nixl_xfer_time_seconds and vllm:nixl_bytes_transferred.
  static constexpr std::array<double, 12> kSeconds = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                                      0.2,   0.3,  0.5,   0.75, 1.0,   5.0};
  static constexpr std::array<double, 12> kBytes = {2048,      8192,      32768,      131072,
                                                    524288,    2097152,   8388608,    33554432,
                                                    134217728, 536870912, 2147483648, 8589934592};
  // Of vllm:nixl_post_time_seconds (one more bound than the transfer's) and vllm:nixl_num_descriptors.
  static constexpr std::array<double, 13> kPostSeconds = {0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                                          0.2,   0.3,   0.5,  0.75,  1.0,  5.0};
  static constexpr std::array<double, 14> kDescriptors = {10,  20,   30,   50,   75,    100,   200,
                                                          400, 1000, 2000, 4000, 10000, 20000, 50000};
  Spread<kSeconds.size()> seconds;
  Spread<kBytes.size()> bytes;
  Spread<kPostSeconds.size()> post_seconds;
  Spread<kDescriptors.size()> descriptors;

  bool enabled = false;
  int64_t num_fetching = 0;  ///< requests that wait for their blocks
  int64_t num_held = 0;      ///< ended requests whose blocks are held
  int64_t held_blocks = 0;   ///< theirs, and those of fetches that were given up and not yet let go
  int64_t num_fetches = 0, num_failed_fetches = 0, bytes_fetched = 0, bytes_sent = 0;
  int64_t tokens_fetched = 0;
  int64_t num_recomputed = 0;  ///< requests that went on without what they wanted to fetch
  int64_t num_expired = 0;     ///< leases that ended before anybody had fetched
  int64_t num_failed_notifications = 0;
  double fetch_seconds = 0;
};

}  // namespace cadre::engine
