#pragma once
// What an engine is told that is no request: pause, go on, give a sign of life, take other weights.
//
// Each order is carried out by the engine thread between two steps. An order about weights concerns all ranks
// of a deployment: they carry it out at one step border, together. Which order that is follows from its
// content and not from who sent it, so the fronts of several nodes need not know of each other: the order is
// carried out once every rank has been given it.
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/format.h"

namespace cadre::engine {

enum class ControlKind : uint8_t { kProbe, kPause, kResume, kWeights };

/// What becomes of the requests in flight; those that come while the engine pauses wait until it goes on.
enum class PauseMode : uint8_t {
  kAbort,  ///< they end at once
  kWait,   ///< they are finished first
  kKeep,   ///< they stand still, and go on afterwards
};

struct WeightOrder {
  enum class Kind : uint8_t {
    kFolder,         ///< take the weights in `folder`
    kReload,         ///< take those that the server was started with
    kConnect,        ///< find the sender of weights at host:port
    kReceive,        ///< take what that sender has
    kLoadAdapter,    ///< take the LoRA adapter in `folder` under `name`
    kUnloadAdapter,  ///< forget the one called `name`
  };
  Kind kind = Kind::kFolder;
  std::string folder;
  std::string host;  ///< kConnect, as are the next three
  int32_t port = 0;
  int32_t first_receiver = 0;  ///< the number of rank 0 among all receivers of the sender, from 1
  int32_t world_size = 0;      ///< receivers and the sender
  int64_t timeout_s = 720;     ///< longest wait for ranks and sender
  std::string expected;   ///< kReceive: what must come, as JSON [[name, type, shape], ...]; empty: not said
  std::string name;       ///< kLoadAdapter, kUnloadAdapter
  bool in_place = false;  ///< kLoadAdapter: a loaded adapter of that name is replaced; else it is refused

  bool concerns_adapter() const { return kind == Kind::kLoadAdapter || kind == Kind::kUnloadAdapter; }

  /// The order as text and back; equal orders have equal texts. Errors: kDataLoss.
  std::string ToText() const;
  static Result<WeightOrder> FromText(const std::string& text);
  /// Of the text; never 0.
  uint64_t Id() const;

  friend bool operator==(const WeightOrder&, const WeightOrder&) = default;
};

/// A LoRA adapter that is loaded; the same on all ranks.
struct AdapterInfo {
  std::string name, path;
  int32_t slot = -1;    ///< where ranks find it; one that is replaced keeps its own
  int64_t version = 0;  ///< counts the adapters that have been loaded: no two are alike in it
  uint64_t digest = 0;  ///< of what it holds: the same in other engines too

  /// By which two engines tell whether they mean the same adapter.
  std::string id() const { return Format("'{}' ({:016x})", name, digest); }
  friend bool operator==(const AdapterInfo&, const AdapterInfo&) = default;
};

/// Those that are loaded, by name.
struct AdapterList {
  std::vector<AdapterInfo> adapters;
  int64_t num_changes = 0;  ///< tells the newer of two lists

  const AdapterInfo* Find(const std::string& name) const;
  friend bool operator==(const AdapterList&, const AdapterList&) = default;
};

struct ControlRequest {
  ControlKind kind = ControlKind::kProbe;
  PauseMode mode = PauseMode::kAbort;  ///< kPause
  bool clear_cache = true;             ///< kPause: forget the KV cache, of requests that stand still as well
  WeightOrder weights;                 ///< kWeights
};

/// How the engine stands when an order has been carried out.
struct ControlState {
  bool paused = false;     ///< or about to be
  int64_t generation = 0;  ///< of the weights: 1 at the start, one more with each update
  double seconds = 0;      ///< kWeights: that it took, of this rank
  int64_t bytes = 0;       ///< kWeights: read by all ranks together
  AdapterList adapters;    ///< that are loaded now
};

/// Hears once what became of an order; on any thread, must not block.
using ControlDone = std::function<void(Result<ControlState>)>;

/// Carries out orders about weights for one rank. Called from its engine thread, between two steps, on all
/// ranks of the deployment with the same order.
class WeightKeeper {
 public:
  virtual ~WeightKeeper() = default;

  struct Outcome {
    Status status;             ///< what the client hears; the same on all ranks
    bool new_weights = false;  ///< other weights are in place than before
    bool broken = false;       ///< what is in place is of no use until the next update
    int64_t generation = 0;
    int64_t bytes = 0;                            ///< read by all ranks
    std::optional<AdapterInfo> loaded, unloaded;  ///< of an order about an adapter that went well
  };
  /// Errors: only from the exchange between ranks; a failure that concerns weights is in the outcome.
  virtual Result<Outcome> CarryOut(const WeightOrder& order) = 0;
};

}  // namespace cadre::engine
