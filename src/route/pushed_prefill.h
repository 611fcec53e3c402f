#pragma once
// Prefill's part of a request whose decode has been asked at the same time: its answer says only that all is
// well, the keys and values go from worker to worker.
#include <functional>
#include <memory>

#include "route/gather.h"
#include "route/worker.h"

namespace cadre::route {

/// All of it on the io thread of the client's connection.
class PushedPrefill {
 public:
  /// `hear` is called once, unless Cancel or Detach comes first. Null: the worker has no connections.
  static std::shared_ptr<PushedPrefill> Start(const Lease& prefill, http::ClientRequest request,
                                              std::function<void(Gathered)> hear);
  /// Ends it: nobody wants the blocks.
  void Cancel();
  /// It runs to its end, and its end is the lease's.
  void Detach(Lease prefill);

 private:
  void Done(Gathered heard);

  std::shared_ptr<http::ClientCall> call_;
  std::function<void(Gathered)> hear_;
  Lease lease_;  // detached
};

/// What a prefill answer means. Retryable: another worker may be asked.
enum class PrefillEnd { kGood, kRequestAtFault, kRetryable };
PrefillEnd EndOf(const Gathered& heard);

}  // namespace cadre::route
