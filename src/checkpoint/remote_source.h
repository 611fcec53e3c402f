#pragma once
// Weights that a trainer offers over TCP: a file in safetensors form that never becomes a file. The receiver
// reads the parts that it needs, when it needs them, so a rank of an expert-parallel group fetches its own
// experts only and all checks happen before the first byte of weight is asked for.
//
// The protocol (little-endian), which examples/rl and the Python package speak from the other side:
//
//   each stream opens with   "CDRWGT01", u32 receiver, u32 world size, u32 stream, u32 number of streams
//   and is answered by       u32 length of an error text (0: welcome), the text
//   then any number of       u64 what, u64 a, u64 b:
//     1 begin  a: milliseconds to wait    -> u64 version (0: nothing new came), u64 bytes of the file in all,
//                                            u64 bytes of the head, the head as a safetensors file has it
//     2 read   a: offset, b: bytes        -> those bytes of the file
//     3 end    a: version, b: 1 if it is in use now, 0 if it was refused     (no answer)
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "checkpoint/source.h"

namespace cadre::checkpoint {

struct RemoteOptions {
  std::string host;
  int32_t port = 0;
  int32_t receiver = 1;     ///< 1 .. world_size - 1
  int32_t world_size = 2;   ///< all receivers and the sender, which is 0
  int32_t num_streams = 1;  ///< connections: as many threads can read at once
  TimePoint deadline = TimePoint::max();
};

class RemoteWeights {
 public:
  /// Errors: kUnavailable, kNotFound or kDeadlineExceeded where there is no sender, kInvalidArgument with its
  /// reason where it wants no such receiver, kDataLoss for something else at that port.
  static Result<std::unique_ptr<RemoteWeights>> Connect(const RemoteOptions& options);
  ~RemoteWeights();

  /// The next version, when the sender has one; the source must not outlive this object. Reads wait for the
  /// sender until `deadline`. Errors: as the sender's end, kDataLoss for a head that is none.
  Result<std::unique_ptr<TensorSource>> Receive(TimePoint deadline);
  /// Tells the sender whether the version received last is in use now.
  void Finish(bool in_use);

 private:
  struct State;
  explicit RemoteWeights(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cadre::checkpoint
