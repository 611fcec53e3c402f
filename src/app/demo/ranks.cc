#include "app/demo/ranks.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "fabric/broker.h"
#include "sys/cpu.h"
#include "sys/process.h"
#include "sys/shared_memory.h"

namespace cadre::app::demo {
namespace {

constexpr double kUnit = 0x1p-24;  // half a unit in the last place of an f32 in [1, 2)

// What a rank leaves for the parent in memory that both share: this, then its arrays.
struct Slip {
  Code code;
  bool failed, done;
  char message[1024], exchange[512];
  int64_t expert_bytes, chunk_rows;
  a2a::ByteCounts bytes;
};

// The arrays behind a rank's slip.
struct Pages {
  Slip* slip;
  int32_t* experts;
  float* weights;
  int32_t* slot_rows;
  float* out;

  static size_t Bytes(const Plan& plan) {
    const Shape& s = plan.shape;
    const int64_t words = s.num_tokens * (2 * s.top_k + s.hidden) + s.num_experts;
    return (sizeof(Slip) + static_cast<size_t>(words) * 4 + 63) / 64 * 64;
  }
  static Pages Of(const Plan& plan, std::byte* base, int rank) {
    const Shape& s = plan.shape;
    Pages p;
    base += static_cast<size_t>(rank) * Bytes(plan);
    p.slip = reinterpret_cast<Slip*>(base);
    p.experts = reinterpret_cast<int32_t*>(base + sizeof(Slip));
    p.weights = reinterpret_cast<float*>(p.experts + s.num_tokens * s.top_k);
    p.slot_rows = reinterpret_cast<int32_t*>(p.weights + s.num_tokens * s.top_k);
    p.out = reinterpret_cast<float*>(p.slot_rows + s.num_experts);
    return p;
  }
};

template <size_t kSize>
void Copy(const std::string& text, char (&to)[kSize]) {
  std::snprintf(to, kSize, "%s", text.c_str());
}

// Whether threads outnumber CPUs.
bool Spin(const Plan& plan) {
  return plan.num_ranks <= sys::UsableCpus();
}

a2a::Options ExchangeOptions(const Plan& plan, int64_t max_rows, int num_ranks) {
  a2a::Options options;
  options.backend = plan.backend;
  options.hidden = static_cast<int32_t>(plan.shape.hidden);
  options.act_type = DType::kF32;
  options.top_k = plan.shape.top_k;
  options.max_rows = max_rows;
  options.layout = {.num_slots = plan.shape.num_experts, .num_ranks = num_ranks};
  options.device = {.isa = plan.isa};
  options.join_deadline = Now() + plan.timeout;
  options.spin = Spin(plan);
  return options;
}

// Router, dispatch, experts, combine for all rows of a rank; `slot_rows` += the rows of each local slot.
Status RunLayer(const Plan& plan, const Layer& layer, const eplb::ExpertMap& map, a2a::AllToAll& exchange,
                int64_t num_rows, const Pages& page) {
  const int32_t k = plan.shape.top_k;
  const kernels::Device device{.isa = plan.isa};
  const auto* rows = reinterpret_cast<const float*>(exchange.Stage(num_rows));
  layer.Route(device, rows, num_rows, page.experts, page.weights);
  std::vector<int32_t> slots(static_cast<size_t>(num_rows * k));
  map.MapChoices(num_rows, k, page.experts, nullptr, slots.data());
  exchange.BeginStep(0, Now() + plan.timeout);
  int64_t next = 0;
  const auto send = [&]() -> Status {
    const int64_t first = next, count = std::min(exchange.chunk_rows(), num_rows - next);
    next += count;
    return exchange.Send({count, slots.data() + first * k, page.weights + first * k});
  };
  CADRE_TRY(send());
  std::vector<float> buffer;
  do {
    if (next < num_rows) CADRE_TRY(send());
    CADRE_ASSIGN(const a2a::RowTable table, exchange.Receive());
    for (int32_t s = 0; s < layer.num_experts(); ++s) {
      const auto at = static_cast<size_t>(s);
      page.slot_rows[s] += table.offsets[at + 1] - table.offsets[at];
    }
    float* expert_rows = exchange.StageResults();
    if (expert_rows == nullptr) {
      buffer.resize(static_cast<size_t>(table.num_rows * plan.shape.hidden));
      expert_rows = buffer.data();
    }
    layer.Run(device, table, expert_rows);
    CADRE_TRY(exchange.SendResults(expert_rows));
    CADRE_TRY(exchange.ReceiveResults(page.out, false));
  } while (exchange.more());
  return {};
}

Status RunRank(const Plan& plan, const eplb::ExpertMap& map, sys::Fd socket, const Pages& page) {
  CADRE_ASSIGN(const auto member, fabric::JoinHost(std::move(socket), Now() + plan.timeout));
  const int rank = member->rank();
  CADRE_ASSIGN(const Layer layer, Layer::Create(plan.shape, map.ExpertsOn(rank)));
  a2a::Options options = ExchangeOptions(plan, plan.shape.num_tokens, plan.num_ranks);
  options.rendezvous = member.get();
  CADRE_ASSIGN(const auto exchange, a2a::Create(options));
  layer.Tokens({.isa = plan.isa}, rank, reinterpret_cast<float*>(exchange->Stage(plan.shape.num_tokens)));
  CADRE_TRY(RunLayer(plan, layer, map, *exchange, plan.shape.num_tokens, page));
  page.slip->expert_bytes = layer.expert_bytes();
  page.slip->bytes = exchange->bytes();
  page.slip->chunk_rows = exchange->chunk_rows();
  Copy(exchange->Describe(), page.slip->exchange);
  // Nobody leaves before all have read what they need.
  CADRE_TRY(member->ExchangeBlobs("done", {}, "", Now() + plan.timeout));
  page.slip->done = true;
  return {};
}

[[noreturn]] void BeRank(const Plan& plan, const eplb::ExpertMap& map, sys::Fd socket, const Pages& page) {
  sys::DieWithParent(SIGKILL);
  const Status status = RunRank(plan, map, std::move(socket), page);
  if (!status) {
    page.slip->failed = true;
    page.slip->code = status.error().code;
    Copy(status.error().message, page.slip->message);
  }
  _exit(status ? 0 : 1);
}

// Waits for all ranks. A rank that died explains what the others say.
Status Reap(const std::vector<pid_t>& pids, fabric::Broker& broker, const Plan& plan, std::byte* shared) {
  Status result;
  for (size_t left = pids.size(); left > 0; --left) {
    int end = 0;
    pid_t pid;
    do {
      pid = waitpid(-1, &end, 0);
    } while (pid < 0 && errno == EINTR);
    const auto at = std::ranges::find(pids, pid);
    if (at == pids.end()) continue;
    const auto rank = static_cast<int>(at - pids.begin());
    const Slip& slip = *Pages::Of(plan, shared, rank).slip;
    if (slip.done && WIFEXITED(end) && WEXITSTATUS(end) == 0) continue;
    const sys::ExitStatus status{.code = WIFEXITED(end) ? WEXITSTATUS(end) : 0,
                                 .signal = WIFSIGNALED(end) ? WTERMSIG(end) : 0};
    const std::string reason = slip.failed ? Format("rank {}: {}", rank, slip.message)
                                           : Format("rank {} {}", rank, status.Describe());
    broker.control().Abort(rank, reason);
    if (result) {
      result = std::unexpected(Error{slip.failed ? slip.code : Code::kUnavailable,
                                     slip.failed ? std::string(slip.message) : reason,
                                     {}});
    }
  }
  return result;
}

Status RunRanks(const Plan& plan, const eplb::ExpertMap& map, std::byte* shared) {
  CADRE_ASSIGN(auto broker, fabric::Broker::Create(plan.num_ranks, Format("demo{}", getpid())));
  std::vector<pid_t> pids;
  for (int r = 0; r < plan.num_ranks; ++r) {
    const pid_t pid = fork();
    if (pid < 0) {
      for (const pid_t child : pids) kill(child, SIGKILL), waitpid(child, nullptr, 0);
      return Fail(Code::kResourceExhausted, "cannot start the process of rank {}: {}", r,
                  std::strerror(errno));
    }
    if (pid == 0) {
      sys::Fd socket = broker->TakeChildEnd(r);
      broker.reset();
      BeRank(plan, map, std::move(socket), Pages::Of(plan, shared, r));
    }
    pids.push_back(pid);
    broker->CloseChildEnd(r);
  }
  broker->Start();
  return Reap(pids, *broker, plan, shared);
}

RankReport ReadReport(const Plan& plan, const eplb::ExpertMap& map, const Pages& page, int rank) {
  const Shape& s = plan.shape;
  const auto held = map.ExpertsOn(rank);
  const int64_t choices = s.num_tokens * s.top_k;
  return {.held = {held.begin(), held.end()},
          .expert_bytes = page.slip->expert_bytes,
          .experts = {page.experts, page.experts + choices},
          .weights = {page.weights, page.weights + choices},
          .slot_rows = {page.slot_rows, page.slot_rows + held.size()},
          .bytes = page.slip->bytes,
          .exchange = page.slip->exchange,
          .out = {page.out, page.out + s.num_tokens * s.hidden}};
}

std::vector<std::vector<Traffic>> CountTraffic(const Plan& plan, const eplb::ExpertMap& map,
                                               const std::vector<RankReport>& ranks) {
  const int n = plan.num_ranks;
  std::vector<std::vector<Traffic>> traffic(static_cast<size_t>(n),
                                            std::vector<Traffic>(static_cast<size_t>(n)));
  for (size_t from = 0; from < ranks.size(); ++from) {
    for (int64_t t = 0; t < plan.shape.num_tokens; ++t) {
      std::vector<bool> seen(static_cast<size_t>(n));
      for (int32_t k = 0; k < plan.shape.top_k; ++k) {
        const LogicalExpert expert(ranks[from].experts[static_cast<size_t>(t * plan.shape.top_k + k)]);
        const auto to = static_cast<size_t>(map.layout().RankOf(map.SlotsOf(expert).front()));
        traffic[from][to].pairs += 1;
        if (!seen[to]) traffic[from][to].rows += 1;
        seen[to] = true;
      }
    }
  }
  return traffic;
}

// What came is what was sent, and the counters are what the formulas say.
Status CheckCounts(const Plan& plan, const eplb::ExpertMap& map, const Outcome& outcome, int64_t chunk_rows) {
  const Shape& s = plan.shape;
  std::vector<std::vector<int32_t>> slots;
  std::vector<a2a::RankChoices> choices;
  for (const RankReport& r : outcome.ranks) {
    slots.emplace_back(r.experts.size());
    map.MapChoices(s.num_tokens, s.top_k, r.experts.data(), nullptr, slots.back().data());
    choices.push_back({s.num_tokens, slots.back().data()});
  }
  const int64_t row_bytes = s.hidden * 4;
  for (int rank = 0; rank < plan.num_ranks; ++rank) {
    const auto at = static_cast<size_t>(rank);
    int64_t sent = 0, came = 0;
    for (const auto& from : outcome.traffic) sent += from[at].pairs;
    for (const int32_t rows : outcome.ranks[at].slot_rows) came += rows;
    if (sent != came) {
      return Fail(Code::kInternal, "rank {} computed {} rows, and {} were sent to it", rank, came, sent);
    }
    if (plan.num_ranks == 1) continue;
    const a2a::ByteCounts wanted = a2a::CountBytes({.backend = plan.backend,
                                                    .top_k = s.top_k,
                                                    .row_bytes = row_bytes,
                                                    .partial_bytes = row_bytes,
                                                    .layout = map.layout(),
                                                    .ranks = choices,
                                                    .chunk_rows = chunk_rows},
                                                   rank);
    if (wanted != outcome.ranks[at].bytes) {
      return Fail(Code::kInternal, "rank {} counted other bytes than the formula of {}", rank, plan.backend);
    }
  }
  return {};
}

// The same tokens in this process, which holds all experts. A sum of K terms in any order is off by at most
// (K - 1) units of the sum of the terms' magnitudes, a product before it by one more; two such sums differ by
// at most twice that.
Status CheckAlone(const Plan& plan, Outcome& outcome) {
  const Shape& s = plan.shape;
  const int64_t num_rows = s.num_tokens * plan.num_ranks, size = num_rows * s.hidden;
  CADRE_ASSIGN(const auto map, eplb::StartMap(s.num_experts, 0, 1, eplb::Placement::kLinear));
  CADRE_ASSIGN(const Layer layer, Layer::Create(s, map.ExpertsOn(0)));
  outcome.all_expert_bytes = layer.expert_bytes();
  CADRE_ASSIGN(const auto exchange, a2a::Create(ExchangeOptions(plan, num_rows, 1)));
  const auto stage_tokens = [&] {
    auto* rows = reinterpret_cast<float*>(exchange->Stage(num_rows));
    for (int r = 0; r < plan.num_ranks; ++r)
      layer.Tokens({.isa = plan.isa}, r, rows + r * s.num_tokens * s.hidden);
  };
  stage_tokens();
  std::vector<int32_t> experts(static_cast<size_t>(num_rows * s.top_k)),
      slot_rows(static_cast<size_t>(s.num_experts));
  std::vector<float> weights(experts.size()), out(static_cast<size_t>(size)), magnitudes(out.size());
  const Pages page{nullptr, experts.data(), weights.data(), slot_rows.data(), out.data()};
  CADRE_TRY(RunLayer(plan, layer, map, *exchange, num_rows, page));

  // Once more with the magnitudes of the expert rows, for the bound.
  stage_tokens();
  CADRE_ASSIGN(const a2a::RowTable table, exchange->Dispatch({num_rows, experts.data(), weights.data()}));
  std::vector<float> expert_rows(static_cast<size_t>(table.num_rows * s.hidden));
  layer.Run({.isa = plan.isa}, table, expert_rows.data());
  for (float& x : expert_rows) x = std::fabs(x);
  CADRE_TRY(exchange->Combine(expert_rows.data(), magnitudes.data(), false));

  for (int64_t i = 0; i < size; ++i) {
    const auto at = static_cast<size_t>(i);
    const int64_t of_rank = s.num_tokens * s.hidden;
    const float one = out[at];
    const float many = outcome.ranks[static_cast<size_t>(i / of_rank)].out[static_cast<size_t>(i % of_rank)];
    outcome.largest_output = std::max(outcome.largest_output, std::fabs(double{one}));
    if (std::memcmp(&one, &many, sizeof one) == 0) continue;
    ++outcome.num_different;
    const double difference = std::fabs(double{one} - double{many});
    const double bound = 2.0 * s.top_k * kUnit * double{magnitudes[at]};
    if (!(difference <= bound)) {
      return Fail(Code::kInternal, "token {} of rank {} is {} on {} ranks and {} in one process",
                  i % of_rank / s.hidden, i / of_rank, many, plan.num_ranks, one);
    }
    outcome.largest_difference = std::max(outcome.largest_difference, difference);
    outcome.worst_share = std::max(outcome.worst_share, bound > 0 ? difference / bound : 0.0);
  }
  return {};
}

// The ranks' weights and one process's, rows and buffers; a drawn matrix lies there once more before it is
// packed.
Result<int64_t> BytesNeeded(const Plan& plan, const eplb::ExpertMap& map) {
  const Shape& s = plan.shape;
  int64_t needed = s.num_tokens * plan.num_ranks * (s.top_k + 4) * (s.hidden + s.inter) * 4 * 2;
  if (s.model == nullptr) return needed + s.ExpertBytes() * (2 * s.num_experts + plan.num_ranks + 1);
  std::vector<int32_t> all;
  for (int r = 0; r < plan.num_ranks; ++r) {
    const auto held = map.ExpertsOn(r);
    all.insert(all.end(), held.begin(), held.end());
    CADRE_ASSIGN(const int64_t bytes, ModelPartBytes(*s.model, {held.begin(), held.end()}));
    needed += bytes;
  }
  CADRE_ASSIGN(const int64_t bytes, ModelPartBytes(*s.model, all));
  return needed + bytes;
}

Status CheckMemory(const Plan& plan, const eplb::ExpertMap& map) {
  const Shape& s = plan.shape;
  CADRE_ASSIGN(const int64_t needed, BytesNeeded(plan, map));
  CADRE_ASSIGN(const auto memory, sys::ReadMemoryInfo());
  if (needed <= memory.available()) return {};
  return Fail(
      Code::kResourceExhausted,
      "a layer of {} experts, hidden size {}, intermediate size {} takes {} here (its ranks and the one "
      "process that checks them); {} are free ({}). Make one of these smaller",
      s.num_experts, s.hidden, s.inter, sys::FormatBytes(needed), sys::FormatBytes(memory.available()),
      memory.limited_by);
}

}  // namespace

Result<Outcome> RunDemo(const Plan& plan) {
  const Shape& s = plan.shape;
  if (s.top_k > s.num_experts) {
    return FailParam(Code::kInvalidArgument, "--top-k",
                     "--top-k {} of --num-experts {}: a token's experts are distinct", s.top_k,
                     s.num_experts);
  }
  if (plan.num_ranks > s.num_experts) {
    return FailParam(Code::kInvalidArgument, "--nproc-per-node",
                     "--nproc-per-node {} is more than --num-experts {}: a rank without an expert would have "
                     "nothing to show",
                     plan.num_ranks, s.num_experts);
  }
  // Refused here with its own words, before a process is started.
  CADRE_TRY(a2a::BufferBytes(ExchangeOptions(plan, s.num_tokens, plan.num_ranks)));
  CADRE_ASSIGN(const auto map, eplb::StartMap(s.num_experts, 0, plan.num_ranks, plan.placement));
  CADRE_TRY(CheckMemory(plan, map));
  CADRE_ASSIGN(
      const sys::Segment shared,
      sys::CreateSegment("cadre-demo", Pages::Bytes(plan) * static_cast<size_t>(plan.num_ranks), false));
  CADRE_TRY(RunRanks(plan, map, shared.region.data()));
  Outcome outcome;
  for (int r = 0; r < plan.num_ranks; ++r) {
    outcome.ranks.push_back(ReadReport(plan, map, Pages::Of(plan, shared.region.data(), r), r));
  }
  outcome.traffic = CountTraffic(plan, map, outcome.ranks);
  const int64_t chunk_rows = Pages::Of(plan, shared.region.data(), 0).slip->chunk_rows;
  CADRE_TRY(CheckCounts(plan, map, outcome, chunk_rows));
  CADRE_TRY(CheckAlone(plan, outcome));
  return outcome;
}

}  // namespace cadre::app::demo
