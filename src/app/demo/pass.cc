#include "app/demo/pass.h"

#include <algorithm>

#include "sys/cpu.h"

namespace cadre::app::demo {
namespace {

// Whether threads outnumber CPUs.
bool Spin(const Plan& plan) {
  return plan.num_ranks <= sys::UsableCpus();
}

}  // namespace

a2a::Options ExchangeOptions(const Plan& plan, int64_t max_rows, int num_ranks) {
  a2a::Options options;
  options.backend = plan.backend;
  options.hidden = static_cast<int32_t>(plan.shape.hidden);
  options.act_type = DType::kF32;
  options.top_k = plan.shape.top_k;
  options.max_rows = max_rows;
  options.layout = {.num_slots = plan.shape.num_experts, .num_ranks = num_ranks};
  options.device = {.isa = plan.isa};
  options.join_deadline = Now() + plan.timeout;
  options.spin = Spin(plan);
  return options;
}

Status RunLayer(const Plan& plan, const Layer& layer, const eplb::ExpertMap& map, a2a::AllToAll& exchange,
                int64_t num_rows, const PassArrays& to) {
  const int32_t k = plan.shape.top_k;
  const kernels::Device device{.isa = plan.isa};
  const auto* rows = reinterpret_cast<const float*>(exchange.Stage(num_rows));
  layer.Route(device, rows, num_rows, to.experts, to.weights);
  std::vector<int32_t> slots(static_cast<size_t>(num_rows * k));
  map.MapChoices(num_rows, k, to.experts, nullptr, slots.data());
  exchange.BeginStep(0, Now() + plan.timeout);
  int64_t next = 0;
  const auto send = [&]() -> Status {
    const int64_t first = next, count = std::min(exchange.chunk_rows(), num_rows - next);
    next += count;
    return exchange.Send({count, slots.data() + first * k, to.weights + first * k});
  };
  CADRE_TRY(send());
  std::vector<float> buffer;
  do {
    if (next < num_rows) CADRE_TRY(send());
    CADRE_ASSIGN(const a2a::RowTable table, exchange.Receive());
    for (int32_t s = 0; s < layer.num_experts(); ++s) {
      const auto at = static_cast<size_t>(s);
      to.slot_rows[s] += table.offsets[at + 1] - table.offsets[at];
    }
    float* expert_rows = exchange.StageResults();
    if (expert_rows == nullptr) {
      buffer.resize(static_cast<size_t>(table.num_rows * plan.shape.hidden));
      expert_rows = buffer.data();
    }
    layer.Run(device, table, expert_rows);
    CADRE_TRY(exchange.SendResults(expert_rows));
    CADRE_TRY(exchange.ReceiveResults(to.out, false));
  } while (exchange.more());
  return {};
}

}  // namespace cadre::app::demo
