#include "rebalance/mover.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace cadre::rebalance {
namespace {

constexpr uint32_t kDoneBit = 1, kFailedBit = 2;
constexpr int64_t kPieceBytes = 64 << 10;  // that one thread copies before it looks at the clock

}  // namespace

Mover::Mover(ExpertMemory& memory, eplb::Hosts hosts, sys::ThreadPool& pool)
    : memory_(memory),
      hosts_(std::move(hosts)),
      pool_(pool),
      rank_(memory.fabric().rank()),
      host_(hosts_.of_rank[static_cast<size_t>(rank_)]),
      heads_(static_cast<size_t>(hosts_.count())),
      rank_bits_(hosts_.of_rank.size()) {}

bool Mover::FromOtherHost(const eplb::Write& write) const {
  return hosts_.of_rank[static_cast<size_t>(write.source_rank)] !=
         hosts_.of_rank[static_cast<size_t>(write.rank)];
}

void Mover::Begin(const eplb::Wave& wave) {
  own_.clear();
  next_copy_ = 0;
  const auto num_hosts = static_cast<size_t>(hosts_.count());
  out_.assign(num_hosts, {});
  in_.assign(num_hosts, {});
  for (const eplb::Write& write : wave.writes) {
    if (write.rank == rank_) own_.push_back({.write = &write});
    if (!FromOtherHost(write)) continue;
    const int from = hosts_.of_rank[static_cast<size_t>(write.source_rank)];
    const int to = hosts_.of_rank[static_cast<size_t>(write.rank)];
    if (from != host_ && to != host_) continue;
    Stream& stream = from == host_ ? out_[static_cast<size_t>(to)] : in_[static_cast<size_t>(from)];
    auto item = std::ranges::find_if(stream.items, [&](const Item& i) {
      return i.source_rank == write.source_rank && i.source_place == write.source_place;
    });
    if (item == stream.items.end()) {
      item = stream.items.insert(item, {write.source_rank, write.source_place, {}});
    }
    if (write.rank == rank_) item->own_writes.push_back(own_.size() - 1);
  }
}

// Within this rank's memory the source may be a place that this wave fills.
bool Mover::SourceReady(const eplb::Write& write) const {
  if (write.source_rank != rank_) return true;
  return std::ranges::none_of(own_, [&](const OwnWrite& other) {
    return other.write->place == write.source_place && other.done_bytes < memory_.place_bytes();
  });
}

void Mover::Copy(std::byte* to, const std::byte* from, int64_t bytes) {
  const int64_t num_pieces = (bytes + kPieceBytes - 1) / kPieceBytes;
  pool_.ForEach(num_pieces, [&](int64_t i, int) {
    const int64_t begin = i * kPieceBytes;
    std::memcpy(to + begin, from + begin, static_cast<size_t>(std::min(kPieceBytes, bytes - begin)));
  });
}

// In the order of the list; stops where a source is still on its way.
void Mover::CopyWithin(TimePoint until) {
  const int64_t turn_bytes = kPieceBytes * pool_.num_threads();
  for (; next_copy_ < own_.size(); ++next_copy_) {
    OwnWrite& own = own_[next_copy_];
    const eplb::Write& write = *own.write;
    if (FromOtherHost(write)) continue;
    if (!SourceReady(write)) return;
    const std::byte* const from = memory_.peer(write.source_rank, write.source_place);
    int64_t& counted = write.source_rank == rank_ ? counts_.copied_bytes : counts_.read_bytes;
    while (own.done_bytes < memory_.place_bytes()) {
      const int64_t bytes = std::min(turn_bytes, memory_.place_bytes() - own.done_bytes);
      Copy(memory_.own(write.place) + own.done_bytes, from + own.done_bytes, bytes);
      own.done_bytes += bytes;
      counted += bytes;
      if (Now() >= until) return;
    }
  }
}

bool Mover::OwnDone() const {
  return std::ranges::all_of(own_,
                             [&](const OwnWrite& own) { return own.done_bytes >= memory_.place_bytes(); });
}

Result<Verdict> Mover::Round(const RoundBudget& budget, const fabric::WaitContext& context, bool failed) {
  ++round_;
  if (!failed) CopyWithin(budget.copy_until);
  CADRE_TRY(Agree((OwnDone() ? kDoneBit : 0) | (failed ? kFailedBit : 0), budget, context));
  bool done = true;
  for (const Head& head : heads_) {
    if (head.failed != 0) return Verdict::kFailed;
    done &= head.done != 0;
  }
  return done ? Verdict::kDone : Verdict::kGoing;
}

// First this host, then all.
Status Mover::Agree(uint32_t own_bits, const RoundBudget& budget, const fabric::WaitContext& context) {
  fabric::Fabric& fabric = memory_.fabric();
  const int flag = static_cast<int>(round_ & 1);
  fabric.Publish(flag, round_, own_bits);
  CADRE_TRY(fabric.AwaitAll(flag, round_, rank_bits_.data(), context));
  Head& head = heads_[static_cast<size_t>(host_)];
  head = {.done = 1, .failed = 0};
  const auto [first, count] = fabric.local();
  for (int r = first; r < first + count; ++r) {
    const uint32_t bits = rank_bits_[static_cast<size_t>(r)];
    if ((bits & kDoneBit) == 0) head.done = 0;
    if ((bits & kFailedBit) != 0) head.failed = 1;
  }
  return fabric.num_hosts() > 1 ? TradeStreams(budget, context) : Status();
}

Status Mover::TradeStreams(const RoundBudget& budget, const fabric::WaitContext& context) {
  fabric::Fabric& fabric = memory_.fabric();
  const int parity = static_cast<int>(round_ & 1);
  const int64_t most = budget.message_bytes > 0 ? std::min(budget.message_bytes, memory_.message_bytes())
                                                : memory_.message_bytes();
  alignas(64) static constexpr std::byte kPadding[ExpertMemory::kHeadBytes - sizeof(Head)] = {};
  Head& head = sent_heads_[static_cast<size_t>(parity)];
  head = heads_[static_cast<size_t>(host_)];
  const auto gather = [&](int host, std::vector<fabric::Piece>& pieces) {
    pieces.push_back({reinterpret_cast<const std::byte*>(&head), sizeof(head)});
    pieces.push_back({kPadding, sizeof(kPadding)});
    Stream& stream = out_[static_cast<size_t>(host)];
    const int64_t end =
        std::min(stream.passed_bytes + most, std::ssize(stream.items) * memory_.place_bytes());
    while (stream.passed_bytes < end) {
      const Item& item = stream.items[static_cast<size_t>(stream.passed_bytes / memory_.place_bytes())];
      const int64_t at = stream.passed_bytes % memory_.place_bytes();
      const int64_t bytes = std::min(end - stream.passed_bytes, memory_.place_bytes() - at);
      pieces.push_back({memory_.peer(item.source_rank, item.source_place) + at, static_cast<size_t>(bytes)});
      stream.passed_bytes += bytes;
      counts_.sent_bytes += bytes;
    }
  };
  std::vector<uint32_t> bytes(static_cast<size_t>(fabric.num_hosts()));
  CADRE_TRY(fabric.Trade(parity, round_, memory_.LandingPlace(round_), bytes.data(), context, gather));
  for (int host = 0; host < fabric.num_hosts(); ++host) {
    if (host != host_) CADRE_TRY(Take(host, bytes[static_cast<size_t>(host)]));
  }
  return {};
}

// Reads a host's message where it has landed: its head, then the next piece of its stream.
Status Mover::Take(int host, uint32_t bytes) {
  const std::byte* const landed = memory_.fabric().landing(host) + memory_.LandingPlace(round_);
  Stream& stream = in_[static_cast<size_t>(host)];
  const int64_t left = std::ssize(stream.items) * memory_.place_bytes() - stream.passed_bytes;
  if (bytes < ExpertMemory::kHeadBytes || bytes - static_cast<int64_t>(ExpertMemory::kHeadBytes) > left) {
    return Fail(Code::kDataLoss, "{} sent {} bytes of experts and {} are still wanted",
                fabric::NameHost(memory_.fabric().hosts().entries[static_cast<size_t>(host)]), bytes, left);
  }
  std::memcpy(&heads_[static_cast<size_t>(host)], landed, sizeof(Head));
  const std::byte* from = landed + ExpertMemory::kHeadBytes;
  const int64_t end = stream.passed_bytes + bytes - static_cast<int64_t>(ExpertMemory::kHeadBytes);
  while (stream.passed_bytes < end) {
    const Item& item = stream.items[static_cast<size_t>(stream.passed_bytes / memory_.place_bytes())];
    const int64_t at = stream.passed_bytes % memory_.place_bytes();
    const int64_t size = std::min(end - stream.passed_bytes, memory_.place_bytes() - at);
    for (const size_t w : item.own_writes) {
      Copy(memory_.own(own_[w].write->place) + at, from, size);
      own_[w].done_bytes += size;
      counts_.received_bytes += size;
    }
    from += size;
    stream.passed_bytes += size;
  }
  return {};
}

std::string Mover::Missing() const {
  std::vector<int> ranks;
  std::string text;
  fabric::Fabric& fabric = memory_.fabric();
  const auto [first, count] = fabric.local();
  for (int r = first; r < first + count; ++r) {
    if ((rank_bits_[static_cast<size_t>(r)] & kDoneBit) == 0) ranks.push_back(fabric.world_rank(r));
  }
  if (!ranks.empty()) text = fabric::NameRanks(ranks);
  for (size_t h = 0; h < heads_.size(); ++h) {
    if (static_cast<int>(h) == host_ || heads_[h].done != 0) continue;
    text += (text.empty() ? "" : ", ") + fabric::NameHost(fabric.hosts().entries[h]);
  }
  return text;
}

}  // namespace cadre::rebalance
