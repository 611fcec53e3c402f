// The answer of GET /eplb, as `cadre inspect --load` reads it from any server: any bytes are read or refused,
// and what is read is whole.
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
  CADRE_CHECK(state->IsWhole());
  CADRE_CHECK(engine::ReadEplbState(engine::EplbStateJson(*state)).has_value());
  return 0;
}
