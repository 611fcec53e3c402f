#pragma once
// What an exchange costs on this host, apart from the experts: ranks are processes, times are medians of rank
// 0. A round begins when all ranks have met, which is not timed.
#include <cstdint>
#include <string>
#include <vector>

#include "a2a/a2a.h"
#include "base/error.h"
#include "base/json.h"

namespace cadre::app {

struct ExchangeCase {
  std::string backend;
  int ranks = 2;
  int64_t rows = 1;  ///< that each rank brings
  int32_t hidden = 7168, top_k = 8, experts = 256;
  DType type = DType::kBf16;
  bool fp8 = false;
  int64_t bare_bytes = 0;  ///< if not 0: a bare round of so many bytes goes before each round
  bool to_peers = false;   ///< row i goes to the (i mod R-1)-th peer alone, instead of random experts
  int64_t iterations = 300;
};

struct ExchangeTimes {
  double write_us = 0;                    ///< writing the rows into the segment, which is the norm's work
  double dispatch_us = 0;                 ///< Send, Receive, read each row of the table once
  double combine_us = 0;                  ///< SendResults, ReceiveResults; the expert rows are there already
  double bare_write_us = 0, bare_us = 0;  ///< the same of the bare rounds between, as MeasureBare
  a2a::ByteCounts bytes;                  ///< of one round of rank 0
};

/// Errors: those of Create, or kUnavailable if a rank fails.
Result<ExchangeTimes> MeasureExchange(const ExchangeCase& c);

/// The floor: each rank writes `bytes` into shared memory (not timed), raises a flag, waits for the others'
/// and reads their bytes in place. Microseconds.
Result<double> MeasureBare(int ranks, int64_t bytes, int64_t iterations);

/// MPI_Alltoallv, from the program cadre_mpi_alltoallv beside this one under mpirun.
struct MpiTimes {
  int64_t bytes = 0;
  double alltoallv_us = 0;  ///< the call alone; the rows have been written
  double read_us = 0;       ///< reading what came
};
/// Empty where either program is missing; kUnavailable if they fail.
Result<std::vector<MpiTimes>> MeasureMpi(int ranks, const std::vector<int64_t>& sizes, int64_t iterations);

}  // namespace cadre::app
