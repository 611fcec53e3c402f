#pragma once
// Writes offers as a sender does (remote_offer.h); for tests.
#include <cstring>
#include <string>
#include <vector>

#include "checkpoint/remote_offer.h"

namespace cadre::checkpoint::test {

struct OfferParts {
  std::string port = "12345";
  std::vector<RemoteRegion> regions;
  struct Piece {
    uint32_t region = 0;
    uint64_t offset = 0, bytes = 0;
  };
  std::vector<Piece> pieces;
  std::string probe = std::string(kProbeBytes, 'p');

  std::string Text() const {
    std::string text;
    const auto put = [&](auto number) {
      text.append(reinterpret_cast<const char*>(&number), sizeof(number));
    };
    put(static_cast<uint32_t>(regions.size()));
    put(static_cast<uint32_t>(port.size()));
    put(static_cast<uint32_t>(pieces.size()));
    text += port;
    for (const RemoteRegion& region : regions) {
      put(region.address);
      put(region.bytes);
      put(static_cast<uint32_t>(region.key.size()));
      text += region.key;
    }
    for (const Piece& piece : pieces) {
      put(piece.region);
      put(piece.offset);
      put(piece.bytes);
    }
    return text + probe;
  }
};

}  // namespace cadre::checkpoint::test
