#pragma once
// A fetch as tp rank 0 of the target leads it: the lease, the shares of all tp ranks, and the last question.
#include <algorithm>

#include "handoff/share.h"

namespace cadre::handoff {

class Lead final : public StreamUser, public std::enable_shared_from_this<Lead> {
 public:
  struct Options {
    Share::Options share;
    std::string engine_id;           ///< of this instance
    std::vector<PeerAddress> peers;  ///< its tp ranks
    Duration silence_timeout = {};
    int64_t generation = 0;
    std::function<void(FetchResult)> fetched;
  };
  Lead(Options options, FetchOrder order);

  void Start();
  void End(Status status);
  bool CopySome() { return own_ && !own_->over() && own_->CopySome(); }
  /// Ends it at its deadline. True when it is over and its result given out: it can be destroyed.
  bool Over(TimePoint now);
  TimePoint next_time() const;
  FetchId id() const { return order_.id; }
  const SourceAddress& source() const { return order_.source; }
  /// It ended before the source heard of it, which keeps its blocks for it.
  bool source_waits() const { return source_waits_; }

 private:
  // Another tp rank's share.
  struct Remote final : StreamUser {
    Lead* lead = nullptr;
    StreamPlace place;
    bool over = false;
    void Heard(FrameKind kind, fabric::WireReader& in) override;
    void Lost(const Error& why) override;
  };

  void Heard(FrameKind kind, fabric::WireReader& in) override;
  void Lost(const Error& why) override;
  void Asked() override;
  void Answered() override;
  void Granted(fabric::WireReader& in);
  void OrderShares(const std::vector<PeerAddress>& sources);
  void ShareEnded(const Outcome& outcome);
  void CheckAll();
  std::string WhereItStands() const;
  int64_t NumDescriptors() const;
  /// When it fails as it stands.
  TimePoint deadline() const {
    const bool begun = own_ && (own_->over() || own_->bytes() > 0);
    return begun ? order_.deadline : std::min(order_.deadline, order_.begun_by);
  }

  Options options_;
  FetchOrder order_;
  TimePoint start_ = Now();
  StreamPlace lease_;
  std::shared_ptr<Share> own_;
  std::list<Remote> remotes_;
  int num_missing_ = 0;  // shares
  bool asked_ = false;   // whether all is valid
  bool all_near_ = true;
  int64_t bytes_ = 0;
  double post_seconds_ = 0;
  int64_t snapshot_ = 0, confirmed_ = 0;  // tokens that were here when it was asked, and answered
  bool ended_ = false, given_ = false;
  bool unreachable_ = false, contacted_ = false, source_waits_ = false;
  TimePoint give_up_ = TimePoint::max();  // on other tp ranks
  FetchResult result_;
};

}  // namespace cadre::handoff
