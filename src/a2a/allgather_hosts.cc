// allgather_reducescatter over hosts: all ranks see all rows; partial sums come home by host, then rank.
//
// In a host everything is as in allgather_reducescatter.cc. Between two hosts goes one message there and one
// back:
//   dispatch  rows and choices of all ranks of the host, straight from their segments; ranks of the other
//   host
//             read them in the landing zone
//   combine   for each row of the other host that some rank here computes for, one row: the f32 partial sums
//   of
//             this host's ranks added in rank order, rounded once to the model's type. The host's ranks share
//             out this reduction; the message is gathered from where they put it.
// The home rank adds its own host's sum (f32, never rounded) and those of the other hosts in host order.
//
// Reuse: one set of everything is enough, one landing place for each direction too.
//   rows, choices, heads  rewritten after my combine wait of round r. Peers here have raised combine r, so
//   they
//                         have read my rows; every other host's combine message of r has come, and it was
//                         sent after that host had received my host's whole dispatch message of r.
//   partial sums          rewritten after my dispatch wait of r + 1: peers have raised it after reading them.
//   reduced rows          rewritten after all dispatch messages of r + 1: sent by hosts that had received my
//                         host's combine message of r whole.
//   dispatch landing      written by a dispatch message r + 1, which its host sent after my host's combine
//                         message of r, sent when all here were done with the rows of r.
//   combine landing       written by a combine message r + 1, sent after my host's dispatch message of r + 1,
//                         sent when all here had raised it, done with the sums of r.
//
// Bytes between hosts: there T_host (H b + 8 K) to each other host; back one row of H b for each (row, host)
// with a choice. Heads of 256 bytes and padding are not counted.
#include "a2a/allgather_hosts.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "a2a/host_rows.h"
#include "a2a/rank_segment.h"
#include "a2a/row_sum.h"
#include "fabric/rendezvous.h"
#include "sys/memory.h"

namespace cadre::a2a {
namespace {

constexpr int64_t kColumns = 512;
constexpr size_t kHeadBytes = fabric::kMaxRanksPerHost * sizeof(uint32_t);  // rows of each rank
constexpr int kDispatchChannel = 0, kCombineChannel = 1;
constexpr std::byte kZeros[64] = {};

size_t RoundUp(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

struct Parts : SegmentParts {
  Parts(const Options& o, const fabric::GroupHosts& hosts) : SegmentParts(o) {
    const auto max_rows = static_cast<size_t>(o.max_rows);
    row_bytes = static_cast<size_t>(o.hidden * DTypeBytes(o.act_type));
    choice_bytes = static_cast<size_t>(o.top_k) * 8;
    block_bytes = max_rows * static_cast<size_t>(o.hidden) * sizeof(float);
    head = regions.Add(kHeadBytes);
    partials = regions.Add(block_bytes * static_cast<size_t>(o.layout.num_ranks - 1));
    size_t most = 0, fewest = SIZE_MAX;  // ranks of a host
    for (const fabric::MemberRange& range : hosts.members) {
      most = std::max(most, static_cast<size_t>(range.count));
      fewest = std::min(fewest, static_cast<size_t>(range.count));
    }
    // A rank's share of the rows of one host. Segments are the same on all ranks, so for the fewest to share.
    for (const fabric::MemberRange& range : hosts.members) {
      const size_t host_rows = static_cast<size_t>(range.count) * max_rows;
      reduced.push_back(regions.Add((host_rows + fewest - 1) / fewest * row_bytes));
    }
    combine_place =
        kHeadBytes + RoundUp(most * max_rows * choice_bytes) + RoundUp(most * max_rows * row_bytes);
    num_channels = 2;
    landing_bytes = combine_place + most * max_rows * row_bytes;
  }
  size_t head, partials, block_bytes, row_bytes, choice_bytes, combine_place;
  std::vector<size_t> reduced;  // by host
};

// Adds a row's piece of a type to a sum, or begins it.
template <typename T>
void Take(const T* from, int64_t n, bool first, float* sum) {
  for (int64_t i = 0; i < n; ++i) {
    float value;
    if constexpr (std::is_same_v<T, float>) {
      value = from[i];
    } else {
      value = ToFloat(from[i]);
    }
    sum[i] = first ? value : sum[i] + value;
  }
}

class AllGatherHosts final : public AllToAll {
 public:
  AllGatherHosts(const Options& options, Parts parts, std::unique_ptr<RankSegment> segment)
      : options_(options),
        parts_(std::move(parts)),
        segment_(std::move(segment)),
        fabric_(segment_->fabric()),
        me_(segment_->rank()),
        here_(fabric_.local()),
        builder_(options.top_k, segment_->row_bytes(), options.layout.Begin(me_), options.layout.Count(me_),
                 options.layout.num_slots),
        host_rows_(static_cast<size_t>(fabric_.num_hosts())),
        home_rows_(host_rows_.size()) {}

  void BeginStep(int64_t step, TimePoint deadline) override { segment_->BeginStep(step, deadline); }
  int64_t chunk_rows() const override { return options_.max_rows; }
  bool CanariesIntact() const override { return segment_->CanariesIntact(); }
  std::byte* Stage(int64_t num_rows) override { return segment_->Stage(num_rows); }

  Status Send(const Routing& routing) override {
    segment_->SendRouting(routing);
    return {};
  }

  Result<RowTable> Receive() override {
    CADRE_TRY(segment_->AwaitSources(sources_));
    CADRE_TRY(TradeRows());
    CADRE_TRY(builder_.Build(sources_));
    for (int h = 0; h < fabric_.num_hosts(); ++h) {
      if (h == fabric_.own_host()) continue;
      const auto host = static_cast<size_t>(h);
      host_rows_[host].Build(options_.layout, options_.top_k, sources_, fabric_.members(h), here_);
      home_rows_[host].Build(options_.layout, options_.top_k, sources_, me_, here_, fabric_.members(h));
    }
    CountDispatch();
    return builder_.table();
  }

  Status SendResults(const float* expert_rows) override {
    expert_rows_ = expert_rows;
    const int64_t width = options_.hidden;
    for (int home = 0; home < segment_->size(); ++home) {
      if (home == me_) continue;
      const auto touched = builder_.TouchedRows(home);
      float* block = reinterpret_cast<float*>(fabric_.own() + BlockOffset(me_, home));
      ForRows(options_.device, static_cast<int64_t>(touched.size()), width * 4 * (options_.top_k + 1),
              [&](int64_t i) {
                std::array<const float*, kMaxTopK> own;
                SumRow({{}, OwnTerms(home, touched[static_cast<size_t>(i)], 0, own), {}}, width,
                       block + i * width, false);
              });
    }
    fabric_.Publish(kCombineFlag, segment_->round(), 0);
    return {};
  }

  Status ReceiveResults(float* out, bool accumulate) override {
    CADRE_TRY(fabric_.AwaitAll(kCombineFlag, segment_->round(), nullptr, segment_->Context("combine")));
    for (int h = 0; h < fabric_.num_hosts(); ++h) {
      if (h != fabric_.own_host()) Reduce(h);
    }
    fabric_.Publish(kGatherFlag, segment_->round(), 0);
    CADRE_TRY(TradeSums());
    PlaceOwnRows();
    ForRows(options_.device, segment_->num_rows(), options_.hidden * 4 * (segment_->size() + options_.top_k),
            [&](int64_t t) { SumHome(t, out + t * options_.hidden, accumulate); });
    CountCombine();
    return {};
  }

  ByteCounts bytes() const override { return bytes_; }
  const char* name() const override { return "allgather_reducescatter"; }
  std::string Describe() const override {
    return Format(
        "allgather_reducescatter: all ranks see all rows, partial sums by host, then rank: f32 in a host, "
        "{} between hosts; {} ranks on {} hosts, shared memory in a host and one message each way "
        "over {} between hosts{}; up to {} rows a rank; {} of buffers a rank",
        DTypeName(options_.act_type), segment_->size(), fabric_.num_hosts(),
        options_.rendezvous->hosts().link, options_.layout.sharded ? ", experts sharded" : "",
        options_.max_rows, sys::FormatBytes(AllGatherHostsBytes(options_, fabric_.hosts())));
  }

 private:
  Status FailSize(int host, uint32_t got, const char* what) const {
    return Fail(Code::kDataLoss, "{} sent {} bytes for a {} that needs another number",
                fabric::NameHost(fabric_.hosts().entries[static_cast<size_t>(host)]), got, what);
  }

  Status TradeRows() {
    const auto gather = [&](int, std::vector<fabric::Piece>& pieces) {
      auto* head = reinterpret_cast<uint32_t*>(fabric_.own() + parts_.head);
      size_t rows = 0;
      for (int j = 0; j < here_.count; ++j) {
        const Source& source = sources_[static_cast<size_t>(here_.begin + j)];
        head[j] = static_cast<uint32_t>(source.num_rows);
        rows += static_cast<size_t>(source.num_rows);
      }
      pieces.push_back({fabric_.own() + parts_.head, kHeadBytes});
      const auto each = [&](auto of, size_t bytes) {
        for (int j = 0; j < here_.count; ++j) {
          const Source& source = sources_[static_cast<size_t>(here_.begin + j)];
          pieces.push_back(
              {reinterpret_cast<const std::byte*>(source.*of), static_cast<size_t>(source.num_rows) * bytes});
        }
      };
      each(&Source::slots, parts_.choice_bytes / 2);
      each(&Source::weights, parts_.choice_bytes / 2);
      pieces.push_back({kZeros, RoundUp(rows * parts_.choice_bytes) - rows * parts_.choice_bytes});
      each(&Source::rows, parts_.row_bytes);
    };
    std::array<uint32_t, kMaxRanks> bytes;
    CADRE_TRY(fabric_.Trade(kDispatchChannel, segment_->round(), 0, bytes.data(),
                            segment_->Context("dispatch"), gather));
    for (int h = 0; h < fabric_.num_hosts(); ++h) {
      if (h != fabric_.own_host()) CADRE_TRY(TakeSources(h, bytes[static_cast<size_t>(h)]));
    }
    return {};
  }

  // Another host's rows and choices, in place.
  Status TakeSources(int host, uint32_t got) {
    const auto [begin, count] = fabric_.members(host);
    const std::byte* at = fabric_.landing(host);
    const auto* head = reinterpret_cast<const uint32_t*>(at);
    size_t rows = 0;
    for (int j = 0; j < count; ++j) {
      if (head[j] > static_cast<uint64_t>(options_.max_rows)) {
        return Fail(Code::kDataLoss, "rank {} sent {} rows; at most {} were agreed",
                    fabric_.world_rank(begin + j), head[j], options_.max_rows);
      }
      rows += head[j];
    }
    if (got != kHeadBytes + RoundUp(rows * parts_.choice_bytes) + rows * parts_.row_bytes) {
      return FailSize(host, got, "dispatch");
    }
    const std::byte* slots = at + kHeadBytes;
    const std::byte* weights = slots + rows * parts_.choice_bytes / 2;
    const std::byte* row_data = slots + RoundUp(rows * parts_.choice_bytes);
    for (int j = 0; j < count; ++j) {
      const size_t n = head[j];
      sources_[static_cast<size_t>(begin + j)] = {row_data, reinterpret_cast<const int32_t*>(slots),
                                                  reinterpret_cast<const float*>(weights),
                                                  static_cast<int64_t>(n)};
      row_data += n * parts_.row_bytes;
      slots += n * parts_.choice_bytes / 2;
      weights += n * parts_.choice_bytes / 2;
    }
    return {};
  }

  // This rank's share of the rows that go to `host`.
  void Reduce(int host) {
    const HostRows& rows = host_rows_[static_cast<size_t>(host)];
    const RowRange own = SplitRows(rows.size(), here_.count, me_ - here_.begin);
    const int64_t width = options_.hidden;
    std::byte* to = fabric_.own() + parts_.reduced[static_cast<size_t>(host)];
    ForRows(options_.device, own.count, width * 4 * (here_.count + 1), [&](int64_t i) {
      const HostRows::Row row = rows[own.begin + i];
      const auto places = rows.places(own.begin + i);
      alignas(64) float sum[kColumns];
      for (int64_t c = 0; c < width; c += kColumns) {
        const int64_t n = std::min(kColumns, width - c);
        std::array<const float*, kMaxRanks> terms;
        size_t num_terms = 0;
        for (size_t j = 0; j < places.size(); ++j) {
          if (places[j] < 0) continue;
          const int from = here_.begin + static_cast<int>(j);
          terms[num_terms++] = Block(from, row.home) + places[j] * width + c;
        }
        SumRow({{terms.data(), num_terms}, {}, {}}, n, sum, false);
        Write(sum, n, to + i * static_cast<int64_t>(parts_.row_bytes), c);
      }
    });
  }

  // Columns [c, c + n) of a row in the model's type.
  void Write(const float* sum, int64_t n, std::byte* row, int64_t c) const {
    if (options_.act_type == DType::kF32) {
      std::memcpy(reinterpret_cast<float*>(row) + c, sum, static_cast<size_t>(n) * 4);
      return;
    }
    auto* to = reinterpret_cast<Bf16*>(row) + c;
    for (int64_t i = 0; i < n; ++i) to[i] = ToBf16(sum[i]);
  }

  Status TradeSums() {
    bool carrier = false;
    for (int h = 0; h < fabric_.num_hosts(); ++h) carrier |= fabric_.carries(h);
    if (carrier) {
      CADRE_TRY(fabric_.AwaitAll(kGatherFlag, segment_->round(), nullptr, segment_->Context("combine")));
    }
    const auto gather = [&](int host, std::vector<fabric::Piece>& pieces) {
      const int64_t rows = host_rows_[static_cast<size_t>(host)].size();
      for (int j = 0; j < here_.count; ++j) {
        const std::byte* from = fabric_.peer(here_.begin + j) + parts_.reduced[static_cast<size_t>(host)];
        pieces.push_back(
            {from, static_cast<size_t>(SplitRows(rows, here_.count, j).count) * parts_.row_bytes});
      }
    };
    std::array<uint32_t, kMaxRanks> bytes;
    CADRE_TRY(fabric_.Trade(kCombineChannel, segment_->round(), parts_.combine_place, bytes.data(),
                            segment_->Context("combine"), gather));
    for (int h = 0; h < fabric_.num_hosts(); ++h) {
      const auto host = static_cast<size_t>(h);
      if (h == fabric_.own_host()) continue;
      if (bytes[host] != static_cast<size_t>(home_rows_[host].num_in_message()) * parts_.row_bytes) {
        return FailSize(h, bytes[host], "combine");
      }
    }
    return {};
  }

  // Where each local rank's partial sum for each own row lies in its block, or -1.
  void PlaceOwnRows() {
    const auto ranks = static_cast<size_t>(here_.count);
    own_places_.assign(static_cast<size_t>(segment_->num_rows()) * ranks, -1);
    num_local_partials_ = 0;
    const Source& own = sources_[static_cast<size_t>(me_)];
    std::array<int32_t, kMaxRanks> next = {};
    for (int64_t t = 0; t < own.num_rows; ++t) {
      const std::span slots(own.slots + t * options_.top_k, static_cast<size_t>(options_.top_k));
      const uint64_t some = RanksOfRow(options_.layout, here_, slots);
      for (size_t j = 0; j < ranks; ++j) {
        if ((some >> j & 1) == 0) continue;
        own_places_[static_cast<size_t>(t) * ranks + j] = next[j]++;
        num_local_partials_ += here_.begin + static_cast<int>(j) != me_;
      }
    }
  }

  // The whole sum of own row t.
  void SumHome(int64_t t, float* out, bool accumulate) const {
    alignas(64) float sum[kColumns];
    for (int64_t c = 0; c < options_.hidden; c += kColumns) {
      const int64_t n = std::min<int64_t>(kColumns, options_.hidden - c);
      bool first = true;
      for (int h = 0; h < fabric_.num_hosts(); ++h) {
        alignas(64) float here[kColumns];
        if (h == fabric_.own_host()) {
          if (!SumHere(t, c, n, here)) continue;
          Take(here, n, first, sum);
        } else {
          const int32_t place = home_rows_[static_cast<size_t>(h)][t];
          if (place < 0) continue;
          const std::byte* row =
              fabric_.landing(h) + parts_.combine_place + static_cast<size_t>(place) * parts_.row_bytes;
          options_.act_type == DType::kF32 ? Take(reinterpret_cast<const float*>(row) + c, n, first, sum)
                                           : Take(reinterpret_cast<const Bf16*>(row) + c, n, first, sum);
        }
        first = false;
      }
      if (first) std::fill(sum, sum + n, 0.0f);
      for (int64_t i = 0; i < n; ++i) out[c + i] = accumulate ? out[c + i] + sum[i] : sum[i];
    }
  }

  // This host's part of own row t; false if it has none.
  bool SumHere(int64_t t, int64_t c, int64_t n, float* sum) const {
    std::array<const float*, kMaxRanks> partials;
    std::array<const float*, kMaxTopK> own;
    size_t before = 0, after = 0;
    for (int j = 0; j < here_.count; ++j) {
      const int32_t place = own_places_[static_cast<size_t>(t * here_.count + j)];
      const int from = here_.begin + j;
      if (place < 0 || from == me_) continue;
      partials[before + after] = Block(from, me_) + place * options_.hidden + c;
      ++(from < me_ ? before : after);
    }
    const auto mine = OwnTerms(me_, t, c, own);
    if (before + after + mine.size() == 0) return false;
    SumRow({{partials.data(), before}, mine, {partials.data() + before, after}}, n, sum, false);
    return true;
  }

  // Where in the segment of `from` the partial sums for `home` begin; a rank keeps none for itself.
  size_t BlockOffset(int from, int home) const {
    return parts_.partials + static_cast<size_t>(home < from ? home : home - 1) * parts_.block_bytes;
  }
  const float* Block(int from, int home) const {
    return reinterpret_cast<const float*>(fabric_.peer(from) + BlockOffset(from, home));
  }

  std::span<const float* const> OwnTerms(int source, int64_t row, int64_t column,
                                         std::array<const float*, kMaxTopK>& terms) const {
    size_t n = 0;
    for (const int32_t place : builder_.PlacesOf(source, row)) {
      terms[n++] = expert_rows_ + place * options_.hidden + column;
    }
    return {terms.data(), n};
  }

  void CountDispatch() {
    const auto choice_bytes = static_cast<int64_t>(parts_.choice_bytes);
    for (int s = 0; s < segment_->size(); ++s) {
      if (s == me_) continue;
      const int64_t rows = sources_[static_cast<size_t>(s)].num_rows;
      bytes_.dispatch_algorithmic += rows * (segment_->row_bytes() + choice_bytes);
      bytes_.dispatch_physical +=
          static_cast<int64_t>(builder_.TouchedRows(s).size()) * segment_->row_bytes() + rows * choice_bytes;
      const int host = fabric_.hosts().HostOf(s);
      if (fabric_.carries(host)) bytes_.dispatch_wire += rows * (segment_->row_bytes() + choice_bytes);
    }
  }

  void CountCombine() {
    const int64_t width = options_.hidden, wire_row = segment_->row_bytes();
    bytes_.combine_algorithmic += (here_.count - 1) * segment_->num_rows() * width * 4 +
                                  (fabric_.num_hosts() - 1) * segment_->num_rows() * wire_row;
    bytes_.combine_physical += num_local_partials_ * width * 4;
    for (int h = 0; h < fabric_.num_hosts(); ++h) {
      if (h == fabric_.own_host()) continue;
      const HomeRows& rows = home_rows_[static_cast<size_t>(h)];
      bytes_.combine_physical += rows.num_own() * wire_row;
      if (fabric_.carries(h)) bytes_.combine_wire += rows.num_in_message() * wire_row;
    }
  }

  Options options_;
  Parts parts_;
  std::unique_ptr<RankSegment> segment_;
  fabric::Fabric& fabric_;
  int me_;
  fabric::MemberRange here_;
  RowTableBuilder builder_;
  std::vector<Source> sources_;
  std::vector<HostRows> host_rows_;  // by host
  std::vector<HomeRows> home_rows_;
  std::vector<int32_t> own_places_;  // [T, ranks of this host]
  int64_t num_local_partials_ = 0;
  const float* expert_rows_ = nullptr;
  ByteCounts bytes_;
};

}  // namespace

int64_t AllGatherHostsBytes(const Options& options, const fabric::GroupHosts& hosts) {
  const Parts parts(options, hosts);
  // A rank carries for this many hosts at most.
  const int here = hosts.members[static_cast<size_t>(hosts.own)].count;
  const int carried = (hosts.size() + here - 1) / here;
  return static_cast<int64_t>(parts.regions.total() + static_cast<size_t>(carried) * parts.landing_bytes);
}

Result<std::unique_ptr<AllToAll>> CreateAllGatherHosts(const Options& options,
                                                       const fabric::GroupHosts& hosts) {
  Parts parts(options, hosts);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, options.max_rows));
  return std::make_unique<AllGatherHosts>(options, std::move(parts), std::move(segment));
}

}  // namespace cadre::a2a
