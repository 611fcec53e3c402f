#include "sys/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/format.h"
#include "sys/fd.h"
#include "sys/files.h"
#include "sys/sockets.h"

extern char** environ;

namespace cadre::sys {
namespace {

constexpr size_t kMaxLine = 16 << 10;  // longer lines are cut in pieces
constexpr int kMaxChildFd = 63;

struct Pipe {
  Fd read, write;
};

Result<Pipe> MakePipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return Fail(Code::kUnavailable, "cannot make a pipe: {}", ErrnoText(errno));
  return Pipe{Fd(fds[0]), Fd(fds[1])};
}

std::vector<std::string> MergeEnv(const std::vector<std::pair<std::string, std::string>>& changes) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    if (std::ranges::none_of(changes, [&](const auto& change) { return change.first == name; }))
      merged.emplace_back(text);
  }
  for (const auto& [name, value] : changes) merged.push_back(name + "=" + value);
  return merged;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& s : strings) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  return pointers;
}

struct ChildPlan {
  const char* program;
  char** argv;
  char** envp;
  int output;  // becomes stdout and stderr, or -1
  int report;  // errno goes here if the program cannot be run
  const std::pair<int, int>* fds;
  size_t num_fds;
  pid_t parent;
  bool own_group;
};

// Runs between fork and exec: only async-signal-safe calls, because other threads' locks are copied locked.
[[noreturn]] void RunChild(const ChildPlan& plan) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != plan.parent) _exit(127);  // the parent died before prctl
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  if (plan.own_group) setpgid(0, 0);
  // Moved above every wanted number first, so that no dup2 overwrites one that is still needed.
  int moved[kMaxChildFd + 1];
  const int report = fcntl(plan.report, F_DUPFD_CLOEXEC, kMaxChildFd + 1);
  for (size_t i = 0; i < plan.num_fds; ++i)
    moved[i] = fcntl(plan.fds[i].first, F_DUPFD_CLOEXEC, kMaxChildFd + 1);
  if (plan.output >= 0) {
    dup2(plan.output, STDOUT_FILENO);
    dup2(plan.output, STDERR_FILENO);
  }
  for (size_t i = 0; i < plan.num_fds; ++i) dup2(moved[i], plan.fds[i].second);
  execve(plan.program, plan.argv, plan.envp);
  const int error = errno;
  [[maybe_unused]] const ssize_t n = write(report, &error, sizeof(error));
  _exit(127);
}

int OpenPidfd(pid_t pid) {
  return static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
}

}  // namespace

struct Child::State {
  pid_t pid = -1;
  Fd pidfd;
  std::optional<ExitStatus> status;
  std::string prefix;
  bool pass_on = true;
  size_t keep_lines = 0;
  bool own_group = false;
  Fd output, log;
  std::atomic<bool> ended = false;
  std::thread reader;
  mutable std::mutex mutex;
  std::deque<std::string> lines;

  void TakeLine(std::string line) {
    if (pass_on) {
      std::string text = prefix + line + "\n";
      [[maybe_unused]] const ssize_t n =
          write(STDERR_FILENO, text.data(), text.size());  // one write: lines stay whole
    }
    if (log) {
      const std::string text = line + "\n";
      [[maybe_unused]] const ssize_t n = write(log.get(), text.data(), text.size());
    }
    const std::lock_guard lock(mutex);
    lines.push_back(std::move(line));
    while (lines.size() > keep_lines) lines.pop_front();
  }

  void ReadLines() {
    std::string pending;
    char buffer[4096];
    while (true) {
      // A grandchild may keep the pipe open for ever: after the child's end only what is there already is
      // read.
      const bool last = ended.load();
      if (!WaitReady(output.get(), Ready::kRead, Now() + std::chrono::milliseconds(100))) {
        if (last) break;
        continue;
      }
      const ssize_t n = read(output.get(), buffer, sizeof(buffer));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      pending.append(buffer, static_cast<size_t>(n));
      size_t begin = 0;
      for (size_t end; (end = pending.find('\n', begin)) != std::string::npos; begin = end + 1) {
        TakeLine(pending.substr(begin, end - begin));
      }
      pending.erase(0, begin);
      if (pending.size() >= kMaxLine) TakeLine(std::exchange(pending, {}));
    }
    if (!pending.empty()) TakeLine(std::move(pending));
  }

  void Reap(int wait_status) {
    status = ExitStatus{.code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 0,
                        .signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0};
    ended = true;
    if (reader.joinable()) reader.join();
  }
};

std::string SignalName(int signal) {
  const char* name = sigabbrev_np(signal);
  return name != nullptr ? Format("SIG{}", name) : Format("signal {}", signal);
}

std::string ExitStatus::Describe() const {
  return signal != 0 ? "was killed by " + SignalName(signal) : Format("exited with code {}", code);
}

Result<std::string> ProgramPath() {
  std::string path(4096, '\0');
  const ssize_t n = readlink("/proc/self/exe", path.data(), path.size());
  if (n <= 0) return Fail(Code::kUnavailable, "cannot find this program's own path: {}", ErrnoText(errno));
  path.resize(static_cast<size_t>(n));
  return path;
}

void DieWithParent(int signal) {
  prctl(PR_SET_PDEATHSIG, signal);
}

Child::Child(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Child>> Child::Spawn(const SpawnOptions& options) {
  for (const auto& [ours, theirs] : options.fds) {
    if (ours < 0 || theirs < 3 || theirs > kMaxChildFd) {
      return Fail(Code::kInternal, "descriptor {} cannot become {} in a child", ours, theirs);
    }
  }
  if (options.fds.size() > static_cast<size_t>(kMaxChildFd))
    return Fail(Code::kInternal, "too many descriptors");
  std::vector<std::string> args = {options.program};
  args.insert(args.end(), options.args.begin(), options.args.end());
  std::vector<std::string> env = MergeEnv(options.env);
  std::vector<char*> argv = Pointers(args), envp = Pointers(env);
  Fd log;
  if (!options.log_file.empty()) {
    log = Fd(open(options.log_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!log) return Fail(Code::kUnavailable, "cannot write '{}': {}", options.log_file, ErrnoText(errno));
  }
  CADRE_ASSIGN(Pipe report, MakePipe());
  Pipe output;
  if (options.capture) {
    CADRE_ASSIGN(output, MakePipe());
  }
  const ChildPlan plan = {options.program.c_str(), argv.data(),        envp.data(),
                          output.write.get(),      report.write.get(), options.fds.data(),
                          options.fds.size(),      getpid(),           options.own_group};
  const pid_t pid = fork();
  if (pid < 0) return Fail(Code::kResourceExhausted, "cannot start a process: {}", ErrnoText(errno));
  if (pid == 0) RunChild(plan);

  report.write.Reset();
  output.write.Reset();
  int error = 0;
  ssize_t n;
  while ((n = read(report.read.get(), &error, sizeof(error))) < 0 && errno == EINTR) {
  }
  if (n > 0) {
    waitpid(pid, nullptr, 0);
    return Fail(error == ENOENT ? Code::kNotFound : Code::kUnavailable, "cannot run '{}': {}",
                options.program, ErrnoText(error));
  }
  auto state = std::make_unique<State>();
  state->pid = pid;
  state->pidfd = Fd(OpenPidfd(pid));
  state->prefix = options.line_prefix;
  state->pass_on = options.pass_on;
  state->keep_lines = options.keep_lines;
  state->own_group = options.own_group;
  state->log = std::move(log);
  if (options.capture) {
    state->output = std::move(output.read);
    state->reader = std::thread([s = state.get()] { s->ReadLines(); });
  }
  return std::unique_ptr<Child>(new Child(std::move(state)));
}

Child::~Child() {
  if (!state_->status) {
    Kill(SIGKILL);
    Wait(TimePoint::max());
  }
}

int Child::pid() const {
  return state_->pid;
}
int Child::pidfd() const {
  return state_->pidfd.get();
}

std::optional<ExitStatus> Child::Wait(TimePoint deadline) {
  while (!state_->status) {
    int wait_status = 0;
    // Before it is reaped: then its number could be another's.
    if (state_->own_group && WaitReady(state_->pidfd.get(), Ready::kRead, Now())) kill(-state_->pid, SIGKILL);
    const pid_t got = waitpid(state_->pid, &wait_status, WNOHANG);
    if (got == state_->pid) {
      state_->Reap(wait_status);
    } else if (got < 0 && errno != EINTR) {
      state_->Reap(0);  // somebody else reaped it: cannot be, unless SIGCHLD is ignored
    } else if (!WaitReady(state_->pidfd.get(), Ready::kRead, deadline)) {
      return std::nullopt;
    }
  }
  return state_->status;
}

void Child::Kill(int signal) {
  if (state_->status) return;
  const bool group = state_->own_group && signal == SIGKILL;
  if (kill(group ? -state_->pid : state_->pid, signal) != 0 && group) kill(state_->pid, signal);
}

std::vector<std::string> Child::LastLines() const {
  const std::lock_guard lock(state_->mutex);
  return {state_->lines.begin(), state_->lines.end()};
}

}  // namespace cadre::sys
