#include "deploy/engine_links.h"

#include <algorithm>
#include <charconv>

#include "base/random.h"
#include "fabric/fabric.h"
#include "sys/sockets.h"

namespace cadre::deploy {
namespace {

constexpr uint32_t kHelloFrame = 0x4C4E4B31;  // "LNK1"
constexpr size_t kMaxHello = 128;
constexpr auto kHelloTime = std::chrono::seconds(2);  // for one who connects to say who it is

// "PORT SECRET" and "SECRET RANK": numbers and hex without blanks.
std::pair<std::string, std::string> SplitWords(const std::string& text) {
  const size_t blank = std::min(text.find(' '), text.size());
  return {text.substr(0, blank), text.substr(std::min(blank + 1, text.size()))};
}

int NumberOf(const std::string& text) {
  int number = -1;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace

Result<LinkListener> LinkListener::Create(const std::string& address) {
  LinkListener made;
  CADRE_ASSIGN(made.listener_, sys::ListenTcp(address, 0));
  CADRE_ASSIGN(made.port_, sys::LocalPort(made.listener_.get()));
  made.Renew();
  return made;
}

const std::string& LinkListener::Renew() {
  secret_ = Format("{:016x}{:016x}", EntropySeed(), EntropySeed());
  return info_ = Format("{} {}", port_, secret_);
}

Result<std::map<int, sys::Fd>> LinkListener::AcceptAll(std::vector<int> ranks,
                                                       const std::function<Status()>& check,
                                                       TimePoint deadline) {
  std::map<int, sys::Fd> links;
  while (!ranks.empty()) {
    auto fd = sys::Accept(listener_.get(), std::min(deadline, Now() + std::chrono::milliseconds(200)));
    if (!fd) {
      CADRE_TRY(check());
      if (Now() < deadline) continue;
      return Fail(Code::kDeadlineExceeded, "{} did not connect to this node's front in time",
                  fabric::NameRanks(ranks));
    }
    const auto hello = sys::RecvFrame(fd->get(), kMaxHello, std::min(deadline, Now() + kHelloTime));
    if (!hello || hello->kind != kHelloFrame) continue;
    const auto [secret, number] = SplitWords(hello->body);
    const auto found = std::ranges::find(ranks, NumberOf(number));
    if (secret != secret_ || found == ranks.end()) continue;
    links[*found] = std::move(*fd);
    ranks.erase(found);
  }
  return links;
}

Result<sys::Fd> ConnectLink(const std::string& info, const std::vector<std::string>& addresses, int rank,
                            TimePoint deadline) {
  const auto [port, secret] = SplitWords(info);
  if (addresses.empty() || NumberOf(port) < 1 || NumberOf(port) > 65535) {
    return Fail(Code::kDataLoss, "the first node did not say where its front is reached");
  }
  CADRE_ASSIGN(sys::Fd fd,
               sys::ConnectTcp(addresses.front(), static_cast<uint16_t>(NumberOf(port)), deadline));
  CADRE_TRY(sys::SendFrame(fd.get(), kHelloFrame, Format("{} {}", secret, rank), {}, deadline));
  return fd;
}

}  // namespace cadre::deploy
