#include <gmock/gmock.h>

#include "handoff/agent_testing.h"
#include "handoff/frames.h"
#include "sys/sockets.h"

namespace cadre::handoff {
namespace {

// Every head of every target rank comes once, from a rank that has it; and all sources of a head take part.
TEST(SlicesTest, CoverEveryHeadOnce) {
  for (const int32_t heads : {1, 2, 4, 8}) {
    for (const int32_t m : {1, 2, 4, 8}) {
      for (const int32_t n : {1, 2, 4, 8}) {
        const Shape shape = {.num_kv_heads = heads};
        std::vector<int> used(static_cast<size_t>(m));
        for (int32_t rank = 0; rank < n; ++rank) {
          const Identity target = IdentityOf(shape, 16, rank, n);
          std::vector<int> got(static_cast<size_t>(target.layout.num_kv_heads));
          for (const Slice& slice : SlicesOf(target, m)) {
            ++used[static_cast<size_t>(slice.source_rank)];
            ASSERT_EQ(slice.source_heads.size(), slice.target_heads.size());
            const Identity source = IdentityOf(shape, 16, slice.source_rank, m);
            ASSERT_LE(slice.source_heads.end, source.layout.num_kv_heads);
            for (int32_t i = 0; i < slice.target_heads.size(); ++i) {
              ++got[static_cast<size_t>(slice.target_heads.begin + i)];
              EXPECT_EQ(HeadsOf(source, slice.source_rank).begin + slice.source_heads.begin + i,
                        HeadsOf(target, rank).begin + slice.target_heads.begin + i);
            }
          }
          EXPECT_THAT(got, testing::Each(1)) << heads << " heads, " << m << " -> " << n << ", rank " << rank;
        }
        if (n >= m) {
          EXPECT_THAT(used, testing::Each(testing::Gt(0))) << heads << ": " << m << " -> " << n;
        }
      }
    }
  }
}

TEST(SlicesTest, LatentRowsComeFromAllSources) {
  const Shape shape = {.latent = true};
  EXPECT_EQ(SlicesOf(IdentityOf(shape, 16, 0, 4), 2), (std::vector<Slice>{{0, {0, 1}, {0, 1}}}));
  EXPECT_EQ(SlicesOf(IdentityOf(shape, 16, 3, 4), 2), (std::vector<Slice>{{1, {0, 1}, {0, 1}}}));
}

TEST(IdentityPartsTest, TravelsAndIsChecked) {
  const Identity identity = IdentityOf({.type = DType::kF32, .note_bytes = 12}, 32, 1, 2);
  const Introduction sent = {.engine_id = "e",
                             .boot_id = "b",
                             .unix_address = "@u",
                             .nonce = "n",
                             .group_key = "k",
                             .num_blocks = 9,
                             .identity = identity};
  const auto got = Introduction::Decode(sent.Encode());
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->Encode(), sent.Encode());
  EXPECT_TRUE(CheckCompatible(identity, got->identity).has_value());
  // Any cut is an error, not a read past the end.
  const std::string whole = sent.Encode();
  for (size_t n = 0; n < whole.size(); ++n) {
    EXPECT_FALSE(Introduction::Decode(whole.substr(0, n)).has_value()) << n;
  }
  for (const int32_t block_size : {0, -16, 8, 24, 1 << 20}) {
    Identity odd = identity;
    odd.layout.block_size = block_size;
    EXPECT_FALSE(CheckIdentity(odd).has_value()) << block_size;
  }
  Identity odd = identity;
  odd.tp_size = 3;
  EXPECT_FALSE(CheckIdentity(odd).has_value());
  for (const int64_t bytes : {int64_t{-1}, int64_t{1} << 40}) {
    odd = identity;
    odd.layout.note_bytes = bytes;
    EXPECT_FALSE(CheckIdentity(odd).has_value()) << bytes;
  }
  odd = identity;
  odd.layout.type = DType::kF16;
  EXPECT_FALSE(CheckIdentity(odd).has_value());
}

// The byte offsets of whole blocks are the layout's: what AppendRuns gives for all of them is all of the pool
// but the padding behind values.
TEST(PanelsTest, AllPanelsAreTheWholePool) {
  for (const int32_t v_dim : {4, 5}) {
    const Identity identity = IdentityOf({.v_dim = v_dim}, 32, 0, 1);
    std::vector<std::byte> memory(static_cast<size_t>(identity.layout.PoolBytes(3)));
    const Pool pool = {identity.layout, memory.data(), 3};
    const int32_t blocks[] = {0, 1, 2};
    Runs runs;
    for (int32_t layer = 0; layer < 3; ++layer) AppendRuns(pool, blocks, {layer, {0, 4}, 0, 96}, runs);
    EXPECT_EQ(BytesOf(runs), int64_t{3} * 4 * 96 * (6 + v_dim) * 2);
    for (const iovec& run : runs) {
      for (size_t i = 0; i < run.iov_len; ++i) {
        auto* at = static_cast<std::byte*>(run.iov_base) + i;
        ASSERT_GE(at, memory.data());
        ASSERT_LT(at, memory.data() + memory.size());
        ASSERT_EQ(*at, std::byte{0});
        *at = std::byte{1};
      }
    }
  }
}

struct Collector : FrameSink {
  void Heard(FrameKind kind, std::string body) override {
    log += Format("{}:{};", static_cast<int>(kind), body.size());
  }
  Runs Land(const DataHead& head, int64_t bytes) override {
    if (head.stream == 9) return {};
    data.resize(static_cast<size_t>(bytes));
    // Two runs of odd lengths.
    const auto half = static_cast<size_t>(bytes / 3);
    Runs runs;
    if (half > 0) runs.push_back({data.data(), half});
    runs.push_back({data.data() + half, data.size() - half});
    return runs;
  }
  void Landed(const DataHead& head) override {
    log += Format("d{}:{};", head.stream, data.size());
    all.insert(all.end(), data.begin(), data.end());
  }
  std::string log;
  std::vector<char> data, all;
};

// Frames arrive whole and in order however their bytes are cut.
TEST(FramesTest, AnyCut) {
  std::vector<char> payload(300'000);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<char>(i * 31 + i / 256);
  for (const size_t size : {size_t{1}, size_t{4000}, payload.size()}) {
    auto pair = sys::SocketPair();
    FrameStream sender(std::move(pair->first), kMaxBodyBytes),
        receiver(std::move(pair->second), kMaxBodyBytes);
    Collector sink;
    sender.Send(kPing, "abc");
    sender.SendData({1, 0, 0, 16}, {{payload.data(), size}});
    sender.SendData({9, 0, 0, 16}, {{payload.data(), size}});  // falls
    sender.SendData({2, 0, 0, 16}, {{payload.data(), size}});
    sender.Send(kPong, "");
    for (int i = 0; i < 1000 && (sender.num_unsent() > 0 || i < 3); ++i) {
      sender.Flush();
      receiver.Read(sink);
    }
    receiver.Read(sink);
    EXPECT_EQ(sink.log,
              Format("{}:3;d1:{};d2:{};{}:0;", static_cast<int>(kPing), size, size, static_cast<int>(kPong)));
    std::vector<char> twice(payload.begin(), payload.begin() + static_cast<ptrdiff_t>(size));
    twice.insert(twice.end(), payload.begin(), payload.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_EQ(sink.all, twice);
  }
}

// After Void nothing of the pool is read, and the receiver stays in step.
TEST(FramesTest, VoidedPieces) {
  std::vector<char> payload(4 << 20, 'p'), other(1000, 'o');
  auto pair = sys::SocketPair();
  FrameStream sender(std::move(pair->first), kMaxBodyBytes), receiver(std::move(pair->second), kMaxBodyBytes);
  Collector sink;
  sender.SendData({1, 0, 0, 16}, {{payload.data(), payload.size()}});  // partly gone
  sender.SendData({1, 0, 0, 16}, {{payload.data(), payload.size()}});
  sender.SendData({2, 0, 0, 16}, {{other.data(), other.size()}});
  ASSERT_GT(sender.num_unsent(), 4 << 20);
  sender.Void(1);
  std::fill(payload.begin(), payload.end(), 'x');
  sender.Send(kRefused, "r");
  for (int i = 0; i < 1000 && sender.num_unsent() > 0; ++i) {
    sender.Flush();
    receiver.Read(sink);
  }
  receiver.Read(sink);
  EXPECT_EQ(sender.num_unsent(), 0);
  EXPECT_EQ(sink.log, Format("d1:{};d2:1000;{}:1;", payload.size(), static_cast<int>(kRefused)));
  EXPECT_EQ(std::ranges::count(sink.all, 'x'), 0);
  EXPECT_GT(std::ranges::count(sink.all, '\0'), 0);
}

// What is abandoned while it comes in touches its place no more.
TEST(FramesTest, AbandonedPiece) {
  std::vector<char> payload(4 << 20, 'p');
  auto pair = sys::SocketPair();
  FrameStream sender(std::move(pair->first), kMaxBodyBytes), receiver(std::move(pair->second), kMaxBodyBytes);
  Collector sink;
  sender.SendData({1, 0, 0, 16}, {{payload.data(), payload.size()}});
  receiver.Read(sink);
  ASSERT_EQ(sink.data.size(), payload.size());
  receiver.Abandon(1);
  std::ranges::fill(sink.data, 'm');
  for (int i = 0; i < 1000 && sender.num_unsent() > 0; ++i) {
    sender.Flush();
    receiver.Read(sink);
  }
  sender.Send(kPing, "");
  receiver.Read(sink);
  EXPECT_EQ(std::ranges::count(sink.data, 'p'), 0);
  EXPECT_EQ(sink.log, Format("{}:0;", static_cast<int>(kPing)));
}

}  // namespace
}  // namespace cadre::handoff
