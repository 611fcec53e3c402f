// The weight path on tiny checkpoints of every family, and what it says about broken ones.
#include <gmock/gmock.h>

#include "checkpoint/safetensors.h"
#include "model/registry.h"
#include "model/tiny.h"
#include "model/weight_map.h"
#include "model/weight_sink.h"
#include "model/weights_testing.h"

namespace cadre::model {
namespace {

using testing::HasSubstr;

class Weights : public testing::Test {
 protected:
  std::string Make(TinyOptions options) {
    const Status written = WriteTinyCheckpoint(folder_.path(), options);
    EXPECT_TRUE(written.has_value()) << written.error().message;
    return folder_.path();
  }
  Error LoadError(const WeightLayout& layout = {}) {
    auto model = LoadModel(folder_.path(), layout, pool_);
    EXPECT_FALSE(model.has_value());
    return model ? Error{} : model.error();
  }

  test::TempFolder folder_;
  sys::ThreadPool pool_{{.num_threads = 3, .cpus = {}, .spin = false}};
};

// Every family, type and layout of the file, mode and layout of ranks.
TEST_F(Weights, EqualTheFileInEveryLayout) {
  for (const Family& family : Families()) {
    for (const DType type : {DType::kBf16, DType::kF16, DType::kF32}) {
      for (const bool fused : {false, true}) {
        test::TempFolder folder;
        TinyOptions options{.family = family.model_type, .type = type, .fused_experts = fused};
        options.num_files = fused ? 3 : 1;
        options.tie_embeddings = type == DType::kF32;
        ASSERT_TRUE(WriteTinyCheckpoint(folder.path(), options).has_value());
        for (const DType mode : {DType::kBf16, DType::kF32}) {
          SCOPED_TRACE(Format("{} {} fused {}", family.model_type, DTypeName(type), fused));
          for (const auto& [tp, dp] : {std::pair(1, 1), {2, 1}, {4, 1}, {1, 3}, {2, 2}}) {
            if (type != DType::kBf16 && dp == 1) continue;  // the cut does not depend on the type
            for (const bool ep : {false, true}) test::CheckAllRanks(folder.path(), tp, dp, ep, mode, pool_);
          }
        }
      }
    }
  }
}

// Sizes that leave remainders everywhere: odd columns, panels that are not full, more ranks than experts.
TEST_F(Weights, OddSizes) {
  for (const char* family : {"qwen3_moe", "qwen2_moe", "mixtral", "deepseek_v3"}) {
    test::TempFolder folder;
    TinyOptions options{.family = family, .extra = Json::Object{{"attention_bias", true}}};
    options.vocab_size = 53;
    options.hidden = 37;
    options.num_heads = 6;
    options.num_kv_heads = 2;
    options.head_dim = 6;
    options.dense_inter = 19;
    options.moe_inter = 35;
    options.num_experts = 4;
    options.q_lora_rank = 9;
    options.kv_lora_rank = 7;
    options.qk_nope_dim = 5;
    options.v_head_dim = 3;
    ASSERT_TRUE(WriteTinyCheckpoint(folder.path(), options).has_value());
    for (const DType mode : {DType::kBf16, DType::kF32}) {
      for (const auto& [tp, dp] : {std::pair(1, 1), {2, 1}, {2, 3}, {6, 1}, {1, 7}}) {
        for (const bool ep : {false, true}) test::CheckAllRanks(folder.path(), tp, dp, ep, mode, pool_);
      }
    }
  }
}

// Big enough that matrices are cut into many tasks, and that columns of a shard are read row by row.
TEST_F(Weights, ManyTasks) {
  TinyOptions options{.family = "qwen3_moe", .type = DType::kF32};
  options.vocab_size = 1100;
  options.hidden = 400;
  options.num_layers = 2;
  options.num_heads = 24;
  options.head_dim = 64;
  options.moe_inter = 1200;
  options.num_experts = 2;
  Make(options);
  test::CheckAllRanks(folder_.path(), 2, 1, false, DType::kBf16, pool_);
}

// A real checkpoint that lies in the tree.
TEST_F(Weights, DemoModel) {
  const std::string folder = CADRE_SOURCE_DIR "/models/demo";
  for (const bool ep : {false, true}) test::CheckAllRanks(folder, 2, 2, ep, DType::kBf16, pool_);
  const auto files = *checkpoint::ReadModelFiles(folder);
  const ModelSpec spec = *ReadModelSpec(files.config, files.generation_config);
  EXPECT_EQ(spec.eos_token_ids, (std::vector<int32_t>{2, 0}));
}

TEST_F(Weights, SlotsMayHoldAnyExpertTwiceOrNone) {
  Make({.family = "qwen3_moe"});
  const WeightLayout layout{.type = DType::kF32,
                            .ep_rank = 1,
                            .ep_size = 2,
                            .enable_ep = true,
                            .slots = {{5, 0, -1, 5}, {1, 2, 3, 4}, {-1, -1, 0, 0}}};
  auto model = LoadModel(folder_.path(), layout, pool_);
  ASSERT_TRUE(model.has_value()) << model.error().message;
  test::WeightChecker(test::PlainCheckpoint(folder_.path()), model->spec, layout)
      .Check(model->weights, "slots");

  WeightLayout wrong = layout;
  wrong.slots[0][0] = 6;
  EXPECT_THAT(LoadError(wrong).message, HasSubstr("expert 6"));
  wrong.slots = {{0}};
  EXPECT_THAT(LoadError(wrong).message, HasSubstr("1 layers"));
}

TEST_F(Weights, PlanIsExact) {
  Make({.family = "deepseek_v3"});
  auto model = LoadModel(folder_.path(), {}, pool_);
  ASSERT_TRUE(model.has_value());
  const WeightPlan& plan = model->plan;
  const auto& parts = plan.parts;
  EXPECT_EQ(parts.embedding + parts.lm_head + parts.attention + parts.feed_forward + parts.shared_experts +
                parts.routers + parts.norms,
            plan.dense_bytes);
  // 2 MoE layers x 6 experts x (2 x 32 x 48 + 48 x 24) bf16.
  EXPECT_EQ(plan.expert_bytes, 2 * 6 * (2 * 32 * 48 + 48 * 24) * 2);
  EXPECT_GE(model->dense.bytes(), static_cast<size_t>(plan.dense_bytes));
}

TEST_F(Weights, HeadsThatDoNotDivideAreRefusedByName) {
  Make({.family = "qwen3_moe", .num_heads = 6});
  const Error heads = LoadError({.tp_rank = 0, .tp_size = 4, .ep_size = 4});
  EXPECT_EQ(heads.message, "num_attention_heads 6 cannot be divided over --tensor-parallel-size 4");
  EXPECT_EQ(heads.param, "tensor-parallel-size");
  const Error kv = LoadError({.tp_rank = 0, .tp_size = 3, .ep_size = 3});
  EXPECT_THAT(kv.message, HasSubstr("num_key_value_heads 2"));
  const Error inter = LoadError({.ep_rank = 0, .ep_size = 25});
  EXPECT_THAT(inter.message, HasSubstr("--enable-expert-parallel"));
}

// A source in memory, with faults on demand.
class MemorySource : public checkpoint::TensorSource {
 public:
  explicit MemorySource(const std::string& folder)
      : file_(*checkpoint::OpenCheckpoint(folder)), infos_(file_->tensors()) {}
  const std::vector<checkpoint::TensorInfo>& tensors() const override { return infos_; }
  const checkpoint::TensorInfo* Find(std::string_view name) const override {
    for (const auto& info : infos_) {
      if (info.name == name) return &info;
    }
    return nullptr;
  }
  std::string FileOf(const checkpoint::TensorInfo&) const override { return "memory"; }
  Status Read(const checkpoint::TensorInfo& tensor, int64_t begin, int64_t num_bytes,
              void* to) const override {
    if (tensor.name == broken) return Fail(Code::kDataLoss, "cannot read {}", tensor.name);
    return file_->Read(tensor, begin, num_bytes, to);
  }
  checkpoint::TensorInfo& Info(const std::string& name) {
    return const_cast<checkpoint::TensorInfo&>(*Find(name));
  }

  std::string broken;

 private:
  std::unique_ptr<checkpoint::TensorSource> file_;
  std::vector<checkpoint::TensorInfo> infos_;
};

struct Prepared {
  ModelSpec spec;
  WeightPlan plan;
  sys::Region dense, experts;
  ModelWeights weights;
};

Prepared Prepare(const std::string& folder, const WeightLayout& layout = {}) {
  Prepared s;
  const auto files = checkpoint::ReadModelFiles(folder);
  s.spec = *ReadModelSpec(files->config, files->generation_config);
  s.plan = *PlanWeights(s.spec, layout);
  s.dense = *sys::AllocateRegion(static_cast<size_t>(s.plan.dense_bytes));
  s.experts = *sys::AllocateRegion(static_cast<size_t>(s.plan.expert_bytes));
  s.weights = PlaceWeights(s.spec, s.plan, s.dense.data(), s.experts.data());
  return s;
}

TEST_F(Weights, MissingTensorIsNamed) {
  Make({.family = "qwen3_moe"});
  Prepared s = Prepare(folder_.path());
  MemorySource source(folder_.path());
  source.Info("model.layers.1.mlp.experts.3.up_proj.weight").name =
      "model.layers.1.mlp.experts.3.other.weight";
  const auto map = MapWeights(s.spec, s.plan, s.weights, source);
  ASSERT_FALSE(map.has_value());
  EXPECT_EQ(map.error().code, Code::kNotFound);
  EXPECT_THAT(map.error().message,
              HasSubstr("'model.layers.1.mlp.experts.3.up_proj.weight' (wanted [24, 48]"));
}

TEST_F(Weights, WrongShapeAndTypeNameFileTensorWantedFound) {
  Make({.family = "qwen3_moe"});
  Prepared s = Prepare(folder_.path());
  const std::string name = "model.layers.2.self_attn.k_proj.weight";
  {
    MemorySource source(folder_.path());
    source.Info(name).shape = {48, 32};
    const auto map = MapWeights(s.spec, s.plan, s.weights, source);
    ASSERT_FALSE(map.has_value());
    EXPECT_EQ(map.error().message,
              "memory: tensor '" + name + "' has shape [48, 32], wanted [32, 48] (from config.json)");
  }
  const std::string router = "model.layers.2.mlp.gate.weight";
  for (const auto& [tensor, type, wanted] :
       {std::tuple(name, DType::kI16, "has type int16; wanted bfloat16, float16 or float32"),
        {name, DType::kF8E4M3, "has type float8_e4m3, but config.json has no quantization_config"},
        {router, DType::kF8E4M3, "has type float8_e4m3; wanted bfloat16, float16 or float32"}}) {
    MemorySource source(folder_.path());
    source.Info(tensor).dtype = type;
    const auto map = MapWeights(s.spec, s.plan, s.weights, source);
    ASSERT_FALSE(map.has_value()) << wanted;
    EXPECT_EQ(map.error().code, Code::kUnsupported);
    EXPECT_THAT(map.error().message, HasSubstr(wanted));
  }
}

TEST_F(Weights, ReadErrorLeavesTheGeneration) {
  Make({.family = "qwen3_moe"});
  Prepared s = Prepare(folder_.path());
  MemorySource source(folder_.path());
  source.broken = "model.layers.1.mlp.gate.weight";
  const auto report = LoadWeights(s.spec, s.plan, source, pool_, {}, s.weights);
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().message, "cannot read model.layers.1.mlp.gate.weight");
  EXPECT_EQ(s.weights.generation, 0);
}

// What a source shows in place and what it reads become the same weights, whole and cut over ranks.
TEST_F(Weights, ViewsAndReadsGiveTheSameWeights) {
  TinyOptions wide{.family = "qwen3_moe"};  // columns of a shard are read row by row
  wide.hidden = 400;
  wide.num_heads = 24;
  wide.head_dim = 128;
  wide.moe_inter = 2400;
  wide.num_experts = 2;
  for (const TinyOptions& options :
       {wide, TinyOptions{.family = "deepseek_v3"}, TinyOptions{.family = "mixtral", .type = DType::kF16},
        TinyOptions{.family = "qwen2_moe", .type = DType::kF32, .fused_experts = true}}) {
    Make(options);
    for (const int tp : {1, 2}) {
      const WeightLayout layout{.tp_rank = tp - 1, .tp_size = tp};
      Prepared shown = Prepare(folder_.path(), layout), read = Prepare(folder_.path(), layout);
      const auto file = *checkpoint::OpenCheckpoint(folder_.path());
      const MemorySource memory(folder_.path());
      ASSERT_TRUE(LoadWeights(shown.spec, shown.plan, *file, pool_, {}, shown.weights).has_value());
      ASSERT_TRUE(LoadWeights(read.spec, read.plan, memory, pool_, {}, read.weights).has_value());
      SCOPED_TRACE(Format("{} over {}", options.family, tp));
      EXPECT_EQ(memcmp(shown.dense.data(), read.dense.data(), shown.dense.bytes()), 0);
      EXPECT_EQ(memcmp(shown.experts.data(), read.experts.data(), shown.experts.bytes()), 0);
    }
  }
}

TEST_F(Weights, AFileThatIsCutWhileItIsReadLeavesTheGeneration) {
  Make({.family = "qwen3_moe"});
  Prepared s = Prepare(folder_.path());
  const auto source = *checkpoint::OpenCheckpoint(folder_.path());
  const auto map = *MapWeights(s.spec, s.plan, s.weights, *source);
  WeightSink sink(map, *source, {});
  WeightSink::Scratch scratch;
  for (int64_t task = 0; task < sink.num_tasks(); ++task) ASSERT_TRUE(sink.Run(task, scratch).has_value());
  const std::string file = folder_.path() + "/model.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  const Status status = sink.Commit(s.weights, 4);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, Code::kDataLoss);
  EXPECT_EQ(s.weights.generation, 0);
}

TEST_F(Weights, CommitWantsAllTasks) {
  Make({.family = "llama"});
  Prepared s = Prepare(folder_.path());
  const auto source = *checkpoint::OpenCheckpoint(folder_.path());
  const auto map = *MapWeights(s.spec, s.plan, s.weights, *source);
  WeightSink sink(map, *source, {});
  WeightSink::Scratch scratch;
  for (int64_t task = 0; task + 1 < sink.num_tasks(); ++task)
    ASSERT_TRUE(sink.Run(task, scratch).has_value());
  EXPECT_FALSE(sink.Commit(s.weights, 4).has_value());
  EXPECT_EQ(s.weights.generation, 0);
  ASSERT_TRUE(sink.Run(sink.num_tasks() - 1, scratch).has_value());
  EXPECT_TRUE(sink.Commit(s.weights, 4).has_value());
  EXPECT_EQ(s.weights.generation, 4);
}

TEST_F(Weights, ArenasAreFilledApart) {
  Make({.family = "qwen3_moe"});
  Prepared s = Prepare(folder_.path());
  const auto source = *checkpoint::OpenCheckpoint(folder_.path());
  const auto is_zero = [](const sys::Region& arena) {
    return std::all_of(arena.data(), arena.data() + arena.bytes(),
                       [](std::byte b) { return b == std::byte{0}; });
  };
  ASSERT_TRUE(LoadWeights(s.spec, s.plan, *source, pool_, {.dense = false}, s.weights).has_value());
  EXPECT_TRUE(is_zero(s.dense));
  EXPECT_FALSE(is_zero(s.experts));
  ASSERT_TRUE(LoadWeights(s.spec, s.plan, *source, pool_, {.experts = false}, s.weights).has_value());
  EXPECT_FALSE(is_zero(s.dense));
}

TEST_F(Weights, LeftOutTensorsAreCounted) {
  // A deeper file under a shallower config: its last layers look like multi-token prediction.
  TinyOptions options{.family = "deepseek_v3"};
  options.num_layers = 4;
  Make(options);
  Json config = MakeTinyConfig(options);
  config.Set("num_hidden_layers", 3);
  config.Set("n_shared_experts", 0);
  test::WriteText(folder_.path() + "/config.json", config.Dump());
  auto model = LoadModel(folder_.path(), {}, pool_);
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(model->report.num_unknown, 2 * 3);  // two layers' shared experts
  EXPECT_GT(model->report.num_future_layers, 18);
}

TEST_F(Weights, ProgressEndsAtTheTotal) {
  Make({.family = "mixtral"});
  int64_t last = -1, total = -1;
  const LoadOptions options{.progress = [&](int64_t done, int64_t all) {
    last = done;
    total = all;
  }};
  auto model = LoadModel(folder_.path(), {}, pool_, options);
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, model->report.source_bytes);
  EXPECT_EQ(total,
            model->spec.num_parameters() * 2 + (2 * 3 + 1) * 48 * 2);  // all of the file: bf16, and 7 norms
}

TEST(Tiny, EqualOptionsGiveEqualBytes) {
  test::TempFolder a, b, c;
  for (const auto* folder : {&a, &b})
    ASSERT_TRUE(WriteTinyCheckpoint(folder->path(), {.seed = 5}).has_value());
  ASSERT_TRUE(WriteTinyCheckpoint(c.path(), {.seed = 6}).has_value());
  const std::string bytes = test::ReadText(a.path() + "/model.safetensors");
  EXPECT_EQ(bytes, test::ReadText(b.path() + "/model.safetensors"));
  EXPECT_NE(bytes, test::ReadText(c.path() + "/model.safetensors"));
}

TEST(Shard, SharesDifferByOneAtMost) {
  for (int64_t total : {0, 1, 5, 48, 97}) {
    for (int64_t parts : {1, 2, 3, 7}) {
      int64_t end = 0;
      for (int64_t i = 0; i < parts; ++i) {
        const Range share = SplitRange(total, parts, i);
        EXPECT_EQ(share.begin, end);
        EXPECT_TRUE(share.size() == total / parts || share.size() == total / parts + 1);
        end = share.end;
      }
      EXPECT_EQ(end, total);
    }
  }
}

}  // namespace
}  // namespace cadre::model
