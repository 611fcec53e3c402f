// What goes wrong between two engines: each ends with one result on each side, within its time, and nothing
// is written or kept after it.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>

#include <thread>

#include "handoff/agent_testing.h"
#include "sys/sockets.h"

namespace cadre::handoff {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

void Sleep(int ms) {
  std::this_thread::sleep_for(milliseconds(ms));
}

// An instance in a process of its own, which can be stopped and killed. Made before any thread is.
class ChildSource {
 public:
  enum class Does { kHoldAll, kPushBegins };
  explicit ChildSource(bool near, Does does) {
    auto pair = sys::SocketPair();
    pid_ = fork();
    if (pid_ == 0) {
      Rig rig({.share_memory = near, .engine_id = "source"});
      if (does == Does::kHoldAll) rig.Hold("r", 100, 1);
      if (does == Does::kPushBegins) {
        rig.Open("r", 100);
        rig.Write("r", rig.Table(100, 3), 1, 0, 40);
      }
      const uint16_t port = rig.agent().port();
      [[maybe_unused]] const Status told =
          sys::SendAll(pair->second.get(), std::as_bytes(std::span(&port, 1)), Now() + seconds(5));
      while (true) pause();
    }
    EXPECT_TRUE(
        sys::RecvAll(pair->first.get(), std::as_writable_bytes(std::span(&port_, 1)), Now() + seconds(20))
            .has_value());
  }
  ~ChildSource() {
    Signal(SIGKILL);
    if (pid_ > 0) waitpid(pid_, nullptr, 0);
  }
  void Signal(int number) const {
    if (pid_ <= 0) return;
    kill(pid_, number);
    if (number == SIGSTOP) waitpid(pid_, nullptr, WUNTRACED);  // all of its threads stand
  }
  FetchOrder Order(Rig& target, bool push = false) const {
    FetchOrder order = target.Order(target, "r", 0, 100, push);
    order.source = {"source", "r", "127.0.0.1", port_};
    return order;
  }

 private:
  pid_t pid_ = -1;
  uint16_t port_ = 0;
};

class FailureTest : public testing::TestWithParam<bool> {
 protected:
  Rig::Options Side(const char* engine_id) const {
    return {.share_memory = GetParam(), .engine_id = engine_id};
  }
};
INSTANTIATE_TEST_SUITE_P(Agents, FailureTest, testing::Bool(),
                         [](const auto& near) { return near.param ? "near" : "tcp"; });

TEST_P(FailureTest, UnknownRequestFailsAtOnce) {
  Rig source(Side("source")), target(Side("target"));
  target.agent().Fetch(target.Order(source, "r", 0, 40));
  const FetchResult result = target.AwaitFetched();
  EXPECT_EQ(result.status.error().code, Code::kNotFound);
  EXPECT_THAT(result.status.error().message, HasSubstr("knows no request 'r'"));
  EXPECT_EQ(result.valid_tokens, 0);
  EXPECT_EQ(target.agent().stats().num_failed_fetches, 1);
}

TEST_P(FailureTest, LeaseExpires) {
  Rig source(Side("source")), target(Side("target"));
  const TimePoint start = Now();
  source.Hold("r", 40, 1, milliseconds(200));
  EXPECT_EQ(source.AwaitEnded("r"), LeaseEnd::kExpired);
  EXPECT_GE(Now() - start, milliseconds(199));
  EXPECT_EQ(source.agent().stats().num_expired_leases, 1);
  target.agent().Fetch(target.Order(source, "r", 3, 40));
  const FetchResult result = target.AwaitFetched();
  EXPECT_THAT(result.status.error().message, HasSubstr("lease has expired"));
  EXPECT_EQ(result.valid_tokens, 3);
  // The name is free again.
  source.Hold("r", 40, 2);
  target.agent().Fetch(target.Order(source, "r", 0, 40));
  const FetchResult again = target.AwaitFetched();
  EXPECT_TRUE(again.status.has_value()) << again.status.error().message;
}

TEST_P(FailureTest, TouchProlongs) {
  Rig source(Side("source")), target(Side("target"));
  source.Hold("r", 40, 1, milliseconds(600));
  for (int i = 0; i < 6; ++i) {
    target.agent().Touch(source.Address("r"));
    Sleep(200);
  }
  EXPECT_TRUE(source.agent().TakeEnded().empty());
  target.agent().Fetch(target.Order(source, "r", 0, 40));
  EXPECT_TRUE(target.AwaitFetched().status.has_value());
  EXPECT_EQ(target.agent().stats().num_failed_notifications, 0);
}

TEST_P(FailureTest, Rejected) {
  Rig source(Side("source")), target(Side("target"));
  source.Hold("r", 40, 1);
  target.agent().Reject(source.Address("r"));
  EXPECT_EQ(source.AwaitEnded("r"), LeaseEnd::kRejected);
  // Before its end: it ends when the lease would begin.
  source.Open("q", 40);
  target.agent().Reject(source.Address("q"));
  Sleep(100);
  source.Write("q", source.Table(40, 3), 1, 0, 40);
  source.agent().Lease("q", Now() + seconds(30));
  EXPECT_EQ(source.AwaitEnded("q"), LeaseEnd::kRejected);
  // Before its beginning: both sides were asked at once, and the target has it all.
  target.agent().Reject(source.Address("early"));
  Sleep(100);
  source.Hold("early", 40, 1);
  EXPECT_EQ(source.AwaitEnded("early"), LeaseEnd::kRejected);
  source.Hold("early", 40, 1);  // said once, it counts once
  Sleep(100);
  EXPECT_TRUE(source.agent().TakeEnded().empty());
  SourceAddress nowhere = source.Address("q");
  nowhere.port = 1;
  target.agent().Reject(nowhere);
  for (int i = 0; i < 300 && target.agent().stats().num_failed_notifications == 0; ++i) Sleep(10);
  EXPECT_EQ(target.agent().stats().num_failed_notifications, 1);
}

TEST_P(FailureTest, DroppedWhileATargetWaits) {
  Rig source(Side("source")), target(Side("target"));
  source.Open("r", 100);
  source.Write("r", source.Table(100, 3), 1, 0, 40);
  target.agent().Fetch(target.Order(source, "r", 0, 100, true));
  Sleep(50);
  source.agent().Drop("r", {Code::kCancelled, "its client went away", {}});
  const FetchResult result = target.AwaitFetched();
  EXPECT_THAT(result.status.error().message, HasSubstr("its client went away"));
  EXPECT_EQ(source.AwaitEnded("r"), LeaseEnd::kDropped);
  // One that comes a moment later is told too, though it would wait.
  target.agent().Fetch(target.Order(source, "r", 0, 100, true));
  EXPECT_THAT(target.AwaitFetched().status.error().message, HasSubstr("its client went away"));
}

TEST_P(FailureTest, CancelledAndNothingWrittenLater) {
  Rig source(Side("source")), target(Side("target"));
  source.Open("r", 100);
  const std::vector<int32_t> table = source.Table(100, 3);
  source.Write("r", table, 1, 0, 40);
  const FetchOrder order = target.Order(source, "r", 0, 100, true);
  target.agent().Fetch(order);
  Sleep(50);
  target.agent().CancelFetch(order.id);
  EXPECT_EQ(target.AwaitFetched().status.error().code, Code::kCancelled);
  target.Clear();
  source.Write("r", table, 1, 40, 100);
  source.agent().Lease("r", Now() + seconds(30));
  EXPECT_EQ(source.AwaitEnded("r"), LeaseEnd::kRejected);
  target.ExpectPools({}, 0, 0, 0);
}

// Ends at any moment of a large transfer; blocks given to somebody else then stay theirs.
TEST_P(FailureTest, CancelledInTheMiddle) {
  const Shape shape = {.num_layers = 4, .num_kv_heads = 4, .k_dim = 32, .v_dim = 32};
  Rig::Options side = Side("source");
  side.shape = shape;
  side.num_blocks = 512;
  Rig source(side);
  side.engine_id = "target";
  Rig target(side);
  const int64_t num_tokens = 512 * 16;
  std::vector<int32_t> blocks(512);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  int completed = 0;
  for (int i = 0; i < 25; ++i) {
    const std::string id = Format("r{}", i);
    source.Open(id, num_tokens);
    source.agent().Blocks(id, blocks);
    for (int32_t layer = 0; layer < shape.num_layers; ++layer) source.agent().Written(id, layer, num_tokens);
    source.agent().Lease(id, Now() + seconds(30));
    FetchOrder order = target.Order(source, id, 0, 16);
    order.num_tokens = num_tokens;
    order.blocks = blocks;
    target.agent().Fetch(order);
    std::this_thread::sleep_for(std::chrono::microseconds(i * 100));
    if (i % 2 == 0) target.agent().CancelFetch(order.id);
    if (i % 2 == 1) source.agent().Drop(id, {Code::kCancelled, "gone", {}});
    completed += target.AwaitFetched().status.has_value();
    auto* pool = target.ranks()[0].segment.region.data();
    const auto bytes = static_cast<size_t>(target.ranks()[0].identity.layout.PoolBytes(512));
    std::memset(pool, 0x11, bytes);
    ASSERT_TRUE(source.AwaitEnded(id).has_value());
    ASSERT_EQ(std::memcmp(pool, std::string(bytes, 0x11).data(), bytes), 0) << i;
  }
  EXPECT_LT(completed, 25);
}

// The source's blocks become somebody else's at any moment of a transfer: either the fetch fails, or every
// byte is of the time before.
TEST_P(FailureTest, ForeignBytesAreNeverTaken) {
  Rig::Options side = Side("source");
  side.shape = {.num_layers = 4, .num_kv_heads = 4, .k_dim = 32, .v_dim = 32};
  side.num_blocks = 512;
  Rig source(side);
  side.engine_id = "target";
  Rig target(side);
  std::vector<int32_t> blocks(512);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  const auto bytes = static_cast<size_t>(target.ranks()[0].identity.layout.PoolBytes(512));
  std::byte* pool = source.ranks()[0].segment.region.data();
  int failed = 0;
  for (int i = 0; i < 30; ++i) {
    std::memset(pool, 0x22, bytes);
    const std::string id = Format("r{}", i);
    source.Open(id, 8192);
    source.agent().Blocks(id, blocks);
    for (int32_t layer = 0; layer < 4; ++layer) source.agent().Written(id, layer, 8192);
    source.agent().Lease(id, Now() + seconds(30));
    FetchOrder order = target.Order(source, id, 0, 16);
    order.num_tokens = 8192;
    order.blocks = blocks;
    target.agent().Fetch(order);
    std::this_thread::sleep_for(std::chrono::microseconds(i * 100));
    source.agent().Drop(id, {Code::kCancelled, "gone", {}});
    ASSERT_TRUE(source.AwaitEnded(id).has_value());
    std::memset(pool, 0x33, bytes);
    const FetchResult result = target.AwaitFetched();
    failed += !result.status.has_value();
    if (!result.status) {
      EXPECT_EQ(result.valid_tokens, 0);
      continue;
    }
    const std::byte* got = target.ranks()[0].segment.region.data();
    ASSERT_EQ(std::memcmp(got, std::string(bytes, 0x22).data(), bytes), 0) << i;
  }
  EXPECT_GT(failed, 0);
}

TEST_P(FailureTest, TargetLost) {
  Rig source(Side("source"));
  {
    Rig target(Side("target"));
    source.Open("r", 100);
    source.Write("r", source.Table(100, 3), 1, 0, 40);
    target.agent().Fetch(target.Order(source, "r", 0, 100, true));
    Sleep(100);
  }
  Sleep(50);
  source.Write("r", source.Table(100, 3), 1, 40, 100);
  source.agent().Lease("r", Now() + seconds(30));
  EXPECT_EQ(source.AwaitEnded("r"), LeaseEnd::kTargetLost);
}

TEST_P(FailureTest, NobodyThere) {
  Rig target(Side("target"));
  FetchOrder order = target.Order(target, "r", 0, 40);
  order.source.port = 1;
  target.agent().Fetch(order);
  const FetchResult result = target.AwaitFetched();
  EXPECT_EQ(result.status.error().code, Code::kUnavailable);
  EXPECT_THAT(result.status.error().message, HasSubstr("127.0.0.1:1"));
}

TEST_P(FailureTest, DeadlineOfAPushThatNeverBegins) {
  Rig source(Side("source")), target(Side("target"));
  const TimePoint start = Now();
  target.agent().Fetch(target.Order(source, "r", 0, 40, true, milliseconds(400)));
  const FetchResult result = target.AwaitFetched();
  EXPECT_EQ(result.status.error().code, Code::kDeadlineExceeded);
  EXPECT_THAT(result.status.error().message, HasSubstr("not heard of the request"));
  EXPECT_GE(Now() - start, milliseconds(399));
}

TEST_P(FailureTest, APushOfWhichNothingHasComeInTime) {
  Rig source(Side("source")), target(Side("target"));
  const TimePoint start = Now();
  FetchOrder order = target.Order(source, "r", 0, 40, true);
  order.begun_by = Now() + milliseconds(400);
  target.agent().Fetch(order);
  FetchResult result = target.AwaitFetched();
  EXPECT_EQ(result.status.error().code, Code::kDeadlineExceeded);
  EXPECT_THAT(result.status.error().message, HasSubstr("not heard of the request"));
  EXPECT_GE(Now() - start, milliseconds(399));
  EXPECT_EQ(result.post_seconds, 0);
  // Known, but not begun.
  source.Open("q", 40);
  order = target.Order(source, "q", 0, 40, true);
  order.begun_by = Now() + milliseconds(400);
  target.agent().Fetch(order);
  result = target.AwaitFetched();
  EXPECT_THAT(result.status.error().message, HasSubstr("0 of 40 tokens are here"));
  // One that has begun may take longer.
  source.Open("s", 40);
  source.Write("s", source.Table(40, 3), 1, 0, 32);
  order = target.Order(source, "s", 0, 40, true);
  order.begun_by = Now() + seconds(2);
  target.agent().Fetch(order);
  Sleep(2300);
  source.Write("s", source.Table(40, 3), 1, 32, 40);
  result = target.AwaitFetched();
  EXPECT_TRUE(result.status.has_value()) << result.status.error().message;
  EXPECT_GT(result.post_seconds, 0);
  EXPECT_LT(result.post_seconds, result.seconds);
  EXPECT_EQ(result.num_descriptors, 3 * 3);  // layers, and blocks of 16 tokens
}

TEST_P(FailureTest, SourceKilledDuringAPush) {
  ChildSource source(GetParam(), ChildSource::Does::kPushBegins);
  Rig target(Side("target"));
  const FetchOrder order = source.Order(target, true);
  target.agent().Fetch(order);
  Sleep(1000);  // some questions whether the lease lives
  source.Signal(SIGKILL);
  const FetchResult result = target.AwaitFetched();
  EXPECT_EQ(result.status.error().code, Code::kUnavailable);
  EXPECT_THAT(result.status.error().message, HasSubstr("lost 127.0.0.1"));
  EXPECT_EQ(result.valid_tokens, 32);  // whole panels of the 40 tokens
  target.ExpectPools(order.blocks, 1, 0, 32);
}

TEST_P(FailureTest, SourceKilledAfterAFetch) {
  ChildSource source(GetParam(), ChildSource::Does::kHoldAll);
  Rig target(Side("target"));
  target.agent().Fetch(source.Order(target));
  EXPECT_TRUE(target.AwaitFetched().status.has_value());
  source.Signal(SIGKILL);
  target.agent().Fetch(source.Order(target));
  EXPECT_EQ(target.AwaitFetched().status.error().code, Code::kUnavailable);
}

TEST_P(FailureTest, SourceStopped) {
  ChildSource source(GetParam(), ChildSource::Does::kPushBegins);
  Rig::Options side = Side("target");
  side.silence_timeout = milliseconds(700);
  Rig target(side);
  const FetchOrder order = source.Order(target, true);
  target.agent().Fetch(order);
  Sleep(700);
  source.Signal(SIGSTOP);
  const FetchResult result = target.AwaitFetched();
  EXPECT_EQ(result.status.error().code, Code::kUnavailable);
  EXPECT_THAT(result.status.error().message, HasSubstr("has said nothing for 0.7 s"));
  EXPECT_EQ(result.valid_tokens, 32);
  target.Clear();
  source.Signal(SIGCONT);
  Sleep(200);
  target.ExpectPools({}, 0, 0, 0);
  // It lives again, and the request is still there.
  target.agent().Fetch(target.Order(target, "x", 0, 20));
  EXPECT_EQ(target.AwaitFetched().status.error().code, Code::kNotFound);
}

TEST_P(FailureTest, SourceStoppedBeforeTheFirstContact) {
  ChildSource source(GetParam(), ChildSource::Does::kHoldAll);
  Rig::Options side = Side("target");
  side.connect_timeout = seconds(2);
  Rig target(side);
  source.Signal(SIGSTOP);
  target.agent().Fetch(source.Order(target));
  const FetchResult result = target.AwaitFetched();
  EXPECT_EQ(result.status.error().code, Code::kDeadlineExceeded);
  EXPECT_THAT(result.status.error().message, HasSubstr("does not answer"));
}

TEST_P(FailureTest, OneTargetOnly) {
  Rig source(Side("source")), target(Side("target"));
  source.Open("r", 40);
  source.Write("r", source.Table(40, 3), 1, 0, 40);
  target.agent().Fetch(target.Order(source, "r", 0, 40, true));
  EXPECT_TRUE(target.AwaitFetched().status.has_value());  // valid before the lease begins
  target.agent().Fetch(target.Order(source, "r", 0, 40));
  EXPECT_THAT(target.AwaitFetched().status.error().message, HasSubstr("fetched already"));
  source.agent().Lease("r", Now() + seconds(30));
  EXPECT_EQ(source.AwaitEnded("r"), LeaseEnd::kFetched);
}

TEST_P(FailureTest, MoreThanThereIs) {
  Rig source(Side("source")), target(Side("target"));
  source.Hold("r", 40, 1);
  target.agent().Fetch(target.Order(source, "r", 0, 41));
  FetchResult result = target.AwaitFetched();
  EXPECT_EQ(result.status.error().code, Code::kInvalidArgument);
  EXPECT_THAT(result.status.error().message, HasSubstr("the source has 40"));
  target.ExpectPools({}, 0, 0, 0);
  // A push that turns out shorter.
  source.Open("q", 60);
  target.agent().Fetch(target.Order(source, "q", 0, 60, true));
  Sleep(50);
  source.Write("q", source.Table(60, 3), 1, 0, 50);
  source.agent().Lease("q", Now() + seconds(30));
  result = target.AwaitFetched();
  EXPECT_THAT(result.status.error().message, HasSubstr("the source has 50"));
  // Blocks that are not there.
  FetchOrder order = target.Order(source, "r", 0, 40);
  order.blocks = {1, 40, 2};
  target.Clear();
  target.agent().Fetch(order);
  EXPECT_EQ(target.AwaitFetched().status.error().code, Code::kInvalidArgument);
  target.ExpectPools({}, 0, 0, 0);
}

TEST_P(FailureTest, ATpRankIsGone) {
  Rig::Options side = Side("source");
  side.tp_size = 2;
  Rig source(side);
  side.engine_id = "target";
  Rig target(side);
  source.Hold("r", 40, 1);
  target.ranks()[1].agent.reset();
  target.agent().Fetch(target.Order(source, "r", 0, 40));
  FetchResult result = target.AwaitFetched();
  EXPECT_THAT(result.status.error().message, HasSubstr("another tp rank of this instance"));
  EXPECT_EQ(source.AwaitEnded("r"), LeaseEnd::kRejected);
  source.Hold("q", 40, 1);
  source.ranks()[1].agent.reset();
  Rig single(Side("single"));
  single.agent().Fetch(single.Order(source, "q", 0, 40));
  result = single.AwaitFetched();
  EXPECT_EQ(result.status.error().code, Code::kUnavailable);
  EXPECT_EQ(source.AwaitEnded("q"), LeaseEnd::kRejected);
}

TEST(OpenTest, OneNameOnce) {
  Rig rig({});
  EXPECT_TRUE(rig.agent().Open("r", 10, "").has_value());
  const Status again = rig.agent().Open("r", 10, "");
  EXPECT_EQ(again.error().code, Code::kInvalidArgument);
  rig.agent().Drop("r", {Code::kCancelled, "gone", {}});
  EXPECT_EQ(rig.AwaitEnded("r"), LeaseEnd::kDropped);
  EXPECT_TRUE(rig.agent().Open("r", 10, "").has_value());
}

// The other tp ranks forget a request with tp rank 0, so that a name can be used again.
TEST(OpenTest, AgainOnAllTpRanks) {
  Rig source({.tp_size = 2, .engine_id = "source"}), target({.engine_id = "target"});
  for (int i = 0; i < 5; ++i) {
    source.Hold("r", 40, i);
    target.Clear();
    const FetchOrder order = target.Order(source, "r", 0, 40);
    target.agent().Fetch(order);
    ASSERT_TRUE(target.AwaitFetched().status.has_value());
    target.ExpectPools(order.blocks, i, 0, 40);
    ASSERT_EQ(source.AwaitEnded("r"), LeaseEnd::kFetched);
    for (int k = 0; k < 300 && source.ranks()[1].agent->stats().num_open > 0; ++k) Sleep(10);
    EXPECT_EQ(source.ranks()[1].agent->stats().num_open, 0);
  }
}

}  // namespace
}  // namespace cadre::handoff
