#include "checkpoint/remote_source.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>
#include <thread>

#include "checkpoint/safetensors.h"
#include "sys/sockets.h"

namespace cadre::checkpoint {
namespace {

TimePoint Soon() {
  return Now() + std::chrono::seconds(5);
}

// A sender of one connection that does as it is told.
class Script {
 public:
  explicit Script(std::function<void(int fd)> play) : listener_(*sys::ListenTcp("127.0.0.1", 0)) {
    port = *sys::LocalPort(listener_.get());
    thread_ = std::thread([this, play = std::move(play)] {
      auto fd = sys::Accept(listener_.get(), Soon());
      if (!fd) return;
      std::array<std::byte, 24> hello;
      if (sys::RecvAll(fd->get(), hello, Soon())) play(fd->get());
    });
  }
  ~Script() { thread_.join(); }
  RemoteOptions Options() const {
    return {.host = "127.0.0.1", .port = port, .receiver = 1, .world_size = 2, .deadline = Soon()};
  }
  int32_t port = 0;

 private:
  sys::Fd listener_;
  std::thread thread_;
};

void Send(int fd, const std::string& bytes) {
  (void)sys::SendAll(fd, std::as_bytes(std::span(bytes)), Soon());
}
std::string Numbers(std::initializer_list<uint64_t> numbers) {
  std::string out;
  for (const uint64_t n : numbers) out.append(reinterpret_cast<const char*>(&n), 8);
  return out;
}
std::array<uint64_t, 3> Asked(int fd) {
  std::array<uint64_t, 3> ask = {};
  (void)sys::RecvAll(fd, std::as_writable_bytes(std::span(ask)), Soon());
  return ask;
}
const std::string kWelcome(4, '\0');

TEST(RemoteWeights, ReadsPartsOfTensors) {
  const std::string head =
      MakeSafetensorsHeader({{.name = "a", .shape = {2, 2}}, {.name = "b", .shape = {3}}});
  std::string file = head;
  for (int i = 0; i < 7 * 4; ++i) file += static_cast<char>(i);
  std::array<uint64_t, 3> last = {};
  {
    Script script([&](int fd) {
      Send(fd, kWelcome);
      Asked(fd);
      Send(fd, Numbers({9, file.size(), head.size()}) + head);
      for (int i = 0; i < 2; ++i) {
        const auto ask = Asked(fd);
        Send(fd, file.substr(ask[1], ask[2]));
      }
      last = Asked(fd);
    });
    const auto remote = RemoteWeights::Connect(script.Options());
    ASSERT_TRUE(remote.has_value()) << remote.error().message;
    const auto source = (*remote)->Receive(Soon());
    ASSERT_TRUE(source.has_value()) << source.error().message;
    EXPECT_EQ((*source)->tensors().size(), 2u);
    EXPECT_EQ((*source)->Find("c"), nullptr);
    std::string got(4, '\0');
    ASSERT_TRUE((*source)->Read(*(*source)->Find("a"), 8, 4, got.data()));
    EXPECT_EQ(got, std::string("\x08\x09\x0a\x0b"));
    ASSERT_TRUE((*source)->Read(*(*source)->Find("b"), 0, 4, got.data()));
    EXPECT_EQ(got, std::string("\x10\x11\x12\x13"));
    (*remote)->Finish(true);
  }
  EXPECT_EQ(last, (std::array<uint64_t, 3>{3, 9, 1}));
}

TEST(RemoteWeights, NamesTheReasonOfARefusal) {
  Script script([](int fd) { Send(fd, std::string("\x04\0\0\0nope", 8)); });
  const auto remote = RemoteWeights::Connect(script.Options());
  ASSERT_FALSE(remote.has_value());
  EXPECT_EQ(remote.error().code, Code::kInvalidArgument);
  EXPECT_NE(remote.error().message.find("nope"), std::string::npos);
}

TEST(RemoteWeights, WhatIsNoSenderIsAnError) {
  const uint64_t huge = ~uint64_t{0};
  const std::string cases[] = {
      "",                                                       // hangs up
      Numbers({0, 0, 0}),                                       // nothing new
      Numbers({1, 100, 4}),                                     // a head without its length
      Numbers({1, 8, 100}),                                     // longer than the file
      Numbers({1, huge, huge}),                                 // longer than any
      Numbers({1, 100, 16}) + Numbers({9}) + "{}      ",        // a length that is not the head's
      Numbers({1, 100, 16}) + Numbers({8}) + "no json!",        //
      Numbers({1, 100, 16}) + Numbers({8}) + "{}",              // breaks off
      Numbers({1, huge / 2, 16}) + Numbers({8}) + "{}      "};  // a file past what can be
  for (const std::string& answer : cases) {
    Script script([&](int fd) {
      Send(fd, kWelcome);
      Asked(fd);
      Send(fd, answer);
    });
    const auto remote = RemoteWeights::Connect(script.Options());
    ASSERT_TRUE(remote.has_value()) << remote.error().message;
    EXPECT_FALSE((*remote)->Receive(Now() + std::chrono::seconds(1)).has_value()) << answer;
  }
  Script script([](int fd) { Send(fd, "\xff\xff\xff\x7fHTTP/1.1 400"); });
  EXPECT_EQ(RemoteWeights::Connect(script.Options()).error().code, Code::kDataLoss);
}

}  // namespace
}  // namespace cadre::checkpoint
