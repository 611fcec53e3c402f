#pragma once
// Carries out the writes of a wave (eplb/moves.h), a bounded piece in every step, on the engine thread: a
// rank that has a core to itself has no other thread to spare, and what is done between two steps needs no
// lock.
//
// A write whose source is on this host is a copy out of that rank's memory. From another host experts come as
// one stream for each pair of hosts: the wave's experts that the receiving host needs, each once, in the
// order of the list. Every round a piece of it is one message, gathered from the sending host's memory; all
// ranks of the receiving host read it in the landing zone and take what is theirs.
//
// A round is also the agreement whether the wave is done: each rank shows whether all its writes are, first
// to its host (a flag), then in the message's head to the others. So all ranks learn it in the same round.
// Nobody writes to a landing place before all ranks of the host have shown the next round (fabric.h).
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "eplb/moves.h"
#include "rebalance/expert_memory.h"
#include "sys/threads.h"

namespace cadre::rebalance {

/// What a round may do.
struct RoundBudget {
  TimePoint copy_until = TimePoint::max();  ///< copies within the host; at least a small piece is done
  int64_t message_bytes = 0;                ///< to each other host; 0: as much as a message holds
};

enum class Verdict : uint8_t {
  kGoing,   ///< somebody has not finished
  kDone,    ///< every rank has all writes of the wave
  kFailed,  ///< some rank cannot finish the wave
};

/// Of this rank since the start.
struct MoverCounts {
  int64_t copied_bytes = 0;    ///< within this rank's memory
  int64_t read_bytes = 0;      ///< from other ranks of the host
  int64_t received_bytes = 0;  ///< from other hosts, as this rank took them out of the landing zone
  int64_t sent_bytes = 0;      ///< to other hosts, if this rank carries the messages
};

class Mover {
 public:
  /// `memory` and `pool` must outlive it.
  Mover(ExpertMemory& memory, eplb::Hosts hosts, sys::ThreadPool& pool);

  /// Starts a wave; `wave` must live until the verdict. All ranks begin the same.
  void Begin(const eplb::Wave& wave);
  /// One round, collective over all ranks. `failed`: this rank gives the wave up. Errors: those of the waits.
  Result<Verdict> Round(const RoundBudget& budget, const fabric::WaitContext& context, bool failed);
  /// After a round: who had not finished, for a person ("rank 2", "host b"); empty if all had.
  std::string Missing() const;

  const MoverCounts& counts() const { return counts_; }

 private:
  struct OwnWrite {
    const eplb::Write* write = nullptr;
    int64_t done_bytes = 0;
  };
  // An expert in a stream between two hosts.
  struct Item {
    int source_rank = 0;
    int32_t source_place = 0;
    std::vector<size_t> own_writes;  // of this rank, that it fills
  };
  struct Stream {
    std::vector<Item> items;
    int64_t passed_bytes = 0;
  };
  struct Head {
    uint32_t done = 0, failed = 0;
  };

  bool FromOtherHost(const eplb::Write& write) const;
  bool SourceReady(const eplb::Write& write) const;
  void CopyWithin(TimePoint until);
  void Copy(std::byte* to, const std::byte* from, int64_t bytes);
  bool OwnDone() const;
  Status Agree(uint32_t own_bits, const RoundBudget& budget, const fabric::WaitContext& context);
  Status TradeStreams(const RoundBudget& budget, const fabric::WaitContext& context);
  Status Take(int host, uint32_t bytes);

  ExpertMemory& memory_;
  eplb::Hosts hosts_;
  sys::ThreadPool& pool_;
  int rank_, host_;
  uint32_t round_ = 0;
  std::vector<OwnWrite> own_;
  size_t next_copy_ = 0;             // among own_
  std::vector<Stream> out_, in_;     // by host
  std::array<Head, 2> sent_heads_;   // by parity: they lie still until they have arrived
  std::vector<Head> heads_;          // of the last round, by host
  std::vector<uint32_t> rank_bits_;  // of the last round, by rank; own host's only
  MoverCounts counts_;
};

}  // namespace cadre::rebalance
