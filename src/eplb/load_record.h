#pragma once
// A recorded load as text (--eplb-record writes it, --eplb-init and `cadre inspect --load` read it):
//   {"cadre_eplb_load": 1, "model": "...", "layers": 2, "experts": 4, "top_k": 2, "steps": 1000,
//    "counts": [[12, 0, 3, 9], [7, 7, 5, 5]]}
// Text in, text out; files are read and written elsewhere.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "eplb/load.h"

namespace cadre::eplb {

struct LoadRecord {
  std::string model;  ///< identity of the model: whatever its writer takes for it, compared as it is
  int32_t top_k = 0;  ///< experts a row
  int64_t steps = 0;  ///< steps that were summed
  LoadTable load;     ///< summed over ranks
  friend bool operator==(const LoadRecord&, const LoadRecord&) = default;
};

/// One line a layer. ReadLoadRecord gives it back equal.
std::string WriteLoadRecord(const LoadRecord& record);
Json LoadRecordJson(const LoadRecord& record);

/// Errors: kInvalidArgument, naming the member at fault: no JSON, another format or version, a member that is
/// missing or of the wrong kind, counts that are negative, too large (2^53) or not [layers, experts].
Result<LoadRecord> ReadLoadRecord(std::string_view text);

/// Says whether a record fits the model that is loaded. Errors: kInvalidArgument with the difference. The
/// same shape under another name is another model: its experts are hot elsewhere.
Status CheckRecord(const LoadRecord& record, std::string_view model, int32_t num_layers, int32_t num_experts,
                   int32_t top_k);

}  // namespace cadre::eplb
