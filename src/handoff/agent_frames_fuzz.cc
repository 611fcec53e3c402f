// What a stranger sends to the side channel: frames, and the messages in them.
#include <cstdint>

#include "base/check.h"
#include "handoff/frames.h"
#include "sys/sockets.h"

namespace {

using namespace cadre;
using namespace cadre::handoff;

struct Sink final : FrameSink {
  void Heard(FrameKind, std::string body) override { CADRE_CHECK(body.size() <= 4096); }
  Runs Land(const DataHead& head, int64_t bytes) override {
    if (head.stream % 2 == 0 || bytes > 65'536) return {};
    place.resize(static_cast<size_t>(bytes) + 1);
    return {{place.data(), static_cast<size_t>(bytes)}};
  }
  void Landed(const DataHead& head) override { CADRE_CHECK(head.stream % 2 == 1); }
  std::string place;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  if (const auto hello = Introduction::Decode(bytes)) {
    const auto again = Introduction::Decode(hello->Encode());
    CADRE_CHECK(again.has_value() && again->Encode() == hello->Encode());
    const Status compatible = CheckCompatible(hello->identity, hello->identity);
    if (compatible) CADRE_CHECK(hello->identity.layout.NotesBytes(hello->num_blocks) >= 0);
  }
  if (const auto want = Want::Decode(bytes)) CADRE_CHECK(Want::Decode(want->Encode()).has_value());
  fabric::WireReader order(bytes), outcome(bytes), addresses(bytes);
  static_cast<void>(ShareOrder::Decode(order));
  static_cast<void>(Outcome::Decode(outcome));
  CADRE_CHECK(GetAddresses(addresses).size() <= 1024);
  if (size > 65'536) return 0;
  auto pair = sys::SocketPair();
  if (!pair) return 0;
  FrameStream stream(std::move(pair->first), 4096);
  [[maybe_unused]] const Status sent =
      sys::SendAll(pair->second.get(), std::as_bytes(std::span(bytes)), Now());
  pair->second.Reset();
  Sink sink;
  while (stream.Read(sink)) {
  }
  return 0;
}
