#pragma once
// Hosts for tests: network namespaces, each with one interface to a common bridge. Everything carries the
// test's process id in its name and goes away with the object.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/format.h"

namespace cadre::test {

inline bool Run(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

class Namespaces {
 public:
  explicit Namespaces(int num_hosts) : num_hosts_(num_hosts) {
    ok_ = Run("ip netns add " + Switch()) && Run(In(Switch()) + "ip link add br0 type bridge") &&
          Run(In(Switch()) + "ip link set br0 up");
    for (int h = 0; h < num_hosts && ok_; ++h) {
      const std::string port = Format("port{}", h);
      ok_ =
          Run("ip netns add " + Name(h)) &&
          Run(Format("ip link add {} netns {} type veth peer name eth0 netns {}", port, Switch(), Name(h))) &&
          Run(In(Switch()) + Format("ip link set {} master br0 up", port)) &&
          Run(In(Name(h)) + Format("ip addr add {}/24 dev eth0", Address(h))) &&
          Run(In(Name(h)) + "ip link set eth0 up") && Run(In(Name(h)) + "ip link set lo up");
    }
  }
  ~Namespaces() {
    if (!cables_.empty()) Run(Format("pkill -KILL -P {} -f multihost/cable.py", owner_));
    for (FILE* cable : cables_) pclose(cable);
    for (int h = 0; h < num_hosts_; ++h) Run("ip netns del " + Name(h));
    Run("ip netns del " + Switch());
  }
  Namespaces(const Namespaces&) = delete;
  Namespaces& operator=(const Namespaces&) = delete;

  /// False where the system does not permit it.
  bool ok() const { return ok_; }
  static std::string Address(int host) { return Format("10.77.0.{}", host + 1); }

  /// Pulls the host's plug.
  bool Unplug(int host) { return Run(In(Switch()) + Format("ip link set port{} down", host)); }
  /// For all hosts, both ways: "delay 2ms 1ms loss 1%". By netem, or by cables of our own (cable.py) where
  /// the kernel has none.
  bool Disturb(const std::string& how) {
    for (int h = 0; h < num_hosts_; ++h) {
      if (!Run(In(Name(h)) + "tc qdisc add dev eth0 root netem " + how) && !BadCable(h, how)) return false;
    }
    return true;
  }

  /// Moves this process into the host: its network, and a view of /sys that shows it.
  bool Enter(int host) const {
    const int fd = open(("/var/run/netns/" + Name(host)).c_str(), O_RDONLY | O_CLOEXEC);
    const bool in = fd >= 0 && setns(fd, CLONE_NEWNET) == 0;
    if (fd >= 0) close(fd);
    return in && unshare(CLONE_NEWNS) == 0 && mount("", "/", nullptr, MS_REC | MS_SLAVE, nullptr) == 0 &&
           umount2("/sys", MNT_DETACH) == 0 && mount("sysfs", "/sys", "sysfs", 0, nullptr) == 0;
  }

 private:
  // A host's interface anew, at the end of a cable that does `how`.
  bool BadCable(int host, const std::string& how) {
    const std::string port = Format("port{}", host);
    if (!Run(In(Switch()) + "ip link del " + port)) return false;
    const std::string command = Format("exec python3 {}/tests/multihost/cable.py {} eth0 {} {} {}",
                                       CADRE_SOURCE_DIR, Name(host), Switch(), port, how);
    cables_.push_back(popen(command.c_str(), "re"));
    char ready[16] = {};
    return cables_.back() != nullptr && fgets(ready, sizeof(ready), cables_.back()) != nullptr &&
           Run(In(Switch()) + Format("ip link set {} master br0 up", port)) &&
           Run(In(Name(host)) + Format("ip addr add {}/24 dev eth0", Address(host))) &&
           Run(In(Name(host)) + "ip link set eth0 up");
  }

  static std::string In(const std::string& name) { return "ip netns exec " + name + " "; }
  std::string Switch() const { return Format("cadre-{}-switch", owner_); }
  std::string Name(int host) const { return Format("cadre-{}-{}", owner_, host); }

  pid_t owner_ = getpid();
  int num_hosts_;
  bool ok_ = false;
  std::vector<FILE*> cables_;  // what the cables print; closed when they have ended
};

}  // namespace cadre::test
