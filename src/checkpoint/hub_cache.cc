// Layout of the cache (huggingface_hub): models--ORG--NAME/refs/REVISION holds a commit, and
// models--ORG--NAME/snapshots/COMMIT the files (links into ../../blobs).
#include "checkpoint/hub_cache.h"

#include <algorithm>

#include "checkpoint/file.h"

namespace cadre::checkpoint {
namespace {

// The hub's rule for a part of a name; also what keeps a name from leaving the cache folder.
bool IsPlainName(std::string_view part) {
  if (part.empty() || part.size() > 96 || part.front() == '.' || part.front() == '-') return false;
  return std::all_of(part.begin(), part.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

bool IsHubName(std::string_view model) {
  const size_t slash = model.find('/');
  if (slash == std::string_view::npos) return IsPlainName(model);
  return IsPlainName(model.substr(0, slash)) && IsPlainName(model.substr(slash + 1));
}

// A branch may contain slashes ("refs/pr/1"), but not leave the folder.
bool IsRevision(std::string_view revision) {
  while (true) {
    const size_t slash = revision.find('/');
    if (!IsPlainName(revision.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    revision.remove_prefix(slash + 1);
  }
}

std::string ExpandHome(const std::string& path, const std::string& home) {
  return path == "~" || path.starts_with("~/") ? home + path.substr(1) : path;
}

std::string Trim(std::string text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
  while (!text.empty() && is_space(text.back())) text.pop_back();
  return text;
}

std::string DownloadHint(const std::string& model, const std::string& revision) {
  return Format("Download it with `huggingface-cli download {0}{1}` (newer: `hf download {0}{1}`)", model,
                revision == "main" ? "" : " --revision " + revision);
}

}  // namespace

std::string HubCacheFolder(const HubEnvironment& environment) {
  const auto expand = [&](const std::string& path) { return ExpandHome(path, environment.home); };
  if (!environment.hf_hub_cache.empty()) return expand(environment.hf_hub_cache);
  if (!environment.huggingface_hub_cache.empty()) return expand(environment.huggingface_hub_cache);
  if (!environment.hf_home.empty()) return expand(environment.hf_home) + "/hub";
  if (!environment.xdg_cache_home.empty()) return expand(environment.xdg_cache_home) + "/huggingface/hub";
  return environment.home.empty() ? "" : environment.home + "/.cache/huggingface/hub";
}

Result<ModelLocation> LocateModel(const std::string& model, const std::string& revision,
                                  const HubEnvironment& environment) {
  const std::string path = ExpandHome(model, environment.home);
  if (IsFolder(path)) return ModelLocation{path, model, ""};
  if (IsFile(path)) {
    return Fail(Code::kInvalidArgument,
                "{} is a file; wanted the folder with config.json and safetensors files", model);
  }
  if (!IsHubName(model)) {
    return Fail(Code::kNotFound,
                "there is no folder '{}', and it is no name of a model on the hub (ORG/NAME)", model);
  }
  const std::string wanted = revision.empty() ? "main" : revision;
  if (!IsRevision(wanted)) {
    return FailParam(Code::kInvalidArgument, "revision", "'{}' is no name of a revision", revision);
  }
  const std::string cache = HubCacheFolder(environment);
  if (cache.empty()) {
    return Fail(Code::kNotFound,
                "there is no folder '{}', and no Hugging Face cache to look in: none of HF_HUB_CACHE, "
                "HF_HOME and HOME is set",
                model);
  }
  std::string entry = "models--" + model;
  if (const size_t slash = entry.find('/'); slash != std::string::npos) entry.replace(slash, 1, "--");
  const std::string repository = cache + "/" + entry;
  if (!IsFolder(repository)) {
    return Fail(Code::kNotFound,
                "model '{}' not found: looked for the folder ./{} and in the Hugging Face cache for {}. {}",
                model, model, repository, DownloadHint(model, wanted));
  }
  std::string commit = wanted;
  if (const std::string ref = repository + "/refs/" + wanted; IsFile(ref)) {
    CADRE_ASSIGN(commit, ReadWholeFile(ref, 4096));
    commit = Trim(std::move(commit));
    if (!IsPlainName(commit))
      return Fail(Code::kDataLoss, "{} holds no commit: '{}'", ref, commit.substr(0, 80));
  }
  const std::string snapshot = repository + "/snapshots/" + commit;
  if (!IsFolder(snapshot)) {
    return Fail(
        Code::kNotFound,
        "revision '{}' of model '{}' is not in the Hugging Face cache: looked for {}/refs/{} and {}. {}",
        wanted, model, repository, wanted, snapshot, DownloadHint(model, wanted));
  }
  return ModelLocation{snapshot, model, commit};
}

}  // namespace cadre::checkpoint
