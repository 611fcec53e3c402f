#pragma once
// Weights that a trainer offers over TCP, or over TCP and UCX: a file in safetensors form that never becomes
// a file. The receiver reads the parts that it needs, when it needs them, so a rank of an expert-parallel
// group fetches its own experts only and all checks happen before the first byte of weight is asked for.
//
// The protocol (little-endian), which examples/rl and the Python package speak from the other side:
//
//   each stream opens with   "CDRWGT01", u32 receiver, u32 world size, u32 stream, u32 number of streams
//   and is answered by       u32 length of an error text (0: welcome), the text; or "UCX\xff": welcome, and
//                            the bytes are read out of the sender's memory instead of asked for
//   then any number of       u64 what, u64 a, u64 b:
//     1 begin  a: milliseconds to wait    -> u64 version (0: nothing new came), u64 bytes of the file in all,
//                                            u64 bytes of the head, the head as a safetensors file has it;
//                                            then with UCX u64 bytes of an offer, the offer (remote_offer.h)
//     2 read   a: offset, b: bytes        -> those bytes of the file
//     3 end    a: version, b: 1 if it is in use now, 0 if it was refused     (no answer)
//
// With UCX one stream is enough. From begin to end the sender keeps the memory of its offer mapped and as it
// is, and a sender that takes it back closes the stream first; so a read after which the stream still stands
// is whole.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "checkpoint/remote_offer.h"
#include "checkpoint/source.h"

namespace cadre::checkpoint {

/// Reads a sender's memory. What a server is built with brings it (deploy/weight_memory.h).
class RemoteMemory {
 public:
  virtual ~RemoteMemory() = default;
  /// From now on reads are from what this offer says; nothing is sent yet.
  virtual void Attach(const RemoteOffer& offer) = 0;
  virtual void Detach() = 0;
  /// Bytes [offset, offset + to.size()) of a region, which lie in it. `check` is asked now and then; its
  /// error ends the read. When it returns nothing writes to `to` any more. Any thread.
  virtual Status Read(size_t region, uint64_t offset, std::span<std::byte> to, TimePoint deadline,
                      const std::function<Status()>& check) = 0;
};

/// The ends of the connection to the sender, as numeric addresses; the threads that will read at once.
struct RemoteEnds {
  std::string here, there;
  int32_t num_lanes = 1;
};
/// Errors: kUnsupported where there is no UCX.
using RemoteMemoryOpener = std::function<Result<std::unique_ptr<RemoteMemory>>(const RemoteEnds& ends)>;

struct RemoteOptions {
  std::string host;
  int32_t port = 0;
  int32_t receiver = 1;     ///< 1 .. world_size - 1
  int32_t world_size = 2;   ///< all receivers and the sender, which is 0
  int32_t num_streams = 1;  ///< connections: as many threads can read at once
  TimePoint deadline = TimePoint::max();
  RemoteMemoryOpener open_memory = {};  ///< empty: a sender that wants its memory read is refused
};

class RemoteWeights {
 public:
  /// Errors: kUnavailable, kNotFound or kDeadlineExceeded where there is no sender, kInvalidArgument with its
  /// reason where it wants no such receiver, kUnsupported where it offers UCX and there is none, kDataLoss
  /// for something else at that port.
  static Result<std::unique_ptr<RemoteWeights>> Connect(const RemoteOptions& options);
  ~RemoteWeights();

  /// The next version, when the sender has one; the source must not outlive this object. Reads wait for the
  /// sender until `deadline`. Errors: as the sender's end, kDataLoss for a head or an offer that is none,
  /// kUnavailable where its memory cannot be read.
  Result<std::unique_ptr<TensorSource>> Receive(TimePoint deadline);
  /// Tells the sender whether the version received last is in use now.
  void Finish(bool in_use);

 private:
  struct State;
  explicit RemoteWeights(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cadre::checkpoint
