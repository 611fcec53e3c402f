// MPI_Alltoallv for `cadre bench a2a`:  mpirun -np R cadre_mpi_alltoallv ITERATIONS BYTES...
// Prints for each number of bytes a peer: BYTES, microseconds of the call, microseconds of reading what came;
// medians of rank 0. The rows are written afresh before each call, and a barrier follows; neither is timed.
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

double Now() {
  using namespace std::chrono;
  return duration<double, std::micro>(steady_clock::now().time_since_epoch()).count();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

uint64_t Sum(const char* data, size_t bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    sum += word;
  }
  return sum;
}

void Measure(int rank, int size, int bytes, int iterations) {
  const auto n = static_cast<size_t>(bytes), ranks = static_cast<size_t>(size);
  std::vector<char> out(n * ranks), in(n * ranks);
  std::vector<int> counts(ranks, bytes), begins(ranks);
  counts[static_cast<size_t>(rank)] = 0;
  for (int r = 0; r < size; ++r) begins[static_cast<size_t>(r)] = r * bytes;
  std::vector<double> call, read;
  uint64_t sum = 0;
  for (int i = 0; i < iterations + iterations / 10 + 3; ++i) {
    for (int r = 0; r < size; ++r) {
      if (r != rank) std::memset(out.data() + begins[static_cast<size_t>(r)], i, n);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    const double start = Now();
    MPI_Alltoallv(out.data(), counts.data(), begins.data(), MPI_BYTE, in.data(), counts.data(), begins.data(),
                  MPI_BYTE, MPI_COMM_WORLD);
    const double arrived = Now();
    for (int r = 0; r < size; ++r) {
      if (r != rank) sum += Sum(in.data() + begins[static_cast<size_t>(r)], n);
    }
    const double end = Now();
    if (i < iterations / 10 + 3) continue;
    call.push_back(arrived - start);
    read.push_back(end - arrived);
  }
  if (rank == 0) std::printf("%d %.3f %.3f %d\n", bytes, Median(call), Median(read), sum == 1 ? 1 : 0);
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  for (int i = 2; i < argc; ++i) {
    const int bytes = std::atoi(argv[i]);
    const int most = std::atoi(argv[1]);
    Measure(rank, size, bytes, std::max(20, bytes > (1 << 20) ? most / 10 : most));
  }
  MPI_Finalize();
}
