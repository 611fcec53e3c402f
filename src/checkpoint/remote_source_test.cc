#include "checkpoint/remote_source.h"

#include <gtest/gtest.h>

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

#include "checkpoint/remote_offer_testing.h"
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

// Memory that is read here is this process's own; `fails` after so many reads.
class NearMemory : public RemoteMemory {
 public:
  void Attach(const RemoteOffer& offer) override { regions_ = offer.regions(); }
  void Detach() override { regions_.clear(); }
  Status Read(size_t region, uint64_t offset, std::span<std::byte> to, TimePoint deadline,
              const std::function<Status()>& check) override {
    CADRE_TRY(check());
    EXPECT_LT(Now(), deadline);
    if (reads_left-- == 0) return Fail(Code::kUnavailable, "the cable is cut");
    const RemoteRegion& from = regions_.at(region);
    EXPECT_LE(offset + to.size(), from.bytes);
    std::memcpy(to.data(), reinterpret_cast<const std::byte*>(from.address) + offset, to.size());
    return {};
  }
  int reads_left = 1000;

 private:
  std::vector<RemoteRegion> regions_;
};

RemoteMemoryOpener OpenNear(int num_reads = 1000) {
  return [num_reads](const RemoteEnds& ends) -> Result<std::unique_ptr<RemoteMemory>> {
    EXPECT_EQ(ends.here, "127.0.0.1");
    EXPECT_EQ(ends.there, "127.0.0.1");
    EXPECT_EQ(ends.num_lanes, 3);
    auto memory = std::make_unique<NearMemory>();
    memory->reads_left = num_reads;
    return memory;
  };
}

// Two tensors in two places, the second in two pieces.
struct NearFile {
  std::string head = MakeSafetensorsHeader({{.name = "a", .shape = {2, 2}}, {.name = "b", .shape = {3}}});
  std::string first = "0123456789abcdef", second = "..ABCDEFGHIJKL", probe = std::string(kProbeBytes, 'x');
  uint64_t bytes = head.size() + 28;

  test::OfferParts Offer() const {
    const auto region = [](const std::string& text) {
      return RemoteRegion{reinterpret_cast<uint64_t>(text.data()), text.size(), "key"};
    };
    return {.regions = {region(probe), region(first), region(second)},
            .pieces = {{1, 0, 16}, {2, 2, 5}, {2, 7, 7}},
            .probe = probe};
  }
  std::string Answer(const std::string& offer) const {
    return Numbers({9, bytes, head.size()}) + head + Numbers({offer.size()}) + offer;
  }
};
const std::string kReadMemory = "UCX\xff";

TEST(RemoteWeights, ReadsTheSendersMemory) {
  const NearFile file;
  std::array<uint64_t, 3> last = {};
  {
    Script script([&](int fd) {
      Send(fd, kReadMemory);
      Asked(fd);
      Send(fd, file.Answer(file.Offer().Text()));
      last = Asked(fd);
    });
    RemoteOptions options = script.Options();
    options.num_streams = 3;  // of which one is enough: the script takes no other
    options.open_memory = OpenNear();
    const auto remote = RemoteWeights::Connect(options);
    ASSERT_TRUE(remote.has_value()) << remote.error().message;
    const auto source = (*remote)->Receive(Soon());
    ASSERT_TRUE(source.has_value()) << source.error().message;
    const auto read = [&](const char* name, int64_t begin, int64_t bytes) {
      std::string got(static_cast<size_t>(bytes), '\0');
      const Status status = (*source)->Read(*(*source)->Find(name), begin, bytes, got.data());
      return status ? got : status.error().message;
    };
    EXPECT_EQ(read("a", 0, 16), file.first);
    EXPECT_EQ(read("a", 3, 2), "34");
    EXPECT_EQ(read("b", 0, 12), "ABCDEFGHIJKL");
    EXPECT_EQ(read("b", 4, 2), "EF");
    EXPECT_EQ(read("b", 5, 0), "");
    (*remote)->Finish(true);
  }
  EXPECT_EQ(last, (std::array<uint64_t, 3>{3, 9, 1}));
}

TEST(RemoteWeights, MemoryThatCannotBeReadIsRefusedInFrontOfTheFirstRead) {
  const NearFile file;
  test::OfferParts other = file.Offer(), outside = file.Offer();
  other.probe[3] = 'y';
  outside.pieces[1].offset = 10;
  const struct {
    const char* words;
    std::string answer;
    bool in_step = true;  // afterwards, so that the sender can be told
    int num_reads = 1000;
  } cases[] = {
      {"other memory", file.Answer(other.Text())},
      {"does not lie in it", file.Answer(outside.Text())},
      {"the cable is cut", file.Answer(file.Offer().Text()), true, 0},
      {"makes an offer of", Numbers({9, file.bytes, file.head.size()}) + file.head + Numbers({~uint64_t{0}}),
       false},
      {"closed", Numbers({9, file.bytes, file.head.size()}) + file.head + Numbers({1000}) + "short", false},
  };
  for (const auto& [words, answer, in_step, num_reads] : cases) {
    std::array<uint64_t, 3> last = {};
    {
      Script script([&](int fd) {
        Send(fd, kReadMemory);
        Asked(fd);
        Send(fd, answer);
        if (!answer.ends_with("short")) last = Asked(fd);
      });
      RemoteOptions options = script.Options();
      options.num_streams = 3;
      options.open_memory = OpenNear(num_reads);
      const auto remote = RemoteWeights::Connect(options);
      ASSERT_TRUE(remote.has_value()) << remote.error().message;
      const auto source = (*remote)->Receive(Soon());
      ASSERT_FALSE(source.has_value()) << words;
      EXPECT_NE(source.error().message.find(words), std::string::npos) << source.error().message;
      (*remote)->Finish(false);
    }
    EXPECT_EQ(last, (in_step ? std::array<uint64_t, 3>{3, 9, 0} : std::array<uint64_t, 3>{})) << words;
  }
}

// Reads may still succeed when the sender has begun to take its memory back: they do not count.
TEST(RemoteWeights, AReadBehindTheEndOfTheSenderFails) {
  const NearFile file;
  std::atomic<bool> end = false;
  Script script([&](int fd) {
    Send(fd, kReadMemory);
    Asked(fd);
    Send(fd, file.Answer(file.Offer().Text()));
    while (!end) std::this_thread::yield();
    shutdown(fd, SHUT_RDWR);
  });
  RemoteOptions options = script.Options();
  options.num_streams = 3;
  options.open_memory = OpenNear();
  const auto remote = RemoteWeights::Connect(options);
  ASSERT_TRUE(remote.has_value());
  const auto source = (*remote)->Receive(Soon());
  ASSERT_TRUE(source.has_value()) << source.error().message;
  std::string got(4, '\0');
  const TensorInfo& tensor = *(*source)->Find("a");
  EXPECT_TRUE((*source)->Read(tensor, 0, 4, got.data()));
  end = true;
  Status status;
  for (int i = 0; status && i < 1000; ++i) {
    status = (*source)->Read(tensor, 0, 4, got.data());
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kUnavailable);
  EXPECT_NE(status.error().message.find("closed"), std::string::npos);
}

TEST(RemoteWeights, WithoutUcxASenderOfMemoryIsRefusedByName) {
  for (const bool has_opener : {false, true}) {
    Script script([](int fd) { Send(fd, kReadMemory); });
    RemoteOptions options = script.Options();
    if (has_opener) {
      options.open_memory = [](const RemoteEnds&) -> Result<std::unique_ptr<RemoteMemory>> {
        return Fail(Code::kUnsupported, "no libucp here");
      };
    }
    const auto remote = RemoteWeights::Connect(options);
    ASSERT_FALSE(remote.has_value());
    EXPECT_EQ(remote.error().code, Code::kUnsupported);
    EXPECT_NE(remote.error().message.find("over UCX"), std::string::npos) << remote.error().message;
    EXPECT_NE(remote.error().message.find(has_opener ? "no libucp" : "tcp"), std::string::npos);
  }
}

}  // namespace
}  // namespace cadre::checkpoint
