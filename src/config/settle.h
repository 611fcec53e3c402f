#pragma once
// Everything that was given -> one value for each setting -> the fields, the refusals and the notices.
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/command_line.h"
#include "config/environment.h"
#include "config/parse.h"

namespace cadre::config {

class Settlement {
 public:
  explicit Settlement(Command command) : command_(command) {}

  /// Takes a value; a later one wins. Members of a JSON option that are given singly (--option.member) are
  /// merged into it, before or after it. Call in rising order of precedence.
  Status Take(const Given& given);
  /// The variables that set defaults of flags, and the unknown VLLM_ names.
  Status TakeEnvironment(const Environment& env);
  /// The members of a --config file.
  Status TakeFile(const Json& file, const std::string& path);

  /// Checks members of JSON options and writes all fields. Call once, after the last Take.
  Status Fill(const Targets& targets);
  /// Refuses what is not built. After Fill, so that vLLM's own rules are heard first.
  Status Refuse() const;
  /// One notice for each reason without effect, and the warnings.
  std::vector<Notice> Notices() const;

  /// The value given for a flag, or nullptr.
  const Given* Find(std::string_view name) const;

  /// The unknown VLLM_ names, for --fail-on-environ-validation.
  const std::vector<std::string>& unknown_variables() const { return unknown_variables_; }

 private:
  Status TakeMember(const Given& given, Given& whole);
  Status FillMembers(const Setting& setting, Given& given, const Targets& targets);

  Command command_;
  std::map<const Setting*, Given> given_;
  std::map<const Setting*, std::set<std::string>> single_members_;  // of given_, at the top
  std::map<const Setting*, Given> variables_;  // rows of the environment table that are no flag's default
  std::map<const Setting*, std::set<std::string>> silent_names_;  // as written: NCCL_DEBUG for the row NCCL_*
  std::map<std::string, std::string> older_;  // spellings that were used -> what is written today
  std::vector<std::string> unknown_variables_;
};

}  // namespace cadre::config
