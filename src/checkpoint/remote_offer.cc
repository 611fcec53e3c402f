#include "checkpoint/remote_offer.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace cadre::checkpoint {
namespace {

constexpr uint32_t kMaxPortBytes = 5, kMaxKeyBytes = 16 << 10;

// Takes values from the front of bytes; once they do not suffice, nothing more.
class Cursor {
 public:
  explicit Cursor(std::string_view bytes) : left_(bytes) {}

  std::string_view Take(size_t bytes) {
    short_ = short_ || bytes > left_.size();
    if (short_) return {};
    const std::string_view taken = left_.substr(0, bytes);
    left_.remove_prefix(bytes);
    return taken;
  }
  template <typename T>
  T Number() {
    T value = 0;
    if (const std::string_view bytes = Take(sizeof(T)); !bytes.empty())
      std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  bool is_short() const { return short_; }
  size_t left() const { return left_.size(); }

 private:
  std::string_view left_;
  bool short_ = false;
};

}  // namespace

Result<RemoteOffer> RemoteOffer::Parse(std::string_view bytes, uint64_t data_bytes) {
  constexpr size_t kRegionBytes = 20, kPieceBytes = 20;  // the least that one takes
  constexpr auto kBad = Code::kDataLoss;
  Cursor cursor(bytes);
  RemoteOffer offer;
  const auto num_regions = cursor.Number<uint32_t>(), port_bytes = cursor.Number<uint32_t>(),
             num_pieces = cursor.Number<uint32_t>();
  if (num_regions == 0 || port_bytes == 0 || port_bytes > kMaxPortBytes ||
      num_regions > bytes.size() / kRegionBytes || num_pieces > bytes.size() / kPieceBytes) {
    return Fail(kBad, "an offer of {} bytes says {} regions, {} pieces and a port of {} digits", bytes.size(),
                num_regions, num_pieces, port_bytes);
  }
  offer.port_ = cursor.Take(port_bytes);
  offer.regions_.reserve(num_regions);
  for (uint32_t i = 0; i < num_regions && !cursor.is_short(); ++i) {
    RemoteRegion region{.address = cursor.Number<uint64_t>(), .bytes = cursor.Number<uint64_t>(), .key = {}};
    const auto key_bytes = cursor.Number<uint32_t>();
    region.key = cursor.Take(std::min(key_bytes, kMaxKeyBytes));
    if (key_bytes > kMaxKeyBytes || region.address + region.bytes < region.address)
      return Fail(kBad, "region {} has {} bytes at {:#x} and a key of {}", i, region.bytes, region.address,
                  key_bytes);
    offer.regions_.push_back(std::move(region));
  }
  uint64_t begin = 0;
  for (uint32_t i = 0; i < num_pieces && !cursor.is_short(); ++i) {
    const auto region = cursor.Number<uint32_t>();
    const auto offset = cursor.Number<uint64_t>(), piece_bytes = cursor.Number<uint64_t>();
    if (cursor.is_short()) break;
    if (region >= num_regions || offset > offer.regions_[region].bytes ||
        piece_bytes > offer.regions_[region].bytes - offset || piece_bytes > data_bytes - begin) {
      return Fail(kBad, "piece {}, {} bytes at {} of region {}, does not lie in it, or passes the file's end",
                  i, piece_bytes, offset, region);
    }
    if (piece_bytes > 0) offer.pieces_.push_back({begin, offset, piece_bytes, region});
    begin += piece_bytes;
  }
  const std::string_view probe = cursor.Take(kProbeBytes);
  if (cursor.is_short() || cursor.left() != 0)
    return Fail(kBad, "an offer of {} bytes {}", bytes.size(),
                cursor.is_short() ? "breaks off" : "goes on behind its end");
  if (begin != data_bytes)
    return Fail(kBad, "the pieces of an offer hold {} bytes; the file has {} behind its head", begin,
                data_bytes);
  if (offer.regions_[0].bytes < kProbeBytes)
    return Fail(kBad, "region 0 of an offer has {} bytes; wanted {} at least", offer.regions_[0].bytes,
                kProbeBytes);
  std::memcpy(offer.probe_.data(), probe.data(), kProbeBytes);
  return offer;
}

RemoteOffer::Stretch RemoteOffer::Find(uint64_t offset, uint64_t bytes) const {
  const auto behind = std::ranges::upper_bound(pieces_, offset, {}, &Piece::begin);
  CADRE_CHECK(behind != pieces_.begin());
  const Piece& piece = *(behind - 1);
  const uint64_t in = offset - piece.begin;
  CADRE_CHECK(in < piece.bytes);
  return {piece.region, piece.offset + in, std::min(bytes, piece.bytes - in)};
}

}  // namespace cadre::checkpoint
