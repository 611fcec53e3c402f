#include "app/demo/check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "app/demo/pass.h"
#include "sys/memory.h"

namespace cadre::app::demo {
namespace {

constexpr double kUnit = 0x1p-24;  // half a unit in the last place of an f32 in [1, 2)

// The ranks' weights and one process's, rows and buffers; a drawn matrix lies there once more before it is
// packed.
Result<int64_t> BytesNeeded(const Plan& plan, const eplb::ExpertMap& map) {
  const Shape& s = plan.shape;
  int64_t needed = s.num_tokens * plan.num_ranks * (s.top_k + 4) * (s.hidden + s.inter) * 4 * 2;
  if (s.model == nullptr) return needed + s.ExpertBytes() * (2 * s.num_experts + plan.num_ranks + 1);
  std::vector<int32_t> all;
  for (int r = 0; r < plan.num_ranks; ++r) {
    const auto held = map.ExpertsOn(r);
    all.insert(all.end(), held.begin(), held.end());
    CADRE_ASSIGN(const int64_t bytes, ModelPartBytes(*s.model, {held.begin(), held.end()}));
    needed += bytes;
  }
  CADRE_ASSIGN(const int64_t bytes, ModelPartBytes(*s.model, all));
  return needed + bytes;
}

}  // namespace

Status CheckMemory(const Plan& plan, const eplb::ExpertMap& map) {
  const Shape& s = plan.shape;
  CADRE_ASSIGN(const int64_t needed, BytesNeeded(plan, map));
  CADRE_ASSIGN(const auto memory, sys::ReadMemoryInfo());
  if (needed <= memory.available()) return {};
  return Fail(
      Code::kResourceExhausted,
      "a layer of {} experts, hidden size {}, intermediate size {} takes {} here (its ranks and the one "
      "process that checks them); {} are free ({}). Make one of these smaller",
      s.num_experts, s.hidden, s.inter, sys::FormatBytes(needed), sys::FormatBytes(memory.available()),
      memory.limited_by);
}

std::vector<std::vector<Traffic>> CountTraffic(const Plan& plan, const eplb::ExpertMap& map,
                                               const std::vector<RankReport>& ranks) {
  const int n = plan.num_ranks;
  std::vector<std::vector<Traffic>> traffic(static_cast<size_t>(n),
                                            std::vector<Traffic>(static_cast<size_t>(n)));
  for (size_t from = 0; from < ranks.size(); ++from) {
    for (int64_t t = 0; t < plan.shape.num_tokens; ++t) {
      std::vector<bool> seen(static_cast<size_t>(n));
      for (int32_t k = 0; k < plan.shape.top_k; ++k) {
        const LogicalExpert expert(ranks[from].experts[static_cast<size_t>(t * plan.shape.top_k + k)]);
        const auto to = static_cast<size_t>(map.layout().RankOf(map.SlotsOf(expert).front()));
        traffic[from][to].pairs += 1;
        if (!seen[to]) traffic[from][to].rows += 1;
        seen[to] = true;
      }
    }
  }
  return traffic;
}

Status CheckCounts(const Plan& plan, const eplb::ExpertMap& map, const Outcome& outcome, int64_t chunk_rows) {
  const Shape& s = plan.shape;
  std::vector<std::vector<int32_t>> slots;
  std::vector<a2a::RankChoices> choices;
  for (const RankReport& r : outcome.ranks) {
    slots.emplace_back(r.experts.size());
    map.MapChoices(s.num_tokens, s.top_k, r.experts.data(), nullptr, slots.back().data());
    choices.push_back({s.num_tokens, slots.back().data()});
  }
  const int64_t row_bytes = s.hidden * 4;
  for (int rank = 0; rank < plan.num_ranks; ++rank) {
    const auto at = static_cast<size_t>(rank);
    int64_t sent = 0, came = 0;
    for (const auto& from : outcome.traffic) sent += from[at].pairs;
    for (const int32_t rows : outcome.ranks[at].slot_rows) came += rows;
    if (sent != came) {
      return Fail(Code::kInternal, "rank {} computed {} rows, and {} were sent to it", rank, came, sent);
    }
    if (plan.num_ranks == 1) continue;
    const a2a::ByteCounts wanted = a2a::CountBytes({.backend = plan.backend,
                                                    .top_k = s.top_k,
                                                    .row_bytes = row_bytes,
                                                    .partial_bytes = row_bytes,
                                                    .layout = map.layout(),
                                                    .ranks = choices,
                                                    .chunk_rows = chunk_rows},
                                                   rank);
    if (wanted != outcome.ranks[at].bytes) {
      return Fail(Code::kInternal, "rank {} counted other bytes than the formula of {}", rank, plan.backend);
    }
  }
  return {};
}

Status CheckAlone(const Plan& plan, Outcome& outcome) {
  const Shape& s = plan.shape;
  const int64_t num_rows = s.num_tokens * plan.num_ranks, size = num_rows * s.hidden;
  CADRE_ASSIGN(const auto map, eplb::StartMap(s.num_experts, 0, 1, eplb::Placement::kLinear));
  CADRE_ASSIGN(const Layer layer, Layer::Create(s, map.ExpertsOn(0)));
  outcome.all_expert_bytes = layer.expert_bytes();
  CADRE_ASSIGN(const auto exchange, a2a::Create(ExchangeOptions(plan, num_rows, 1)));
  const auto stage_tokens = [&] {
    auto* rows = reinterpret_cast<float*>(exchange->Stage(num_rows));
    for (int r = 0; r < plan.num_ranks; ++r)
      layer.Tokens({.isa = plan.isa}, r, rows + r * s.num_tokens * s.hidden);
  };
  stage_tokens();
  std::vector<int32_t> experts(static_cast<size_t>(num_rows * s.top_k)),
      slot_rows(static_cast<size_t>(s.num_experts));
  std::vector<float> weights(experts.size()), out(static_cast<size_t>(size)), magnitudes(out.size());
  const PassArrays page{experts.data(), weights.data(), slot_rows.data(), out.data()};
  CADRE_TRY(RunLayer(plan, layer, map, *exchange, num_rows, page));

  // Once more with the magnitudes of the expert rows, for the bound.
  stage_tokens();
  CADRE_ASSIGN(const a2a::RowTable table, exchange->Dispatch({num_rows, experts.data(), weights.data()}));
  std::vector<float> expert_rows(static_cast<size_t>(table.num_rows * s.hidden));
  layer.Run({.isa = plan.isa}, table, expert_rows.data());
  for (float& x : expert_rows) x = std::fabs(x);
  CADRE_TRY(exchange->Combine(expert_rows.data(), magnitudes.data(), false));

  for (int64_t i = 0; i < size; ++i) {
    const auto at = static_cast<size_t>(i);
    const int64_t of_rank = s.num_tokens * s.hidden;
    const float one = out[at];
    const float many = outcome.ranks[static_cast<size_t>(i / of_rank)].out[static_cast<size_t>(i % of_rank)];
    outcome.largest_output = std::max(outcome.largest_output, std::fabs(double{one}));
    if (std::memcmp(&one, &many, sizeof one) == 0) continue;
    ++outcome.num_different;
    const double difference = std::fabs(double{one} - double{many});
    const double bound = 2.0 * s.top_k * kUnit * double{magnitudes[at]};
    if (!(difference <= bound)) {
      return Fail(Code::kInternal, "token {} of rank {} is {} on {} ranks and {} in one process",
                  i % of_rank / s.hidden, i / of_rank, many, plan.num_ranks, one);
    }
    outcome.largest_difference = std::max(outcome.largest_difference, difference);
    outcome.worst_share = std::max(outcome.worst_share, bound > 0 ? difference / bound : 0.0);
  }
  return {};
}

}  // namespace cadre::app::demo
