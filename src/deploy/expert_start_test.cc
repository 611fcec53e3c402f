#include "deploy/expert_start.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "deploy/rank_links.h"
#include "eplb/load_record.h"
#include "group/join.h"
#include "model/tiny.h"
#include "model/weights_testing.h"

namespace cadre::deploy {
namespace {

using testing::HasSubstr;
using Ints = std::vector<int32_t>;

config::EngineOptions Demo(int dp, int copies) {
  config::EngineOptions options;
  options.model.model = CADRE_SOURCE_DIR "/models/demo";
  options.parallel.data_parallel_size = dp;
  options.parallel.enable_expert_parallel = true;
  options.parallel.enable_eplb = true;
  options.parallel.eplb.num_redundant_experts = copies;
  return options;
}

std::string ErrorOf(const config::EngineOptions& options) {
  const auto setup = DescribeModel(options);
  return setup ? "none" : setup.error().param + ": " + setup.error().message;
}

// A load of the demo model in which expert e of layer l was chosen (e + l) mod 32 == 0 ? often : rarely.
eplb::LoadRecord RecordOf(const ModelSetup& setup) {
  eplb::LoadRecord record{
      .model = LoadIdentity(setup),
      .top_k = static_cast<int32_t>(setup.spec.moe.top_k),
      .steps = 100,
      .load = eplb::LoadTable(setup.spec.num_moe_layers(), static_cast<int32_t>(setup.spec.moe.num_experts))};
  for (int32_t layer = 0; layer < record.load.num_layers; ++layer) {
    const auto counts = record.load.Layer(layer);
    for (size_t e = 0; e < counts.size(); ++e)
      counts[e] =
          (e + static_cast<size_t>(layer)) % counts.size() == 0 ? 1500 : 100 + static_cast<int64_t>(e);
  }
  return record;
}

uint64_t SharedHash(const config::EngineOptions& options, const ModelSetup& setup) {
  return group::ConfigHash(SharedConfig(options, setup));
}

class ExpertStart : public testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const std::string path = folder_.path() + "/load.json";
    std::ofstream(path) << text;
    return path;
  }
  model::test::TempFolder folder_;
};

TEST_F(ExpertStart, CopiesLieWhereTheStrategySays) {
  config::EngineOptions options = Demo(4, 3);  // 32 experts and 3 copies: 9 9 9 8 slots
  auto setup = DescribeModel(options);
  ASSERT_TRUE(setup) << setup.error().message;
  ASSERT_EQ(setup->expert_maps.size(), 6u);
  const auto on = [&](int32_t rank) {
    const auto experts = setup->expert_maps[5].ExpertsOn(rank);
    return Ints(experts.begin(), experts.end());
  };
  EXPECT_EQ(on(0), (Ints{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(on(3), (Ints{27, 28, 29, 30, 31, 0, 1, 2}));
  EXPECT_THAT(EplbNotes(options.parallel, *setup),
              testing::ElementsAre("EPLB: 32 experts and 3 copies in each of 6 layers over 4 ranks",
                                   "EPLB: 35 slots do not divide over 4 ranks: 3 with 9, 1 with 8; "
                                   "num_redundant_experts 0 or 4 would be even"));
  options.parallel.expert_placement_strategy = "round_robin";
  setup = DescribeModel(options);
  EXPECT_EQ(on(0), (Ints{0, 4, 8, 12, 16, 20, 24, 28, 0}));
  EXPECT_EQ(on(3), (Ints{3, 7, 11, 15, 19, 23, 27, 31}));

  options = Demo(1, 3);  // one rank: no copies
  setup = DescribeModel(options);
  EXPECT_EQ(setup->expert_maps[0].layout().num_slots, 32);
  EXPECT_TRUE(EplbNotes(options.parallel, *setup).empty());
  options = Demo(2, 0);
  options.parallel.enable_eplb = options.parallel.enable_expert_parallel = false;
  EXPECT_TRUE(DescribeModel(options)->expert_maps[0].layout().sharded);
}

TEST_F(ExpertStart, ARecordedLoadIsBalancedFromTheStart) {
  config::EngineOptions options = Demo(4, 4);
  const auto plain = DescribeModel(options);
  ASSERT_TRUE(plain);
  const eplb::LoadRecord record = RecordOf(*plain);
  options.parallel.eplb.init_file = Write(eplb::WriteLoadRecord(record));
  const auto setup = DescribeModel(options);
  ASSERT_TRUE(setup) << setup.error().message;
  EXPECT_LT(eplb::BalanceOf(plain->expert_maps, record.load).balancedness(), 0.65);
  EXPECT_GT(eplb::BalanceOf(setup->expert_maps, record.load).balancedness(), 0.9);
  // Hosts that were given different files find out when they join.
  EXPECT_NE(HashMaps(setup->expert_maps), HashMaps(plain->expert_maps));
  EXPECT_NE(SharedHash(options, *setup), SharedHash(options, *plain));
  EXPECT_EQ(SharedHash(options, *setup), SharedHash(options, *DescribeModel(options)));
}

TEST_F(ExpertStart, BadRecordsAreNamed) {
  config::EngineOptions options = Demo(2, 0);
  eplb::LoadRecord record = RecordOf(*DescribeModel(options));
  options.parallel.eplb.init_file = folder_.path() + "/none.json";
  EXPECT_THAT(ErrorOf(options), HasSubstr("--eplb-init: --eplb-init " + *options.parallel.eplb.init_file));
  options.parallel.eplb.init_file = Write("{\"a\":");
  EXPECT_THAT(ErrorOf(options), HasSubstr("load.json: "));
  options.parallel.eplb.init_file = Write("{}");
  EXPECT_THAT(ErrorOf(options), HasSubstr("no recorded load"));
  record.model = "Other (config.json 0)";
  options.parallel.eplb.init_file = Write(eplb::WriteLoadRecord(record));
  EXPECT_THAT(ErrorOf(options),
              HasSubstr("is of the model 'Other (config.json 0)', not of 'Qwen3MoeForCausalLM"));
  record.load = eplb::LoadTable(58, 256);
  options.parallel.eplb.init_file = Write(eplb::WriteLoadRecord(record));
  EXPECT_THAT(ErrorOf(options),
              HasSubstr("is of 58 MoE layers with 256 experts, 4 a token; the model has 6"));
}

TEST_F(ExpertStart, ADenseModelIsRefusedByName) {
  ASSERT_TRUE(model::WriteTinyCheckpoint(folder_.path(), {.family = "qwen3"}));
  config::EngineOptions options = Demo(2, 0);
  options.model.model = folder_.path();
  EXPECT_EQ(
      ErrorOf(options),
      "--enable-eplb: --enable-eplb balances experts, and Qwen3ForCausalLM has none; leave the flag out");
  options.parallel.enable_eplb = false;
  EXPECT_TRUE(DescribeModel(options)->expert_maps.empty());
}

// A difference between hosts in any of these is found when they join.
TEST_F(ExpertStart, HostsCompareTheBalancersSettings) {
  const config::EngineOptions base = Demo(2, 2);
  const auto setup = DescribeModel(base);
  ASSERT_TRUE(setup);
  const auto shared = SharedHash(base, *setup);
  const auto differs = [&](auto change) {
    config::EngineOptions other = base;
    change(other.parallel);
    return SharedHash(other, *setup) != shared;
  };
  EXPECT_FALSE(differs([](auto&) {}));
  EXPECT_TRUE(differs([](auto& p) { p.enable_eplb = false; }));
  EXPECT_TRUE(differs([](auto& p) { p.eplb.window_size = 5; }));
  EXPECT_TRUE(differs([](auto& p) { p.eplb.step_interval = 5; }));
  EXPECT_TRUE(differs([](auto& p) { p.eplb.num_redundant_experts = 4; }));
  EXPECT_TRUE(differs([](auto& p) { p.eplb.log_balancedness = true; }));
  EXPECT_TRUE(differs([](auto& p) { p.eplb.log_balancedness_interval = 7; }));
  EXPECT_TRUE(differs([](auto& p) { p.eplb.use_async = false; }));
  EXPECT_TRUE(differs([](auto& p) { p.eplb.policy = "other"; }));
  EXPECT_TRUE(differs([](auto& p) { p.eplb.replica_routing = "nearest"; }));
}

}  // namespace
}  // namespace cadre::deploy
