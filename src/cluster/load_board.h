#pragma once
// Who has how much to do, known to all fronts of a deployment at once: a page of shared memory in which every
// front keeps, for each rank, what it has sent there and what has not ended. The sum over fronts is the
// rank's load, exact up to the events of its last step, because every request passes through exactly one
// front. A front that dies leaves its column behind; whoever notices clears it (the ranks have cancelled its
// requests).
//
// Beside it, for each rank, a table of the prompt blocks that were sent there: direct-mapped by hash, a newer
// block in the place of an older one. It is a guess of what the rank's prefix cache holds, of about its size:
// a wrong one costs a worse choice, never a wrong answer.
//
// All cells are 64-bit words that are read and written atomically; nobody ever waits.
#include <cstdint>
#include <memory>

#include "base/error.h"
#include "sys/shared_memory.h"

namespace cadre::cluster {

struct BoardShape {
  int num_fronts = 1;
  int num_ranks = 1;
  int64_t num_kv_blocks = 0;  ///< of one rank
};

class LoadBoard {
 public:
  /// A board with nothing on it. Errors: kResourceExhausted.
  static Result<std::shared_ptr<LoadBoard>> Create(const BoardShape& shape);
  /// Another process's board, by its descriptor. Errors: kDataLoss if it is none.
  static Result<std::shared_ptr<LoadBoard>> Map(sys::Fd fd);

  int fd() const { return segment_.fd.get(); }
  int num_fronts() const;
  int num_ranks() const;

  /// Requests that have been sent and have not ended, and their work (load.h).
  struct Load {
    int64_t requests = 0, work = 0;
  };
  /// Of all fronts together; never below 0.
  Load Of(int rank) const;
  void Add(int front, int rank, const Load& more);
  void ClearFront(int front);

  void RememberBlock(int rank, uint64_t block);
  bool HoldsBlock(int rank, uint64_t block) const;
  void ForgetBlocks();

  /// Counts up over all fronts: ranks that are equal get their turn.
  uint64_t NextTurn();

 private:
  struct Header;
  LoadBoard(sys::Segment segment) : segment_(std::move(segment)) {}
  Header& header() const;
  int64_t* Cell(int front, int rank) const;
  uint64_t* Block(int rank, uint64_t block) const;

  sys::Segment segment_;
};

}  // namespace cadre::cluster
