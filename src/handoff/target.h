#pragma once
// The side that wants keys and values: fetches, and orders of fetches from tp rank 0 of this instance.
//
// A fetch: tp rank 0 asks the source's tp rank 0 for the lease; all tp ranks here then fetch their shares,
// each from the source ranks that have its heads; when all have everything, tp rank 0 asks whether the lease
// has lived until now, and only then the fetch is a success. However it ends, its result is given out when
// nothing can be written any more, on any tp rank.
#include <functional>
#include <list>
#include <memory>

#include "handoff/lead.h"
#include "handoff/source.h"

namespace cadre::handoff {

class Target {
 public:
  struct Options {
    Share::Options share;
    std::string engine_id;
    Duration silence_timeout = {};
    std::function<void(FetchResult)> fetched;
  };
  explicit Target(Options options);
  ~Target();

  void SetPeers(std::vector<PeerAddress> peers) { peers_ = std::move(peers); }
  void Fetch(FetchOrder order, int64_t generation);
  void Cancel(FetchId id);
  void Tell(const SourceAddress& source, bool reject);

  /// From tp rank 0 of this instance; Stop ends an order, and its answer says that it has.
  void HearOrder(Caller* caller, fabric::WireReader& in, uint32_t stream);
  void HearStop(Caller* caller, uint32_t stream);
  void Forget(Caller* caller);

  /// Copies what is ready, up to about 2 MiB a fetch. True if there may be more.
  bool CopySome();
  void HandleTimes(TimePoint now);
  TimePoint next_time() const;
  int64_t num_failed_tells() const { return num_failed_tells_; }

 private:
  class Teller;
  struct Ordered {
    Caller* caller;
    uint32_t stream;
    std::shared_ptr<Share> share;
  };

  Options options_;
  std::vector<PeerAddress> peers_;
  std::list<std::shared_ptr<Lead>> leads_;
  std::list<std::shared_ptr<Teller>> tellers_;
  std::list<Ordered> orders_;
  int64_t num_failed_tells_ = 0;
};

}  // namespace cadre::handoff
