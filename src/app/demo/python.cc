#include "app/demo/python.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "config/value.h"
#include "sys/files.h"
#include "sys/process.h"
#include "sys/sockets.h"

namespace cadre::app::demo {
namespace {

using namespace std::chrono_literals;

constexpr auto kLastWords = 10s;  // for the others, once a rank has failed

struct Files {
  std::string python, package, script;
};

std::string ParentFolder(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

Result<std::string> FindPython(const config::Environment& env) {
  const std::string path(config::Get(env, "PATH"));
  std::string rest = path;
  while (!rest.empty()) {
    const size_t colon = std::min(rest.find(':'), rest.size());
    std::string file = rest.substr(0, colon) + "/python3";
    if (access(file.c_str(), X_OK) == 0) return file;
    rest.erase(0, colon + 1);
  }
  return Fail(Code::kNotFound, "--python wants a python3, and PATH ({}) has none", Excerpt(path, 300));
}

Result<Files> FindFiles(const config::Environment& env) {
  Files files;
  CADRE_ASSIGN(files.python, FindPython(env));
  CADRE_ASSIGN(const std::string program, sys::ProgramPath());
  const std::string build = ParentFolder(program);
  files.package = build + "/python";
  if (!sys::IsFolder(files.package + "/cadre")) {
    return Fail(
        Code::kNotFound,
        "the Python package was not built: there is no {}/cadre. Install python3-dev and pybind11-dev and "
        "build again",
        files.package);
  }
  files.script = ParentFolder(ParentFolder(build)) + "/examples/expert_parallel/demo.py";
  if (!sys::FileExists(files.script)) {
    return Fail(Code::kNotFound, "there is no {}, which --python runs", files.script);
  }
  return files;
}

std::vector<std::string> Words(const config::DemoOptions& o, const Files& files) {
  std::vector<std::string> words = {files.script,
                                    Format("--all2all-backend={}", o.all2all_backend),
                                    Format("--num-experts={}", o.num_experts),
                                    Format("--top-k={}", o.top_k),
                                    Format("--num-tokens={}", o.num_tokens),
                                    Format("--hidden-size={}", o.hidden_size),
                                    Format("--intermediate-size={}", o.intermediate_size),
                                    Format("--expert-placement-strategy={}", o.placement),
                                    Format("--seed={}", o.seed),
                                    Format("--timeout={}", o.timeout_s)};
  if (o.force_cpu) words.push_back("--force-cpu");
  return words;
}

std::string PythonPath(const Files& files, const config::Environment& env) {
  const std::string before(config::Get(env, "PYTHONPATH"));
  return before.empty() ? files.package : files.package + ":" + before;
}

// Before the ranks are started, so that one message comes and not one from each of them.
Status TryImport(const Files& files, const config::Environment& env) {
  CADRE_ASSIGN(const auto child, sys::Child::Spawn({.program = files.python,
                                                    .args = {"-c", "import numpy, cadre"},
                                                    .env = {{"PYTHONPATH", PythonPath(files, env)}},
                                                    .fds = {},
                                                    .pass_on = false}));
  const auto end = child->Wait(Now() + 60s);
  if (end && end->ok()) return {};
  const auto lines = child->LastLines();
  return Fail(
      Code::kNotFound,
      "{} cannot import numpy and cadre: {}. --python takes the first python3 in PATH; put one there that "
      "has numpy (apt-get install python3-numpy, or pip) and is the Python that the package was built for",
      files.python, lines.empty() ? "it did not answer" : lines.back());
}

Status AwaitAll(std::vector<std::unique_ptr<sys::Child>>& ranks) {
  Status result;
  std::vector<bool> ended(ranks.size());
  TimePoint until = TimePoint::max();
  while (std::ranges::find(ended, false) != ended.end()) {
    std::vector<pollfd> polls;
    for (size_t r = 0; r < ranks.size(); ++r) polls.push_back({ended[r] ? -1 : ranks[r]->pidfd(), POLLIN, 0});
    poll(polls.data(), polls.size(), 100);
    for (size_t r = 0; r < ranks.size(); ++r) {
      if (ended[r]) continue;
      const auto end = ranks[r]->Wait(Now());
      if (!end) continue;
      ended[r] = true;
      if (end->ok() || !result) continue;
      result = Fail(Code::kUnavailable, "rank {} {}", r, end->Describe());
      until = Now() + kLastWords;
    }
    if (Now() >= until) break;  // what still runs is killed with its Child
  }
  return result;
}

}  // namespace

Status RunPython(const config::DemoOptions& options, const config::Environment& env) {
  CADRE_ASSIGN(const Files files, FindFiles(env));
  CADRE_TRY(TryImport(files, env));
  std::printf("PYTHONPATH=%s %s %s\n", files.package.c_str(), files.python.c_str(), files.script.c_str());
  std::fflush(stdout);
  // Held, not used: on one host the port is only a name by which the ranks find each other.
  CADRE_ASSIGN(const sys::Fd listener, sys::ListenTcp("127.0.0.1", 0));
  CADRE_ASSIGN(const uint16_t port, sys::LocalPort(listener.get()));
  const std::string size = Format("{}", options.nproc_per_node);
  std::vector<std::unique_ptr<sys::Child>> ranks;
  for (int64_t r = 0; r < options.nproc_per_node; ++r) {
    const std::string rank = Format("{}", r);
    CADRE_ASSIGN(auto child, sys::Child::Spawn({.program = files.python,
                                                .args = Words(options, files),
                                                .env = {{"RANK", rank},
                                                        {"WORLD_SIZE", size},
                                                        {"LOCAL_RANK", rank},
                                                        {"LOCAL_WORLD_SIZE", size},
                                                        {"MASTER_ADDR", "127.0.0.1"},
                                                        {"MASTER_PORT", Format("{}", port)},
                                                        {"PYTHONPATH", PythonPath(files, env)}},
                                                .fds = {},
                                                .capture = false}));
    ranks.push_back(std::move(child));
  }
  return AwaitAll(ranks);
}

}  // namespace cadre::app::demo
