#include "app/demo/ranks.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "app/demo/check.h"
#include "app/demo/pass.h"
#include "fabric/broker.h"
#include "sys/process.h"
#include "sys/shared_memory.h"

namespace cadre::app::demo {
namespace {

// What a rank leaves for the parent in memory that both share: this, then its arrays.
struct Slip {
  Code code;
  bool failed, done;
  char message[1024], exchange[512];
  int64_t expert_bytes, chunk_rows;
  a2a::ByteCounts bytes;
};

// The arrays behind a rank's slip.
struct Pages : PassArrays {
  Slip* slip;

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
