#pragma once
// What `cadre doctor` finds: each finding with what it means and for which flag.
//
// A finding *blocks* when serving on this machine would fail or a peer that was asked for is not reached;
// then the command's exit status says so. A *warning* costs speed or will matter with some flag. Everything
// else is fine or for information.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "config/command_options.h"

namespace cadre::app {

enum class Level : uint8_t { kFine, kInfo, kWarning, kBlocks };
const char* LevelName(Level level);

struct Finding {
  std::string section;  ///< "cpu", "memory", "network", ...
  std::string name;     ///< within the section, one word or a device's name
  Level level = Level::kFine;
  std::string value;           ///< what was found, one line
  std::string meaning;         ///< what follows from it, whole sentences; may be empty
  std::string flags;           ///< the flags or variables concerned, with commas between; may be empty
  Json data = Json::Object();  ///< the same in numbers
};
using Findings = std::vector<Finding>;

/// "a, b, c".
template <typename Range>
std::string Joined(const Range& words) {
  return Format("{}", fmt::join(words, ", "));
}

/// CPU, NUMA, memory, huge pages, shared memory, limits. `root` as in sys/cpu.h.
void ExamineMachine(const config::DoctorOptions& options, const std::string& root, Findings& findings);
/// Interfaces, RDMA, UCX, how hosts would be linked, exchanges, GPUs and how far they are from the network.
void ExamineDevices(const config::DoctorOptions& options, const std::string& root, Findings& findings);
/// Another host, HOST or HOST:PORT: reached or not, why; latency and bandwidth if a doctor listens there.
void ExaminePeer(const config::DoctorOptions& options, const std::string& peer, Findings& findings);
/// Answers other doctors, one after the other, until the options' time is over. Errors: the port is taken.
Status ListenForDoctors(const config::DoctorOptions& options);

/// The addresses at which other hosts would reach this one by the environment's settings; empty: any.
std::vector<std::string> OwnAddresses(const config::DoctorOptions& options);

std::string FindingsText(const Findings& findings);
Json FindingsJson(const Findings& findings);

}  // namespace cadre::app
