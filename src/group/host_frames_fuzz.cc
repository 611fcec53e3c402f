// What a stranger sends to the coordinator's port: frames, and the greeting in them.
#include <sys/socket.h>

#include <cstdint>

#include "base/check.h"
#include "fabric/wire.h"
#include "group/frame_stream.h"
#include "group/host_protocol.h"
#include "sys/sockets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cadre;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  if (const auto hello = group::HostHello::Decode(bytes); hello && hello->version == group::kHostProtocol) {
    CADRE_CHECK(group::HostHello::Decode(hello->Encode()).has_value());
  }
  fabric::WireReader reader(bytes);
  const auto table = fabric::HostTable::Read(reader, 0);
  CADRE_CHECK(table.hosts.empty() || table.num_ranks() > 0);
  auto pair = sys::SocketPair();
  if (!pair || size > 65'536) return 0;
  group::FrameStream stream(std::move(pair->first), 4096);
  [[maybe_unused]] const Status sent =
      sys::SendAll(pair->second.get(), std::as_bytes(std::span(bytes)), Now());
  pair->second.Reset();
  std::vector<group::HostFrame> frames;
  stream.Read(frames);
  for (const group::HostFrame& frame : frames) CADRE_CHECK(frame.body.size() <= 4096);
  return 0;
}
