// cadre bench a2a: what the exchanges of this host cost, beside a bare shared-memory copy and MPI.
#include <algorithm>
#include <cstdio>

#include "app/bench_report.h"
#include "app/count_exchange.h"
#include "app/measure_exchange.h"
#include "app/measure_gloo.h"
#include "app/run.h"
#include "app/statistics.h"
#include "config/value.h"
#include "sys/cpu.h"

namespace cadre::app {
namespace {

using config::BenchA2aOptions;

Result<std::vector<int64_t>> Numbers(const std::string& list, const char* flag, int64_t most) {
  std::vector<int64_t> numbers;
  for (const std::string_view word : config::SplitComma(list)) {
    const auto number = config::ParseInt(config::Trim(word));
    if (!number || *number < 1 || *number > most) {
      return FailParam(Code::kInvalidArgument, flag,
                       "{} wants numbers from 1 to {} with commas between, not '{}'", flag, most, word);
    }
    numbers.push_back(*number);
  }
  return numbers;
}

std::vector<std::string> Backends(const BenchA2aOptions& options) {
  std::vector<std::string> names;
  for (const std::string_view word : config::SplitComma(options.backends))
    names.emplace_back(config::Trim(word));
  return names;
}

// Fewer rounds where each is long.
int64_t RoundsFor(const BenchA2aOptions& options, int64_t bytes) {
  return std::max<int64_t>(20, bytes > (1 << 20) ? options.num_iters / 10 : options.num_iters);
}

ExchangeCase CaseOf(const BenchA2aOptions& options, const std::string& backend) {
  ExchangeCase c;
  c.backend = backend;
  c.ranks = static_cast<int>(options.ranks);
  c.hidden = static_cast<int32_t>(options.hidden);
  c.top_k = static_cast<int32_t>(options.top_k);
  c.experts = static_cast<int32_t>(options.experts);
  return c;
}

// The repeat that was disturbed least counts: the machine may have other work.
struct Best {
  double us = 0;
  void Take(double measured) { us = us == 0 ? measured : std::min(us, measured); }
};

ExchangeCase MessageCase(const BenchA2aOptions& options, const std::string& backend, int64_t bytes) {
  ExchangeCase c = CaseOf(options, backend);
  c.to_peers = true;
  c.iterations = RoundsFor(options, bytes);
  // Rows of at most 14 KiB that make up the size for each peer.
  const int64_t rows_a_peer = (bytes + 14335) / 14336;
  c.hidden = static_cast<int32_t>(std::max<int64_t>(bytes / rows_a_peer / 2, 1));
  c.rows = rows_a_peer * (options.ranks - 1);
  c.bare_bytes = bytes;
  return c;
}

// One size: all back ends and MPI, taking turns.
Result<Json> MessageRow(const BenchA2aOptions& options, int64_t bytes, const GlooTimes& gloo) {
  const std::vector<std::string> backends = Backends(options);
  std::vector<Best> best(backends.size());
  std::vector<std::vector<double>> ratios(backends.size()), whole(backends.size());
  Best bare, mpi, mpi_read;
  for (int64_t repeat = 0; repeat < options.repeats; ++repeat) {
    for (size_t i = 0; i < backends.size(); ++i) {
      CADRE_ASSIGN(const ExchangeTimes t, MeasureExchange(MessageCase(options, backends[i], bytes)));
      best[i].Take(t.dispatch_us);
      bare.Take(t.bare_us);
      ratios[i].push_back(t.dispatch_us / t.bare_us);
      whole[i].push_back((t.write_us + t.dispatch_us) / (t.bare_write_us + t.bare_us));
    }
    CADRE_ASSIGN(const auto times, MeasureMpi(static_cast<int>(options.ranks), {bytes}, options.num_iters));
    if (times.empty()) continue;
    mpi.Take(times[0].alltoallv_us);
    mpi_read.Take(times[0].read_us);
  }
  std::printf("%-24s %10.2f\n", Format("{} bytes: bare copy", bytes).c_str(), bare.us);
  Json row = Json::Object{{"bytes", bytes}, {"bare_us", bare.us}};
  Json exchanges = Json::Object();
  for (size_t i = 0; i < backends.size(); ++i) {
    const double ratio = Median(ratios[i]);
    const double with_writing = Median(whole[i]);
    std::printf("  %-22s %10.2f   %5.2f x the bare rounds between, %5.2f x with writing", backends[i].c_str(),
                best[i].us, ratio, with_writing);
    if (mpi.us > 0) std::printf(", MPI %5.2f x", mpi.us / best[i].us);
    std::printf("\n");
    exchanges.Set(backends[i], Json::Object{{"dispatch_us", best[i].us},
                                            {"ratio_to_bare", ratio},
                                            {"ratio_to_bare_with_writing", with_writing}});
  }
  row.Set("exchanges", std::move(exchanges));
  if (mpi.us > 0) {
    std::printf("  %-22s %10.2f   and %.2f for reading what came\n", "MPI_Alltoallv", mpi.us, mpi_read.us);
    row.Set("mpi_alltoallv_us", mpi.us);
    row.Set("mpi_read_us", mpi_read.us);
  } else {
    std::printf("  MPI_Alltoallv left out: no mpirun, or no cadre_mpi_alltoallv beside cadre\n");
  }
  if (const auto at = gloo.us.find(bytes); at != gloo.us.end()) {
    std::printf("  %-22s %10.2f   its all-to-all, measured before the others\n", "Gloo", at->second);
    row.Set("gloo_alltoall_us", at->second);
  } else {
    std::printf("  Gloo left out: %s\n", gloo.absent.c_str());
  }
  return row;
}

// So many bytes from every rank to every other: dispatch beside a bare copy and MPI_Alltoallv.
Result<Json> MessageTable(const BenchA2aOptions& options) {
  CADRE_ASSIGN(const auto sizes, Numbers(options.sizes, "--sizes", int64_t{64} << 20));
  std::printf("\nBytes to each peer, us: send, receive, read in place; the rows have been written\n");
  CADRE_ASSIGN(const GlooTimes gloo,
               MeasureGloo(options.gloo_python, static_cast<int>(options.ranks), sizes, options.num_iters));
  Json rows = Json::Array();
  for (const int64_t bytes : sizes) {
    CADRE_ASSIGN(Json row, MessageRow(options, bytes, gloo));
    rows.Push(std::move(row));
  }
  return rows;
}

// A layer's dispatch and combine with one back end.
struct LayerLine {
  std::string backend;
  Best dispatch, combine, floors[2];
  a2a::ByteCounts bytes;
};

// One number of rows: all back ends take turns, so that a change of the machine's speed hits all.
Result<std::vector<LayerLine>> MeasureLayers(const BenchA2aOptions& options, int64_t count) {
  std::vector<LayerLine> lines;
  for (const std::string& backend : Backends(options)) lines.push_back({.backend = backend});
  for (int64_t repeat = 0; repeat < options.repeats; ++repeat) {
    for (LayerLine& line : lines) {
      ExchangeCase c = CaseOf(options, line.backend);
      c.rows = count;
      c.iterations = RoundsFor(options, count * options.hidden * 2 * options.top_k);
      CADRE_ASSIGN(const ExchangeTimes t, MeasureExchange(c));
      line.dispatch.Take(t.dispatch_us);
      line.combine.Take(t.combine_us);
      line.bytes = t.bytes;
      const int64_t moved_bytes[] = {t.bytes.dispatch_physical, t.bytes.combine_physical};
      for (int i = 0; i < 2; ++i) {
        CADRE_ASSIGN(const double bare,
                     MeasureBare(c.ranks, moved_bytes[i] / (options.ranks - 1), c.iterations));
        line.floors[i].Take(bare);
      }
    }
  }
  return lines;
}

void PrintLayer(int64_t count, const LayerLine& line, Json& results) {
  const a2a::ByteCounts& bytes = line.bytes;
  const double floor = line.floors[0].us + line.floors[1].us;
  const int64_t formula = bytes.dispatch_algorithmic + bytes.combine_algorithmic;
  const int64_t moved = bytes.dispatch_physical + bytes.combine_physical;
  std::printf("%6lld %-24s %10.1f %10.1f %10.1f %10.1f %12.1f %12.1f\n", static_cast<long long>(count),
              line.backend.c_str(), line.dispatch.us, line.combine.us, line.dispatch.us + line.combine.us,
              floor, static_cast<double>(formula) / 1024, static_cast<double>(moved) / 1024);
  std::fflush(stdout);
  results.Push(Json::Object{{"rows", count},
                            {"backend", line.backend},
                            {"dispatch_us", line.dispatch.us},
                            {"combine_us", line.combine.us},
                            {"floor_us", floor},
                            {"dispatch_bytes_formula", bytes.dispatch_algorithmic},
                            {"dispatch_bytes", bytes.dispatch_physical},
                            {"combine_bytes_formula", bytes.combine_algorithmic},
                            {"combine_bytes", bytes.combine_physical}});
}

// A layer's dispatch and combine with random experts.
Result<Json> LayerTable(const BenchA2aOptions& options) {
  CADRE_ASSIGN(const auto rows, Numbers(options.rows, "--rows", 1 << 20));
  std::printf("\nA layer: hidden %lld bfloat16, top %lld of %lld experts at random, us (median)\n",
              static_cast<long long>(options.hidden), static_cast<long long>(options.top_k),
              static_cast<long long>(options.experts));
  std::printf("%6s %-24s %10s %10s %10s %10s %12s %12s\n", "rows", "back end", "dispatch", "combine", "sum",
              "floor", "formula KiB", "moved KiB");
  Json results = Json::Array();
  for (const int64_t count : rows) {
    CADRE_ASSIGN(const std::vector<LayerLine> lines, MeasureLayers(options, count));
    for (const LayerLine& line : lines) PrintLayer(count, line, results);
  }
  return results;
}

// No measurement: bytes of a step, by formulas, for deployments larger than this machine.
Status CountOnly(const BenchA2aOptions& options) {
  CADRE_ASSIGN(const auto hosts, Numbers(options.hosts, "--hosts", 1024));
  CADRE_ASSIGN(const auto rows, Numbers(options.rows, "--rows", 4096));
  Json tables = Json::Array();
  for (const int64_t count : rows) {
    const CountCase shape{.ranks_per_host = static_cast<int>(options.ranks_per_host),
                          .rows = count,
                          .hidden = static_cast<int32_t>(options.hidden),
                          .top_k = static_cast<int32_t>(options.top_k),
                          .experts = static_cast<int32_t>(options.experts),
                          .layers = options.layers};
    Json list;
    CADRE_ASSIGN(const std::string table, CountTable(shape, Backends(options), hosts, list));
    std::printf(
        "Bytes of a step and host: %lld rows a rank, %lld layers, hidden %lld bfloat16, top %lld of %lld "
        "experts\n\n%s\n",
        static_cast<long long>(count), static_cast<long long>(options.layers),
        static_cast<long long>(options.hidden), static_cast<long long>(options.top_k),
        static_cast<long long>(options.experts), table.c_str());
    tables.Push(Json::Object{{"rows", count}, {"counts", std::move(list)}});
  }
  if (!options.json) return {};
  return WriteJsonFile(*options.json, Json::Object{{"layers", options.layers},
                                                   {"hidden", options.hidden},
                                                   {"top_k", options.top_k},
                                                   {"experts", options.experts},
                                                   {"tables", std::move(tables)}});
}

Status Run(const BenchA2aOptions& options) {
  CADRE_TRY(CheckWritable(options.json, "--json"));
  if (options.top_k > options.experts) {
    return FailParam(Code::kInvalidArgument, "--top-k",
                     "--top-k {} of --experts {}: a row's experts are distinct", options.top_k,
                     options.experts);
  }
  if (options.count_only) return CountOnly(options);
  std::printf("%s, %lld ranks as processes\n", sys::CpuModelName().c_str(),
              static_cast<long long>(options.ranks));
  CADRE_ASSIGN(Json messages, MessageTable(options));
  CADRE_ASSIGN(Json layers, LayerTable(options));
  if (!options.json) return {};
  return WriteJsonFile(*options.json, Json::Object{{"cpu", sys::CpuModelName()},
                                                   {"ranks", options.ranks},
                                                   {"hidden", options.hidden},
                                                   {"top_k", options.top_k},
                                                   {"experts", options.experts},
                                                   {"messages", std::move(messages)},
                                                   {"layers", std::move(layers)}});
}

}  // namespace

int BenchA2a(Args args, const config::Environment& env) {
  return RunParsed(config::ParseBenchA2a, args, env, Run);
}

}  // namespace cadre::app
