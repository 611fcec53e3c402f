#pragma once
// What the system grants a process: limits, huge pages, shared memory. `root` as in cpu.h.
#include <cstdint>
#include <string>
#include <vector>

namespace cadre::sys {

/// A limit of this process (ulimit); -1: unlimited.
struct UserLimits {
  int64_t open_files = -1;    ///< ulimit -n, the hard one: the soft one can be raised to it
  int64_t locked_bytes = -1;  ///< ulimit -l
  int64_t processes = -1;     ///< ulimit -u, threads included
};
UserLimits ReadUserLimits();

struct HugePageInfo {
  std::string transparent;  ///< "always", "madvise", "never"; "" where the kernel has none
  std::string shared;       ///< of shared memory: "always", "within_size", "advise", "never", ...
  int64_t reserved = 0;     ///< pages of 2 MiB in vm.nr_hugepages
};
HugePageInfo ReadHugePages(const std::string& root = "");

struct ShmInfo {
  int64_t bytes = 0, free_bytes = 0;  ///< of /dev/shm; 0: not mounted
};
ShmInfo ReadShm(const std::string& path = "/dev/shm");

/// The instruction-set flags of the first CPU in /proc/cpuinfo ("flags", or "Features" on ARM).
std::vector<std::string> CpuFlags(const std::string& root = "");

/// First and last port that the kernel hands out (ip_local_port_range); {32768, 60999} if it does not say.
struct PortRange {
  int first = 32768, last = 60999;
};
PortRange ReadLocalPorts(const std::string& root = "");

}  // namespace cadre::sys
