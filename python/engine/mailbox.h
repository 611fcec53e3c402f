#pragma once
// Where results of requests wait for the Python thread that reads them: filled by the thread that turns
// tokens into text, emptied by a poll that lets signals through, or by an event loop that watches the
// descriptor.
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "session/generation.h"
#include "sys/fd.h"

namespace cadre::python {

/// What is new of one sequence of a request.
struct SequencePart {
  size_t sequence = 0;
  std::string text;
  std::vector<engine::GeneratedToken> tokens;
  std::optional<session::PromptResult> prompt;
  std::optional<session::SequenceEnd> end;
  int rank = 0;
};

/// What is new of one request.
struct Update {
  int64_t request = 0;
  std::optional<session::Accepted> accepted;  ///< with the request's first update
  std::vector<SequencePart> parts;
  bool ended = false;  ///< nothing follows
  std::optional<Error> failure;
};

class Mailbox {
 public:
  Mailbox();

  /// Readable while updates wait.
  int fd() const { return ready_.get(); }
  /// Any thread.
  void Put(Update update);
  /// Waits until updates wait, a signal interrupts this thread, or the deadline. May return none.
  std::vector<Update> Take(TimePoint deadline);

 private:
  const sys::Fd ready_;
  std::mutex mutex_;
  std::vector<Update> updates_;  // guarded by mutex_
};

}  // namespace cadre::python
