#pragma once
// The tree "by host, then rank": what a host's ranks made for a row of another host goes home as one sum.
//
// Each rank has its partial sums in its segment. The ranks of a host share out the rows of each other host:
// a rank adds up, in rank order, what its host's ranks have for its rows, rounds once to the model's type,
// and leaves the result in its segment; the carrier gathers the message from there. The home rank adds its
// own host's partial sums (f32, never rounded) and the rows that came, in host order (SumRowByHost).
//
// Reuse: these results are overwritten in the next chunk, after this host's ranks have finished this one and
// so the carriers have seen their messages out (RankSegment::AwaitConsumed); in the first chunk of an
// exchange, after its dispatch messages, sent by hosts that had received all results before.
#include <vector>

#include "a2a/host_mail.h"
#include "a2a/host_rows.h"

namespace cadre::a2a {

struct HostSumsParts {
  HostSumsParts() = default;
  HostSumsParts(const Options& options, const fabric::GroupHosts& hosts, int64_t chunk_rows,
                SegmentParts& parts);
  std::vector<size_t> results;  // by host
};

class HostSums {
 public:
  HostSums(const Options& options, const HostSumsParts& parts, RankSegment& segment, HostMail& mail)
      : options_(options), parts_(parts), segment_(segment), mail_(mail), rows_(parts.results.size()) {}

  /// After the dispatch: which rows of other hosts ranks here compute for; `all` as in HostRows.
  void Plan(std::span<const Source> sources, bool all = false);

  /// Where rank `from` has its partial sum number `place` for `home`.
  using PartialOf = sys::FunctionRef<const float*(int from, int home, int32_t place)>;
  /// After the wait for all partial sums of this host: HostMail::ResultsFrom has the others' sums.
  Status Trade(PartialOf partial);
  /// Partial sums of other ranks that this rank read for it, in the last Trade.
  int64_t num_read() const { return num_read_; }

 private:
  void Reduce(int host, PartialOf partial);

  Options options_;
  HostSumsParts parts_;
  RankSegment& segment_;
  HostMail& mail_;
  std::vector<HostRows> rows_;  // by host
  int64_t num_read_ = 0;
};

}  // namespace cadre::a2a
