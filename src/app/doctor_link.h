#pragma once
// How two doctors talk: over one TCP connection, in frames of sys/sockets.h, and for each kind of link over a
// link of fabric's between two ports, as ranks of two hosts would.
//
// The listening side speaks first, so that nothing is sent to a port that belongs to somebody else:
//   <- kGreeting {version, host name, kinds of links}
//   -> kEcho {bytes}              <- kEcho {the same bytes}
//   -> kTry {kind, port address}  <- kReady {port address, key} or kRefused {why}
//      both connect; messages of channel 0 come back as they are, those of channel 1 as empty ones
//   -> kDone
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fabric/host_link.h"

namespace cadre::app {

constexpr uint32_t kDoctorVersion = 1;
constexpr uint16_t kDoctorPort = 29550;  // the default of --data-parallel-rpc-port, which must be open anyway
constexpr size_t kMaxDoctorFrame = size_t{1} << 20;
constexpr size_t kMaxLinkMessage = size_t{16} << 20;

enum DoctorFrame : uint32_t {
  kDoctorGreeting = 0x444F4301,
  kDoctorEcho,
  kDoctorTry,
  kDoctorReady,
  kDoctorRefused,
  kDoctorDone
};

/// One end of a link under measurement.
class LinkEnd final : public fabric::LinkSink {
 public:
  /// `addresses`: of this host, to be reached at.
  static Result<std::unique_ptr<LinkEnd>> Open(const std::string& kind, std::vector<std::string> addresses);

  std::string address() const { return port_->address(); }
  Status Connect(const std::string& peer_address, uint64_t key, bool active, TimePoint deadline);

  /// Sends so many bytes and waits until something comes back. Errors: kDeadlineExceeded, or the link's.
  Result<double> RoundTripUs(uint32_t channel, size_t bytes, TimePoint deadline);
  /// Moves what can be moved and answers what has come; whether anything did.
  Result<bool> Answer();
  void Sleep(Duration most) { port_->Sleep(Now() + most); }

  Result<std::byte*> Place(const fabric::MessageHead& head) override;
  void Arrived(const fabric::MessageHead& head) override;

 private:
  LinkEnd() = default;
  void Send(uint32_t channel, size_t bytes);

  fabric::ControlBlock block_ = {};
  fabric::Control control_{&block_, false};
  std::vector<std::byte> zone_, data_;
  std::vector<fabric::MessageHead> arrived_;
  uint32_t round_ = 0;
  std::shared_ptr<fabric::HostPort> port_;
  std::unique_ptr<fabric::HostLink> link_;
};

}  // namespace cadre::app
