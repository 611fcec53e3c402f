#include "group/lockstep.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "base/format.h"

namespace cadre::group {
namespace {

static_assert(std::is_trivially_copyable_v<StepWord>);
constexpr size_t kWordSpace = 64;  // a cache line for each of two parity sets
static_assert(sizeof(StepWord) <= kWordSpace);
constexpr size_t kZoneSpace = fabric::kMaxRanksPerHost * kWordSpace;  // a host's words, of one parity

}  // namespace

bool StepView::AnyWork() const {
  return std::ranges::any_of(words, &StepWord::has_work);
}
bool StepView::AnyGenerates() const {
  return std::ranges::any_of(words, &StepWord::generates);
}
bool StepView::AllStop() const {
  return std::ranges::all_of(words, &StepWord::stop);
}
bool StepView::AllPause() const {
  return std::ranges::all_of(words, &StepWord::pause);
}
uint64_t StepView::CommonOrder() const {
  const auto same = [&](const StepWord& word) { return word.order == words.front().order; };
  return std::ranges::all_of(words, same) ? words.front().order : 0;
}
int32_t StepView::MaxTokens() const {
  return std::ranges::max(words, {}, &StepWord::num_tokens).num_tokens;
}
int64_t StepView::TotalTokens() const {
  int64_t total = 0;
  for (const StepWord& word : words) total += word.num_tokens;
  return total;
}
struct Lockstep::State {
  std::unique_ptr<fabric::Fabric> fabric;  // null for one rank
  fabric::ControlBlock alone = {};
  fabric::Control control;
  int host_rank = 0;
  uint32_t round = 0;
  int64_t next_step = 0;
  std::vector<StepWord> words;

  uint32_t OldestTicketHere() const {
    const auto [begin, count] = fabric ? fabric->local() : fabric::MemberRange{0, 1};
    uint32_t oldest = words[static_cast<size_t>(begin)].ticket;
    for (int r = begin; r < begin + count; ++r) {
      const uint32_t ticket = words[static_cast<size_t>(r)].ticket;
      if (static_cast<int32_t>(ticket - oldest) < 0) oldest = ticket;  // tickets wrap
    }
    return oldest;
  }

  // All words of this round into `words`: those of this host from its segments, the others from their
  // message.
  Status Gather(const fabric::WaitContext& context) {
    const int parity = static_cast<int>(round & 1);
    const size_t at = static_cast<size_t>(parity) * kWordSpace;
    const size_t zone = static_cast<size_t>(parity) * kZoneSpace;
    CADRE_TRY(fabric->AwaitAll(parity, round, nullptr, context));
    const auto gather = [&](int, std::vector<fabric::Piece>& pieces) {
      const auto [begin, count] = fabric->local();
      for (int r = begin; r < begin + count; ++r) pieces.push_back({fabric->peer(r) + at, kWordSpace});
    };
    std::array<uint32_t, fabric::kMaxHosts> bytes;
    CADRE_TRY(fabric->Trade(parity, round, zone, bytes.data(), context, gather));
    for (int h = 0; h < fabric->num_hosts(); ++h) {
      const auto [begin, count] = fabric->members(h);
      const bool here = h == fabric->own_host();
      if (!here && bytes[static_cast<size_t>(h)] != static_cast<size_t>(count) * kWordSpace) {
        return Fail(Code::kDataLoss, "{} sent {} bytes for {} step words",
                    fabric::NameHost(fabric->hosts().entries[static_cast<size_t>(h)]),
                    bytes[static_cast<size_t>(h)], count);
      }
      for (int r = begin; r < begin + count; ++r) {
        const std::byte* word = here
                                    ? fabric->peer(r) + at
                                    : fabric->landing(h) + zone + static_cast<size_t>(r - begin) * kWordSpace;
        std::memcpy(&words[static_cast<size_t>(r)], word, sizeof(StepWord));
      }
    }
    return {};
  }
};

Lockstep::Lockstep(std::unique_ptr<State> state) : state_(std::move(state)) {}
Lockstep::~Lockstep() = default;

Result<std::unique_ptr<Lockstep>> Lockstep::Create(const LockstepOptions& options) {
  auto state = std::make_unique<State>();
  state->round = options.first_round - 1;
  if (options.rendezvous == nullptr) {
    state->control = fabric::Control(&state->alone, false);
    state->words.resize(1);
    return std::unique_ptr<Lockstep>(new Lockstep(std::move(state)));
  }
  fabric::FabricSpec spec{.name = options.name,
                          .ranks = options.ranks,
                          .segment_bytes = 2 * kWordSpace,
                          .num_flags = 2,
                          .first_round = options.first_round,
                          .spin = options.spin,
                          .num_channels = 2,
                          .landing_bytes = 2 * kZoneSpace};
  CADRE_ASSIGN(state->fabric, options.rendezvous->Open(spec, options.join_deadline));
  state->control = options.rendezvous->control();
  state->host_rank = options.rendezvous->rank();
  state->words.resize(static_cast<size_t>(state->fabric->size()));
  return std::unique_ptr<Lockstep>(new Lockstep(std::move(state)));
}

uint32_t Lockstep::Ticket() const {
  return state_->control.Ticket();
}
void Lockstep::Ring() {
  state_->control.Ring();
}

Result<StepView> Lockstep::Exchange(const StepWord& mine, TimePoint deadline) {
  State& s = *state_;
  const int64_t step = s.next_step++;
  s.control.line(s.host_rank).step.store(step, std::memory_order_relaxed);
  if (!s.fabric) {
    s.words[0] = mine;
    return StepView{step, s.words};
  }
  // One wait a round, so words and flags alternate: a peer that is a round ahead does not touch this round's.
  ++s.round;
  const int parity = static_cast<int>(s.round & 1);
  const size_t at = static_cast<size_t>(parity) * kWordSpace;
  std::memcpy(s.fabric->own() + at, &mine, sizeof(mine));
  s.fabric->Publish(parity, s.round, 0);
  CADRE_TRY(s.Gather({"the start", step, deadline}));
  for (int r = 0; r < s.fabric->size(); ++r) {
    const StepWord& word = s.words[static_cast<size_t>(r)];
    if (word.membership_epoch != mine.membership_epoch) {
      return Fail(Code::kInternal, "rank {} is in membership epoch {}, rank {} in {}",
                  s.fabric->world_rank(r), word.membership_epoch, s.fabric->world_rank(s.fabric->rank()),
                  mine.membership_epoch);
    }
  }
  return StepView{step, s.words};
}

Result<bool> Lockstep::Sleep(const StepView&, TimePoint deadline) {
  const State& s = *state_;
  const uint32_t ticket = s.OldestTicketHere();
  if (!s.fabric) return state_->control.AwaitRing(ticket, deadline);
  const uint32_t next = s.round + 1;
  return s.fabric->AwaitRingOrHost(ticket, static_cast<int>(next & 1), next, deadline);
}

}  // namespace cadre::group
