#pragma once
// How the processes of one host find the broker that their first one runs; see world.h.
#include <string>

#include "fabric/broker.h"
#include "python/engine/world.h"
#include "sys/fd.h"

namespace cadre::python {

class LocalMeeting {
 public:
  explicit LocalMeeting(const WorldOptions& options) : options_(options) {}

  /// For local rank 0. Errors: kUnavailable if somebody is there already.
  Result<sys::Fd> Listen() const;
  /// Gives every other process of the host its end. Errors: kDeadlineExceeded with the ranks that did not
  /// come, kInvalidArgument if one of them was started with other numbers.
  Status HandOut(const sys::Fd& listener, fabric::Broker& broker, TimePoint deadline) const;

  /// For the others: this process's end. Errors: kDeadlineExceeded if nobody hands one out; those that
  /// HandOut found.
  Result<sys::Fd> Attend(TimePoint deadline) const;

 private:
  std::string Address() const;
  std::string Numbers() const;
  WorldOptions options_;
};

}  // namespace cadre::python
