#pragma once
// KV blocks between two engines that know each other only by an address: an instance that has computed a
// prompt (the *source*) and one that goes on with it (the *target*). Every rank has one agent, which is both.
//
// One mechanism, two moments. The target's agent always opens the way: it connects to the source's, says
// which request it wants and what it has already, and is sent every finished piece. If the source has long
// finished (*pull*), that is all of it at once; if it still computes (*push*, both were asked at the same
// time), pieces come layer by layer as they are written. Within a host a piece is a word that says where in
// the source's shared memory the keys and values lie, and the target copies them; between hosts it is the
// bytes. Nobody but an engine's own agent ever writes into its pool, and it looks at the fetch's state before
// every piece: a piece that comes too late cannot reach a block that belongs to somebody else.
//
// The source keeps a request's blocks under a *lease*: from its end until the target says that it has all of
// them, the target is gone, or time is over. A target that copied while the lease ended hears so with its
// acknowledgement and throws the copy away.
//
// Threads: the agent has a thread of its own; the calls here come from the engine thread alone, never block,
// and hear of results through `wake`, then Take...().
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "kv/layout.h"

namespace cadre::handoff {

/// What source and target must agree in. Compared when they first meet; the error names the field, what is
/// wanted and what the other side has.
struct Identity {
  std::string model;              ///< hash of the model's configuration and weights' names
  std::string model_name;         ///< for messages
  int64_t weight_generation = 0;  ///< how often weights have been updated
  kv::Layout layout;         ///< of this rank; block_size may differ, type, dimensions and layers may not;
                             ///< notes may be missing where nobody wants them
  int32_t num_kv_heads = 0;  ///< of the whole model; 1 for MLA
  int32_t tp_rank = 0, tp_size = 1;
  std::string arithmetic;  ///< what the bytes of a block mean beyond layout.type; empty: nothing more
};

/// Where a source is reached, as it travels in kv_transfer_params.
struct SourceAddress {
  std::string engine_id;   ///< checked at the first contact; empty: any
  std::string request_id;  ///< under which the source knows the request
  std::string host;
  uint16_t port = 0;  ///< of tp rank 0 of the source
};

using FetchId = Id<struct FetchTag, int64_t>;

/// What a target wants. Keys and values of tokens [first_token, num_tokens) go into `blocks`, its own block
/// table from token 0 on (blocks before first_token's are not touched; within first_token's block only tokens
/// from first_token on are).
struct FetchOrder {
  FetchId id;  ///< chosen by the engine, one a fetch
  SourceAddress source;
  int64_t first_token = 0;
  int64_t num_tokens = 0;
  std::vector<int32_t> blocks;
  TimePoint deadline;   ///< then the fetch fails
  std::string adapter;  ///< of which keys and values must be, as in Open
  /// The source may not have heard of the request yet (both were asked at once): wait for its Open, instead
  /// of failing at once because it knows no such request.
  bool push = false;
  /// A push of which nothing has come by then fails: who was to ask the source may be gone, or the source may
  /// wait for blocks that it holds for others, who wait for those of this fetch.
  TimePoint begun_by = TimePoint::max();
};

struct FetchResult {
  FetchId id;
  Status status;             ///< fine: all tokens are there, whole and of a live lease
  int64_t valid_tokens = 0;  ///< tokens [0, valid_tokens) can be used; also where the fetch failed midway
  int64_t bytes = 0;
  double seconds = 0;
  double post_seconds = 0;      ///< of these until the source had granted it; 0: it never did
  int64_t num_descriptors = 0;  ///< of the whole fetch: layers times blocks of the target's table
  bool within_host = false;
};

/// Why blocks are no longer wanted.
enum class LeaseEnd { kFetched, kExpired, kTargetLost, kRejected, kDropped };

struct EndedLease {
  std::string request_id;
  LeaseEnd why = LeaseEnd::kFetched;
};

/// Where the agent of another tp rank of the same instance is reached.
struct PeerAddress {
  std::string host;
  uint16_t port = 0;
};

/// Counters from the start; any thread.
struct AgentStats {
  int64_t num_fetches = 0, num_failed_fetches = 0, bytes_fetched = 0, bytes_sent = 0;
  int64_t num_leases = 0, num_expired_leases = 0;
  double fetch_seconds = 0;
  int64_t num_failed_notifications = 0;
  int64_t num_open = 0;  ///< requests known now as source: open or under a lease
};

/// What an agent is made of.
struct AgentOptions {
  Identity identity;
  std::string engine_id;  ///< of the instance; all its tp ranks have the same
  std::string host;       ///< advertised: an address that others can reach
  std::string bind_host;  ///< listened on; "": all interfaces
  uint16_t port = 0;      ///< the first one tried; 0: any
  int num_ports = 64;     ///< how many ports from `port` on are tried until one is free
  /// The KV pool with its notes: a memfd that readers of this host may map (sys::CreateSegment), and where it
  /// is mapped here.
  int kv_fd = -1;
  std::byte* kv = nullptr;
  int64_t num_blocks = 0;
  /// Known to the tp ranks of this instance alone (a random text): who shows it may give orders. Needed with
  /// tp_size > 1.
  std::string group_key;
  /// Share memory with agents of this host that can be reached by Unix socket; false: bytes always.
  bool share_memory = true;
  /// What is sent to other hosts, all targets together; 0: as fast as it goes.
  double max_bytes_per_s = 0;
  Duration connect_timeout = std::chrono::seconds(5);
  /// A source whose agent says nothing for so long, though asked four times a second, is taken for lost
  /// (stopped, or cut off).
  Duration silence_timeout = std::chrono::seconds(5);
  /// Called on the agent's thread when TakeEnded or TakeFetched has something new; must not call the agent.
  std::function<void()> wake;
};

class Agent {
 public:
  /// Ends all fetches and leases; nothing is written into the pool any more.
  virtual ~Agent() = default;

  /// Of this agent, for kv_transfer_params.
  virtual const std::string& engine_id() const = 0;
  virtual const std::string& host() const = 0;
  virtual uint16_t port() const = 0;

  /// The agents of all tp ranks of this instance, in their order (this one's own entry is not looked at).
  /// Needed on each tp rank, with tp_size > 1, before requests come. Any thread.
  virtual void SetPeers(std::vector<PeerAddress> /*peers*/) {}
  /// After a weight update: requests opened from now on and fetches ordered from now on are of these weights.
  virtual void SetWeightGeneration(int64_t /*generation*/) {}

  // As source, in this order for each request. `request_id` is unique among those that are open.

  /// The request is known from now on: a target that asks waits instead of being refused. tp rank 0 alone.
  /// `adapter`: a text that names what the model has been changed by, its content included; empty: by
  /// nothing. A target that wants another one is refused. Errors: kInvalidArgument while the id is open
  /// (TakeEnded has not named it yet).
  virtual Status Open(const std::string& request_id, int64_t num_tokens, const std::string& adapter) = 0;
  /// Its block table so far, each time that it has grown. All TP ranks. A request that loses its blocks
  /// (preempted) is dropped, and opened again when it starts anew.
  virtual void Blocks(const std::string& request_id, std::span<const int32_t> blocks) = 0;
  /// Tokens [0, num_tokens) of `layer` are in the pool; the layer behind the last one stands for the notes,
  /// where the layout has any. Called from within a forward: must be cheap. All TP ranks.
  virtual void Written(const std::string& request_id, int32_t layer, int64_t num_tokens) = 0;
  /// All is written; the caller's hold on the blocks becomes the lease's, until TakeEnded names it. tp rank 0
  /// alone. A target that touches or reads it prolongs it to as long again as `until` is away now.
  virtual void Lease(const std::string& request_id, TimePoint until) = 0;
  /// The request ended without a result for others: whoever waits for it hears `why`. TakeEnded names it too,
  /// when nobody reads its blocks any more. tp rank 0 alone.
  virtual void Drop(const std::string& request_id, const Error& why) = 0;
  /// Leases and drops that are over: the caller releases their blocks.
  virtual std::vector<EndedLease> TakeEnded() = 0;

  // As target.

  /// Starts to fetch, on tp rank 0 alone: it gives the other tp ranks their orders, and their pools have the
  /// same blocks. The blocks belong to the fetch until TakeFetched names it.
  virtual void Fetch(FetchOrder order) = 0;
  /// The result is not wanted any more; TakeFetched names it as soon as nothing can be written. As with every
  /// fetch that fails, the source hears that it can let go.
  virtual void CancelFetch(FetchId id) = 0;
  /// Tells a source that its blocks are not wanted (the request is served without them, or refused).
  virtual void Reject(const SourceAddress& source) = 0;
  /// Tells a source that its blocks will still be wanted (the request waits in a queue); once a few seconds.
  virtual void Touch(const SourceAddress& /*source*/) {}
  virtual std::vector<FetchResult> TakeFetched() = 0;

  virtual AgentStats stats() const = 0;
};

/// Starts an agent and its thread; it listens when this returns. Errors: kUnavailable if no port is free,
/// kInvalidArgument for options that make no sense.
Result<std::unique_ptr<Agent>> StartAgent(AgentOptions options);

}  // namespace cadre::handoff
