// Whatever bytes claim to be a sender's offer: an error, or pieces that lie in their regions and make up the
// file.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "checkpoint/remote_offer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint64_t file = data[0] | data[1] << 8;
  const auto offer = cadre::checkpoint::RemoteOffer::Parse(
      std::string_view(reinterpret_cast<const char*>(data) + 2, size - 2), file);
  if (!offer) return 0;
  for (uint64_t offset = 0; offset < file;) {
    const auto stretch = offer->Find(offset, file - offset);
    const auto& region = offer->regions().at(stretch.region);
    CADRE_CHECK(stretch.bytes > 0 && stretch.offset + stretch.bytes <= region.bytes);
    offset += stretch.bytes;
    CADRE_CHECK(offset <= file);
  }
  CADRE_CHECK(offer->regions()[0].bytes >= cadre::checkpoint::kProbeBytes);
  return 0;
}
