// Who does not fit, and who is no agent at all.
#include <gmock/gmock.h>

#include <thread>

#include "handoff/agent_testing.h"
#include "handoff/links.h"
#include "sys/sockets.h"

namespace cadre::handoff {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

// The error of a fetch between these two.
std::string ErrorOf(Rig& source, Rig& target) {
  source.Hold("r", 40, 1);
  target.agent().Fetch(target.Order(source, "r", 0, 40));
  const FetchResult result = target.AwaitFetched(seconds(10));
  target.ExpectPools({}, 0, 0, 0);
  return result.status ? "fine" : result.status.error().message;
}

TEST(IdentityTest, MismatchIsNamed) {
  const Shape shape;
  const auto error = [&](Shape other, const std::string& model = "m", int64_t generation = 0) {
    Rig source({.shape = shape, .engine_id = "source"});
    Rig target({.shape = other, .engine_id = "target", .model = model, .generation = generation});
    return ErrorOf(source, target);
  };
  EXPECT_THAT(error(shape, "another"), HasSubstr("the same model"));
  Shape other = shape;
  other.type = DType::kF32;
  EXPECT_THAT(error(other), HasSubstr("element type 'bfloat16', the other 'float32'"));
  other = shape;
  other.num_layers = 2;
  EXPECT_THAT(error(other), HasSubstr("layers '3', the other '2'"));
  other = shape;
  other.num_kv_heads = 2;
  EXPECT_THAT(error(other), HasSubstr("KV heads '4', the other '2'"));
  other = shape;
  other.k_dim = 8;
  EXPECT_THAT(error(other), HasSubstr("key dimension '6', the other '8'"));
  other = shape;
  other.v_dim = 6;
  EXPECT_THAT(error(other), HasSubstr("value dimension '5', the other '6'"));
  other = shape;
  other.latent = true;
  EXPECT_THAT(error(other), HasSubstr("KV heads '4', the other '1'"));
  EXPECT_THAT(error(shape, "m", 3), HasSubstr("weights after 0 updates, the target's weights after 3"));
}

TEST(IdentityTest, NotesThatAreMissing) {
  const auto error = [](int64_t has, int64_t wants) {
    Rig source({.shape = {.note_bytes = has}, .engine_id = "source"});
    Rig target({.shape = {.note_bytes = wants}, .engine_id = "target"});
    return ErrorOf(source, target);
  };
  EXPECT_THAT(error(0, 6),
              HasSubstr("the source does not keep them; give both --enable-return-routed-experts"));
  EXPECT_THAT(error(8, 6), HasSubstr("the source keeps 8 bytes, the target 6"));
}

TEST(IdentityTest, WeightsThatChange) {
  Rig source({.engine_id = "source"}), target({.engine_id = "target"});
  source.Hold("r", 40, 1);
  target.agent().SetWeightGeneration(1);
  target.agent().Fetch(target.Order(source, "r", 0, 40));
  EXPECT_THAT(target.AwaitFetched().status.error().message, HasSubstr("weights after 1"));
  source.agent().SetWeightGeneration(1);
  source.Hold("q", 40, 1);
  target.agent().Fetch(target.Order(source, "q", 0, 40));
  EXPECT_TRUE(target.AwaitFetched().status.has_value());
}

// Whatever the layouts, the first tp rank compares.
TEST(IdentityTest, AnotherAdapter) {
  for (const int32_t tp : {1, 2}) {
    Rig source({.tp_size = tp, .engine_id = "source"}), target({.tp_size = 3 - tp, .engine_id = "target"});
    int salt = 0;
    const auto error = [&](const std::string& has, const std::string& wants, bool push) {
      const std::string id = Format("r{}", ++salt);
      target.Clear();
      if (!push) source.Hold(id, 40, salt, seconds(30), has);
      FetchOrder order = target.Order(source, id, 0, 40, push);
      order.adapter = wants;
      target.agent().Fetch(order);
      if (push) source.Hold(id, 40, salt, seconds(30), has);
      const FetchResult result = target.AwaitFetched();
      if (result.status) {
        target.ExpectPools(order.blocks, salt, 0, 40);
        return std::string("fine");
      }
      target.ExpectPools({}, 0, 0, 0);
      EXPECT_EQ(result.valid_tokens, 0);
      return result.status.error().message;
    };
    for (const bool push : {false, true}) {
      SCOPED_TRACE(Format("tp {} push {}", tp, push));
      EXPECT_EQ(error("'a' (01)", "'a' (01)", push), "fine");
      EXPECT_THAT(error("'a' (01)", "'a' (02)", push),
                  HasSubstr("of LoRA adapter 'a' (01), the target wants those of LoRA adapter 'a' (02)"));
      EXPECT_THAT(error("'a' (01)", "", push),
                  HasSubstr("'a' (01), the target wants those of the model alone"));
      EXPECT_THAT(error("", "'a' (01)", push), HasSubstr("are of the model alone, the target wants"));
    }
  }
}

TEST(IdentityTest, AnotherEngineAtTheAddress) {
  Rig source({.engine_id = "new"}), target({.engine_id = "target"});
  source.Hold("r", 40, 1);
  FetchOrder order = target.Order(source, "r", 0, 40);
  order.source.engine_id = "old";
  target.agent().Fetch(order);
  EXPECT_THAT(target.AwaitFetched().status.error().message, HasSubstr("engine 'new', not 'old'"));
  order.id = FetchId(77);
  order.source.engine_id = "";  // any
  target.agent().Fetch(order);
  EXPECT_TRUE(target.AwaitFetched().status.has_value());
}

TEST(IdentityTest, NotTheFirstTpRank) {
  Rig source({.tp_size = 2, .engine_id = "source"}), target({.engine_id = "target"});
  source.Hold("r", 40, 1);
  FetchOrder order = target.Order(source, "r", 0, 40);
  order.source.port = source.ranks()[1].agent->port();
  target.agent().Fetch(order);
  EXPECT_THAT(target.AwaitFetched().status.error().message, HasSubstr("tp rank 1 of its instance"));
}

TEST(StartTest, NextPortIfTaken) {
  auto taken = sys::ListenTcp("127.0.0.1", 0);
  const uint16_t port = *sys::LocalPort(taken->get());
  const Identity identity = IdentityOf({}, 16, 0, 1);
  auto segment = sys::CreateSegment("t", static_cast<size_t>(identity.layout.PoolBytes(4)), false);
  AgentOptions options = {.identity = identity,
                          .engine_id = "e",
                          .host = "127.0.0.1",
                          .bind_host = "127.0.0.1",
                          .port = port,
                          .num_ports = 1,
                          .kv_fd = segment->fd.get(),
                          .kv = segment->region.data(),
                          .num_blocks = 4};
  EXPECT_THAT(StartAgent(options).error().message, HasSubstr(Format("from {} on", port)));
  options.num_ports = 50;
  const auto agent = StartAgent(options);
  ASSERT_TRUE(agent.has_value()) << agent.error().message;
  EXPECT_GT((*agent)->port(), port);
  options.identity.tp_size = 2;
  options.identity.layout.num_kv_heads = 2;
  EXPECT_THAT(StartAgent(options).error().message, HasSubstr("group key"));
}

// A connection without an agent behind it.
struct Stranger : FrameSink {
  explicit Stranger(Rig& rig)
      : stream(*sys::ConnectTcp("127.0.0.1", rig.agent().port(), Now() + seconds(5)), kMaxBodyBytes) {}
  void Heard(FrameKind kind, std::string body) override { heard.push_back({kind, std::move(body)}); }
  Runs Land(const DataHead&, int64_t bytes) override {
    data.resize(data.size() + static_cast<size_t>(bytes));
    return {{data.data() + data.size() - bytes, static_cast<size_t>(bytes)}};
  }
  // Reads until that many messages have come, or the other side closes.
  bool Await(size_t messages, Duration within = seconds(5)) {
    const TimePoint until = Now() + within;
    while (heard.size() < messages && !stream.broken() && Now() < until) {
      sys::WaitReady(stream.fd(), sys::Ready::kRead, Now() + milliseconds(50));
      stream.Flush();
      stream.Read(*this);
    }
    return heard.size() >= messages;
  }
  bool AwaitClosed() {
    Await(SIZE_MAX);
    return stream.broken();
  }
  void Raw(std::string_view bytes) {
    [[maybe_unused]] const Status sent = sys::SendAll(stream.fd(), std::as_bytes(std::span(bytes)), Now());
  }
  Introduction Hello(const Rig::Options& options) const {
    return {.engine_id = options.engine_id, .identity = IdentityOf(options.shape, 16, 0, options.tp_size)};
  }
  FrameStream stream;
  std::vector<std::pair<FrameKind, std::string>> heard;
  std::vector<char> data;
};

TEST(StrangerTest, GarbageIsClosedAndNothingElse) {
  Rig source({.engine_id = "source"}), target({.engine_id = "target"});
  for (const std::string& bytes : {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("SSH-2.0-scan\r\n"),
                                   std::string(100'000, '\0'), std::string("\x16\x03\x01\x02\x00", 5)}) {
    Stranger stranger(source);
    stranger.Raw(bytes);
    EXPECT_TRUE(stranger.AwaitClosed());
  }
  const auto frame = [](uint32_t kind, uint32_t bytes, std::string_view body) {
    const FrameHead head = {.kind = kind, .bytes = bytes};
    return std::string(reinterpret_cast<const char*>(&head), sizeof(head)).append(body);
  };
  for (const std::string& bytes :
       {frame(kHello, UINT32_MAX, ""), frame(kHello, 3, "abc"), frame(kWant, 0, ""), frame(99, 0, ""),
        frame(kData, 40, std::string(40, 'x')), frame(kData, 4, "abcd"), frame(kOrder, 4, "abcd")}) {
    Stranger stranger(source);
    stranger.Raw(bytes);
    EXPECT_TRUE(stranger.AwaitClosed());
  }
  // Random bytes behind a good introduction.
  for (int i = 0; i < 60; ++i) {
    Stranger stranger(source);
    stranger.stream.Send(kHello, stranger.Hello({.engine_id = "x"}).Encode());
    ASSERT_TRUE(stranger.Await(1));
    EXPECT_EQ(stranger.heard[0].first, kWelcome);
    std::string body;
    const auto length = static_cast<size_t>(UniformAt(1, 2, static_cast<uint64_t>(i)) * 60);
    for (size_t k = 0; k < length; ++k)
      body.push_back(static_cast<char>(UniformAt(3, static_cast<uint64_t>(i), k) * 256));
    stranger.stream.Send(static_cast<FrameKind>(i % 24), body);
    stranger.Await(2, milliseconds(20));
  }
  source.Hold("r", 40, 1);
  target.agent().Fetch(target.Order(source, "r", 0, 40));
  EXPECT_TRUE(target.AwaitFetched().status.has_value());
}

TEST(StrangerTest, AnotherVersionIsTold) {
  Rig source({});
  Stranger stranger(source);
  Introduction hello = stranger.Hello({});
  hello.version = 7;
  stranger.stream.Send(kHello, hello.Encode());
  ASSERT_TRUE(stranger.Await(1));
  EXPECT_EQ(stranger.heard[0].first, kSorry);
  EXPECT_THAT(stranger.heard[0].second, HasSubstr("speaks version 7"));
  EXPECT_TRUE(stranger.AwaitClosed());
}

// Notes are asked for where there are none; heads that nobody has.
TEST(StrangerTest, WantsWhatIsNotHere) {
  Rig source({});
  source.Hold("r", 40, 1);
  Want want = {.stream = 1, .kind = WantKind::kData, .request_id = "r", .end_token = 40, .heads = {0, 4}};
  for (const int wrong : {0, 1, 2}) {
    Stranger stranger(source);
    stranger.stream.Send(kHello, stranger.Hello({}).Encode());
    ASSERT_TRUE(stranger.Await(1));
    Want asked = want;
    asked.notes = wrong == 1;
    asked.heads.end += wrong == 2;
    stranger.stream.Send(kWant, asked.Encode());
    stranger.Await(2, milliseconds(300));
    EXPECT_EQ(stranger.stream.broken(), wrong != 0) << wrong;
    EXPECT_EQ(stranger.data.empty(), wrong != 0) << wrong;
  }
}

// Only tp ranks that know the key give orders.
TEST(StrangerTest, OrdersNeedTheKey) {
  for (const char* key : {"", "guessed", "source secret"}) {
    const Rig::Options options = {.tp_size = 2, .engine_id = "source"};
    Rig source(options);
    const bool right = std::string(key) == "source secret";
    Stranger stranger(source);
    Introduction hello = stranger.Hello(options);
    hello.group_key = key;
    stranger.stream.Send(kHello, hello.Encode());
    ASSERT_TRUE(stranger.Await(1));
    const ShareOrder order = {
        .engine_id = "x", .sources = {{"127.0.0.1", 1}}, .request_id = "r", .end_token = 10, .blocks = {0}};
    stranger.stream.Send(kOrder, order.Encode(5));
    EXPECT_EQ(stranger.Await(2), right);  // its answer: that source cannot be reached
    EXPECT_NE(stranger.stream.broken(), right);
  }
}

// A target that takes nothing cannot keep a lease, and sees no byte that came into the blocks afterwards.
TEST(StrangerTest, StoppedTargetAndReusedBlocks) {
  const Rig::Options options = {.shape = {.num_layers = 8, .num_kv_heads = 4, .k_dim = 128, .v_dim = 128},
                                .num_blocks = 1024,
                                .engine_id = "source"};
  Rig source(options);
  RankRig& rank = source.ranks()[0];
  const auto bytes = static_cast<size_t>(rank.identity.layout.PoolBytes(1024));
  std::memset(rank.segment.region.data(), 0x22, bytes);
  source.Open("r", 16384);
  std::vector<int32_t> blocks(1024);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  source.agent().Blocks("r", blocks);
  for (int32_t layer = 0; layer < 8; ++layer) source.agent().Written("r", layer, 16384);
  Stranger stranger(source);
  stranger.stream.Send(kHello, stranger.Hello(options).Encode());
  ASSERT_TRUE(stranger.Await(1));
  Want want = {.stream = 1, .kind = WantKind::kLease, .request_id = "r", .end_token = 16384};
  stranger.stream.Send(kWant, want.Encode());
  ASSERT_TRUE(stranger.Await(2));
  want.stream = 2;
  want.kind = WantKind::kData;
  want.heads = {0, 4};
  stranger.stream.Send(kWant, want.Encode());
  source.agent().Lease("r", Now() + milliseconds(500));
  EXPECT_EQ(source.AwaitEnded("r", seconds(5)), LeaseEnd::kExpired);
  std::memset(rank.segment.region.data(), 0x33, bytes);  // somebody else's now
  ASSERT_TRUE(stranger.Await(4));
  EXPECT_EQ(stranger.heard[2].first, kRefused);
  EXPECT_EQ(stranger.heard[3].first, kRefused);
  EXPECT_GT(stranger.data.size(), 0u);
  EXPECT_LT(stranger.data.size(), bytes);
  int64_t foreign = 0;
  for (const char c : stranger.data) foreign += c == 0x33;
  EXPECT_EQ(foreign, 0);
}

}  // namespace
}  // namespace cadre::handoff
