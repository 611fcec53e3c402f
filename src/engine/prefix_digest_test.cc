#include "engine/prefix_digest.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "base/prefix_hash.h"

namespace cadre::engine {
namespace {

// One who follows a digest, as a router does.
struct Follower {
  std::set<uint64_t> held;
  PrefixQuery query;
  int num_resets = 0, num_answers = 0;

  bool HearOne(const PrefixDigest& digest) {
    const PrefixChanges changes = digest.Since(query);
    ++num_answers;
    if (changes.reset) {
      held.clear();
      ++num_resets;
    }
    for (const uint64_t name : changes.removed) held.erase(name);
    held.insert(changes.added.begin(), changes.added.end());
    query.epoch = changes.epoch;
    query.since = changes.version;
    query.base = changes.base;
    EXPECT_LE(static_cast<int64_t>(changes.removed.size() + changes.added.size()), query.limit);
    return changes.more;
  }
  void Hear(const PrefixDigest& digest) {
    while (HearOne(digest)) {
    }
  }
};

TEST(PrefixDigest, TellsChangesOnceAndCountsWhatIsThereTwice) {
  PrefixDigest digest(16, true);
  Follower follower;
  digest.Published(1);
  digest.Published(2);
  digest.Published(2);
  follower.Hear(digest);
  EXPECT_EQ(follower.held, (std::set<uint64_t>{1, 2}));
  digest.Forgotten(2);
  digest.Forgotten(1);
  digest.Published(3);
  follower.Hear(digest);
  EXPECT_EQ(follower.held, (std::set<uint64_t>{2, 3}));
  EXPECT_EQ(follower.num_resets, 1);
  const PrefixChanges none = digest.Since(follower.query);
  EXPECT_TRUE(none.added.empty() && none.removed.empty() && !none.more && !none.reset);
  EXPECT_EQ(none.block_size, 16);
}

TEST(PrefixDigest, AnotherLifeAndTooOldKnowledgeBeginAnew) {
  PrefixDigest first(16, true), second(16, true, 4);
  Follower follower;
  first.Published(1);
  follower.Hear(first);
  second.Published(7);
  follower.Hear(second);  // the rank was started again
  EXPECT_EQ(follower.held, (std::set<uint64_t>{7}));
  EXPECT_EQ(follower.num_resets, 2);
  for (uint64_t name = 10; name < 20; ++name) {
    second.Published(name);
    second.Forgotten(name);
  }
  follower.Hear(second);
  EXPECT_EQ(follower.num_resets, 3);
  EXPECT_EQ(follower.held, (std::set<uint64_t>{7}));
  for (const int64_t since : {int64_t{-1}, int64_t{1} << 60}) {
    follower.query.since = follower.query.base = since;
    follower.Hear(second);
    EXPECT_EQ(follower.held, (std::set<uint64_t>{7}));
  }
}

// However the questions fall between the changes, and however little is remembered: who has heard everything
// holds what is held; a first list comes to its end though names go all the time.
RC_GTEST_PROP(PrefixDigest, AFollowerHoldsWhatIsHeld, ()) {
  PrefixDigest digest(16, true, *rc::gen::inRange<size_t>(1, 12));
  std::multiset<uint64_t> truth;
  Follower follower;
  follower.query.limit = *rc::gen::inRange<int64_t>(1, 6);
  const auto steps = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 40));
  for (const int step : steps) {
    const auto name = static_cast<uint64_t>(step % 12);
    if (step < 24) {
      digest.Published(name);
      truth.insert(name);
    } else if (const auto it = truth.find(name); it != truth.end()) {
      digest.Forgotten(name);
      truth.erase(it);
    }
    if (step % 3 == 0) follower.HearOne(digest);
  }
  follower.Hear(digest);
  RC_ASSERT(follower.held == std::set<uint64_t>(truth.begin(), truth.end()));
}

TEST(PrefixDigest, ALongFirstListEndsThoughMoreWentBeforeThanIsRemembered) {
  PrefixDigest digest(16, true, 16);
  for (uint64_t name = 0; name < 100; ++name) digest.Published(name);
  for (uint64_t name = 1000; name < 1050; ++name) {
    digest.Published(name);
    digest.Forgotten(name);
  }
  Follower follower;
  follower.query.limit = 10;
  uint64_t next = 2000;
  for (int i = 0; i < 40 && follower.HearOne(digest); ++i) {  // one goes with each question
    digest.Published(next);
    digest.Forgotten(next++);
  }
  EXPECT_EQ(follower.held.size(), 100u);
  EXPECT_EQ(follower.num_resets, 1);
}

// The names are those of the pool's whole prefixes, and what cannot be found is not told.
TEST(PrefixDigest, FollowsAPool) {
  kv::BlockPool pool(4, 2);
  PrefixDigest digest(2, true);
  pool.SetListener(&digest);
  const std::vector<int32_t> tokens = {5, 6, 7, 8};
  const uint64_t first = ExtendPrefix(PrefixRoot("salt"), std::span(tokens).first(2));
  const uint64_t second = ExtendPrefix(PrefixRoot("salt"), tokens);
  EXPECT_EQ(second, ExtendPrefix(first, std::span(tokens).subspan(2)));
  EXPECT_NE(second, ExtendPrefix(PrefixRoot(""), tokens));
  const BlockId a = *pool.Allocate(), b = *pool.Allocate();
  const kv::NodeId root = pool.Root("salt");
  const kv::NodeId node = pool.Publish(root, std::span(tokens).first(2), a);
  pool.Publish(node, std::span(tokens).subspan(2), b);
  Follower follower;
  follower.Hear(digest);
  EXPECT_EQ(follower.held, (std::set<uint64_t>{first, second}));
  pool.Release(a);  // the wrong way round: its end outlives it
  pool.Release(b);
  for (int i = 0; i < 3; ++i) pool.Allocate();
  follower.Hear(digest);
  EXPECT_EQ(follower.held, (std::set<uint64_t>{second}));
  EXPECT_EQ(pool.FindPrefix(root, tokens).blocks.size(), 0u);
  // A continuation of what is gone can never be found.
  const BlockId c = *pool.Allocate();
  pool.Publish(node, std::span(tokens).subspan(2), c);
  follower.Hear(digest);
  EXPECT_TRUE(follower.held.empty());
  pool.ForgetAll();
  pool.CheckIntegrity();
  follower.Hear(digest);
  EXPECT_TRUE(follower.held.empty());
}

}  // namespace
}  // namespace cadre::engine
