// How fast a checkpoint in the page cache becomes packed weights, beside the plain copy of the same bytes.
// One layer of Qwen3-30B-A3B's shapes with 32 experts: about 0.6 GB in the system's temporary folder.
#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "checkpoint/safetensors.h"
#include "model/loader.h"
#include "model/registry.h"
#include "model/tiny.h"

namespace cadre::model {
namespace {

using checkpoint::TensorInfo;

TinyOptions BenchShape() {
  TinyOptions options{.family = "qwen3_moe"};
  options.vocab_size = 32000;
  options.hidden = 2048;
  options.num_layers = 1;
  options.num_heads = 32;
  options.num_kv_heads = 4;
  options.head_dim = 128;
  options.moe_inter = 768;
  options.num_experts = 32;
  options.top_k = 8;
  return options;
}

std::vector<TensorInfo> BenchTensors(const TinyOptions& o) {
  std::vector<TensorInfo> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    tensors.push_back({.name = name, .dtype = DType::kBf16, .shape = std::move(shape)});
  };
  const int64_t h = o.hidden, q = o.num_heads * o.head_dim, kv = o.num_kv_heads * o.head_dim, i = o.moe_inter;
  const std::string at = "model.layers.0.";
  add("model.embed_tokens.weight", {o.vocab_size, h});
  add("lm_head.weight", {o.vocab_size, h});
  add("model.norm.weight", {h});
  add(at + "input_layernorm.weight", {h});
  add(at + "post_attention_layernorm.weight", {h});
  add(at + "self_attn.q_proj.weight", {q, h});
  add(at + "self_attn.k_proj.weight", {kv, h});
  add(at + "self_attn.v_proj.weight", {kv, h});
  add(at + "self_attn.o_proj.weight", {h, q});
  add(at + "self_attn.q_norm.weight", {o.head_dim});
  add(at + "self_attn.k_norm.weight", {o.head_dim});
  add(at + "mlp.gate.weight", {o.num_experts, h});
  for (int e = 0; e < o.num_experts; ++e) {
    const std::string expert = at + "mlp.experts." + std::to_string(e) + ".";
    add(expert + "gate_proj.weight", {i, h});
    add(expert + "up_proj.weight", {i, h});
    add(expert + "down_proj.weight", {h, i});
  }
  return tensors;
}

// Written once a run of the program, removed at its end.
class BenchFolder {
 public:
  BenchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cadre_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
    const TinyOptions options = BenchShape();
    std::ofstream(path_ + "/config.json") << MakeTinyConfig(options).Dump();
    const auto tensors = BenchTensors(options);
    std::ofstream file(path_ + "/model.safetensors", std::ios::binary);
    file << checkpoint::MakeSafetensorsHeader(tensors);
    std::string noise(1 << 20, '\0');
    for (size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>(i % 2 ? 0x3c : i * 37);
    for (const TensorInfo& tensor : tensors) {
      int64_t left = 2;
      for (const int64_t extent : tensor.shape) left *= extent;
      for (; left > 0; left -= static_cast<int64_t>(noise.size())) {
        file.write(noise.data(), std::min(left, static_cast<int64_t>(noise.size())));
      }
    }
  }
  ~BenchFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

const BenchFolder& Folder() {
  static const BenchFolder folder;
  return folder;
}

// Into memory that has been touched, as an update of running ranks is.
void BM_Load(benchmark::State& state) {
  sys::ThreadPool pool({.num_threads = static_cast<int>(state.range(0)), .cpus = {}, .spin = false});
  const WeightLayout layout{.type = state.range(1) == 0 ? DType::kBf16 : DType::kF32};
  const auto source = *checkpoint::OpenCheckpoint(Folder().path());
  const auto files = *checkpoint::ReadModelFiles(Folder().path());
  const ModelSpec spec = *ReadModelSpec(files.config, files.generation_config);
  const WeightPlan plan = *PlanWeights(spec, layout);
  const sys::Region dense = *sys::AllocateRegion(static_cast<size_t>(plan.dense_bytes), {.pool = &pool}),
                    experts = *sys::AllocateRegion(static_cast<size_t>(plan.expert_bytes), {.pool = &pool});
  ModelWeights weights = PlaceWeights(spec, plan, dense.data(), experts.data());
  int64_t bytes = 0;
  for (auto _ : state) bytes += LoadWeights(spec, plan, *source, pool, {}, weights)->source_bytes;
  state.SetBytesProcessed(bytes);
}
BENCHMARK(BM_Load)
    ->ArgNames({"threads", "f32"})
    ->ArgsProduct({{1, 2}, {0, 1}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// The floor: the same bytes through the same small buffers into place, unpacked.
void BM_PlainCopy(benchmark::State& state) {
  sys::ThreadPool pool({.num_threads = static_cast<int>(state.range(0)), .cpus = {}, .spin = false});
  const auto source = *checkpoint::OpenCheckpoint(Folder().path());
  const sys::Region arena = *sys::AllocateRegion(static_cast<size_t>(int64_t{1} << 30));
  constexpr int64_t kChunk = 512 << 10;
  std::vector<std::vector<std::byte>> buffers(2, std::vector<std::byte>(kChunk));
  int64_t bytes = 0;
  for (auto _ : state) {
    int64_t at = 0;
    for (const TensorInfo& tensor : source->tensors()) {
      const int64_t chunks = (tensor.num_bytes + kChunk - 1) / kChunk;
      pool.ForEach(chunks, [&](int64_t c, int worker) {
        auto& buffer = buffers[static_cast<size_t>(worker)];
        const int64_t n = std::min(kChunk, tensor.num_bytes - c * kChunk);
        if (!source->Read(tensor, c * kChunk, n, buffer.data())) state.SkipWithError("read");
        std::memcpy(arena.data() + at + c * kChunk, buffer.data(), static_cast<size_t>(n));
      });
      at += tensor.num_bytes;
    }
    bytes += at;
  }
  state.SetBytesProcessed(bytes);
}
BENCHMARK(BM_PlainCopy)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

// A parallel copy out of the page cache straight into memory that has been touched.
void BM_DirectCopy(benchmark::State& state) {
  sys::ThreadPool pool({.num_threads = static_cast<int>(state.range(0)), .cpus = {}, .spin = false});
  const auto source = *checkpoint::OpenCheckpoint(Folder().path());
  const sys::Region arena = *sys::AllocateRegion(static_cast<size_t>(int64_t{1} << 30), {.pool = &pool});
  constexpr int64_t kChunk = 4 << 20;
  std::vector<std::pair<const TensorInfo*, int64_t>> chunks;
  for (const TensorInfo& tensor : source->tensors())
    for (int64_t at = 0; at < tensor.num_bytes; at += kChunk) chunks.emplace_back(&tensor, at);
  int64_t bytes = 0;
  for (auto _ : state) {
    pool.ForEach(std::ssize(chunks), [&](int64_t c, int) {
      const auto& [tensor, at] = chunks[static_cast<size_t>(c)];
      if (!source->Read(*tensor, at, std::min(kChunk, tensor->num_bytes - at),
                        arena.data() + tensor->offset + at))
        state.SkipWithError("read");
    });
    for (const TensorInfo& tensor : source->tensors()) bytes += tensor.num_bytes;
  }
  state.SetBytesProcessed(bytes);
}
BENCHMARK(BM_DirectCopy)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace cadre::model
