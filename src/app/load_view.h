#pragma once
// A load and where it lies: what `cadre inspect --load` draws, from a file or a running server.
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "config/command_options.h"
#include "eplb/load_record.h"
#include "eplb/slot_layout.h"

namespace cadre::app {

/// The load under one set of maps.
struct PlacedLoad {
  std::string name;                             ///< "start map"
  std::vector<std::vector<int32_t>> slots;      ///< [layers][slots] experts
  std::vector<std::vector<double>> rank_loads;  ///< [layers][ranks]
  std::vector<double> layer_balancedness;       ///< [layers]
  double balancedness = 0;

  /// [ranks] of all layers, as multiples of their mean; 1 where nothing was counted.
  std::vector<double> RankShares() const;
};

struct LoadView {
  std::string source;  ///< file or URL, without control characters; so is the record's model
  eplb::LoadRecord record;
  eplb::SlotLayout layout;
  std::optional<PlacedLoad> before, after;  ///< both or none: a recorded load, and no expert parallelism
};

/// Reads --load. A record is placed by the flags of the deployment (ranks, copies, placement), before and
/// after the policy has seen it; of a server, the start map is before and the present map after. With a
/// model, the load must be one of that model. Errors: kInvalidArgument (--load), those of the file, the
/// server or the model.
Result<LoadView> LookAtLoad(const config::InspectOptions& options);

/// All numbers of the picture.
Json LoadJson(const LoadView& view);

/// A table made small enough to draw: each cell is the largest of the values that it stands for.
struct Grid {
  int32_t rows = 0, columns = 0;          ///< cells
  int32_t row_step = 1, column_step = 1;  ///< values that a cell stands for
  std::vector<double> values;             ///< [rows, columns]

  double At(int32_t row, int32_t column) const {
    return values[static_cast<size_t>(row) * static_cast<size_t>(columns) + static_cast<size_t>(column)];
  }
};

/// Rows of each expert as multiples of its layer's mean [layers, experts], in at most that many cells.
Grid ExpertGrid(const eplb::LoadTable& load, int32_t max_rows, int32_t max_columns);
/// The same of ranks [layers, ranks].
Grid RankGrid(const PlacedLoad& placed, int32_t max_rows, int32_t max_columns);

/// Steps of both scales: 0 is nothing at all, kNumLevels the most.
constexpr int kNumLevels = 8;
/// An expert's multiple of the mean: below 1/8, 1/4, 1/2, 1, 2, 4, 8, and more.
int ExpertLevel(double multiple);
/// A rank's: below 0.5, 0.75, 0.9, 1.1 (even), 1.25, 1.5, 2, and more.
int RankLevel(double multiple);
/// What a level of either scale means, for legends: "< 1/8", ">= 8"; level 0 is "none".
const char* ExpertLevelName(int level);
const char* RankLevelName(int level);

}  // namespace cadre::app
