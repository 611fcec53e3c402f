#include "engine/runner.h"

#include <algorithm>

#include "base/check.h"

namespace cadre::engine {
namespace {

// Logits of more rows are computed in turns, so that a prompt whose log probabilities are wanted does not
// need [prompt, vocab] floats at once.
constexpr int64_t kLogitBytes = 64 << 20;

// What stands where a step's phase does when the bytes are an order.
constexpr char kOrderMark = '\x7f';

// While min_tokens is not reached, what would end the sequence must not be drawn.
std::vector<int32_t> ForbiddenTokens(const Sequence& sequence) {
  const SamplingParams& sampling = sequence.request.sampling;
  if (sequence.num_generated() >= sampling.min_tokens) return {};
  std::vector<int32_t> forbidden = sampling.stop_token_ids;
  forbidden.insert(forbidden.end(), sampling.eos_token_ids.begin(), sampling.eos_token_ids.end());
  return forbidden;
}

}  // namespace

Runner::Runner(model::Decoder& decoder, RunnerOptions options)
    : decoder_(decoder),
      options_(options),
      rows_per_chunk_(std::clamp<int64_t>(
          kLogitBytes / (options.vocab_size * static_cast<int64_t>(sizeof(float))), 1, 256)),
      scratch_(static_cast<size_t>(options.device.pool->num_threads())) {}

void Runner::BeginStep(Duration timeout) {
  const TimePoint deadline = timeout == Duration::max() ? TimePoint::max() : Now() + timeout;
  if (options_.exchange != nullptr) options_.exchange->BeginStep(step_, deadline);
  if (options_.tensor_parallel != nullptr) options_.tensor_parallel->BeginStep(step_, deadline);
}

nn::StepContext Runner::ContextFor(const Batch& batch) {
  step_adapters_.clear();
  for (const Batch::AdapterUse& use : batch.adapters()) {
    const auto slot = static_cast<size_t>(use.slot);
    CADRE_CHECK(options_.adapters != nullptr && slot < options_.adapters->size());
    const nn::Adapter* const adapter = (*options_.adapters)[slot];
    CADRE_CHECK(adapter != nullptr);  // its sequences ended when it was unloaded
    step_adapters_.push_back({.adapter = adapter, .rows = use.rows});
  }
  // Each layer's keys and values can go on their way while the next layer is computed.
  std::function<void(int32_t)> on_layer_written;
  if (options_.agent != nullptr && !batch.sources().empty()) {
    on_layer_written = [this, &batch](int32_t layer) {
      for (const Batch::Source& source : batch.sources()) {
        const auto& sequence = batch.View().sequences[static_cast<size_t>(source.sequence)];
        options_.agent->Written(source.id, layer, sequence.kv_len);
      }
    };
  }
  return {.device = options_.device,
          .batch = batch.View(),
          .kv = options_.kv,
          .adapters = step_adapters_,
          .exchange = options_.exchange,
          .expert_maps = rebalancer_ == nullptr
                             ? std::span<const eplb::ExpertMap* const>(options_.expert_maps)
                             : rebalancer_->maps(),
          .slot_counts = rebalancer_ == nullptr ? nullptr : rebalancer_->slot_counts().data(),
          .simulated_routing = options_.simulated_routing,
          .step = step_,
          .tensor_parallel = options_.tensor_parallel,
          .on_layer_written = std::move(on_layer_written)};
}

void Runner::TellBlocks(const Batch& batch) const {
  if (options_.agent == nullptr) return;
  const int64_t block_size = options_.kv.layout.block_size;
  for (const Batch::Source& source : batch.sources()) {
    const auto& sequence = batch.View().sequences[static_cast<size_t>(source.sequence)];
    const bool more = kv::BlocksFor(sequence.kv_len, block_size) >
                      kv::BlocksFor(sequence.kv_len - sequence.q_len, block_size);
    if (more || source.first) options_.agent->Blocks(source.id, batch.BlocksOf(source));
  }
}

Result<std::vector<StepOutput>> Runner::Run(std::span<const ScheduledSequence> plan, a2a::Phase phase) {
  ++step_;
  step_start_ = Now();
  had_rows_ = !plan.empty();
  if (options_.exchange != nullptr) options_.exchange->SetPhase(phase);
  BeginStep(options_.step_timeout);
  const Batch batch(plan, options_.kv.layout.block_size);
  if (options_.tensor_parallel != nullptr) {
    std::string bytes = batch.Serialize();
    bytes.push_back(static_cast<char>(phase));
    CADRE_TRY(options_.tensor_parallel->Broadcast(0, bytes));
  }
  TellBlocks(batch);
  const nn::StepContext context = ContextFor(batch);
  CADRE_TRY(decoder_.Forward(context));
  CADRE_TRY(EndForward(batch));

  std::vector<StepOutput> outputs(plan.size());
  const std::vector<LogitUse> uses = UsesOf(plan, outputs);
  CADRE_CHECK(uses.size() == batch.logit_rows().size());
  const auto width = static_cast<size_t>(options_.vocab_size);
  CADRE_TRY(ForEachLogitChunk(batch, context, [&](size_t first, size_t count) {
    options_.device.pool->ForEach(static_cast<int64_t>(count), [&](int64_t i, int worker) {
      const auto row = static_cast<size_t>(i);
      Use(uses[first + row], std::span<const float>(logits_).subspan(row * width, width),
          scratch_[static_cast<size_t>(worker)]);
    });
  }));
  step_end_ = Now();
  return outputs;
}

Status Runner::EndStep() {
  if (rebalancer_ == nullptr) return {};
  return rebalancer_->AfterStep({.step = step_,
                                 .had_rows = had_rows_,
                                 .busy = step_end_ - step_start_,
                                 .deadline = Now() + options_.step_timeout});
}

Result<bool> Runner::Follow() {
  ++step_;
  BeginStep(Duration::max());  // between two requests there may lie a night
  std::string bytes;
  CADRE_TRY(options_.tensor_parallel->Broadcast(0, bytes));
  if (bytes.empty()) return false;
  if (bytes.back() == kOrderMark) {
    bytes.pop_back();
    CADRE_ASSIGN(const WeightOrder order, WeightOrder::FromText(bytes));
    CADRE_CHECK(keeper_ != nullptr);  // whoever sends orders has one, and so have all
    CADRE_ASSIGN(const WeightKeeper::Outcome outcome, keeper_->CarryOut(order));
    if (options_.agent != nullptr) options_.agent->SetWeightGeneration(outcome.generation);
    return true;
  }
  if (options_.exchange != nullptr) options_.exchange->SetPhase(static_cast<a2a::Phase>(bytes.back()));
  bytes.pop_back();
  step_start_ = Now();
  BeginStep(options_.step_timeout);
  const Batch batch = Batch::Deserialize(bytes, options_.kv.layout.block_size);
  had_rows_ = batch.View().num_tokens() > 0;
  TellBlocks(batch);
  const nn::StepContext context = ContextFor(batch);
  CADRE_TRY(decoder_.Forward(context));
  CADRE_TRY(EndForward(batch));
  CADRE_TRY(ForEachLogitChunk(batch, context, [](size_t, size_t) {}));
  step_end_ = Now();
  CADRE_TRY(EndStep());
  return true;
}

// Each rank of a replica has noted its own share of the rows; afterwards all have all.
Status Runner::ShareRoutedExperts(const Batch& batch) {
  a2a::Collective* const tp = options_.tensor_parallel;
  const nn::StepBatch rows = batch.View();
  if (tp == nullptr || rows.num_tokens() == 0) return {};
  const int64_t width = NoteWidth(), row_bytes = options_.kv.layout.note_bytes;
  const auto place = [&](int64_t row) {
    return options_.kv.notes() + rows.kv_slots[static_cast<size_t>(row)] * width;
  };
  std::vector<uint16_t> all(static_cast<size_t>(rows.num_tokens() * width));
  std::vector<int64_t> sizes;
  for (int r = 0; r < tp->size(); ++r)
    sizes.push_back(a2a::SplitRows(rows.num_tokens(), tp->size(), r).count * row_bytes);
  const a2a::RowRange own = a2a::SplitRows(rows.num_tokens(), tp->size(), tp->rank());
  for (int64_t row = own.begin; row < own.begin + own.count; ++row)
    std::copy_n(place(row), width, all.data() + row * width);
  CADRE_TRY(tp->AllGather(all.data() + own.begin * width, sizes, all.data()));
  for (int64_t row = 0; row < rows.num_tokens(); ++row)
    std::copy_n(all.data() + row * width, width, place(row));
  return {};
}

// What is only known of a token when all layers have had it.
Status Runner::EndForward(const Batch& batch) {
  if (options_.kv.notes() == nullptr) return {};
  CADRE_TRY(ShareRoutedExperts(batch));
  if (options_.agent == nullptr) return {};
  for (const Batch::Source& source : batch.sources()) {
    const auto& sequence = batch.View().sequences[static_cast<size_t>(source.sequence)];
    options_.agent->Written(source.id, options_.kv.layout.num_layers, sequence.kv_len);
  }
  return {};
}

RoutedExperts Runner::RoutedOf(const Sequence& sequence, int64_t start) const {
  if (options_.kv.notes() == nullptr) return {};
  const auto layers = static_cast<int64_t>(options_.expert_maps.size());
  const int64_t width = NoteWidth(), block_size = options_.kv.layout.block_size;
  RoutedExperts routed{.start = std::min(start, sequence.num_computed),
                       .num_layers = static_cast<int32_t>(layers),
                       .top_k = static_cast<int32_t>(width / layers)};
  for (int64_t t = routed.start; t < sequence.num_computed; ++t) {
    const int64_t block = sequence.block_table[static_cast<size_t>(t / block_size)];
    const uint16_t* row = options_.kv.notes() + (block * block_size + t % block_size) * width;
    routed.experts.insert(routed.experts.end(), row, row + width);
  }
  return routed;
}

Status Runner::SendOrder(const WeightOrder& order) {
  if (options_.tensor_parallel == nullptr) return {};
  ++step_;
  BeginStep(options_.step_timeout);
  std::string bytes = order.ToText() + kOrderMark;
  return options_.tensor_parallel->Broadcast(0, bytes);
}

Status Runner::ReleaseFollowers() {
  if (options_.tensor_parallel == nullptr) return {};
  BeginStep(options_.step_timeout);
  std::string nothing;
  return options_.tensor_parallel->Broadcast(0, nothing);
}

Status Runner::ForEachLogitChunk(const Batch& batch, const nn::StepContext& context,
                                 const std::function<void(size_t, size_t)>& use) {
  const auto rows = batch.logit_rows();
  for (size_t first = 0; first < rows.size(); first += static_cast<size_t>(rows_per_chunk_)) {
    const size_t count = std::min(rows.size() - first, static_cast<size_t>(rows_per_chunk_));
    logits_.resize(std::max(logits_.size(), count * static_cast<size_t>(options_.vocab_size)));
    CADRE_TRY(decoder_.Logits(context, rows.subspan(first, count), logits_.data()));
    use(first, count);
  }
  return {};
}

// In the order of Batch's logits rows.
std::vector<Runner::LogitUse> Runner::UsesOf(std::span<const ScheduledSequence> plan,
                                             std::vector<StepOutput>& outputs) const {
  std::vector<LogitUse> uses;
  for (size_t i = 0; i < plan.size(); ++i) {
    Sequence& sequence = *plan[i].sequence;
    outputs[i].sequence = &sequence;
    if (sequence.wants_prompt_logprobs()) {
      sequence.prompt_logprobs.resize(static_cast<size_t>(sequence.num_prompt()));
      const int64_t end = std::min(sequence.num_computed + plan[i].num_tokens, sequence.num_prompt() - 1);
      for (int64_t position = sequence.num_computed; position < end; ++position) {
        uses.push_back({.scheduled = &plan[i], .prompt_position = position + 1});
      }
    }
    if (plan[i].completes()) uses.push_back({.scheduled = &plan[i], .output = &outputs[i]});
  }
  return uses;
}

void Runner::Use(const LogitUse& use, std::span<const float> logits, nn::SamplerScratch& scratch) const {
  Sequence& sequence = *use.scheduled->sequence;
  const SamplingParams& sampling = sequence.request.sampling;
  if (use.output == nullptr) {
    const auto position = static_cast<size_t>(use.prompt_position);
    sequence.prompt_logprobs[position] = nn::ComputeLogprobs(
        options_.device, logits, sequence.tokens[position], *sampling.prompt_logprobs, scratch);
    return;
  }
  const std::vector<int32_t> forbidden = ForbiddenTokens(sequence);
  nn::Sampled sampled = nn::SampleToken(options_.device, logits,
                                        {.options = &sampling,
                                         .tokens = sequence.tokens,
                                         .num_prompt_tokens = sequence.num_prompt(),
                                         .forbidden_tokens = forbidden},
                                        scratch);
  use.output->token = GeneratedToken{sampled.token, std::move(sampled.logprobs)};
}

}  // namespace cadre::engine
