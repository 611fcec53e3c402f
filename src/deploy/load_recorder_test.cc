#include "deploy/load_recorder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "deploy/expert_start.h"
#include "eplb/load_record.h"
#include "eplb/placement.h"
#include "model/weights_testing.h"
#include "sys/files.h"

namespace cadre::deploy {
namespace {

using namespace std::chrono_literals;
constexpr size_t kMaxBytes = 1 << 20;

config::EngineOptions Demo() {
  config::EngineOptions options;
  options.model.model = CADRE_SOURCE_DIR "/models/demo";
  options.parallel.data_parallel_size = 2;
  options.parallel.enable_expert_parallel = true;
  options.parallel.enable_eplb = true;
  options.parallel.eplb.num_redundant_experts = 4;
  return options;
}

// One rank that balances nothing, counting for the model of `setup`.
struct Counting {
  explicit Counting(const ModelSetup& setup)
      : weights(static_cast<size_t>(setup.spec.num_moe_layers())),
        experts(static_cast<int32_t>(setup.spec.moe.num_experts)) {
    const auto map = eplb::StartMap(experts, 0, 1, eplb::Placement::kLinear);
    rebalance::RebalanceParts parts{.maps = std::vector<eplb::ExpertMap>(weights.size(), *map)};
    for (nn::MoeWeights& layer : weights) parts.weights.push_back(&layer);
    rebalancer = *rebalance::Rebalancer::Create({.window_size = 50,
                                                 .step_interval = 40,
                                                 .load_model = LoadIdentity(setup),
                                                 .top_k = static_cast<int32_t>(setup.spec.moe.top_k)},
                                                std::move(parts));
  }
  // Expert 1 is the hot one. A report comes with every hundredth step.
  void Steps(int number, uint32_t heat = 100) {
    for (int i = 0; i < number; ++i) {
      ++step;
      const auto counts = rebalancer->slot_counts();
      for (size_t at = 0; at < counts.size(); ++at)
        counts[at] = at % static_cast<size_t>(experts) == 1 ? heat : 1;
      ASSERT_TRUE(rebalancer->AfterStep({.step = step, .had_rows = true}));
    }
  }
  std::vector<nn::MoeWeights> weights;
  int32_t experts;
  int64_t step = 0;
  std::unique_ptr<rebalance::Rebalancer> rebalancer;
};

TEST(LoadRecorder, WhatIsRecordedStartsTheNextServer) {
  const model::test::TempFolder folder;
  const std::string path = folder.path() + "/load.json";
  config::EngineOptions options = Demo();
  const ModelSetup setup = *DescribeModel(options);
  ASSERT_TRUE(CheckRecordFile(path));
  EXPECT_FALSE(sys::FileExists(path));
  Counting counting(setup);
  {
    LoadRecorder recorder(path, *counting.rebalancer, 1h);
    counting.Steps(200);
  }
  const auto record = eplb::ReadLoadRecord(*sys::ReadFile(path, kMaxBytes));
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->load, counting.rebalancer->snapshot().load);
  EXPECT_EQ(record->steps, 50);
  EXPECT_EQ(record->load.Layer(0)[1], 50 * 100);
  options.parallel.eplb.init_file = path;
  const auto maps = StartMaps(options.parallel, setup);
  ASSERT_TRUE(maps) << maps.error().message;
  EXPECT_GT(maps->front().SlotsOf(LogicalExpert(1)).size(), 1u);  // the hot expert has the copies
  // Another model's is refused.
  auto other = *record;
  other.model = "another";
  ASSERT_TRUE(sys::ReplaceFile(path, eplb::WriteLoadRecord(other)));
  const auto refused = StartMaps(options.parallel, setup);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().param, "--eplb-init");
  EXPECT_NE(refused.error().message.find("of the model 'another'"), std::string::npos);
}

TEST(LoadRecorder, AServerWithNothingToDoLeavesTheOldFile) {
  const model::test::TempFolder folder;
  const std::string path = folder.path() + "/load.json";
  ASSERT_TRUE(sys::ReplaceFile(path, "kept"));
  Counting counting(*DescribeModel(Demo()));
  { LoadRecorder recorder(path, *counting.rebalancer, 1ms); }
  EXPECT_EQ(*sys::ReadFile(path, kMaxBytes), "kept");
}

TEST(LoadRecorder, WritesWhileServingAndSurvivesADiskThatFails) {
  const model::test::TempFolder folder;
  const std::string inner = folder.path() + "/inner", path = inner + "/load.json";
  std::filesystem::create_directory(inner);
  Counting counting(*DescribeModel(Demo()));
  LoadRecorder recorder(path, *counting.rebalancer, 1ms);
  const auto hot = [&]() -> int64_t {
    const auto text = sys::ReadFile(path, kMaxBytes);
    if (!text) return -1;
    const auto record = eplb::ReadLoadRecord(*text);  // whole at any time
    EXPECT_TRUE(record) << *text;
    return record ? record->load.Layer(0)[1] : -1;
  };
  const auto wait_for = [&](int64_t count) {
    for (int i = 0; i < 5000 && hot() != count; ++i) std::this_thread::sleep_for(2ms);
    return hot();
  };
  counting.Steps(100);
  EXPECT_EQ(wait_for(50 * 100), 50 * 100);
  std::filesystem::remove_all(inner);
  counting.Steps(100, 7);
  std::this_thread::sleep_for(30ms);  // tries go on
  EXPECT_EQ(hot(), -1);
  std::filesystem::create_directory(inner);
  EXPECT_EQ(wait_for(50 * 7), 50 * 7);
}

TEST(LoadRecorder, AFileThatCannotBeWrittenIsSaidBeforeTheStart) {
  const model::test::TempFolder folder;
  for (const std::string& path : {folder.path() + "/none/load.json", folder.path()}) {
    const Status status = CheckRecordFile(path);
    ASSERT_FALSE(status) << path;
    EXPECT_EQ(status.error().param, "--eplb-record");
    EXPECT_NE(status.error().message.find(path), std::string::npos);
  }
}

}  // namespace
}  // namespace cadre::deploy
