#include "app/serve_load.h"

#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/random.h"

namespace cadre::app {
namespace {

constexpr size_t kErrorsShown = 5;

std::function<void(size_t)> ProgressLine(const config::BenchServeOptions& options, size_t total) {
  if (options.disable_tqdm || isatty(STDERR_FILENO) != 1) return {};
  return [total, last = size_t{0}](size_t done) mutable {
    if (done == last && done < total) return;
    last = done;
    std::fprintf(stderr, "\r%zu of %zu requests\033[K%s", done, total, done == total ? "\n" : "");
  };
}

}  // namespace

LongPrompts LongPromptsOf(const config::BenchServeOptions& options) {
  const auto chats = Effective(options.random, options.input_len, options.output_len);
  return {.share = options.long_prompt_share,
          .input_len = options.long_input_len,
          .output_len = options.long_output_len.value_or(chats.output_len)};
}

Status CheckLoad(const config::BenchServeOptions& options) {
  const auto chats = Effective(options.random, options.input_len, options.output_len);
  const LongPrompts longs = LongPromptsOf(options);
  const auto prompts = static_cast<double>(std::max(options.num_prompts, options.num_warmups));
  const double longest = 1 + options.random.range_ratio;
  const double chat = static_cast<double>(chats.input_len) * longest + static_cast<double>(chats.prefix_len);
  const double length = chat + longs.share * static_cast<double>(longs.input_len) * longest;
  return CheckPromptCount(prompts, prompts, length);
}

void ShowErrors(const LoadResult& load) {
  size_t shown = 0;
  for (size_t i = 0; i < load.records.size() && shown < kErrorsShown; ++i) {
    if (load.records[i].success) continue;
    LogError("request {} failed: {}", i, load.records[i].error);
    ++shown;
  }
}

ServeLoad::ServeLoad(const config::BenchServeOptions& options, ServeTarget& target)
    : options_(options), target_(target), id_prefix_(options.request_id_prefix) {
  if (id_prefix_.empty()) id_prefix_ = Format("bench-{:08x}-", EntropySeed() & 0xFFFFFFFF);
}

LoadOptions ServeLoad::Options() const {
  LoadOptions load;
  load.max_concurrency = options_.max_concurrency;
  load.stream = !options_.no_stream;
  return load;
}

Status ServeLoad::WarmUp() {
  if (options_.num_warmups == 0) return {};
  // Other prompts than those measured, or the server's prefix cache would know them.
  const LoadResult result =
      Send(options_.num_warmups, ~static_cast<uint64_t>(options_.seed), Options(), "warmup-");
  for (const RequestRecord& record : result.records) {
    if (!record.success) return Fail(Code::kUnavailable, "a warm-up request failed: {}", record.error);
  }
  return {};
}

LoadResult ServeLoad::Measure() {
  LoadOptions load = Options();
  load.keep_text = options_.save_detailed;
  load.delays = ArrivalTimes(static_cast<size_t>(options_.num_prompts), options_.request_rate,
                             options_.burstiness, static_cast<uint64_t>(options_.seed));
  load.progress = ProgressLine(options_, static_cast<size_t>(options_.num_prompts));
  return Send(options_.num_prompts, static_cast<uint64_t>(options_.seed), load, "");
}

LoadResult ServeLoad::Send(int64_t count, uint64_t seed, const LoadOptions& load, const char* kind) {
  const auto shape = Effective(options_.random, options_.input_len, options_.output_len);
  const auto prompts = MakeMixedPrompts(shape, LongPromptsOf(options_), count, target_.vocab_size(), seed);
  std::vector<http::ClientRequest> requests;  // ready before the clock starts
  for (const RandomPrompt& prompt : prompts) {
    requests.push_back(target_.MakeRequest(prompt, Format("{}{}{}", id_prefix_, kind, requests.size())));
  }
  LoadResult result = SendLoad(
      target_.client(), requests.size(), [&](size_t i) { return std::move(requests[i]); }, load);
  for (size_t i = 0; i < prompts.size(); ++i) {
    RequestRecord& record = result.records[i];
    record.is_long = prompts[i].is_long;
    if (record.prompt_len == 0) record.prompt_len = static_cast<int64_t>(prompts[i].ids.size());
  }
  return result;
}

}  // namespace cadre::app
