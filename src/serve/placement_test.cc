// What a router asks of a server.
#include "serve/house_testing.h"

namespace cadre::serve {
namespace {

using testing::HasSubstr;

TEST(Placement, TellsHowKvIsReachedAndNothingWithoutHandOff) {
  House plain;
  EXPECT_EQ(plain.Get("/kv_transfer").body, R"({"enabled":false,"role":"none","push":false,"ranks":[]})");
  FakeEngineOptions options;
  options.model.kv_transfer.enabled = true;
  options.model.kv_transfer.produces = true;
  options.model.kv_transfer.source = {.engine_id = "e", .host = "10.0.0.1", .port = 5601, .tp_size = 2};
  House house(options);
  EXPECT_EQ(house.Get("/kv_transfer").body,
            R"({"enabled":true,"role":"kv_producer","push":true,"ranks":[{"rank":0,"engine_id":"e",)"
            R"("host":"10.0.0.1","port":5601,"tp_size":2}]})");
}

TEST(Placement, TellsWhichPrefixesAreHeld) {
  engine::PrefixQuery asked;
  FakeEngineOptions options;
  options.prefixes = [&](const engine::PrefixQuery& query) -> Result<engine::PrefixChanges> {
    asked = query;
    if (query.rank > 1) return FailParam(Code::kInvalidArgument, "rank", "no such rank");
    return engine::PrefixChanges{.epoch = 0xab,
                                 .version = 9,
                                 .base = 3,
                                 .more = true,
                                 .block_size = 16,
                                 .num_ranks = 2,
                                 .removed = {0xfedcba9876543210},
                                 .added = {1, 2}};
  };
  House house(options);
  EXPECT_EQ(house.Get("/prefix_digest?rank=1&epoch=fedcba9876543210&since=4&base=2&limit=7").body,
            R"({"names":"cadre-1","rank":1,"num_ranks":2,"block_size":16,"prefix_caching":true,)"
            R"("epoch":"00000000000000ab","version":9,"base":3,"reset":false,"more":true,)"
            R"("removed":"fedcba9876543210","added":"00000000000000010000000000000002"})");
  EXPECT_EQ(asked.rank, 1);
  EXPECT_EQ(asked.epoch, 0xfedcba9876543210);
  EXPECT_EQ(asked.since, 4);
  EXPECT_EQ(asked.base, 2);
  EXPECT_EQ(asked.limit, 7);
  house.Get("/prefix_digest?limit=999999999");
  EXPECT_EQ(asked.limit, 1 << 16);
  house.Get("/prefix_digest?limit=0");
  EXPECT_EQ(asked.limit, 1);
  for (const char* bad :
       {"rank=x", "rank=-1", "rank=2", "rank=99999999999", "epoch=xyz", "epoch=11122233344455566", "since=-1",
        "since=1x", "base=99999999999999999999", "limit=+1"}) {
    const auto got = house.Get(std::string("/prefix_digest?") + bad);
    EXPECT_EQ(got.status, 400) << bad;
    EXPECT_THAT(got.body, HasSubstr(std::string(bad).substr(0, std::string(bad).find('=')))) << bad;
  }
  House silent;
  EXPECT_GE(silent.Get("/prefix_digest").status, 400);
}

TEST(Placement, NeedsAKeyWhereThereIsOne) {
  ServeOptions options;
  options.api_keys = {"secret"};
  House house({}, options);
  for (const char* path : {"/kv_transfer", "/prefix_digest"}) {
    EXPECT_EQ(house.Get(path).status, 401) << path;
    EXPECT_NE(house.Get(path, {{"Authorization", "Bearer secret"}}).status, 401) << path;
  }
}

}  // namespace
}  // namespace cadre::serve
