// The answer of GET /eplb, as `cadre inspect --load` reads it from any server: any bytes are read or refused,
// and what is read can be drawn.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "engine/eplb_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cadre;
  const auto json = Json::Parse(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!json) return 0;
  const auto state = engine::ReadEplbState(*json);
  if (!state) return 0;
  const auto layers = static_cast<size_t>(state->num_layers);
  for (const auto* slots : {&state->slots, &state->start_slots}) {
    CADRE_CHECK(slots->size() == layers * static_cast<size_t>(state->num_slots));
    CADRE_CHECK(std::ranges::all_of(*slots, [&](int32_t e) { return e >= 0 && e < state->num_experts; }));
  }
  CADRE_CHECK(state->load.size() == layers * static_cast<size_t>(state->num_experts));
  return 0;
}
