// Orders about weights and adapters, which an engine carries out between two steps.
#include <algorithm>

#include "engine/inbox.h"

namespace cadre::engine {

// On all ranks at the same step border.
Status LocalEngine::CarryOut(uint64_t order_id) {
  const std::vector<ControlCall> calls = desk_.TakeOrder(order_id);
  const TimePoint start = Now();
  const auto answer = [&](const Result<ControlState>& state) {
    for (const ControlCall& call : calls) call.done(state);
  };
  if (options_.weight_keeper == nullptr) {
    answer(Fail(Code::kUnsupported, "this engine's weights cannot be replaced"));
    return {};
  }
  const WeightOrder& order = calls.front().request.weights;
  Result<WeightKeeper::Outcome> carried = [&]() -> Result<WeightKeeper::Outcome> {
    CADRE_TRY(runner_->SendOrder(order));
    return options_.weight_keeper->CarryOut(order);
  }();
  if (!carried) {
    answer(std::unexpected(carried.error()));
    return std::unexpected(carried.error());
  }
  if (carried->new_weights) {
    desk_.keeps_cache() ? scheduler_.ForgetOffered({}) : scheduler_.ForgetComputed();
    scheduler_.pool().ForgetAll();
  }
  if (carried->loaded) TakeAdapter(*carried->loaded);
  if (carried->unloaded) DropAdapter(*carried->unloaded);
  desk_.SetGeneration(carried->generation);
  if (options_.agent != nullptr) options_.agent->SetWeightGeneration(carried->generation);
  if (carried->broken) EndAll(FinishReason::kError, carried->status.error());
  if (carried->broken || carried->new_weights) {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->broken = carried->broken ? carried->status : Status();
  }
  PublishStats();
  ControlState state = desk_.State();
  state.seconds = SecondsSince(start);
  state.bytes = carried->bytes;
  state.adapters = adapters_;
  answer(carried->status ? Result<ControlState>(state) : std::unexpected(carried->status.error()));
  return {};
}

// Requests of an adapter that is replaced go on, as with the model's own weights: what they have generated
// stays, the rest comes from the new ones.
void LocalEngine::TakeAdapter(const AdapterInfo& loaded) {
  const auto place = std::ranges::find(adapters_.adapters, loaded.name, &AdapterInfo::name);
  if (place == adapters_.adapters.end()) {
    adapters_.adapters.push_back(loaded);
    return TellAdapters();
  }
  *place = loaded;
  for (Sequence* sequence : scheduler_.All())
    if (sequence->adapter == loaded.slot) sequence->UseAdapter(loaded);
  desk_.keeps_cache() ? scheduler_.ForgetOffered(loaded.slot) : scheduler_.ForgetComputedOf(loaded.slot);
  TellAdapters();
}

void LocalEngine::DropAdapter(const AdapterInfo& unloaded) {
  std::erase_if(adapters_.adapters,
                [&](const AdapterInfo& adapter) { return adapter.name == unloaded.name; });
  const Error error{Code::kNotFound,
                    Format("the LoRA adapter '{}' was unloaded before the request had ended", unloaded.name),
                    "model"};
  for (const Sequence* sequence : scheduler_.All())
    if (sequence->adapter == unloaded.slot)
      End(sequence->id, {.reason = FinishReason::kError, .error = error});
  TellAdapters();
}

void LocalEngine::TellAdapters() {
  ++adapters_.num_changes;
  const std::lock_guard lock(inbox_->mutex);
  inbox_->adapters = adapters_;
}

}  // namespace cadre::engine
