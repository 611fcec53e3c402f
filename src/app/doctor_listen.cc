// The side of two doctors that answers. Each visitor is answered by a process of its own, because what it
// sends goes into libraries that were not written for strangers.
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <thread>

#include "app/doctor.h"
#include "app/doctor_link.h"
#include "base/log.h"
#include "fabric/wire.h"
#include "sys/process.h"
#include "sys/sockets.h"

namespace cadre::app {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 10s;         // for a visitor's next word
constexpr unsigned kVisitSeconds = 90;  // of all its measurements

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown host";
}

Status Greet(int fd) {
  fabric::WireWriter body;
  body.Put(kDoctorVersion).PutText(HostName());
  const auto kinds = fabric::LinkKinds();
  body.Put(static_cast<uint32_t>(kinds.size()));
  for (const std::string& kind : kinds) body.PutText(kind);
  return sys::SendFrame(fd, kDoctorGreeting, body.text(), {}, Now() + kPatience);
}

// Until the visitor says that it is done, or says nothing more.
Status AnswerLink(int fd, LinkEnd& end) {
  TimePoint last = Now();
  while (!sys::WaitReady(fd, sys::Ready::kRead, Now())) {
    bool moved = true;
    for (int i = 0; i < 1000 && moved; ++i) {
      const auto answered = end.Answer();
      if (!answered) {  // the visitor closes its end before or after it says that it is done
        return sys::WaitReady(fd, sys::Ready::kRead, Now() + 1s) ? Status()
                                                                 : std::unexpected(answered.error());
      }
      moved = *answered;
      if (moved) last = Now();
    }
    if (Now() - last > kPatience) return Fail(Code::kDeadlineExceeded, "the visitor fell silent");
    if (Now() - last < 200us) {
      std::this_thread::yield();  // two doctors may share a CPU
    } else {
      end.Sleep(5ms);
    }
  }
  return {};
}

Status TryLink(const config::DoctorOptions& options, int fd, const std::string& body) {
  fabric::WireReader reader(body);
  const std::string kind = reader.GetText(), address = reader.GetText();
  if (!reader.ok()) return Fail(Code::kDataLoss, "no wish of a doctor");
  auto addresses = OwnAddresses(options);
  if (addresses.empty()) addresses = {sys::LocalHost(fd)};
  auto end = LinkEnd::Open(kind, addresses);
  if (!end) return sys::SendFrame(fd, kDoctorRefused, end.error().message, {}, Now() + kPatience);
  uint64_t key = 0;
  if (getrandom(&key, sizeof(key), 0) != sizeof(key)) return Fail(Code::kInternal, "no random numbers");
  fabric::WireWriter ready;
  ready.PutText((*end)->address()).Put(key);
  CADRE_TRY(sys::SendFrame(fd, kDoctorReady, ready.text(), {}, Now() + kPatience));
  CADRE_TRY((*end)->Connect(address, key, false, Now() + kPatience));
  return AnswerLink(fd, **end);
}

Status Visit(const config::DoctorOptions& options, int fd) {
  CADRE_TRY(Greet(fd));
  while (true) {
    CADRE_ASSIGN(const sys::Frame frame, sys::RecvFrame(fd, kMaxDoctorFrame, Now() + kPatience));
    if (frame.kind == kDoctorEcho) {
      CADRE_TRY(sys::SendFrame(fd, kDoctorEcho, frame.body, {}, Now() + kPatience));
    } else if (frame.kind == kDoctorTry) {
      CADRE_TRY(TryLink(options, fd, frame.body));
    } else if (frame.kind != kDoctorDone) {
      return Fail(Code::kDataLoss, "it does not speak as a doctor");
    }
  }
}

}  // namespace

Status ListenForDoctors(const config::DoctorOptions& options) {
  const auto port = static_cast<uint16_t>(*options.listen);
  CADRE_ASSIGN(const sys::Fd listener, sys::ListenTcp(options.listen_address, port));
  std::printf("listening on port %d; on the other host: cadre doctor --peer %s:%d\n", port,
              HostName().c_str(), port);
  std::fflush(stdout);
  const TimePoint end = options.listen_seconds
                            ? Now() + std::chrono::duration_cast<Duration>(
                                          std::chrono::duration<double>(*options.listen_seconds))
                            : TimePoint::max();
  while (Now() < end) {
    auto visitor = sys::Accept(listener.get(), end);
    if (!visitor && visitor.error().code == Code::kDeadlineExceeded) break;
    if (!visitor) return std::unexpected(visitor.error());
    const std::string who = sys::PeerHost(visitor->get());
    const pid_t pid = fork();
    if (pid < 0) return Fail(Code::kResourceExhausted, "cannot start a process: ulimit -u?");
    if (pid == 0) {
      sys::DieWithParent(SIGKILL);
      alarm(kVisitSeconds);
      const Status status = Visit(options, visitor->get());
      std::fflush(stdout);
      _exit(status || status.error().code == Code::kUnavailable ? 0 : 1);  // it went away: done
    }
    visitor->Reset();
    int ended = 0;
    waitpid(pid, &ended, 0);
    const bool well = WIFEXITED(ended) && WEXITSTATUS(ended) == 0;
    std::printf("%s %s\n", who.c_str(),
                well ? "was answered" : "was dropped: it did not speak as a doctor, or fell silent");
    std::fflush(stdout);
  }
  return {};
}

}  // namespace cadre::app
