// Promise 2 in f32: the reference library's greedy tokens come out of every layout of ranks.
#include "model/golden_testing.h"
#include "model/registry.h"
#include "multirank/thread_ranks.h"

namespace cadre::test {
namespace {

struct Layout {
  int tp, dp;
  bool ep;
  const char* backend;
  int copies = 0;  // more than 0: --enable-eplb with so many redundant experts
  const char* placement = "linear";
  const char* replica_routing = "hash";
  int64_t step_interval = 3000;  // of rebalances; the first after a quarter
  bool use_async = true;
  std::vector<int> ranks_per_host = {};
};

bool Legal(const model::ModelSpec& spec, const Layout& layout) {
  const auto& a = spec.attention;
  if (a.num_heads % layout.tp != 0) return false;
  return a.kind == nn::AttentionKind::kMla || a.num_kv_heads % layout.tp == 0 ||
         layout.tp % a.num_kv_heads == 0;
}

class GoldenLayouts : public testing::TestWithParam<std::string> {
 protected:
  static bool HasExperts() {
    const auto files = checkpoint::ReadModelFiles(model::test::GoldenModelsFolder() + "/" + GetParam());
    if (!files.has_value() || model::FindFamily(files->config) == nullptr) return true;  // Walk says why
    const auto spec = model::ReadModelSpec(files->config, files->generation_config);
    return !spec.has_value() || spec->moe.num_experts > 0;
  }

  void Walk(const std::vector<Layout>& layouts) {
    const std::string folder = model::test::GoldenModelsFolder() + "/" + GetParam();
    if (GetParam() == "none") GTEST_SKIP() << "no golden models in " << model::test::GoldenModelsFolder();
    const auto files = checkpoint::ReadModelFiles(folder);
    ASSERT_TRUE(files.has_value());
    if (model::FindFamily(files->config) == nullptr)
      GTEST_SKIP() << GetParam() << ": its architecture is not built yet";
    const auto spec = model::ReadModelSpec(files->config, files->generation_config);
    ASSERT_TRUE(spec.has_value());
    const model::test::GoldenFile golden(folder + "/golden.safetensors");
    std::vector<engine::Request> requests;
    std::vector<std::vector<int32_t>> wanted;
    for (int i = 0; i < 3; ++i) {
      const auto golden_case = golden.Case(i);
      wanted.push_back(golden_case.greedy);
      requests.push_back(GreedyRequest(golden_case.prompt, static_cast<int>(golden_case.greedy.size())));
    }
    for (const Layout& layout : layouts) {
      SCOPED_TRACE(Format("tp {} dp {} ep {} {}, {} copies, {}, {}", layout.tp, layout.dp, layout.ep,
                          layout.backend, layout.copies, layout.placement, layout.replica_routing));
      config::EngineOptions options = TestOptions(folder, "float32");
      options.parallel.tensor_parallel_size = layout.tp;
      options.parallel.data_parallel_size = layout.dp;
      options.parallel.enable_expert_parallel = layout.ep;
      options.parallel.expert_placement_strategy = layout.placement;
      options.parallel.enable_eplb = layout.copies > 0;
      options.parallel.eplb.num_redundant_experts = layout.copies;
      options.parallel.eplb.replica_routing = layout.replica_routing;
      options.parallel.eplb.step_interval = layout.step_interval;
      options.parallel.eplb.window_size = 8;
      options.parallel.eplb.use_async = layout.use_async;
      const std::string backend = layout.backend;  // or prefill/decode
      const size_t slash = backend.find('/');
      options.parallel.all2all_backend = backend.substr(0, slash);
      if (slash != std::string::npos) options.parallel.decode_all2all_backend = backend.substr(slash + 1);
      ThreadRanks ranks(options, layout.ranks_per_host);
      if (!Legal(*spec, layout)) {
        EXPECT_EQ(ranks.engine(), nullptr);
        EXPECT_FALSE(ranks.error().message.empty());
        continue;
      }
      ASSERT_NE(ranks.engine(), nullptr) << ranks.error().message;
      EXPECT_EQ(Generate(*ranks.engine(), requests), wanted);
      if (layout.step_interval == 3000) continue;
      EXPECT_EQ(Generate(*ranks.engine(), requests), wanted);  // after rebalances
      const engine::EplbStats eplb = ranks.engine()->Stats().front().eplb;
      EXPECT_GE(eplb.num_rebalances, 1);
      EXPECT_GE(eplb.num_moved, 1);
      EXPECT_EQ(eplb.num_failed_waves, 0);
    }
  }
};

TEST_P(GoldenLayouts, GreedyTokensInEveryLayout) {
  std::vector<Layout> layouts;
  for (const int tp : {1, 2, 4}) {
    for (const int dp : {1, 2, 3, 4}) {
      for (const bool ep : {false, true}) {
        for (const char* backend : {"allgather_reducescatter", "naive"})
          layouts.push_back({tp, dp, ep, backend});
      }
    }
  }
  Walk(layouts);
}

// The other exchanges: rows split over tp and dp, experts whole, and two exchanges in one.
TEST_P(GoldenLayouts, GreedyTokensWithEveryExchange) {
  std::vector<Layout> layouts;
  for (const char* backend : {"pplx", "deepep_high_throughput", "deepep_low_latency", "flashinfer_all2allv",
                              "mori", "deepep_high_throughput/deepep_low_latency"}) {
    layouts.push_back({1, 3, true, backend});
    layouts.push_back({2, 2, true, backend});
  }
  layouts.push_back({1, 2, false, "pplx"});
  layouts.push_back({1, 2, false, "mori"});
  Walk(layouts);
}

// Copies of experts, even and uneven, more than one of an expert on a rank, rows split over tp and dp.
TEST_P(GoldenLayouts, GreedyTokensWithCopiesOfExperts) {
  if (!HasExperts()) GTEST_SKIP() << GetParam() << " has no experts";
  std::vector<Layout> layouts;
  for (const char* backend : {"allgather_reducescatter", "naive", "pplx", "deepep_high_throughput",
                              "deepep_low_latency", "flashinfer_all2allv", "mori"}) {
    layouts.push_back({1, 2, true, backend, 3});
    layouts.push_back({1, 4, true, backend, 5, "round_robin"});
    layouts.push_back({2, 2, true, backend, 2, "linear", "nearest"});
  }
  layouts.push_back({1, 4, true, "allgather_reducescatter", 40});  // several copies of one expert on a rank
  layouts.push_back({4, 1, true, "pplx", 1, "round_robin"});
  Walk(layouts);
}

// Before, during and after rebalances, on one host and on two; 2 steps to the first, then one every 8.
TEST_P(GoldenLayouts, GreedyTokensWhileExpertsMove) {
  if (!HasExperts()) GTEST_SKIP() << GetParam() << " has no experts";
  Layout layout{
      .tp = 1, .dp = 4, .ep = true, .backend = "allgather_reducescatter", .copies = 4, .step_interval = 8};
  std::vector<Layout> layouts = {layout};
  layout.ranks_per_host = {2, 2};
  layouts.push_back(layout);
  layout.use_async = false;
  layouts.push_back(layout);
  layout = {.tp = 2,
            .dp = 2,
            .ep = true,
            .backend = "pplx",
            .copies = 3,
            .placement = "round_robin",
            .replica_routing = "nearest",
            .step_interval = 8};
  layouts.push_back(layout);
  Walk(layouts);
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenLayouts, testing::ValuesIn(model::test::GoldenModelNames()),
                         model::test::TestName);

}  // namespace
}  // namespace cadre::test
