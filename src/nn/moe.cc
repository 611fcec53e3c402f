#include "nn/moe.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/gemm.h"
#include "kernels/grouped_gemm.h"
#include "kernels/topk.h"
#include "nn/adapter.h"
#include "nn/feed_forward.h"
#include "nn/tensor_parallel.h"

namespace cadre::nn {
namespace {

struct Shape {
  int64_t num_tokens, hidden;
  a2a::RowRange own;  // the rows that this rank of the replica handles
  DType type;         // of the rows that travel
};

// The normed rows of the whole replica: rounded for the products, and as f32 for router and shared gate.
struct NormedRows {
  const std::byte* rounded;
  float* exact;
};

Shape ShapeOf(const StepContext& context, const MoeInput& in) {
  const int64_t num_tokens = context.batch.num_tokens();
  const a2a::Collective* tp = context.tensor_parallel;
  return {.num_tokens = num_tokens,
          .hidden = in.weights->router.k,
          .own = tp == nullptr ? a2a::RowRange{0, num_tokens}
                               : a2a::SplitRows(num_tokens, tp->size(), tp->rank()),
          .type = context.kv.layout.type};
}

// Writes the own rows where the exchange wants them; alone in its replica, a rank norms straight into that
// place.
NormedRows NormInto(const StepContext& context, const MoeInput& in, const Shape& s, std::byte* stage,
                    Arena& arena) {
  const int64_t row_bytes = s.hidden * DTypeBytes(s.type);
  const bool alone = context.tensor_parallel == nullptr;
  auto* rounded = alone ? stage : static_cast<std::byte*>(arena.TakeBytes(s.num_tokens * row_bytes));
  float* exact = arena.Take<float>(s.num_tokens * s.hidden);
  kernels::RmsNorm(context.device, {.num_rows = s.num_tokens,
                                    .width = s.hidden,
                                    .x = in.residual,
                                    .x_stride = s.hidden,
                                    .weight = in.norm_weight,
                                    .eps = in.rms_eps,
                                    .out = rounded,
                                    .out_type = s.type,
                                    .out_stride = s.hidden,
                                    .out_f32 = exact});
  if (!alone)
    std::memcpy(stage, rounded + s.own.begin * row_bytes, static_cast<size_t>(s.own.count * row_bytes));
  return {rounded, exact};
}

// [piece rows] what chooses among an expert's copies; null where no expert has any.
const uint32_t* RowHashes(const StepContext& context, const MoeInput& in, const Shape& s, a2a::RowRange piece,
                          Arena& arena) {
  if (!in.map->has_copies()) return nullptr;
  auto* hashes = arena.Take<uint32_t>(piece.count);
  for (int64_t i = 0; i < piece.count; ++i) {
    const auto row = static_cast<size_t>(s.own.begin + piece.begin + i);
    hashes[i] = eplb::RowHash(context.batch.positions[row], context.batch.token_ids[row], in.moe_layer);
  }
  return hashes;
}

// Keeps which experts a piece of the own rows has been given.
void NoteExperts(const StepContext& context, const MoeInput& in, const Shape& s, a2a::RowRange piece,
                 const int32_t* experts) {
  const auto top_k = static_cast<int64_t>(in.spec->top_k);
  const auto layers = static_cast<int64_t>(context.expert_maps.size());
  for (int64_t i = 0; i < piece.count; ++i) {
    const int64_t kv_slot = context.batch.kv_slots[static_cast<size_t>(s.own.begin + piece.begin + i)];
    uint16_t* const to = context.kv.notes() + (kv_slot * layers + in.moe_layer) * top_k;
    for (int64_t k = 0; k < top_k; ++k) to[k] = static_cast<uint16_t>(std::max(experts[i * top_k + k], 0));
  }
}

// The experts and weights of a piece of the own rows, as slots of the step's map; both arrays are of all own
// rows.
a2a::Routing Route(const StepContext& context, const MoeInput& in, const Shape& s, const float* exact,
                   a2a::RowRange piece, int32_t* all_slots, float* all_weights, Arena& arena) {
  const MoeSpec& spec = *in.spec;
  int32_t* slots = all_slots + piece.begin * spec.top_k;
  float* weights = all_weights + piece.begin * spec.top_k;
  const ArenaScope scope(arena);
  float* logits = arena.Take<float>(piece.count * spec.num_experts);
  kernels::Gemm(context.device, {.m = piece.count,
                                 .a = exact + (s.own.begin + piece.begin) * s.hidden,
                                 .a_stride = s.hidden,
                                 .w = in.weights->router,
                                 .bias = in.weights->router_bias,
                                 .c = logits,
                                 .c_stride = spec.num_experts});
  kernels::RouterTopK(context.device, {.num_rows = piece.count,
                                       .num_experts = spec.num_experts,
                                       .top_k = spec.top_k,
                                       .logits = logits,
                                       .score = spec.score,
                                       .selection_bias = in.weights->selection_bias,
                                       .num_groups = spec.num_groups,
                                       .top_groups = spec.top_groups,
                                       .group_score = spec.group_score,
                                       .normalize = spec.normalize,
                                       .normalize_eps = spec.normalize_eps,
                                       .scale = spec.scale,
                                       .experts = slots,
                                       .weights = weights});
  if (context.simulated_routing != nullptr) {
    const auto first = static_cast<size_t>(s.own.begin + piece.begin);
    context.simulated_routing->Choose(context.step, in.moe_layer, piece.count,
                                      context.batch.token_ids.data() + first,
                                      context.batch.positions.data() + first, slots, weights);
  }
  if (context.kv.notes() != nullptr) NoteExperts(context, in, s, piece, slots);
  in.map->MapChoices(piece.count, spec.top_k, slots, RowHashes(context, in, s, piece, arena), slots);
  if (in.slot_counts != nullptr) {
    for (int64_t i = 0; i < piece.count * spec.top_k; ++i)
      if (slots[i] >= 0) ++in.slot_counts[slots[i]];
  }
  return {.num_rows = piece.count, .slots = slots, .weights = weights};
}

// out [T, hidden] = this rank's part of the shared experts, gated by row if the model asks for it.
void SharedExperts(const StepContext& context, const MoeInput& in, const Shape& s, const NormedRows& x,
                   float* out, Arena& arena) {
  const ArenaScope scope(arena);
  const FeedForwardWeights& w = in.weights->shared;
  const void* gated = GatedRows(context, w, in.layer, x.rounded, arena);
  context.exchange->Progress();  // the rows are on their way to other hosts
  kernels::Gemm(
      context.device,
      {.m = s.num_tokens, .a = gated, .a_stride = w.down.k, .w = w.down, .c = out, .c_stride = s.hidden});
  AddLowRank(context, {in.layer, &LayerAdapter::down}, gated, w.down.k, out, s.hidden, arena);
  if (in.weights->shared_gate.data == nullptr) return;
  float* gate = arena.Take<float>(s.num_tokens);
  kernels::Gemm(context.device, {.m = s.num_tokens,
                                 .a = x.exact,
                                 .a_stride = s.hidden,
                                 .w = in.weights->shared_gate,
                                 .c = gate,
                                 .c_stride = 1});
  for (int64_t t = 0; t < s.num_tokens; ++t) {
    const float factor = 1.0f / (1.0f + std::exp(-gate[t]));
    for (int64_t i = 0; i < s.hidden; ++i) out[t * s.hidden + i] *= factor;
  }
}

// out = expert rows [N, hidden] of the table, each times its row weight.
void RoutedExperts(const StepContext& context, const MoeInput& in, const Shape& s, const a2a::RowTable& table,
                   float* out, Arena& arena) {
  if (table.num_rows == 0) return;
  const ArenaScope scope(arena);
  const int64_t inter = in.weights->experts.front().down.k;
  void* inter_rows = arena.TakeBytes(table.num_rows * kernels::RoundUp(inter, 2) * DTypeBytes(s.type));
  kernels::RunExperts(context.device, {.hidden = s.hidden,
                                       .inter = inter,
                                       .act_type = s.type,
                                       .experts = in.weights->experts,
                                       .offsets = table.offsets.data(),
                                       .rows = table.rows,
                                       .row_weights = table.row_weights,
                                       .activation = in.spec->activation,
                                       .swiglu_alpha = in.spec->swiglu_alpha,
                                       .swiglu_limit = in.spec->swiglu_limit,
                                       .inter_rows = inter_rows,
                                       .out = out,
                                       .out_stride = s.hidden});
}

// Sends the own rows piece by piece, as the exchange takes them: the next piece's router runs while the last
// one travels.
class Sender {
 public:
  Sender(const StepContext& context, const MoeInput& in, const Shape& s, const float* exact, Arena& arena)
      : context_(context),
        in_(in),
        s_(s),
        exact_(exact),
        arena_(arena),
        slots_(arena.Take<int32_t>(s.own.count * in.spec->top_k)),
        weights_(arena.Take<float>(s.own.count * in.spec->top_k)) {}

  bool HasMore() const { return next_ < s_.own.count; }
  Status SendNext() {
    const int64_t rows = std::min(context_.exchange->chunk_rows(), s_.own.count - next_);
    const a2a::RowRange piece{next_, rows};
    next_ += rows;
    return context_.exchange->Send(Route(context_, in_, s_, exact_, piece, slots_, weights_, arena_));
  }

 private:
  const StepContext& context_;
  const MoeInput& in_;
  const Shape& s_;
  const float* exact_;
  Arena& arena_;
  int32_t* slots_;
  float* weights_;
  int64_t next_ = 0;
};

// Receives, computes and returns one chunk; `out` [own rows, hidden] += the sums of this rank's.
Status Chunk(const StepContext& context, const MoeInput& in, const Shape& s, float* out, Arena& arena) {
  const ArenaScope scope(arena);
  a2a::AllToAll& exchange = *context.exchange;
  CADRE_ASSIGN(const a2a::RowTable table, exchange.Receive());
  float* expert_rows = exchange.StageResults();
  if (expert_rows == nullptr) expert_rows = arena.Take<float>(table.num_rows * s.hidden);
  RoutedExperts(context, in, s, table, expert_rows, arena);
  CADRE_TRY(exchange.SendResults(expert_rows));
  return exchange.ReceiveResults(out, true);
}

}  // namespace

Status Moe(const StepContext& context, const MoeInput& in, Arena& arena) {
  const ArenaScope scope(arena);
  const Shape s = ShapeOf(context, in);
  const bool alone = context.tensor_parallel == nullptr;
  const bool shared = in.weights->shared.down.data != nullptr;
  a2a::AllToAll& exchange = *context.exchange;

  const NormedRows x = NormInto(context, in, s, exchange.Stage(s.own.count), arena);
  Sender sender(context, in, s, x.exact, arena);
  CADRE_TRY(sender.SendNext());  // without rows too: the others wait for it

  // What is added to the residual stream beside the routed experts: all rows, this rank's part of the sums.
  float* partial = nullptr;
  if (shared || !alone) partial = arena.Take<float>(s.num_tokens * s.hidden);
  if (shared) {
    SharedExperts(context, in, s, x, partial, arena);
  } else if (!alone) {
    std::memset(partial, 0, static_cast<size_t>(s.num_tokens * s.hidden) * sizeof(float));
  }

  float* const own_sums = partial == nullptr ? in.residual : partial + s.own.begin * s.hidden;
  do {
    if (sender.HasMore()) CADRE_TRY(sender.SendNext());
    CADRE_TRY(Chunk(context, in, s, own_sums, arena));
  } while (exchange.more());
  return partial == nullptr ? Status() : AddPartial(context, partial, s.hidden, in.residual);
}

int64_t MoeScratchBytes(const MoeSpec& spec, const MoeWeights& w, int64_t num_tokens, int64_t expert_rows) {
  constexpr int64_t kTakes = 16;  // each is rounded up to a cache line
  const int64_t hidden = w.router.k;
  const int64_t inter = w.experts.empty() ? 0 : w.experts.front().down.k + 1;
  const int64_t a_token =
      4 * hidden + spec.num_experts + 2 * spec.top_k + 1 + w.shared.gate_up.n + w.shared.down.k + 1;
  return (num_tokens * a_token + expert_rows * (hidden + inter)) * static_cast<int64_t>(sizeof(float)) +
         kTakes * 64;
}

}  // namespace cadre::nn
