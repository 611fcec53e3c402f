// Every round uses one of two parity sets {data, sums} and flags: a set is written again two rounds later,
// after all ranks have raised the round between, which they do only when they have read the set.
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

constexpr int64_t kBlock = 4096;  // floats that one task sums

}  // namespace

struct Collective::State {
  CollectiveOptions options;
  std::unique_ptr<fabric::Fabric> fabric;  // null for a group of one
  std::vector<float> alone;                // what Stage gives to a group of one
  size_t data[2], sums[2];                 // offsets
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

  // out[begin, end) = the sum of all ranks' staged floats there.
  void Sum(int64_t begin, int64_t end, float* out, bool accumulate) {
    const int64_t num_blocks = (end - begin + kBlock - 1) / kBlock;
    ForRows(options.device, num_blocks, kBlock * 4 * size(), [&](int64_t b) {
      const int64_t from = begin + b * kBlock, n = std::min(kBlock, end - from);
      std::array<const float*, kMaxRanks> terms;
      for (int r = 0; r < size(); ++r) {
        terms[static_cast<size_t>(r)] = reinterpret_cast<const float*>(Data(r)) + from;
      }
      SumRow({{terms.data(), static_cast<size_t>(size())}, {}, {}}, n, out + from, accumulate);
    });
  }

  Status Reduce(int64_t count, float* out, bool accumulate);
};

// With more than two ranks and much to sum, each rank sums its share for all; otherwise each sums everything
// itself, which needs one meeting less.
Status Collective::State::Reduce(int64_t count, float* out, bool accumulate) {
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
    }
    fabric::FabricSpec spec{.name = "collective." + options.name,
                            .ranks = options.ranks,
                            .segment_bytes = regions.total(),
                            .num_flags = 4,
                            .first_round = options.first_round,
                            .spin = options.spin};
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
  const auto* from = static_cast<const std::byte*>(own);
  auto* to = static_cast<std::byte*>(out);
  std::array<int64_t, kMaxRanks> begins;
  int64_t total = 0, largest = 0;
  for (size_t r = 0; r < sizes.size(); ++r) {
    begins[r] = total;
    total += sizes[r];
    largest = std::max(largest, sizes[r]);
  }
  const auto me = static_cast<size_t>(s.rank());
  if (sizes[me] > 0) std::memmove(to + begins[me], from, static_cast<size_t>(sizes[me]));
  if (!s.fabric) return {};
  from = to + begins[me];
  for (int64_t at = 0; at < largest; at += s.options.capacity_bytes) {
    const auto piece = [&](size_t r) {
      return static_cast<size_t>(std::clamp<int64_t>(sizes[r] - at, 0, s.options.capacity_bytes));
    };
    ++s.round;
    if (piece(me) > 0) std::memcpy(s.fabric->own() + s.data[s.parity()], from + at, piece(me));
    CADRE_TRY(s.Meet(0, 0, nullptr, "all-gather"));
    for (size_t r = 0; r < sizes.size(); ++r) {
      if (r != me && piece(r) > 0) std::memcpy(to + begins[r] + at, s.Data(static_cast<int>(r)), piece(r));
    }
  }
  return {};
}

Status Collective::Broadcast(int root, std::string& text) {
  State& s = *state_;
  if (!s.fabric) return {};
  CADRE_CHECK(root >= 0 && root < s.size() && text.size() <= UINT32_MAX);
  const auto capacity = static_cast<size_t>(s.options.capacity_bytes);
  size_t at = 0, total = text.size();
  std::array<uint32_t, kMaxRanks> counts;
  do {
    ++s.round;
    if (s.rank() == root) {
      std::memcpy(s.fabric->own() + s.data[s.parity()], text.data() + at, std::min(capacity, total - at));
    }
    CADRE_TRY(s.Meet(0, s.rank() == root ? static_cast<uint32_t>(total) : 0, counts.data(), "broadcast"));
    if (s.rank() != root) {
      total = counts[static_cast<size_t>(root)];
      text.resize(total);
      std::memcpy(text.data() + at, s.Data(root), std::min(capacity, total - at));
    }
    at += capacity;
  } while (at < total);
  return {};
}

Status Collective::Barrier() {
  State& s = *state_;
  if (!s.fabric) return {};
  ++s.round;
  return s.Meet(0, 0, nullptr, "barrier");
}

}  // namespace cadre::a2a
