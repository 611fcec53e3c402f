#include "app/doctor_link.h"

#include <thread>

namespace cadre::app {
namespace {

// Looking finds an answer sooner than sleeping; longer than this it is not worth a CPU. Between looks the CPU
// is given to others, because two doctors may share it.
constexpr auto kSpin = std::chrono::microseconds(200);
constexpr auto kNap = std::chrono::milliseconds(5);

}  // namespace

Result<std::unique_ptr<LinkEnd>> LinkEnd::Open(const std::string& kind, std::vector<std::string> addresses) {
  std::unique_ptr<LinkEnd> end(new LinkEnd());
  CADRE_ASSIGN(end->port_, fabric::MakePort(kind, {.addresses = std::move(addresses)}));
  end->zone_.resize(kMaxLinkMessage);
  end->data_.resize(kMaxLinkMessage, std::byte{1});
  return end;
}

Status LinkEnd::Connect(const std::string& peer_address, uint64_t key, bool active, TimePoint deadline) {
  const fabric::LinkRequest request{
      .peer_address = peer_address, .peer_name = "the peer", .key = key, .active = active, .sink = this};
  CADRE_ASSIGN(auto links, port_->Connect({&request, 1}, control_, deadline));
  link_ = std::move(links.front());
  return {};
}

Result<std::byte*> LinkEnd::Place(const fabric::MessageHead& head) {
  if (head.bytes > zone_.size() || head.offset != 0) return Fail(Code::kDataLoss, "no message of a doctor");
  return zone_.data();
}

void LinkEnd::Arrived(const fabric::MessageHead& head) {
  if (arrived_.size() < 64) arrived_.push_back(head);
}

void LinkEnd::Send(uint32_t channel, size_t bytes) {
  const fabric::Piece piece{data_.data(), bytes};
  link_->Send({.channel = channel, .round = ++round_, .bytes = bytes}, {&piece, bytes > 0 ? size_t{1} : 0});
}

Result<double> LinkEnd::RoundTripUs(uint32_t channel, size_t bytes, TimePoint deadline) {
  const TimePoint start = Now();
  TimePoint quiet = start;
  Send(channel, bytes);
  while (arrived_.empty() || !link_->sent()) {
    CADRE_TRY(link_->status());
    if (port_->Progress()) {
      quiet = Now();
    } else if (Now() >= deadline) {
      return Fail(Code::kDeadlineExceeded, "a message of {} bytes did not come back in time", bytes);
    } else if (Now() - quiet > kSpin) {
      Sleep(kNap);
    } else {
      std::this_thread::yield();
    }
  }
  const double us = Seconds(Now() - start) * 1e6;
  arrived_.clear();
  return us;
}

Result<bool> LinkEnd::Answer() {
  bool moved = port_->Progress();
  CADRE_TRY(link_->status());
  if (!link_->sent()) return moved;
  for (const fabric::MessageHead& head : std::exchange(arrived_, {})) {
    Send(head.channel, head.channel == 0 ? head.bytes : 0);
    moved = true;
  }
  return moved;
}

}  // namespace cadre::app
