#pragma once
// Child processes: started, listened to, and never left behind.
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace cadre::sys {

/// How a process ended.
struct ExitStatus {
  int code = 0;    ///< if signal is 0
  int signal = 0;  ///< the signal that ended it, or 0
  bool ok() const { return code == 0 && signal == 0; }
  /// "was killed by SIGKILL", "exited with code 3".
  std::string Describe() const;
};

/// "SIGSEGV"; "signal 77" for one without a name.
std::string SignalName(int signal);

/// The path of the running program.
Result<std::string> ProgramPath();

struct SpawnOptions {
  std::string program;                                   ///< a path; it is not searched for
  std::vector<std::string> args;                         ///< without the program's own name
  std::vector<std::pair<std::string, std::string>> env;  ///< added to ours, or in place of ours
  std::vector<std::pair<int, int>> fds;  ///< (descriptor here, its number in the child, 3 to 63)
  bool capture = true;      ///< stdout and stderr come to us line by line; false: the child shares ours
  std::string line_prefix;  ///< put before each line that is passed on to our stderr
  bool pass_on = true;      ///< pass captured lines on at all
  size_t keep_lines = 50;   ///< how many of the last lines LastLines can tell
  std::string log_file;     ///< captured lines are also written here; an older file is replaced
  /// A process group of its own: a terminal's Ctrl-C reaches us alone, and what the child has started itself
  /// is killed with its end.
  bool own_group = false;
};

class Child {
 public:
  /// Starts a child. It is killed (SIGKILL by the kernel) when the *thread* that called Spawn ends, so call
  /// from one that lives as long as the process. Errors: kNotFound or kUnavailable if the program cannot be
  /// run.
  static Result<std::unique_ptr<Child>> Spawn(const SpawnOptions& options);
  /// Kills a child that still runs, and reaps it.
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int pid() const;
  /// Becomes readable (poll) when the child has ended.
  int pidfd() const;
  /// Waits for the end; nullopt at the deadline. Safe to call again after the end.
  std::optional<ExitStatus> Wait(TimePoint deadline);
  /// Sends a signal to the child (SIGKILL: to its group, if it has its own); nothing happens if it has been
  /// reaped.
  void Kill(int signal);
  /// The last captured lines, oldest first. After Wait has told the end, all output has been read.
  std::vector<std::string> LastLines() const;

 private:
  struct State;
  explicit Child(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Asks the kernel to send this process `signal` when its parent ends.
void DieWithParent(int signal);

}  // namespace cadre::sys
