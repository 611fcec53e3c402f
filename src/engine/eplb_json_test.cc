#include "engine/eplb_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/eplb_testing.h"
#include "eplb/load_record.h"

namespace cadre::engine {
namespace {

using testing::HasSubstr;

TEST(EplbJson, SaysWhatTheEngineSays) {
  const EplbState state = SampleEplbState();
  ASSERT_TRUE(state.IsWhole());
  const Json json = EplbStateJson(state);
  const auto text = [&](const char* key) { return json.Find(key)->Dump(); };
  EXPECT_EQ(text("maps"), "[[0,1,2,0],[1,0,2,0]]");
  EXPECT_EQ(text("start_maps"), "[[0,1,2,0],[0,1,2,0]]");
  EXPECT_EQ(text("layer_epochs"), "[1,2]");
  EXPECT_EQ(text("layer_balancedness"), "[0.5,1.0]");
  EXPECT_EQ(text("layout"), R"({"ranks":2,"slots":4,"first_slot":[0,2,4]})");
  EXPECT_EQ(
      text("counters"),
      R"({"rebalances":3,"unchanged":1,"moved_experts":4,"moved_bytes":4096,"moving_seconds":0.5,"failed_waves":1})");
  EXPECT_EQ(json.Find("options")->Find("num_redundant_experts")->AsInt(), 1);
  EXPECT_EQ(json.Find("steps_until_next")->AsInt(), 260);
  const auto record = eplb::ReadLoadRecord(json.Find("load")->Dump());
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_TRUE(eplb::CheckRecord(*record, state.model, 2, 3, 2));
  EXPECT_EQ(record->load.counts, state.load);
}

TEST(EplbJson, ReadsBackWhatPicturesNeed) {
  const EplbState state = SampleEplbState();
  const auto back = ReadEplbState(*Json::Parse(EplbStateJson(state).Dump()));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->slots, state.slots);
  EXPECT_EQ(back->start_slots, state.start_slots);
  EXPECT_EQ(back->load, state.load);
  EXPECT_EQ(back->num_ranks, 2);
  EXPECT_EQ(back->stats.epoch, 2);
}

TEST(EplbJson, BadJsonIsRefusedByMember) {
  const Json good = EplbStateJson(SampleEplbState());
  const auto with = [&](const char* key, const char* value) {
    Json json = good;
    json.Set(key, *Json::Parse(value));
    const auto read = ReadEplbState(json);
    return read ? "accepted" : read.error().param + ": " + read.error().message;
  };
  EXPECT_THAT(with("maps", "[[0,1,2,0]]"), HasSubstr("maps: 'maps' wants 2 lists of 4"));
  EXPECT_THAT(with("maps", "[[0,1,2,0],[0,1,2]]"), HasSubstr("maps: "));
  EXPECT_THAT(with("maps", "[[0,1,2,0],[0,1,2,3]]"), HasSubstr("0 to 2"));
  EXPECT_THAT(with("maps", "[[0,1,2,0],[0,1,2,-1]]"), HasSubstr("maps: "));
  EXPECT_THAT(with("maps", "3"), HasSubstr("maps: "));
  EXPECT_THAT(with("start_maps", "[]"), HasSubstr("start_maps: "));
  EXPECT_THAT(with("layout", R"({"ranks":0,"slots":4})"), HasSubstr("ranks: "));
  EXPECT_THAT(with("layout", R"({"ranks":9,"slots":4})"), HasSubstr("4 slots on 9 ranks"));
  EXPECT_THAT(with("layout", R"({"ranks":1,"slots":2})"), HasSubstr("cannot hold 3 experts"));
  EXPECT_THAT(with("layout", "[]"), HasSubstr("lacks 'ranks'"));
  EXPECT_THAT(with("load", "{}"), HasSubstr("no recorded load"));
  EXPECT_FALSE(ReadEplbState(Json()));
}

TEST(EplbState, IsWholeOnlyWhereSizesAgree) {
  const auto broken = [](auto change) {
    EplbState state = SampleEplbState();
    change(state);
    return !state.IsWhole();
  };
  EXPECT_TRUE(broken([](EplbState& s) { s.slots.pop_back(); }));
  EXPECT_TRUE(broken([](EplbState& s) { s.start_slots.clear(); }));
  EXPECT_TRUE(broken([](EplbState& s) { s.load.push_back(1); }));
  EXPECT_TRUE(broken([](EplbState& s) { s.layer_epochs.clear(); }));
  EXPECT_TRUE(broken([](EplbState& s) { s.slots[3] = 3; }));
  EXPECT_TRUE(broken([](EplbState& s) { s.start_slots[3] = -1; }));
  EXPECT_TRUE(broken([](EplbState& s) { s.num_ranks = 0; }));
  EXPECT_TRUE(LargeEplbState(58, 256).IsWhole());
}

}  // namespace
}  // namespace cadre::engine
