#pragma once
// For tests: runs one rank of an exchange on drawn inputs and checks everything about it against the
// reference.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "a2a/a2a.h"
#include "a2a/algorithms.h"
#include "a2a/codec.h"
#include "a2a/reference.h"
#include "base/random.h"
#include "fabric/ranks_testing.h"

namespace cadre::a2a::test {

using namespace std::chrono_literals;

enum class Load { kRandom, kOneExpert, kEmptyRanks, kFull, kNoChoice };
constexpr Load kLoads[] = {Load::kRandom, Load::kOneExpert, Load::kEmptyRanks, Load::kFull, Load::kNoChoice};
constexpr const char* kBackends[] = {
    "allgather_reducescatter", "naive", "pplx", "deepep_high_throughput", "deepep_low_latency",
    "flashinfer_all2allv",     "mori"};

struct Case {
  std::string backend = "allgather_reducescatter";
  int ranks = 2;
  int32_t hidden = 48, top_k = 3, slots = 10;
  int64_t max_rows = 9;
  DType type = DType::kBf16;
  bool sharded = false;
  Load load = Load::kRandom;
  int rounds = 4;
  uint32_t first_round = 1;
  int threads = 1;
  int slow_rank = -1;
  uint64_t seed = 1;
  int64_t chunk_rows = 0;
  bool fp8 = false;
  int32_t ranks_per_host = 0;   // of the tree on one host
  std::vector<int> hosts = {};  // ranks of each, if several
  uint64_t jitter = 0;          // seed of random delays before every call; 0: none

  Tree tree() const { return TreeOf(*AlgorithmOf(backend)); }
  std::string Text() const {
    return Format(
        "{} ranks {} hosts {} hidden {} top_k {} slots {} max_rows {} {} {} load {} chunk {} fp8 {} per host "
        "{} "
        "seed {}",
        backend, ranks, fmt::join(hosts, "+"), hidden, top_k, slots, max_rows, DTypeName(type),
        sharded ? "sharded" : "whole", static_cast<int>(load), chunk_rows, fp8, ranks_per_host, seed);
  }
};

// All that a rank brings to a round; any rank can work out everybody's.
struct RankInput {
  int64_t num_rows = 0;
  std::vector<float> x;     // [T, H], exact in bf16
  std::vector<float> seen;  // what the experts get of it
  std::vector<int32_t> slots;
  std::vector<float> weights;
};

// x through the codec and back.
inline std::vector<float> ThroughFp8(const Case& c, const std::vector<float>& x) {
  std::vector<float> seen;
  std::vector<std::byte> row(static_cast<size_t>(c.hidden * DTypeBytes(c.type))),
      packed(static_cast<size_t>(Fp8RowBytes(c.hidden)));
  auto* f32 = reinterpret_cast<float*>(row.data());
  auto* bf16 = reinterpret_cast<Bf16*>(row.data());
  for (size_t t = 0; t < x.size(); t += static_cast<size_t>(c.hidden)) {
    for (size_t h = 0; h < static_cast<size_t>(c.hidden); ++h) {
      if (c.type == DType::kBf16) bf16[h] = ToBf16(x[t + h]);
      if (c.type == DType::kF32) f32[h] = x[t + h];
    }
    PackFp8(row.data(), c.type, c.hidden, packed.data());
    UnpackFp8(packed.data(), c.type, c.hidden, row.data());
    for (size_t h = 0; h < static_cast<size_t>(c.hidden); ++h)
      seen.push_back(c.type == DType::kBf16 ? ToFloat(bf16[h]) : f32[h]);
  }
  return seen;
}

inline RankInput MakeInput(const Case& c, int round, int rank) {
  uint64_t counter = 0;
  const uint64_t stream = static_cast<uint64_t>(round) * 100 + static_cast<uint64_t>(rank);
  const auto draw = [&] { return UniformAt(c.seed, stream, counter++); };
  RankInput input;
  input.num_rows = static_cast<int64_t>(draw() * static_cast<double>(c.max_rows + 1));
  if (c.load == Load::kFull) input.num_rows = c.max_rows;
  if (c.load == Load::kEmptyRanks && rank % 2 == 1 - round % 2) input.num_rows = 0;
  for (int64_t i = 0; i < input.num_rows * c.hidden; ++i) {
    input.x.push_back(ToFloat(ToBf16(static_cast<float>(draw() * 2 - 1))));
  }
  input.seen = c.fp8 ? ThroughFp8(c, input.x) : input.x;
  for (int64_t t = 0; t < input.num_rows; ++t) {
    std::vector<int32_t> all;
    for (int32_t s = 0; s < c.slots; ++s) all.push_back(s);
    for (int32_t k = 0; k < c.top_k; ++k) {
      const auto pick = static_cast<size_t>(draw() * static_cast<double>(all.size()));
      int32_t slot = all.empty() || draw() < 0.15 ? -1 : all[pick];
      if (slot >= 0) all.erase(all.begin() + static_cast<int64_t>(pick));
      if (c.load == Load::kOneExpert) slot = k == 0 ? c.slots - 1 : -1;
      if (c.load == Load::kNoChoice) slot = -1;
      input.slots.push_back(slot);
      input.weights.push_back(slot < 0 ? NAN
                                       : static_cast<float>(draw()));  // weights of no choice are never read
    }
  }
  return input;
}

// An expert: depends on slot, shard and every column; sums of its values round, so their order shows.
inline void Expert(const Case& c, int rank, int32_t slot, const float* row, float* out) {
  for (int32_t h = 0; h < c.hidden; ++h) {
    const float shard = c.sharded ? 1.0f + 0.3f * static_cast<float>(rank) : 1.0f;
    out[h] = row[(h + slot) % c.hidden] * (0.7f + 0.1f * static_cast<float>(slot)) * shard + 0.01f;
  }
}

using Hosts = std::vector<fabric::MemberRange>;  // the ranks of each; one or none: a single host

inline Hosts HostsOf(fabric::Rendezvous& rendezvous) {
  Hosts hosts;
  for (const fabric::HostEntry& host : rendezvous.hosts().hosts) {
    hosts.push_back({host.first_rank, host.num_ranks});
  }
  return hosts;
}

inline std::vector<float> Wanted(const Case& c, const eplb::SlotLayout& layout,
                                 const std::vector<RankInput>& inputs, const Hosts& hosts, int home) {
  std::vector<ReferenceInput> ranks;
  for (const RankInput& i : inputs) ranks.push_back({i.num_rows, i.slots.data(), i.weights.data()});
  const auto expert = [&](int rank, int32_t slot, int source, int64_t row, float* out) {
    Expert(c, rank, slot, inputs[static_cast<size_t>(source)].seen.data() + row * c.hidden, out);
  };
  const ReferenceArgs args{c.top_k, c.hidden, layout, ranks, c.tree(), c.ranks_per_host, expert};
  return hosts.size() > 1 ? ReferenceHostCombine(args, hosts, c.type, home) : ReferenceCombine(args, home);
}

// The rows of a chunk in the order the contract promises, and what each must look like.
inline void CheckTable(const Case& c, const eplb::SlotLayout& layout, const std::vector<RankInput>& inputs,
                       int me, int64_t chunk_rows, int64_t chunk, const RowTable& table) {
  int64_t n = 0;
  for (int32_t local = 0; local < layout.Count(me); ++local) {
    ASSERT_EQ(table.offsets[static_cast<size_t>(local)], n);
    for (const RankInput& input : inputs) {
      const RowRange piece = PieceOf(input.num_rows, chunk_rows, chunk);
      for (int64_t i = piece.begin * c.top_k; i < (piece.begin + piece.count) * c.top_k; ++i) {
        if (input.slots[static_cast<size_t>(i)] != layout.Begin(me) + local) continue;
        ASSERT_LT(n, table.num_rows);
        EXPECT_EQ(table.row_weights[n],
                  c.tree() == Tree::kByK && c.ranks > 1 ? 1.0f : input.weights[static_cast<size_t>(i)]);
        const float* x = input.seen.data() + i / c.top_k * c.hidden;
        for (int32_t h = 0; h < c.hidden; ++h) {
          const float got = c.type == DType::kBf16 ? ToFloat(static_cast<const Bf16*>(table.rows[n])[h])
                                                   : static_cast<const float*>(table.rows[n])[h];
          ASSERT_EQ(got, x[h]);
        }
        ++n;
      }
    }
  }
  EXPECT_EQ(table.offsets.back(), n);
  EXPECT_EQ(table.num_rows, n);
}

inline void WriteRows(const Case& c, const RankInput& input, std::byte* to) {
  // Capacity that is not used holds NaN.
  for (int64_t i = 0; i < c.max_rows * c.hidden; ++i) {
    const float value = i < input.num_rows * c.hidden ? input.x[static_cast<size_t>(i)] : NAN;
    if (c.type == DType::kBf16) {
      reinterpret_cast<Bf16*>(to)[i] = ToBf16(value);
    } else {
      reinterpret_cast<float*>(to)[i] = value;
    }
  }
}

inline Options OptionsOf(const Case& c) {
  Options options;
  options.backend = c.backend;
  options.hidden = c.hidden;
  options.act_type = c.type;
  options.top_k = c.top_k;
  options.max_rows = c.max_rows;
  options.layout = {.num_slots = c.slots, .num_ranks = c.ranks, .sharded = c.sharded};
  options.spin = false;
  options.first_round = c.first_round;
  options.chunk_rows = c.chunk_rows;
  options.fp8_dispatch = c.fp8;
  options.tree_ranks_per_host = c.ranks_per_host;
  options.poison = true;
  return options;
}

// What the experts of `me` make of the table, [N, H], each times its row weight.
inline void RunExperts(const Case& c, int me, int32_t first_slot, const RowTable& table, float* experts) {
  for (size_t local = 0; local + 1 < table.offsets.size(); ++local) {
    for (int32_t n = table.offsets[local]; n < table.offsets[local + 1]; ++n) {
      std::vector<float> row(static_cast<size_t>(c.hidden));
      for (int32_t h = 0; h < c.hidden; ++h) {
        row[static_cast<size_t>(h)] = c.type == DType::kBf16
                                          ? ToFloat(static_cast<const Bf16*>(table.rows[n])[h])
                                          : static_cast<const float*>(table.rows[n])[h];
      }
      float* out = experts + int64_t{n} * c.hidden;
      Expert(c, me, first_slot + static_cast<int32_t>(local), row.data(), out);
      for (int32_t h = 0; h < c.hidden; ++h) out[h] *= table.row_weights[n];
    }
  }
}

// What a rank gets from one exchange of `mine` and nothing else.
inline Result<std::vector<float>> ExchangeOnce(const Case& c, fabric::Rendezvous& rendezvous,
                                               const RankInput& mine) {
  Options options = OptionsOf(c);
  options.rendezvous = &rendezvous;
  CADRE_ASSIGN(const std::unique_ptr<AllToAll> a2a, Create(options));
  a2a->BeginStep(0, Now() + std::chrono::seconds(60));
  WriteRows(c, mine, a2a->Stage(mine.num_rows));
  CADRE_ASSIGN(const auto table, a2a->Dispatch({mine.num_rows, mine.slots.data(), mine.weights.data()}));
  std::vector<float> experts(static_cast<size_t>(table.num_rows * c.hidden) + 1);
  RunExperts(c, rendezvous.rank(), options.layout.Begin(rendezvous.rank()), table, experts.data());
  std::vector<float> out(static_cast<size_t>(mine.num_rows * c.hidden));
  CADRE_TRY(a2a->Combine(experts.data(), out.data(), false));
  return out;
}

// One exchange of all rows, and all that can be checked about it.
inline void RunRound(const Case& c, AllToAll& a2a, int round, int me, const Hosts& hosts,
                     ByteCounts& counted) {
  const eplb::SlotLayout layout{.num_slots = c.slots, .num_ranks = c.ranks, .sharded = c.sharded};
  std::vector<RankInput> inputs;
  for (int r = 0; r < c.ranks; ++r) inputs.push_back(MakeInput(c, round, r));
  const RankInput& mine = inputs[static_cast<size_t>(me)];
  uint64_t point = 0;
  const auto delay = [&] {  // the others may run ahead as far as they can
    if (me == c.slow_rank) std::this_thread::sleep_for(3ms);
    const auto stream = static_cast<uint64_t>(round * 1000 + me);
    if (c.jitter != 0)
      std::this_thread::sleep_for(std::chrono::microseconds(
          static_cast<int64_t>(std::max(0.0, UniformAt(c.jitter, stream, point++) * 600 - 300))));
  };
  a2a.BeginStep(round, Now() + 60s);
  WriteRows(c, mine, a2a.Stage(mine.num_rows));
  const int64_t chunk_rows = a2a.chunk_rows(), num_pieces = NumPieces(mine.num_rows, chunk_rows);
  const auto send = [&](int64_t p) {
    const RowRange piece = PieceOf(mine.num_rows, chunk_rows, p);
    ASSERT_TRUE(a2a.Send({piece.count, mine.slots.data() + piece.begin * c.top_k,
                          mine.weights.data() + piece.begin * c.top_k}));
  };
  delay();
  send(0);
  const bool accumulate = round % 2 == 1;
  std::vector<float> out(static_cast<size_t>(mine.num_rows * c.hidden), accumulate ? 0.25f : NAN);
  int64_t chunk = 0;
  do {
    if (chunk + 1 < num_pieces) send(chunk + 1);
    delay();
    if ((me + chunk) % 2 == 0) a2a.Progress();
    const auto table = a2a.Receive();
    ASSERT_TRUE(table) << table.error().message;
    EXPECT_LE(table->num_rows, *MaxTableRows(OptionsOf(c)));
    CheckTable(c, layout, inputs, me, chunk_rows, chunk, *table);
    std::vector<float> elsewhere(static_cast<size_t>(table->num_rows * c.hidden) + 1, NAN);
    float* experts = a2a.StageResults() == nullptr || round % 3 == 2 ? elsewhere.data() : a2a.StageResults();
    RunExperts(c, me, layout.Begin(me), *table, experts);
    delay();
    ASSERT_TRUE(a2a.SendResults(experts));
    delay();
    const Status combined = a2a.ReceiveResults(out.data(), accumulate);
    ASSERT_TRUE(combined) << combined.error().message;
    ++chunk;
  } while (a2a.more());
  int64_t most = 1;
  for (const RankInput& i : inputs) most = std::max(most, NumPieces(i.num_rows, chunk_rows));
  EXPECT_EQ(chunk, most);
  std::vector<float> want = Wanted(c, layout, inputs, hosts, me);
  if (accumulate) {
    for (float& w : want) w = 0.25f + w;
  }
  ASSERT_EQ(out.size(), want.size());
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(want[i]))
        << "round " << round << " rank " << me << " at " << i << ": " << out[i] << " " << want[i];
  }
  EXPECT_TRUE(a2a.CanariesIntact());
  if (c.ranks == 1) return;
  std::vector<RankChoices> choices;
  for (const RankInput& i : inputs) choices.push_back({i.num_rows, i.slots.data()});
  const int64_t row_bytes = c.fp8 ? Fp8RowBytes(c.hidden) : c.hidden * DTypeBytes(c.type);
  counted += CountBytes({.backend = c.backend,
                         .top_k = c.top_k,
                         .row_bytes = row_bytes,
                         .partial_bytes = c.hidden * 4,
                         .layout = layout,
                         .ranks = choices,
                         .chunk_rows = chunk_rows,
                         .hosts = hosts,
                         .sum_bytes = c.hidden * DTypeBytes(c.type)},
                        me);
  const ByteCounts got = a2a.bytes();
  EXPECT_EQ(got.dispatch_algorithmic, counted.dispatch_algorithmic);
  EXPECT_EQ(got.dispatch_physical, counted.dispatch_physical);
  EXPECT_EQ(got.combine_algorithmic, counted.combine_algorithmic);
  EXPECT_EQ(got.combine_physical, counted.combine_physical);
  EXPECT_EQ(got.dispatch_wire, counted.dispatch_wire);
  EXPECT_EQ(got.combine_wire, counted.combine_wire);
}

inline void RunRank(const Case& c, fabric::Rendezvous& rendezvous) {
  SCOPED_TRACE(c.Text());
  sys::ThreadPool pool({.num_threads = c.threads, .cpus = {}, .spin = false});
  Options options = OptionsOf(c);
  options.device.pool = &pool;
  options.rendezvous = &rendezvous;
  options.join_deadline = Now() + 60s;
  auto made = Create(options);
  ASSERT_TRUE(made) << made.error().message;
  ByteCounts counted;
  for (int round = 0; round < c.rounds && !testing::Test::HasFatalFailure(); ++round)
    RunRound(c, **made, round, rendezvous.rank(), HostsOf(rendezvous), counted);
}

}  // namespace cadre::a2a::test
