// R broadcasts, then an all-reduce of everything: the simplest exchange that can work, to compare others
// with.
//
// Every rank copies all rows and choices, computes partial sums for all rows of all ranks, and takes part in
// an all-reduce over [all rows, H]: each home rank adds its rows over all ranks in rank order, everybody
// copies all sums, each keeps its own. A rank without a choice of a row contributes -0.0, which added to x
// gives x for every x, so the tree is the one of allgather_reducescatter. Over hosts all rows go to every
// other host; back comes the host's sum of every row (by host, then rank; in the model's type); then every
// host sends its ranks' finished sums (f32) to all others.
//
// Reuse of the one set: rows are read before combine is raised, partial sums before gather, sums before the
// next dispatch; each is written again only after waiting for that flag of all ranks. Sums that came from
// other hosts are copied before the next combine is raised, which their host awaits before it sends more.
#include <algorithm>
#include <array>
#include <cstring>

#include "a2a/backends.h"
#include "a2a/host_sums.h"
#include "a2a/row_sum.h"
#include "a2a/segment_exchange.h"

namespace cadre::a2a {
namespace {

struct Parts : SegmentParts {
  Parts(const Options& o, const fabric::GroupHosts& hosts) : SegmentParts(o) {
    block_bytes = static_cast<size_t>(o.max_rows) * static_cast<size_t>(o.hidden) * sizeof(float);
    partials = regions.Add(block_bytes * static_cast<size_t>(o.layout.num_ranks));
    sums = regions.Add(block_bytes);
    const int most = std::ranges::max(hosts.members, {}, &fabric::MemberRange::count).count;
    mail = MailParts(o, hosts, o.max_rows,
                     {.rows = rows,
                      .row_bytes = o.hidden * DTypeBytes(o.act_type),
                      .all_rows = true,
                      .all_results = true,
                      .side_bytes = static_cast<size_t>(most) * block_bytes},
                     *this);
    host_sums = HostSumsParts(o, hosts, o.max_rows, *this);
  }
  size_t partials, sums, block_bytes;
  MailParts mail;
  HostSumsParts host_sums;
};

class Naive final : public SegmentExchange {
 public:
  Naive(const Options& options, const Parts& parts, std::unique_ptr<RankSegment> segment)
      : SegmentExchange(options, Algorithm::kNaive, parts.mail, std::move(segment)),
        parts_(parts),
        host_sums_(options, parts.host_sums, *segment_, mail_),
        builder_(options.top_k, segment_->row_bytes(), options.layout.Begin(me_), options.layout.Count(me_),
                 options.layout.num_slots),
        sources_(static_cast<size_t>(num_ranks_)),
        copies_(sources_.size()) {}

  Status Send(const Routing& routing) override {
    const std::span slots(routing.slots, static_cast<size_t>(routing.num_rows * options_.top_k));
    CADRE_TRY(CheckSlots(slots, options_.layout.num_slots));
    has_choice_.assign(static_cast<size_t>(routing.num_rows), false);
    for (size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] >= 0) has_choice_[i / static_cast<size_t>(options_.top_k)] = true;
    }
    segment_->TakePiece(routing);
    mail_.Pack(0, routing, [](int, std::span<const int32_t>, int32_t*) { return size_t{0}; });
    segment_->PublishPiece(kDispatchFlag);
    mail_.TryPost();
    return {};
  }

  Result<RowTable> Receive() override {
    CADRE_TRY(segment_->AwaitPieces(kDispatchFlag));
    CADRE_TRY(mail_.Receive());
    for (int r = 0; r < num_ranks_; ++r) {
      CADRE_ASSIGN(Source source, SourceOf(r));
      Copy& copy = copies_[static_cast<size_t>(r)];
      const auto choices = static_cast<size_t>(source.num_rows * options_.top_k);
      copy.rows.assign(source.rows, source.rows + source.num_rows * segment_->row_bytes());
      copy.slots.assign(source.slots, source.slots + choices);
      copy.weights.assign(source.weights, source.weights + choices);
      sources_[static_cast<size_t>(r)] = {copy.rows.data(), copy.slots.data(), copy.weights.data(),
                                          source.num_rows};
      if (r == me_) continue;
      const int64_t bytes = source.num_rows * (segment_->row_bytes() + options_.top_k * 8);
      bytes_.dispatch_algorithmic += bytes;
      bytes_.dispatch_physical += bytes;
    }
    CADRE_TRY(builder_.Build(sources_));
    if (mail_.any()) host_sums_.Plan(sources_, true);
    return builder_.table();
  }

  Status SendResults(const float* expert_rows) override {
    const int64_t width = options_.hidden;
    for (int home = 0; home < num_ranks_; ++home) {
      auto* block = Own<float>(BlockOffset(home));
      ForRows(options_.device, sources_[static_cast<size_t>(home)].num_rows, width * 4 * (options_.top_k + 1),
              [&](int64_t t) {
                std::array<const float*, kMaxTopK> own;
                size_t n = 0;
                for (const int32_t place : builder_.PlacesOf(home, t)) own[n++] = expert_rows + place * width;
                float* to = block + t * width;
                if (n == 0) return std::fill(to, to + width, -0.0f);
                SumRow({{}, {own.data(), n}, {}}, width, to, false);
              });
    }
    segment_->PublishCombine();
    return {};
  }

  Status ReceiveResults(float* out, bool accumulate) override {
    CADRE_TRY(segment_->AwaitCombine());
    const int64_t width = options_.hidden, rows = segment_->num_rows();
    if (mail_.any()) {
      CADRE_TRY(host_sums_.Trade([&](int from, int home, int32_t place) {
        return Peer<float>(from, BlockOffset(home)) + place * width;
      }));
    }
    ForRows(options_.device, rows, width * 4 * (num_ranks_ + 1),
            [&](int64_t t) { SumHome(t, Own<float>(parts_.sums) + t * width); });
    fabric::Fabric& fabric = segment_->fabric();
    fabric.Publish(kSumsFlag, segment_->round(), 0);
    CADRE_TRY(fabric.AwaitAll(kSumsFlag, segment_->round(), nullptr, segment_->Context("gather")));
    if (mail_.any()) CADRE_TRY(TradeSums());
    GatherAll();
    for (int64_t t = 0; t < rows; ++t) {
      const float* sum = gathered_.data() + (own_begin_ + t) * width;
      const auto term =
          has_choice_[static_cast<size_t>(t)] ? std::span(&sum, 1) : std::span<const float* const>();
      SumRow({term, {}, {}}, width, out + t * width, accumulate);
    }
    CountCombine();
    segment_->FinishChunk();
    return {};
  }

 protected:
  std::string Idea() const override {
    return "every rank copies all rows, all-reduce of all sums in rank order (for comparison, slow)";
  }
  std::string IdeaOverHosts() const override {
    return Format("all rows to every host, a sum of each back in {}, all finished sums to every host",
                  DTypeName(options_.act_type));
  }

 private:
  struct Copy {
    std::vector<std::byte> rows;
    std::vector<int32_t> slots;
    std::vector<float> weights;
  };

  Result<Source> SourceOf(int rank) const {
    if (mail_.IsHere(rank)) return segment_->SourceOf(rank);
    const HostMail::Parcel& parcel = mail_.From(rank);
    const auto choices = static_cast<size_t>(parcel.num_rows * options_.top_k);
    if (parcel.notes.size() != 2 * choices) return std::unexpected(mail_.FailNotes(rank).error());
    return Source{.rows = parcel.rows,
                  .slots = parcel.notes.data(),
                  .weights = reinterpret_cast<const float*>(parcel.notes.data() + choices),
                  .num_rows = parcel.num_rows};
  }

  size_t BlockOffset(int home) const {
    return parts_.partials + static_cast<size_t>(home) * parts_.block_bytes;
  }

  // The whole sum of own row t, over hosts in their order.
  void SumHome(int64_t t, float* sum) const {
    const int64_t width = options_.hidden;
    std::array<const float*, kMaxRanks> terms;
    for (int j = 0; j < here_.count; ++j)
      terms[static_cast<size_t>(j)] = Peer<float>(here_.begin + j, BlockOffset(me_)) + t * width;
    const RowTerms here = {{terms.data(), static_cast<size_t>(here_.count)}, {}, {}};
    if (!mail_.any()) return SumRow(here, width, sum, false);
    std::vector<HostTerm> hosts;
    for (int h = 0; h < segment_->fabric().num_hosts(); ++h) {
      if (h == segment_->fabric().own_host()) {
        hosts.push_back({here});
      } else {
        hosts.push_back({{}, mail_.ResultsFrom(h) + t * segment_->row_bytes()});
      }
    }
    SumRowByHost(hosts, options_.act_type, width, sum, false);
  }

  // The finished sums of all ranks of a host, to all other hosts.
  Status TradeSums() {
    const fabric::Fabric& fabric = segment_->fabric();
    const int64_t row = options_.hidden * 4;
    mail_.PostSide(0, kSumsFlag, true, [&](int, std::vector<fabric::Piece>& pieces) {
      for (int r = here_.begin; r < here_.begin + here_.count; ++r) {
        pieces.push_back({Peer<std::byte>(r, parts_.sums),
                          static_cast<size_t>(sources_[static_cast<size_t>(r)].num_rows * row)});
      }
    });
    std::array<uint32_t, kMaxRanks> bytes;
    CADRE_TRY(mail_.AwaitSide(bytes.data(), "gather"));
    for (int h = 0; h < fabric.num_hosts(); ++h) {
      if (h == fabric.own_host()) continue;
      const auto [begin, count] = fabric.members(h);
      int64_t rows = 0;
      for (int r = begin; r < begin + count; ++r) rows += sources_[static_cast<size_t>(r)].num_rows;
      if (bytes[static_cast<size_t>(h)] != static_cast<uint64_t>(rows * row)) {
        return Fail(Code::kDataLoss, "{} sent {} bytes of sums; {} were due",
                    fabric::NameHost(fabric.hosts().entries[static_cast<size_t>(h)]),
                    bytes[static_cast<size_t>(h)], rows * row);
      }
      mail_.CountWire(h, 0, rows * row);
    }
    return {};
  }

  // Copies all ranks' sums.
  void GatherAll() {
    const fabric::Fabric& fabric = segment_->fabric();
    int64_t total = 0, begin = 0;
    for (const Source& source : sources_) total += source.num_rows;
    gathered_.resize(static_cast<size_t>(total * options_.hidden));
    for (int h = 0; h < fabric.num_hosts(); ++h) {
      const auto [first, count] = fabric.members(h);
      const float* there =
          h == fabric.own_host() ? nullptr : reinterpret_cast<const float*>(mail_.SideFrom(h));
      for (int s = first; s < first + count; ++s) {
        const int64_t n = sources_[static_cast<size_t>(s)].num_rows * options_.hidden;
        const float* from = there == nullptr ? Peer<float>(s, parts_.sums) : there;
        if (n > 0) std::memcpy(gathered_.data() + begin, from, static_cast<size_t>(n) * 4);
        if (s == me_) own_begin_ = begin / options_.hidden;
        begin += n;
        if (there != nullptr) there += n;
      }
    }
  }

  void CountCombine() {
    const int64_t own = segment_->num_rows(), partial = options_.hidden * 4;
    int64_t bytes = (here_.count - 1) * own * partial +
                    (segment_->fabric().num_hosts() - 1) * own * segment_->row_bytes();
    for (int s = 0; s < num_ranks_; ++s)
      bytes += s == me_ ? 0 : sources_[static_cast<size_t>(s)].num_rows * partial;
    bytes_.combine_algorithmic += bytes;
    bytes_.combine_physical += bytes + (mail_.any() ? host_sums_.num_read() * partial : 0);
  }

  Parts parts_;
  HostSums host_sums_;
  RowTableBuilder builder_;
  std::vector<Source> sources_;
  std::vector<Copy> copies_;
  std::vector<bool> has_choice_;  // [T]
  std::vector<float> gathered_;   // [all rows, H]
  int64_t own_begin_ = 0;
};

}  // namespace

int64_t NaiveBytes(const Options& options, const fabric::GroupHosts& hosts) {
  // The segment, and local copies of everybody's rows, choices and sums.
  const int64_t row = options.hidden * DTypeBytes(options.act_type) + options.top_k * 8 + options.hidden * 4;
  return Parts(options, hosts).TotalBytes(hosts) + options.layout.num_ranks * options.max_rows * row;
}

Result<std::unique_ptr<AllToAll>> CreateNaive(const Options& options, const fabric::GroupHosts& hosts) {
  const Parts parts(options, hosts);
  CADRE_ASSIGN(auto segment, RankSegment::Open(options, parts, options.max_rows));
  return std::make_unique<Naive>(options, parts, std::move(segment));
}

}  // namespace cadre::a2a
