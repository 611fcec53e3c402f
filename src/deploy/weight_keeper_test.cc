#include "deploy/weight_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "fabric/ranks_testing.h"
#include "model/adapter_testing.h"
#include "model/tiny.h"

namespace cadre::deploy {
namespace {

using engine::WeightOrder;
using testing::HasSubstr;

// A source whose reads fail after some bytes: a disk that breaks.
class Breaking : public checkpoint::TensorSource {
 public:
  Breaking(std::unique_ptr<TensorSource> inner, int64_t bytes) : inner_(std::move(inner)), left_(bytes) {}
  const std::vector<checkpoint::TensorInfo>& tensors() const override { return inner_->tensors(); }
  const checkpoint::TensorInfo* Find(std::string_view name) const override { return inner_->Find(name); }
  std::string FileOf(const checkpoint::TensorInfo& tensor) const override { return inner_->FileOf(tensor); }
  Status Read(const checkpoint::TensorInfo& tensor, int64_t begin, int64_t num_bytes,
              void* to) const override {
    if ((left_ -= num_bytes) < 0) return Fail(Code::kDataLoss, "the disk is broken");
    return inner_->Read(tensor, begin, num_bytes, to);
  }

 private:
  std::unique_ptr<TensorSource> inner_;
  mutable std::atomic<int64_t> left_;
};

// Folders with the same shapes and other weights; "broken" is a name for the first one through Breaking.
class WeightKeeperTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::temp_directory_path() / ("cadre_keeper_" + std::to_string(getpid()));
    for (const uint64_t seed : {1, 2}) {
      std::filesystem::create_directories(Folder(seed));
      ASSERT_TRUE(model::WriteTinyCheckpoint(Folder(seed), {.seed = seed}).has_value());
    }
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  std::string Folder(uint64_t seed) const { return root_ / std::to_string(seed); }

  struct Rank {
    model::LoadedModel model;
    std::unique_ptr<WeightKeeper> keeper;
    std::string Bytes() const {
      std::string all(reinterpret_cast<const char*>(model.dense.data()),
                      static_cast<size_t>(model.plan.dense_bytes));
      return all.append(reinterpret_cast<const char*>(model.experts.data()),
                        static_cast<size_t>(model.plan.expert_bytes));
    }
  };
  Rank Make(const model::WeightLayout& layout, a2a::Collective* collective, bool copy, int64_t break_after) {
    Rank rank;
    auto loaded = model::LoadModel(Folder(1), layout, pool_);
    EXPECT_TRUE(loaded.has_value());
    rank.model = std::move(*loaded);
    WeightKeeperParts parts{
        .plan = rank.model.plan, .pool = &pool_, .collective = collective, .start_folder = Folder(1)};
    parts.rank = layout.ep_rank;
    parts.open =
        [this, break_after](const std::string& folder) -> Result<std::unique_ptr<checkpoint::TensorSource>> {
      if (!folder.ends_with("broken")) return checkpoint::OpenCheckpoint(folder);
      CADRE_ASSIGN(auto source, checkpoint::OpenCheckpoint(Folder(2)));
      return std::make_unique<Breaking>(std::move(source), break_after);
    };
    if (copy) parts.copied = {rank.model.dense.span(), rank.model.experts.span()};
    parts_ = std::move(parts);
    return rank;
  }
  // The keeper points into the model, which has its place by now.
  void Keep(Rank& rank) {
    parts_.spec = &rank.model.spec;
    parts_.weights = &rank.model.weights;
    rank.keeper = *WeightKeeper::Create(std::move(parts_));
  }

  std::filesystem::path root_;
  sys::ThreadPool pool_{{.num_threads = 1}};
  WeightKeeperParts parts_;
};

std::string BytesOf(const std::string& folder, const model::WeightLayout& layout) {
  sys::ThreadPool pool({.num_threads = 1});
  const auto model = model::LoadModel(folder, layout, pool);
  std::string all(reinterpret_cast<const char*>(model->dense.data()),
                  static_cast<size_t>(model->plan.dense_bytes));
  return all.append(reinterpret_cast<const char*>(model->experts.data()),
                    static_cast<size_t>(model->plan.expert_bytes));
}

TEST_F(WeightKeeperTest, AnUpdateLeavesWhatAFreshLoadWould) {
  Rank rank = Make({}, nullptr, false, 0);
  Keep(rank);
  const auto done = rank.keeper->CarryOut({.folder = Folder(2)});
  ASSERT_TRUE(done.has_value() && done->status.has_value());
  EXPECT_TRUE(done->new_weights);
  EXPECT_EQ(done->generation, 2);
  EXPECT_EQ(rank.model.weights.generation, 2);
  EXPECT_EQ(rank.Bytes(), BytesOf(Folder(2), {}));
  ASSERT_TRUE(rank.keeper->CarryOut({.kind = WeightOrder::Kind::kReload})->status.has_value());
  EXPECT_EQ(rank.Bytes(), BytesOf(Folder(1), {}));
}

TEST_F(WeightKeeperTest, WhatDoesNotFitTouchesNothing) {
  Rank rank = Make({}, nullptr, false, 0);
  Keep(rank);
  const std::string before = rank.Bytes();
  const std::string wide = root_ / "wide";
  std::filesystem::create_directories(wide);
  ASSERT_TRUE(model::WriteTinyCheckpoint(wide, {.num_experts = 7}).has_value());
  for (const WeightOrder& order : {WeightOrder{.folder = wide},
                                   WeightOrder{.folder = root_ / "none"},
                                   {.kind = WeightOrder::Kind::kReceive}}) {
    const auto done = rank.keeper->CarryOut(order);
    ASSERT_TRUE(done.has_value());
    EXPECT_FALSE(done->status.has_value());
    EXPECT_FALSE(done->new_weights || done->broken);
    EXPECT_EQ(rank.Bytes(), before);
  }
}

// Wherever the reads break off, the old weights come back: from the folder or from the copy.
TEST_F(WeightKeeperTest, AFailureInTheMiddleGoesBack) {
  for (const bool copy : {false, true}) {
    for (const int64_t after : {0, 1000, 20000, 60000}) {
      Rank rank = Make({}, nullptr, copy, after);
      Keep(rank);
      const std::string before = rank.Bytes();
      const auto done = rank.keeper->CarryOut({.folder = "broken"});
      ASSERT_TRUE(done.has_value() && !done->status.has_value());
      EXPECT_THAT(done->status.error().message, HasSubstr("the disk is broken"));
      EXPECT_FALSE(done->broken || done->new_weights);
      EXPECT_EQ(rank.Bytes(), before) << copy << " " << after;
      EXPECT_EQ(rank.model.weights.generation, 1);
    }
  }
}

TEST_F(WeightKeeperTest, BrokenWeightsSayItAndTheNextUpdateMendsThem) {
  Rank rank = Make({}, nullptr, false, 1000);
  Keep(rank);
  std::filesystem::rename(Folder(1), Folder(3));  // the last folder is gone
  auto done = rank.keeper->CarryOut({.folder = "broken"});
  EXPECT_TRUE(done->broken);
  EXPECT_EQ(done->status.error().code, Code::kUnavailable);
  EXPECT_THAT(done->status.error().message, HasSubstr("/update_weights"));
  // A failure in front of the first byte changes nothing about it.
  done = rank.keeper->CarryOut({.folder = root_ / "none"});
  EXPECT_FALSE(done->broken || done->new_weights);
  // Nor is a second broken read less of a failure, but the folder is back by now.
  std::filesystem::rename(Folder(3), Folder(1));
  done = rank.keeper->CarryOut({.folder = "broken"});
  EXPECT_FALSE(done->status.has_value());
  EXPECT_TRUE(done->new_weights && !done->broken);
  EXPECT_EQ(rank.Bytes(), BytesOf(Folder(1), {}));
  done = rank.keeper->CarryOut({.folder = Folder(2)});
  EXPECT_TRUE(done->status.has_value());
  EXPECT_EQ(rank.Bytes(), BytesOf(Folder(2), {}));
}

// One rank of two whose disk breaks: both go back, and both hear why.
TEST_F(WeightKeeperTest, RanksChangeTogetherOrNotAtAll) {
  const auto layout = [](int rank) {
    return model::WeightLayout{.ep_rank = rank, .ep_size = 2, .enable_ep = true};
  };
  fabric::RunThreads(2, [&](fabric::Rendezvous& rendezvous) {
    const int r = rendezvous.rank();
    const auto collective = *a2a::Collective::Create({.name = "weights", .rendezvous = &rendezvous});
    sys::ThreadPool pool({.num_threads = 1});
    auto model = *model::LoadModel(Folder(1), layout(r), pool);
    const auto open = [&](const std::string& folder) -> Result<std::unique_ptr<checkpoint::TensorSource>> {
      CADRE_ASSIGN(auto source, checkpoint::OpenCheckpoint(folder.ends_with("broken") ? Folder(2) : folder));
      if (!folder.ends_with("broken") || r == 0) return source;
      return std::make_unique<Breaking>(std::move(source), 5000);
    };
    const auto keeper = *WeightKeeper::Create({.spec = &model.spec,
                                               .plan = model.plan,
                                               .weights = &model.weights,
                                               .pool = &pool,
                                               .collective = collective.get(),
                                               .start_folder = Folder(1),
                                               .rank = r,
                                               .open = open});
    const auto bytes = [&] {
      return std::string(reinterpret_cast<const char*>(model.experts.data()),
                         static_cast<size_t>(model.plan.expert_bytes));
    };
    const auto fresh = [&](uint64_t seed) {
      const auto other = *model::LoadModel(Folder(seed), layout(r), pool);
      return std::string(reinterpret_cast<const char*>(other.experts.data()),
                         static_cast<size_t>(other.plan.expert_bytes));
    };
    auto done = keeper->CarryOut({.folder = Folder(2)});
    EXPECT_TRUE(done->status.has_value());
    EXPECT_EQ(bytes(), fresh(2));
    done = keeper->CarryOut({.kind = WeightOrder::Kind::kReload});
    EXPECT_EQ(bytes(), fresh(1));
    done = keeper->CarryOut({.folder = "broken"});
    EXPECT_FALSE(done->status.has_value());
    EXPECT_THAT(done->status.error().message, HasSubstr("rank 1: the disk is broken"));
    EXPECT_EQ(bytes(), fresh(1));
    EXPECT_EQ(done->generation, 3);
  });
}

// Both ranks have each adapter or neither has; slots and versions are the same on both.
TEST_F(WeightKeeperTest, AdaptersComeAndGoOnAllRanks) {
  std::mt19937 rng(5);
  model::test::TestAdapter adapter;
  for (const char* kind : {"q_proj", "k_proj"})
    adapter.AddPair(std::string("model.layers.1.self_attn.") + kind, *kind == 'q' ? 64 : 32, 48, 4, rng);
  adapter.Write(root_ / "a");
  adapter.Write(root_ / "only1");
  adapter.config.Set("use_dora", true);
  adapter.Write(root_ / "dora");
  const auto loads = [&](const std::string& name, const std::string& folder, bool in_place = false) {
    return WeightOrder{.kind = WeightOrder::Kind::kLoadAdapter,
                       .folder = root_ / folder,
                       .name = name,
                       .in_place = in_place};
  };
  fabric::RunThreads(2, [&](fabric::Rendezvous& rendezvous) {
    const int r = rendezvous.rank();
    const auto collective = *a2a::Collective::Create({.name = "weights", .rendezvous = &rendezvous});
    sys::ThreadPool pool({.num_threads = 1});
    auto model = *model::LoadModel(Folder(1), {.ep_rank = r, .ep_size = 2, .enable_ep = true}, pool);
    AdapterKeeper adapters(model.spec, model.plan, {.max_adapters = 2, .max_rank = 8});
    const auto keeper = *WeightKeeper::Create({.spec = &model.spec,
                                               .plan = model.plan,
                                               .weights = &model.weights,
                                               .pool = &pool,
                                               .collective = collective.get(),
                                               .start_folder = Folder(1),
                                               .adapters = &adapters,
                                               .rank = r});
    const auto tell = [&](const WeightOrder& order) { return *keeper->CarryOut(order); };
    auto done = tell(loads("x", "a"));
    ASSERT_TRUE(done.status.has_value()) << done.status.error().message;
    const uint64_t digest = done.loaded->digest;
    EXPECT_NE(digest, 0u);
    EXPECT_EQ(*done.loaded, (engine::AdapterInfo{"x", root_ / "a", 0, 1, digest}));
    EXPECT_FALSE(done.new_weights);
    EXPECT_EQ(done.generation, 1);
    EXPECT_GT(done.bytes, 0);
    EXPECT_THAT(tell(loads("x", "a")).status.error().message, HasSubstr("has already been loaded"));
    EXPECT_EQ(tell(loads("x", "a", true)).loaded->version, 2);
    EXPECT_THAT(tell(loads("y", "dora")).status.error().message, HasSubstr("use_dora"));
    EXPECT_EQ(tell(loads("y", "none")).status.error().code, Code::kNotFound);
    done = tell(loads("y", "a"));
    EXPECT_EQ(done.loaded->slot, 1);
    EXPECT_EQ(done.loaded->digest, digest);
    EXPECT_THAT(tell(loads("z", "a")).status.error().message, HasSubstr("--max-cpu-loras"));
    EXPECT_EQ(tell({.kind = WeightOrder::Kind::kUnloadAdapter, .name = "x"}).unloaded->slot, 0);
    EXPECT_EQ(adapters.slots()[0], nullptr);
    EXPECT_EQ(tell({.kind = WeightOrder::Kind::kUnloadAdapter, .name = "x"}).status.error().message,
              "The lora adapter 'x' cannot be found.");
    EXPECT_EQ(tell(loads("z", "a")).loaded->slot, 0);
    // A rank that cannot read it: nobody has it.
    rendezvous.ExchangeBlobs("before", {}, "", Now() + std::chrono::seconds(20)).value();
    WeightOrder order = loads("y", "only1", true);
    if (r == 1) {
      std::filesystem::remove_all(root_ / "only1");
      AdapterKeeper probe(model.spec, model.plan, {.max_adapters = 2, .max_rank = 8});
      EXPECT_FALSE(probe.Prepare(order).has_value());
    }
    done = tell(order);
    EXPECT_FALSE(done.status.has_value());
    EXPECT_EQ(adapters.list().Find("y")->version, 3);
    EXPECT_EQ(tell({.folder = Folder(2)}).generation, 2);  // the model's own weights do not touch them
    EXPECT_EQ(adapters.list().adapters.size(), 2u);
  });
}

TEST_F(WeightKeeperTest, WithoutTheFlagThereAreNoAdapters) {
  Rank rank = Make({}, nullptr, false, 0);
  Keep(rank);
  const auto done =
      rank.keeper->CarryOut({.kind = WeightOrder::Kind::kLoadAdapter, .folder = "/a", .name = "a"});
  EXPECT_THAT(done->status.error().message, HasSubstr("--enable-lora"));
}

}  // namespace
}  // namespace cadre::deploy
