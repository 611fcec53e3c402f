#pragma once
// Where a sender of weights holds a file's bytes in its memory, as it tells a receiver that reads them itself
// (remote_source.h). Little-endian:
//
//   u32 number of regions, u32 bytes of the owner's port, u32 number of pieces
//   the port at which the owner's UCX is called, in digits
//   for each region   u64 address, u64 bytes, u32 bytes of its key, the key
//   for each piece    u32 region, u64 offset in it, u64 bytes: the file behind its head, in order
//   32 bytes          what region 0 holds; no piece need lie there
//
// All of it comes from outside: what does not fit together is refused before anything is read.
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cadre::checkpoint {

struct RemoteRegion {
  uint64_t address = 0;
  uint64_t bytes = 0;
  std::string key;
};

constexpr size_t kMaxOfferBytes = 256u << 20;  // a million tensors
constexpr size_t kProbeBytes = 32;

class RemoteOffer {
 public:
  /// `data_bytes`: of the file behind its head. Errors: kDataLoss, with what was wanted and found. Cost:
  /// linear.
  static Result<RemoteOffer> Parse(std::string_view offer, uint64_t data_bytes);

  const std::string& port() const { return port_; }
  const std::vector<RemoteRegion>& regions() const { return regions_; }
  const std::array<std::byte, kProbeBytes>& probe() const { return probe_; }

  struct Stretch {
    size_t region = 0;
    uint64_t offset = 0, bytes = 0;
  };
  /// Where the bytes behind `offset` of the data lie, up to `bytes` of them or to the end of their piece. The
  /// offset must lie in the data (checked). Cost: logarithmic. Any thread.
  Stretch Find(uint64_t offset, uint64_t bytes) const;

 private:
  struct Piece {
    uint64_t begin = 0;  // in the data
    uint64_t offset = 0, bytes = 0;
    size_t region = 0;
  };
  std::string port_;
  std::vector<RemoteRegion> regions_;
  std::vector<Piece> pieces_;  // none empty, so that begins rise
  std::array<std::byte, kProbeBytes> probe_ = {};
};

}  // namespace cadre::checkpoint
