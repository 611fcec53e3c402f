#pragma once
// What one exchange needs between the ranks of a group on one host: every rank has a segment that it alone
// writes and all read in place, and flags that say how far it is.
//
// A flag is one 64-bit word (round << 32 | count), written by its owner only. Rounds rise by one for ever and
// are compared modulo 2^32 (they wrap within days), so flags are never cleared. What a rank wrote before
// Publish is visible to whoever has awaited that round. When a part may be written again is the protocol's
// business: the user of a Fabric alternates parity sets, or knows from a later flag that all peers are done
// with it.
//
// Waiting: a short spin (only if threads do not outnumber CPUs), then a shared futex. The sleeper says so
// before its last look, the publisher looks for sleepers after its store, all seq_cst: no wake is lost. Every
// wait polls the abort word and its deadline; at the deadline it names who is missing and aborts the group,
// because a rank that gave up has left the protocol.
//
// Ranks as threads of one process use the same code on plain memory. Between hosts the unit will be another
// one, a packed message per pair of hosts, which lands in such a segment; see all2all.md 3.3 for the forms.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "fabric/control.h"
#include "sys/memory.h"

namespace cadre::fabric {

struct alignas(64) FlagLine {
  std::atomic<uint64_t> word;      ///< round << 32 | count
  std::atomic<uint32_t> sleepers;  ///< who may be sleeping on `bell`
  std::atomic<uint32_t> bell;      ///< the futex word: changes when sleepers are woken
};

/// Where and until when somebody waits; for the error.
struct WaitContext {
  const char* what = "";  ///< "dispatch", "combine"
  int64_t step = 0;
  TimePoint deadline = TimePoint::max();
};

struct FabricSpec {
  std::string name = {};  ///< one Open per name and group
  std::vector<int> ranks =
      {};                    ///< world ranks in the group's order, same on all; empty: all ranks of the host
  size_t segment_bytes = 0;  ///< of every rank's segment
  int num_flags = 0;         ///< flags that each rank owns
  uint32_t first_round = 1;  ///< the first round that will be published
  bool spin = true;
};

/// A mapped segment, or a view of memory that somebody else keeps.
struct Mapping {
  sys::Region region;
  std::byte* data = nullptr;
};

class Fabric {
 public:
  /// Used by Rendezvous::Open. `data` and `flags`: one mapping for each member, in order; the peers' data
  /// read-only.
  Fabric(FabricSpec spec, int index, Control control, bool shared, std::vector<Mapping> data,
         std::vector<Mapping> flags);

  int rank() const { return index_; }  ///< this rank's position in the group
  int size() const { return static_cast<int>(data_.size()); }
  int world_rank(int r) const { return spec_.ranks[static_cast<size_t>(r)]; }
  Control& control() { return control_; }

  std::byte* own() const { return data_[static_cast<size_t>(index_)].data; }
  const std::byte* peer(int r) const { return data_[static_cast<size_t>(r)].data; }

  /// Sets one of this rank's flags and wakes who sleeps on it. About 20 ns, a system call more if somebody
  /// sleeps.
  void Publish(int flag, uint32_t round, uint32_t count);

  /// Waits until member `r` has published `round` or a later one; the count it published.
  Result<uint32_t> Await(int r, int flag, uint32_t round, const WaitContext& context);
  /// The same for all members, this one included; counts [size] or null.
  Status AwaitAll(int flag, uint32_t round, uint32_t* counts, const WaitContext& context);

 private:
  FlagLine& Line(int r, int flag) const {
    return reinterpret_cast<FlagLine*>(flags_[static_cast<size_t>(r)].data)[flag];
  }
  Status AwaitLine(int r, int flag, uint32_t round, const WaitContext& context);
  Status FailMissing(int flag, uint32_t round, std::span<const int> members, Duration waited,
                     const WaitContext& context);

  FabricSpec spec_;
  int index_;
  Control control_;
  bool shared_;
  std::vector<Mapping> data_, flags_;
};

/// "rank 2", "ranks 1 and 3", "ranks 1, 2 and 5".
std::string NameRanks(std::span<const int> world_ranks);
/// "0.2", "5", "120", without the unit.
std::string SecondsText(Duration duration);

}  // namespace cadre::fabric
