#pragma once
// One rank's share of a fetch: the heads that it holds, from the source ranks that have them, into its pool.
//
// Only this class writes into the pool, on the agent's thread, and after Abort or the end nothing any more:
// what still comes in falls.
#include <functional>
#include <list>
#include <optional>

#include "handoff/links.h"

namespace cadre::handoff {

class Share final : public std::enable_shared_from_this<Share> {
 public:
  struct Options {
    Pool pool;
    Identity identity;
    Links* links = nullptr;
  };
  /// `ended` hears once, from Start at the earliest, unless Abort comes first. It must not destroy the share.
  Share(Options options, ShareOrder order, std::function<void(const Outcome&)> ended);

  void Start();
  /// Nothing is written from here on, and `ended` not called.
  void Abort();
  bool over() const { return over_; }

  /// Copies up to about 2 MiB from sources that share memory. True if there may be more.
  bool CopySome();
  /// Tokens of which everything is there, from the first on.
  int64_t num_whole() const;
  int64_t bytes() const { return bytes_; }
  bool within_host() const;

 private:
  // What one source rank sends.
  struct Part final : StreamUser {
    Share* share = nullptr;
    Slice slice;
    bool notes = false;  // comes with the tokens' notes
    StreamPlace place;
    std::vector<int32_t> table;  // the source's blocks, if it shares memory
    std::vector<int64_t> ready;  // by layer, notes behind them: tokens that can be copied
    std::vector<int64_t> got;    // likewise: tokens that are here
    int32_t layer = 0;           // the next one to copy
    std::optional<Landing> landing;

    void Heard(FrameKind kind, fabric::WireReader& in) override;
    void Lost(const Error& why) override;
    Runs Land(const DataHead& head, int64_t bytes) override;
    void Landed(const DataHead& head) override;
    Status HearTable(fabric::WireReader& in);
    Status HearReady(fabric::WireReader& in);
    std::optional<Piece> NextCopy() const;
  };

  Status Check() const;
  void Join(Part& part, std::shared_ptr<Link> link);
  void CheckDone();
  void Finish(Status status);
  void Leave();
  void CopyPiece(Part& part, const Piece& piece);
  Landing LandingOf(const Part& part, int32_t layer, int64_t first_token, int64_t end_token) const;

  Options options_;
  ShareOrder order_;
  std::function<void(const Outcome&)> ended_;
  std::list<Part> parts_;
  int64_t bytes_ = 0;
  bool over_ = false;
};

}  // namespace cadre::handoff
