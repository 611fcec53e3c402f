#include "app/measure_gloo.h"

#include <unistd.h>

#include <cstdio>

#include "base/clock.h"
#include "sys/files.h"
#include "sys/process.h"

namespace cadre::app {
namespace {

constexpr auto kLongest = std::chrono::minutes(5);

}  // namespace

Result<GlooTimes> MeasureGloo(const std::string& python, int ranks, const std::vector<int64_t>& sizes,
                              int64_t iterations) {
  GlooTimes times;
  CADRE_ASSIGN(const std::string self, sys::ProgramPath());
  const std::string script = self.substr(0, self.rfind('/') + 1) + "cadre_gloo_alltoall.py";
  if (!sys::FileExists(script)) {
    times.absent = "no cadre_gloo_alltoall.py beside cadre";
    return times;
  }
  // env finds the interpreter in PATH.
  std::vector<std::string> args = {python, script, Format("{}", ranks), Format("{}", iterations)};
  for (const int64_t bytes : sizes) args.push_back(Format("{}", bytes));
  CADRE_ASSIGN(const auto child, sys::Child::Spawn({.program = "/usr/bin/env",
                                                    .args = args,
                                                    .env = {},
                                                    .fds = {},
                                                    .pass_on = false,
                                                    .keep_lines = sizes.size() + 20}));
  const auto end = child->Wait(Now() + kLongest);
  const auto lines = child->LastLines();
  for (const std::string& line : lines) {
    long long bytes = 0;
    double us = 0;
    char odd = 0;
    if (std::sscanf(line.c_str(), "%lld %lf%c", &bytes, &us, &odd) == 2) times.us[bytes] = us;
  }
  if (end && end->ok() && times.us.size() == sizes.size()) return times;
  const std::string last = lines.empty() ? "no output" : lines.back();
  if (times.us.empty() && end && !end->ok()) {
    times.absent = Format("{}: {}", python, last);  // no such Python, or it has no torch
    return times;
  }
  return Fail(Code::kUnavailable, "Gloo under {} {}: {}", python, end ? end->Describe() : "did not end",
              last);
}

}  // namespace cadre::app
