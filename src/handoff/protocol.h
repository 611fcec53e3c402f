#pragma once
// What agents say to each other. A connection is opened by the one that wants something (a target, or a tp
// rank that gives orders to another) and begins with Hello and Welcome; then each thing that is wanted is a
// *stream* with a number of the opener's choice, which stands first in every message that concerns it.
//
//   opener                         listener
//   Hello                          Welcome, or Sorry and the end
//   Want lease                     Granted, or Refused (at any later time too: the lease is over)
//   Want data                      Table and Ready (memory is shared) or Data; or Refused
//   Done (of a lease)              Valid: all that was read is good, and the lease is over; or Refused
//   Stop (of any)                  -
//   Tell reject / touch            Told
//   Order (own tp ranks)           Ordered
//   End (own tp ranks)             Ended
//   Ping                           Pong; Refused of a lease that was over before comes before it
//
// A frame is {magic, kind, bytes of the body}, then the body: fields in order, little-endian. The version in
// Hello and Welcome is their first field, so that every version can read it.
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "handoff/identity.h"

namespace cadre::handoff {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kFrameMagic = 0x314b4443;  // "CDK1"
constexpr uint32_t kProtocolVersion = 2;
constexpr uint32_t kMaxHelloBytes = 64 << 10;
constexpr uint32_t kMaxBodyBytes = 8 << 20;  // a block table of two million blocks
constexpr int64_t kMaxTokens = int64_t{1} << 31;

enum FrameKind : uint32_t {
  kHello = 1,
  kWelcome,
  kSorry,
  kWant,
  kGranted,
  kTable,
  kReady,
  kData,
  kRefused,
  kDone,
  kValid,
  kStop,
  kTell,
  kTold,
  kOrder,
  kOrdered,
  kEnd,
  kEnded,
  kPing,
  kPong
};

struct FrameHead {
  uint32_t magic = kFrameMagic, kind = 0, bytes = 0;
};

/// Stands before the panels of a piece; `bytes` of the frame counts both.
struct DataHead {
  uint32_t stream = 0;
  int32_t layer = 0;  ///< behind the last: the notes
  int64_t first_token = 0, end_token = 0;
};

/// Both Hello and Welcome: who speaks.
struct Introduction {
  uint32_t version = kProtocolVersion;
  std::string engine_id;
  std::string boot_id;       ///< of the machine's kernel; "": shares no memory
  std::string unix_address;  ///< Welcome: where the pool's descriptor can be had; "": nowhere
  std::string nonce;         ///< Welcome: the same agent behind both addresses
  std::string group_key;     ///< Hello
  int64_t num_blocks = 0;    ///< of the pool
  Identity identity;

  std::string Encode() const;
  /// Fails if it is none, or of another version.
  static Result<Introduction> Decode(const std::string& body);
};

enum class WantKind : uint8_t { kLease, kData };

struct Want {
  uint32_t stream = 0;
  WantKind kind = WantKind::kLease;
  bool may_wait = false;  ///< for the request's Open
  std::string request_id;
  int64_t generation = 0;  ///< of weights
  std::string adapter;     ///< kLease: as in Agent::Open
  int64_t first_token = 0, end_token = 0;
  HeadRange heads;      ///< kData: within the source's rank
  bool as_data = true;  ///< kData: bytes, not places in shared memory
  bool notes = false;   ///< kData: the tokens' notes too

  std::string Encode() const;
  static Result<Want> Decode(const std::string& body);
};

/// To another tp rank of a target: fetch your share.
struct ShareOrder {
  std::string engine_id;             ///< of the source
  std::vector<PeerAddress> sources;  ///< by tp rank
  std::string request_id;
  int64_t generation = 0;
  int64_t first_token = 0, end_token = 0;
  std::vector<int32_t> blocks;

  std::string Encode(uint32_t stream) const;
  /// `body` after the stream's number.
  static Result<ShareOrder> Decode(fabric::WireReader& in);
};

/// Refused, Told, Ordered: how something ended.
struct Outcome {
  Status status;
  int64_t bytes = 0;
  bool within_host = false;

  std::string Encode(uint32_t stream) const;
  static Outcome Decode(fabric::WireReader& in);
};

void PutAddresses(fabric::WireWriter& out, const std::vector<PeerAddress>& addresses);
std::vector<PeerAddress> GetAddresses(fabric::WireReader& in);
void PutTable(fabric::WireWriter& out, std::span<const int32_t> blocks);
std::vector<int32_t> GetTable(fabric::WireReader& in);

/// Just the stream's number.
std::string OnlyStream(uint32_t stream);

}  // namespace cadre::handoff
