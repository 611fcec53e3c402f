#include "app/measure_exchange.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>

#include "app/statistics.h"
#include "base/clock.h"
#include "base/random.h"
#include "fabric/broker.h"
#include "sys/files.h"
#include "sys/process.h"

namespace cadre::app {
namespace {

using namespace std::chrono_literals;

constexpr auto kLongest = 120s;

double Us(TimePoint from, TimePoint to) {
  return Seconds(to - from) * 1e6;
}

void Write(std::byte* to, int64_t bytes, int64_t round) {
  std::memset(to, static_cast<int>(round & 63) + 1, static_cast<size_t>(bytes));
}

uint64_t Read(const void* from, int64_t bytes) {
  uint64_t sum = 0;
  for (int64_t i = 0; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, static_cast<const std::byte*>(from) + i, 8);
    sum += word;
  }
  return sum;
}

// Reads must not be optimized away.
void Use(uint64_t sum) {
  asm volatile("" ::"r"(sum) : "memory");
}

// One CPU a rank where there are enough, for the duration of a measurement.
class Pin {
 public:
  Pin(int rank, int ranks) {
    if (sched_getaffinity(0, sizeof before_, &before_) != 0 || CPU_COUNT(&before_) < ranks) return;
    int nth = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &before_) || nth++ != rank) continue;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      pinned_ = sched_setaffinity(0, sizeof one, &one) == 0;
    }
  }
  ~Pin() {
    if (pinned_) sched_setaffinity(0, sizeof before_, &before_);
  }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
  bool pinned() const { return pinned_; }

 private:
  cpu_set_t before_;
  bool pinned_ = false;
};

// All ranks meet, outside the timed part.
class Meeting {
 public:
  static Result<Meeting> Open(fabric::Rendezvous& rendezvous, bool spin) {
    Meeting meeting;
    const fabric::FabricSpec spec{.name = "meeting", .segment_bytes = 64, .num_flags = 1, .spin = spin};
    CADRE_ASSIGN(meeting.fabric_, rendezvous.Open(spec, Now() + kLongest));
    return meeting;
  }
  Status Meet() {
    ++round_;
    fabric_->Publish(0, round_, 0);
    return fabric_->AwaitAll(0, round_, nullptr, {"meeting", round_, Now() + kLongest});
  }

 private:
  std::unique_ptr<fabric::Fabric> fabric_;
  uint32_t round_ = 0;
};

using Body = std::function<Status(fabric::Rendezvous&, bool spin)>;

Status RunRank(sys::Fd socket, int rank, int ranks, const Body& body) {
  const Pin pin(rank, ranks);
  CADRE_ASSIGN(const auto member, fabric::JoinHost(std::move(socket), Now() + kLongest));
  return body(*member, pin.pinned());
}

// Runs `body` on every rank; rank 0 is this process.
Status WithRanks(int ranks, const Body& body) {
  CADRE_ASSIGN(auto broker, fabric::Broker::Create(ranks, Format("bench{}", getpid())));
  std::vector<pid_t> pids;
  for (int r = 1; r < ranks; ++r) {
    const pid_t pid = fork();
    if (pid < 0) return Fail(Code::kResourceExhausted, "cannot start rank {}", r);
    if (pid == 0) {
      sys::Fd socket = broker->TakeChildEnd(r);
      broker.reset();
      const Status status = RunRank(std::move(socket), r, ranks, body);
      if (!status) std::fprintf(stderr, "rank %d: %s\n", r, status.error().message.c_str());
      std::fflush(stderr);
      _exit(status ? 0 : 1);
    }
    pids.push_back(pid);
    broker->CloseChildEnd(r);
  }
  sys::Fd socket = broker->TakeChildEnd(0);
  broker->Start();
  const Status status = RunRank(std::move(socket), 0, ranks, body);
  bool all = true;
  for (const pid_t pid : pids) {
    int end = 0;
    waitpid(pid, &end, 0);
    all &= WIFEXITED(end) && WEXITSTATUS(end) == 0;
  }
  CADRE_TRY(status);
  return all ? Status() : Fail(Code::kUnavailable, "a rank of the measurement failed");
}

// Choices of rank `me`: distinct experts at random, or one expert on one peer.
std::vector<int32_t> DrawChoices(const ExchangeCase& c, int me) {
  std::vector<int32_t> slots;
  for (int64_t t = 0; t < c.rows; ++t) {
    if (c.to_peers) {
      slots.push_back(static_cast<int32_t>((me + 1 + t % (c.ranks - 1)) % c.ranks));
      continue;
    }
    std::vector<int32_t> all(static_cast<size_t>(c.experts));
    for (int32_t e = 0; e < c.experts; ++e) all[static_cast<size_t>(e)] = e;
    for (int32_t k = 0; k < c.top_k; ++k) {
      const auto counter = static_cast<uint64_t>(t * c.top_k + k);
      const double draw = UniformAt(7, static_cast<uint64_t>(me), counter);
      const auto pick = k + static_cast<int32_t>(draw * (c.experts - k));
      std::swap(all[static_cast<size_t>(k)], all[static_cast<size_t>(pick)]);
      slots.push_back(all[static_cast<size_t>(k)]);
    }
  }
  return slots;
}

// Each rank writes its bytes, and reads those of all others in place.
class Bare {
 public:
  static Result<Bare> Open(fabric::Rendezvous& rendezvous, bool spin, int64_t bytes) {
    Bare bare;
    bare.bytes_ = std::max<int64_t>(bytes, 8);
    const fabric::FabricSpec spec{
        .name = "bare", .segment_bytes = static_cast<size_t>(bare.bytes_), .num_flags = 1, .spin = spin};
    CADRE_ASSIGN(bare.fabric_, rendezvous.Open(spec, Now() + kLongest));
    Write(bare.fabric_->own(), bare.bytes_, 0);
    return bare;
  }
  Result<double> Round(Meeting& meeting) {
    ++round_;
    CADRE_TRY(meeting.Meet());  // all have read the round before
    TimePoint start = Now();
    Write(fabric_->own(), bytes_, round_);
    write_us_ = Us(start, Now());
    CADRE_TRY(meeting.Meet());
    start = Now();
    fabric_->Publish(0, round_, 0);
    CADRE_TRY(fabric_->AwaitAll(0, round_, nullptr, {"bare", round_, start + kLongest}));
    uint64_t sum = 0;
    for (int r = 0; r < fabric_->size(); ++r) {
      if (r != fabric_->rank()) sum += Read(fabric_->peer(r), bytes_);
    }
    Use(sum);
    return Us(start, Now());
  }
  double write_us() const { return write_us_; }

 private:
  std::unique_ptr<fabric::Fabric> fabric_;
  int64_t bytes_ = 0;
  double write_us_ = 0;
  uint32_t round_ = 0;
};

Status BareRounds(fabric::Rendezvous& rendezvous, bool spin, int64_t bytes, int64_t iterations, double& us) {
  CADRE_ASSIGN(Meeting meeting, Meeting::Open(rendezvous, spin));
  CADRE_ASSIGN(Bare bare, Bare::Open(rendezvous, spin, bytes));
  std::vector<double> times;
  for (int64_t i = 0; i < iterations + iterations / 10 + 3; ++i) {
    CADRE_ASSIGN(const double round_us, bare.Round(meeting));
    if (i >= iterations / 10 + 3) times.push_back(round_us);
  }
  us = Median(times);
  return {};
}

// One rank's rounds of an exchange.
class Rounds {
 public:
  Rounds(const ExchangeCase& c, a2a::AllToAll& a2a, Meeting& meeting, Bare* bare, int me)
      : c_(c),
        a2a_(a2a),
        meeting_(meeting),
        bare_(bare),
        row_bytes_(c.hidden * DTypeBytes(c.type)),
        slots_(DrawChoices(c, me)),
        weights_(slots_.size(), 0.125f),
        out_(static_cast<size_t>(c.rows * c.hidden)) {}

  Status Run(ExchangeTimes& times) {
    std::vector<double> write, dispatch, combine, bare, bare_write;
    const int64_t warm_up = c_.iterations / 10 + 3;
    for (int64_t i = 0; i < warm_up + c_.iterations; ++i) {
      double bare_us = 0;
      if (bare_ != nullptr) {
        CADRE_ASSIGN(bare_us, bare_->Round(meeting_));
      }
      const a2a::ByteCounts before = a2a_.bytes();
      CADRE_TRY(Round(i));
      times.bytes = a2a_.bytes();
      times.bytes -= before;
      if (i < warm_up) continue;
      write.push_back(write_us_);
      dispatch.push_back(dispatch_us_);
      combine.push_back(combine_us_);
      bare.push_back(bare_us);
      bare_write.push_back(bare_ == nullptr ? 0 : bare_->write_us());
    }
    times.bare_us = Median(bare);
    times.bare_write_us = Median(bare_write);
    times.write_us = Median(write);
    times.dispatch_us = Median(dispatch);
    times.combine_us = Median(combine);
    return {};
  }

 private:
  Status SendNext(int64_t& next) {
    const int64_t rows = std::min(a2a_.chunk_rows(), c_.rows - next);
    const int64_t first = next * c_.top_k;
    next += rows;
    return a2a_.Send({rows, slots_.data() + first, weights_.data() + first});
  }

  Status Round(int64_t round) {
    dispatch_us_ = combine_us_ = 0;
    a2a_.BeginStep(round, Now() + kLongest);
    CADRE_TRY(meeting_.Meet());
    TimePoint start = Now();
    Write(a2a_.Stage(c_.rows), c_.rows * row_bytes_, round);
    write_us_ = Us(start, Now());
    int64_t next = 0;
    CADRE_TRY(meeting_.Meet());
    start = Now();
    CADRE_TRY(SendNext(next));
    do {
      if (next < c_.rows) CADRE_TRY(SendNext(next));
      CADRE_ASSIGN(const a2a::RowTable table, a2a_.Receive());
      uint64_t sum = 0;
      for (int64_t n = 0; n < table.num_rows; ++n) sum += Read(table.rows[n], row_bytes_);
      Use(sum);
      dispatch_us_ += Us(start, Now());
      float* expert_rows = a2a_.StageResults();
      const auto floats = static_cast<size_t>(table.num_rows * c_.hidden);
      if (expert_rows == nullptr) {
        experts_.resize(std::max(experts_.size(), floats));
        expert_rows = experts_.data();
      }
      std::fill_n(expert_rows, floats, 0.5f);
      CADRE_TRY(meeting_.Meet());
      start = Now();
      CADRE_TRY(a2a_.SendResults(expert_rows));
      CADRE_TRY(a2a_.ReceiveResults(out_.data(), false));
      combine_us_ += Us(start, Now());
      start = Now();
    } while (a2a_.more());
    return {};
  }

  const ExchangeCase& c_;
  a2a::AllToAll& a2a_;
  Meeting& meeting_;
  Bare* bare_;
  int64_t row_bytes_;
  std::vector<int32_t> slots_;
  std::vector<float> weights_, out_, experts_;
  double write_us_ = 0, dispatch_us_ = 0, combine_us_ = 0;
};

std::string InPath(const char* program) {
  const char* path = "/usr/local/bin:/usr/bin:/bin";
  std::string rest = path;
  while (!rest.empty()) {
    const size_t colon = std::min(rest.find(':'), rest.size());
    std::string file = rest.substr(0, colon) + "/" + program;
    if (access(file.c_str(), X_OK) == 0) return file;
    rest.erase(0, colon + 1);
  }
  return "";
}

}  // namespace

Result<ExchangeTimes> MeasureExchange(const ExchangeCase& c) {
  ExchangeTimes times;
  CADRE_TRY(WithRanks(c.ranks, [&](fabric::Rendezvous& rendezvous, bool spin) -> Status {
    a2a::Options options;
    options.backend = c.backend;
    options.hidden = c.hidden;
    options.act_type = c.type;
    options.top_k = c.to_peers ? 1 : c.top_k;
    options.max_rows = c.rows;
    options.layout = {.num_slots = c.to_peers ? c.ranks : c.experts, .num_ranks = c.ranks};
    options.rendezvous = &rendezvous;
    options.join_deadline = Now() + kLongest;
    options.spin = spin;
    options.chunk_rows = c.to_peers ? c.rows : 0;
    options.fp8_dispatch = c.fp8;
    ExchangeCase mine = c;
    mine.top_k = options.top_k;
    CADRE_ASSIGN(Meeting meeting, Meeting::Open(rendezvous, spin));
    CADRE_ASSIGN(Bare bare, Bare::Open(rendezvous, spin, c.bare_bytes));
    CADRE_ASSIGN(const auto exchange, a2a::Create(options));
    return Rounds(mine, *exchange, meeting, c.bare_bytes > 0 ? &bare : nullptr, rendezvous.rank()).Run(times);
  }));
  return times;
}

Result<double> MeasureBare(int ranks, int64_t bytes, int64_t iterations) {
  double us = 0;
  CADRE_TRY(WithRanks(ranks, [&](fabric::Rendezvous& rendezvous, bool spin) {
    return BareRounds(rendezvous, spin, std::max<int64_t>(bytes, 8), iterations, us);
  }));
  return us;
}

Result<std::vector<MpiTimes>> MeasureMpi(int ranks, const std::vector<int64_t>& sizes, int64_t iterations) {
  std::vector<MpiTimes> times;
  CADRE_ASSIGN(const std::string self, sys::ProgramPath());
  const std::string program = self.substr(0, self.rfind('/') + 1) + "cadre_mpi_alltoallv";
  const std::string mpirun = InPath("mpirun");
  if (mpirun.empty() || access(program.c_str(), X_OK) != 0) return times;
  std::vector<std::string> args = {
      "--allow-run-as-root",   "--oversubscribe", "--bind-to", "core", "-np", Format("{}", ranks), program,
      Format("{}", iterations)};
  for (const int64_t bytes : sizes) args.push_back(Format("{}", bytes));
  CADRE_ASSIGN(const auto child, sys::Child::Spawn({.program = mpirun,
                                                    .args = args,
                                                    .env = {},
                                                    .fds = {},
                                                    .pass_on = false,
                                                    .keep_lines = sizes.size() + 20}));
  const auto end = child->Wait(Now() + 10 * kLongest);
  for (const std::string& line : child->LastLines()) {
    MpiTimes one;
    long long bytes = 0;
    int odd = 0;
    if (std::sscanf(line.c_str(), "%lld %lf %lf %d", &bytes, &one.alltoallv_us, &one.read_us, &odd) != 4)
      continue;
    one.bytes = bytes;
    times.push_back(one);
  }
  if (!end || !end->ok() || times.size() != sizes.size()) {
    const auto lines = child->LastLines();
    return Fail(Code::kUnavailable, "{} {}: {}", mpirun, end ? end->Describe() : "did not end",
                lines.empty() ? "no output" : lines.back());
  }
  return times;
}

}  // namespace cadre::app
