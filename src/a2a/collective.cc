// Every round uses one of two parity sets {data, sums, landing places} and flags: a set is written again two
// rounds later, after all ranks have raised the round between, which they do only when they have read the
// set. Over hosts every round, whatever it is for, trades one message between any two hosts (an empty one, if
// a side has nothing to say), so what holds for flags holds for messages.
#include "a2a/collective.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "a2a/a2a.h"
#include "a2a/row_sum.h"
#include "base/check.h"
#include "fabric/fabric.h"
#include "fabric/regions.h"
#include "fabric/rendezvous.h"

namespace cadre::a2a {
namespace {

constexpr int64_t kBlock = 4096;     // floats that one task sums
constexpr size_t kLengthBytes = 64;  // space for the length of a text

}  // namespace

struct Collective::State {
  CollectiveOptions options;
  std::unique_ptr<fabric::Fabric> fabric;  // null for a group of one
  std::vector<float> alone;                // what Stage gives to a group of one
  size_t data[2], sums[2], length[2];      // offsets
  size_t place_bytes = 0;                  // of one set's landing place
  uint32_t round = 0;
  int64_t step = 0;
  TimePoint deadline = TimePoint::max();

  int rank() const { return fabric ? fabric->rank() : 0; }
  int size() const { return fabric ? fabric->size() : 1; }
  int parity() const { return static_cast<int>(round & 1); }
  const std::byte* Data(int r) const { return fabric->peer(r) + data[parity()]; }
  const std::byte* Sums(int r) const { return fabric->peer(r) + sums[parity()]; }

  // Raises flag `kind` (0 or 1) of this round and waits for all ranks' ones.
  Status Meet(int kind, uint32_t count, uint32_t* counts, const char* what) {
    const int flag = kind * 2 + parity();
    fabric->Publish(flag, round, count);
    return fabric->AwaitAll(flag, round, counts, {what, step, deadline});
  }

  bool over_hosts() const { return fabric->num_hosts() > 1; }
  // Trades this round's messages with all other hosts.
  Status Trade(uint32_t* bytes, const char* what, fabric::Fabric::Gather gather) {
    return fabric->Trade(parity(), round, static_cast<size_t>(parity()) * place_bytes, bytes,
                         {what, step, deadline}, gather);
  }
  const std::byte* Landed(int host) const {
    return fabric->landing(host) + static_cast<size_t>(parity()) * place_bytes;
  }
  Status FailSize(int host, uint32_t got, const char* what) const {
    return Fail(Code::kDataLoss, "{} sent {} bytes for {}, which is not what was agreed",
                fabric::NameHost(fabric->hosts().entries[static_cast<size_t>(host)]), got, what);
  }

  // out[begin, end) = the sum of this host's ranks' staged floats there.
  void Sum(int64_t begin, int64_t end, float* out, bool accumulate) {
    const int64_t num_blocks = (end - begin + kBlock - 1) / kBlock;
    const auto [first, ranks] = fabric->local();
    ForRows(options.device, num_blocks, kBlock * 4 * ranks, [&](int64_t b) {
      const int64_t from = begin + b * kBlock, n = std::min(kBlock, end - from);
      std::array<const float*, kMaxRanks> terms;
      for (int r = 0; r < ranks; ++r) {
        terms[static_cast<size_t>(r)] = reinterpret_cast<const float*>(Data(first + r)) + from;
      }
      SumRow({{terms.data(), static_cast<size_t>(ranks)}, {}, {}}, n, out + from, accumulate);
    });
  }

  Status Reduce(int64_t count, float* out, bool accumulate);
  Status ReduceOverHosts(int64_t count, float* out, bool accumulate);
  // Of `total` bytes from each rank, how many may go in one round.
  int64_t GatherBytes() const;
  Status GatherRound(std::span<const int64_t> begins, std::span<const int64_t> sizes, int64_t at,
                     std::byte* to);
};

// With more than two ranks and much to sum, each rank sums its share for all; otherwise each sums everything
// itself, which needs one meeting less.
Status Collective::State::Reduce(int64_t count, float* out, bool accumulate) {
  if (over_hosts()) return ReduceOverHosts(count, out, accumulate);
  CADRE_TRY(Meet(0, 0, nullptr, "all-reduce"));
  if (size() <= 2 || count * 4 <= options.split_bytes) {
    Sum(0, count, out, accumulate);
    return {};
  }
  const RowRange own = SplitRows(count, size(), rank());
  Sum(own.begin, own.begin + own.count, reinterpret_cast<float*>(fabric->own() + sums[parity()]), false);
  CADRE_TRY(Meet(1, 0, nullptr, "all-reduce"));
  for (int r = 0; r < size(); ++r) {
    const RowRange part = SplitRows(count, size(), r);
    const float* from = reinterpret_cast<const float*>(Sums(r)) + part.begin;
    SumRow({{&from, 1}, {}, {}}, part.count, out + part.begin, accumulate);
  }
  return {};
}

// The ranks of a host share out its sum, which goes to the other hosts from where it lies.
Status Collective::State::ReduceOverHosts(int64_t count, float* out, bool accumulate) {
  const auto [first, ranks] = fabric->local();
  CADRE_TRY(Meet(0, 0, nullptr, "all-reduce"));
  const RowRange own = SplitRows(count, ranks, rank() - first);
  Sum(own.begin, own.begin + own.count, reinterpret_cast<float*>(fabric->own() + sums[parity()]), false);
  CADRE_TRY(Meet(1, 0, nullptr, "all-reduce"));
  const auto gather = [&](int, std::vector<fabric::Piece>& pieces) {
    for (int r = 0; r < ranks; ++r) {
      const RowRange part = SplitRows(count, ranks, r);
      pieces.push_back({Sums(first + r) + part.begin * 4, static_cast<size_t>(part.count) * 4});
    }
  };
  std::array<uint32_t, kMaxRanks> bytes;
  CADRE_TRY(Trade(bytes.data(), "all-reduce", gather));
  for (int h = 0; h < fabric->num_hosts(); ++h) {
    const uint32_t got = bytes[static_cast<size_t>(h)];
    if (h != fabric->own_host() && got != count * 4) return FailSize(h, got, "an all-reduce");
  }
  for (int r = 0; r < ranks; ++r) {  // by the pieces in which this host's sum lies
    const RowRange part = SplitRows(count, ranks, r);
    ForRows(options.device, (part.count + kBlock - 1) / kBlock, kBlock * 4 * (fabric->num_hosts() + 1),
            [&](int64_t b) {
              const int64_t from = part.begin + b * kBlock;
              const int64_t n = std::min(kBlock, part.begin + part.count - from);
              std::array<const float*, kMaxRanks> terms;
              const auto hosts = static_cast<size_t>(fabric->num_hosts());
              for (size_t h = 0; h < hosts; ++h) {
                const bool here = static_cast<int>(h) == fabric->own_host();
                terms[h] =
                    reinterpret_cast<const float*>(here ? Sums(first + r) : Landed(static_cast<int>(h))) +
                    from;
              }
              SumRow({{terms.data(), hosts}, {}, {}}, n, out + from, accumulate);
            });
  }
  return {};
}

Collective::Collective(std::unique_ptr<State> state) : state_(std::move(state)) {}
Collective::~Collective() = default;

Result<std::unique_ptr<Collective>> Collective::Create(const CollectiveOptions& options) {
  CADRE_CHECK(options.capacity_bytes >= 64);
  auto state = std::make_unique<State>();
  state->options = options;
  state->options.capacity_bytes = options.capacity_bytes / 4 * 4;
  state->round = options.first_round - 1;
  const bool one = options.rendezvous == nullptr || options.ranks.size() == 1 ||
                   (options.ranks.empty() && options.rendezvous->num_ranks() == 1);
  if (!one) {
    fabric::Regions regions;
    for (int p = 0; p < 2; ++p) {
      state->data[p] = regions.Add(static_cast<size_t>(options.capacity_bytes));
      state->sums[p] = regions.Add(static_cast<size_t>(options.capacity_bytes));
      state->length[p] = regions.Add(kLengthBytes);
    }
    state->place_bytes = kLengthBytes + (static_cast<size_t>(options.capacity_bytes) + 63) / 64 * 64;
    fabric::FabricSpec spec{.name = "collective." + options.name,
                            .ranks = options.ranks,
                            .segment_bytes = regions.total(),
                            .num_flags = 4,
                            .first_round = options.first_round,
                            .spin = options.spin,
                            .num_channels = 2,
                            .landing_bytes = 2 * state->place_bytes};
    CADRE_ASSIGN(state->fabric, options.rendezvous->Open(spec, options.join_deadline));
    CADRE_CHECK(state->fabric->size() <= kMaxRanks);
  }
  return std::unique_ptr<Collective>(new Collective(std::move(state)));
}

int Collective::rank() const {
  return state_->rank();
}
int Collective::size() const {
  return state_->size();
}

void Collective::BeginStep(int64_t step, TimePoint deadline) {
  state_->step = step;
  state_->deadline = deadline;
}

float* Collective::Stage(int64_t count) {
  State& s = *state_;
  CADRE_CHECK(count >= 0 && count * 4 <= s.options.capacity_bytes);
  if (!s.fabric) {
    if (s.alone.size() < static_cast<size_t>(count)) s.alone.resize(static_cast<size_t>(count));
    return s.alone.data();
  }
  ++s.round;
  return reinterpret_cast<float*>(s.fabric->own() + s.data[s.parity()]);
}

Status Collective::ReduceStaged(int64_t count, float* out, bool accumulate) {
  State& s = *state_;
  if (s.fabric) return s.Reduce(count, out, accumulate);
  const float* own = s.alone.data();
  SumRow({{&own, 1}, {}, {}}, count, out, accumulate);
  return {};
}

Status Collective::AllReduceSum(float* x, int64_t count) {
  State& s = *state_;
  if (!s.fabric) return {};
  const int64_t most = s.options.capacity_bytes / 4;
  for (int64_t at = 0; at < count; at += most) {
    const int64_t n = std::min(most, count - at);
    std::memcpy(Stage(n), x + at, static_cast<size_t>(n) * 4);
    CADRE_TRY(s.Reduce(n, x + at, false));
  }
  return {};
}

Status Collective::AllGather(const void* own, std::span<const int64_t> sizes, void* out) {
  State& s = *state_;
  CADRE_CHECK(sizes.size() == static_cast<size_t>(s.size()));
  auto* to = static_cast<std::byte*>(out);
  std::array<int64_t, kMaxRanks> begins = {};
  int64_t total = 0, largest = 0;
  for (size_t r = 0; r < sizes.size(); ++r) {
    begins[r] = total;
    total += sizes[r];
    largest = std::max(largest, sizes[r]);
  }
  const auto me = static_cast<size_t>(s.rank());
  if (sizes[me] > 0) std::memmove(to + begins[me], own, static_cast<size_t>(sizes[me]));
  if (!s.fabric) return {};
  for (int64_t at = 0; at < largest; at += s.GatherBytes()) {
    CADRE_TRY(s.GatherRound(begins, sizes, at, to));
  }
  return {};
}

// A host's parts must fit into one landing place.
int64_t Collective::State::GatherBytes() const {
  int most = 1;
  for (int h = 0; h < fabric->num_hosts(); ++h) most = std::max(most, fabric->members(h).count);
  return over_hosts() ? std::max<int64_t>(1, options.capacity_bytes / most) : options.capacity_bytes;
}

// The bytes from `at` on of every rank's part.
Status Collective::State::GatherRound(std::span<const int64_t> begins, std::span<const int64_t> sizes,
                                      int64_t at, std::byte* to) {
  const auto piece = [&](int r) {
    return static_cast<size_t>(std::clamp<int64_t>(sizes[static_cast<size_t>(r)] - at, 0, GatherBytes()));
  };
  const auto place = [&](int r) { return to + begins[static_cast<size_t>(r)] + at; };
  ++round;
  if (piece(rank()) > 0) std::memcpy(fabric->own() + data[parity()], place(rank()), piece(rank()));
  CADRE_TRY(Meet(0, 0, nullptr, "all-gather"));
  const auto gather = [&](int, std::vector<fabric::Piece>& pieces) {
    const auto [first, ranks] = fabric->local();
    for (int r = first; r < first + ranks; ++r) pieces.push_back({Data(r), piece(r)});
  };
  std::array<uint32_t, kMaxRanks> bytes;
  CADRE_TRY(Trade(bytes.data(), "all-gather", gather));
  for (int h = 0; h < fabric->num_hosts(); ++h) {
    const bool here = h == fabric->own_host();
    const auto [first, ranks] = fabric->members(h);
    size_t offset = 0;
    for (int r = first; r < first + ranks; ++r) {
      const std::byte* from = here ? Data(r) : Landed(h) + offset;
      offset += piece(r);
      if (!here && offset > bytes[static_cast<size_t>(h)])
        return FailSize(h, bytes[static_cast<size_t>(h)], "an all-gather");
      if (r != rank() && piece(r) > 0) std::memcpy(place(r), from, piece(r));
    }
  }
  return {};
}

Status Collective::Broadcast(int root, std::string& text) {
  State& s = *state_;
  if (!s.fabric) return {};
  CADRE_CHECK(root >= 0 && root < s.size() && text.size() <= UINT32_MAX);
  const auto capacity = static_cast<size_t>(s.options.capacity_bytes);
  const int home = s.fabric->hosts().HostOf(root);
  size_t at = 0;
  uint64_t total = text.size();
  do {
    ++s.round;
    std::byte* own_length = s.fabric->own() + s.length[s.parity()];
    if (s.rank() == root) {
      std::memcpy(own_length, &total, sizeof(total));
      std::memcpy(s.fabric->own() + s.data[s.parity()], text.data() + at, std::min(capacity, total - at));
    }
    CADRE_TRY(s.Meet(0, 0, nullptr, "broadcast"));
    const bool here = home == s.fabric->own_host();
    const std::byte* length = here ? s.fabric->peer(root) + s.length[s.parity()] : s.Landed(home);
    const auto gather = [&](int, std::vector<fabric::Piece>& pieces) {
      if (!here) return;  // an empty message: all rounds are alike
      std::memcpy(&total, length, sizeof(total));
      pieces = {{length, kLengthBytes}, {s.Data(root), std::min<size_t>(capacity, total - at)}};
    };
    std::array<uint32_t, kMaxRanks> bytes;
    CADRE_TRY(s.Trade(bytes.data(), "broadcast", gather));
    std::memcpy(&total, length, sizeof(total));
    const size_t n = std::min<size_t>(capacity, total - at);
    if (!here && (total > UINT32_MAX || at > total || bytes[static_cast<size_t>(home)] != kLengthBytes + n)) {
      return s.FailSize(home, bytes[static_cast<size_t>(home)], "a broadcast");
    }
    if (s.rank() != root) {
      text.resize(total);
      std::memcpy(text.data() + at, here ? s.Data(root) : s.Landed(home) + kLengthBytes, n);
    }
    at += capacity;
  } while (at < total);
  return {};
}

Status Collective::Barrier() {
  State& s = *state_;
  if (!s.fabric) return {};
  ++s.round;
  CADRE_TRY(s.Meet(0, 0, nullptr, "barrier"));
  return s.Trade(nullptr, "barrier", [](int, std::vector<fabric::Piece>&) {});
}

}  // namespace cadre::a2a
