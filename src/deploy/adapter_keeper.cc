#include "deploy/adapter_keeper.h"

#include <algorithm>

namespace cadre::deploy {

namespace {

constexpr size_t kMaxNameBytes = 256;  // it is told with every report of a rank

}  // namespace

using engine::AdapterInfo;
using engine::WeightOrder;

Status AdapterKeeper::CheckName(const WeightOrder& order) const {
  const bool known = list_.Find(order.name) != nullptr;
  if (order.kind == WeightOrder::Kind::kUnloadAdapter) {
    if (known) return {};
    return FailParam(Code::kNotFound, "lora_name", "The lora adapter '{}' cannot be found.",
                     Excerpt(order.name));
  }
  if (known && !order.in_place) {
    return FailParam(
        Code::kInvalidArgument, "lora_name",
        "The lora adapter '{}' has already been loaded. If you want to load the adapter in place, set "
        "'load_inplace' to True.",
        Excerpt(order.name));
  }
  if (order.name.size() > kMaxNameBytes) {
    return FailParam(Code::kInvalidArgument, "lora_name", "lora_name has {} bytes; at most {} are allowed",
                     order.name.size(), kMaxNameBytes);
  }
  if (!known && std::ssize(list_.adapters) >= options_.max_adapters) {
    return FailParam(
        Code::kInvalidArgument, "lora_name",
        "{} LoRA adapters are loaded and no more are allowed: unload one, or raise --max-cpu-loras",
        options_.max_adapters);
  }
  return {};
}

Status AdapterKeeper::Prepare(const WeightOrder& order) {
  if (order.kind == WeightOrder::Kind::kUnloadAdapter) return {};
  CADRE_ASSIGN(prepared_, model::LoadAdapter(spec_, plan_, order.folder, options_.max_rank));
  return {};
}

AdapterInfo AdapterKeeper::Commit(const WeightOrder& order) {
  ++list_.num_changes;
  const auto place = std::ranges::find(list_.adapters, order.name, &AdapterInfo::name);
  if (order.kind == WeightOrder::Kind::kUnloadAdapter) {
    const AdapterInfo gone = *place;
    list_.adapters.erase(place);
    loaded_[static_cast<size_t>(gone.slot)].reset();
    slots_[static_cast<size_t>(gone.slot)] = nullptr;
    return gone;
  }
  AdapterInfo info{
      .name = order.name, .path = order.folder, .version = ++num_loaded_, .digest = prepared_->digest};
  if (place != list_.adapters.end()) {
    info.slot = place->slot;
    *place = info;
  } else {
    const auto free = std::ranges::find(slots_, nullptr);
    info.slot = static_cast<int32_t>(free - slots_.begin());
    if (free == slots_.end()) {
      slots_.push_back(nullptr);
      loaded_.emplace_back();
    }
    list_.adapters.push_back(info);
  }
  const auto slot = static_cast<size_t>(info.slot);
  loaded_[slot] = std::move(prepared_);
  slots_[slot] = &loaded_[slot]->weights;
  return info;
}

}  // namespace cadre::deploy
