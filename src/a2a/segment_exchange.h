#pragma once
// The walk that the back ends share, on one rank's segment and, over hosts, on the mail.
#include <memory>
#include <string>
#include <utility>

#include "a2a/algorithms.h"
#include "a2a/host_mail.h"
#include "a2a/rank_segment.h"
#include "base/check.h"

namespace cadre::a2a {

class SegmentExchange : public AllToAll {
 public:
  void BeginStep(int64_t step, TimePoint deadline) override { segment_->BeginStep(step, deadline); }
  int64_t chunk_rows() const override { return segment_->chunk_rows(); }
  bool more() const override { return segment_->more(); }
  std::byte* Stage(int64_t num_rows) override { return segment_->Stage(num_rows); }
  void Progress() override {
    if (!mail_.any()) return;
    mail_.TryPost();
    segment_->fabric().Progress();
  }
  ByteCounts bytes() const override;
  const char* name() const override { return NameOf(algorithm_).data(); }
  std::string Describe() const override;
  bool CanariesIntact() const override { return segment_->CanariesIntact(); }

 protected:
  SegmentExchange(const Options& options, Algorithm algorithm, const MailParts& mail,
                  std::unique_ptr<RankSegment> segment)
      : options_(options),
        algorithm_(algorithm),
        segment_(std::move(segment)),
        me_(segment_->rank()),
        num_ranks_(segment_->size()),
        here_(segment_->fabric().local()),
        mail_(options_, mail, *segment_) {}

  /// What the algorithm does, for Describe: "rows once per rank, ...".
  virtual std::string Idea() const = 0;
  /// And what crosses between hosts.
  virtual std::string IdeaOverHosts() const = 0;

  /// A part of the segment of a rank of this host.
  template <typename T>
  const T* Peer(int rank, size_t offset) const {
    return reinterpret_cast<const T*>(segment_->fabric().peer(rank) + offset);
  }
  template <typename T>
  T* Own(size_t offset) const {
    return reinterpret_cast<T*>(segment_->fabric().own() + offset);
  }

  Options options_;
  Algorithm algorithm_;
  std::unique_ptr<RankSegment> segment_;
  int me_, num_ranks_;
  fabric::MemberRange here_;  // the ranks of this host
  HostMail mail_;
  ByteCounts bytes_;
};

}  // namespace cadre::a2a
