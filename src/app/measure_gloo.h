#pragma once
// Gloo's all-to-all, from the script cadre_gloo_alltoall.py beside this program, under a Python with torch.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"

namespace cadre::app {

struct GlooTimes {
  std::map<int64_t, double> us;  ///< by bytes to each peer
  std::string absent;            ///< why there are none: no such Python, no torch
};
/// One process a rank, all sizes one after the other; some seconds. Errors: kUnavailable if it fails
/// half-way.
Result<GlooTimes> MeasureGloo(const std::string& python, int ranks, const std::vector<int64_t>& sizes,
                              int64_t iterations);

}  // namespace cadre::app
