#pragma once
// Keys and values that travel between engines, as requests ask for them and as answers tell of them: what
// vLLM calls kv_transfer_params, without its JSON.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cadre::engine {

/// What an engine can do of it, for the front.
struct KvTransferInfo {
  bool enabled = false;
  bool by_request_id = false;  ///< the pair meets by the client's request id alone (P2pNcclConnector)
  bool produces = false;       ///< prefill is its role
  bool consumes = false;       ///< decode is
  bool holds_answers = false;  ///< what a decoding request has computed is held too, for the next turn
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

/// Counters from the start, and gauges.
struct KvTransferStats {
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
