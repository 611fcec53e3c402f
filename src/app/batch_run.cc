#include "app/batch_run.h"

#include <algorithm>

namespace cadre::app {

void BatchListener::OnDelta(size_t sequence, const session::Delta& delta,
                            std::span<const TimePoint> step_times) {
  SequenceRun& run = runs_[sequence];
  if (!step_times.empty()) {
    // A step gives one token; should it give more, they came together.
    run.tokens.insert(run.tokens.end(), step_times.begin(), step_times.end());
    for (size_t i = step_times.size(); i < delta.tokens.size(); ++i) run.tokens.push_back(step_times.back());
  }
  if (delta.end == nullptr) return;
  run.ended = true;
  if (delta.end->reason == engine::FinishReason::kError) run.error = delta.end->error;
}

Status BatchListener::status() const {
  for (const SequenceRun& run : runs_) {
    if (!run.error.message.empty()) return std::unexpected(run.error);
  }
  return {};
}

session::GenerateRequest FixedLengthRequest(std::string id, std::vector<std::vector<int64_t>> prompts,
                                            int64_t output_len, int64_t n, int64_t seed) {
  session::GenerateRequest request;
  request.id = std::move(id);
  for (auto& ids : prompts) request.prompts.push_back(session::TokenPrompt{std::move(ids)});
  session::SamplingRequest& sampling = request.sampling;
  sampling.temperature = 1.0;
  sampling.top_p = 1.0;
  sampling.top_k = 0;
  sampling.min_p = 0.0;
  sampling.repetition_penalty = 1.0;
  sampling.seed = seed;
  sampling.n = n;
  sampling.max_tokens = output_len;
  sampling.max_tokens_name = "--output-len";
  sampling.ignore_eos = true;
  return request;
}

Phases PhasesOf(std::span<const SequenceRun> runs, TimePoint start, TimePoint end) {
  TimePoint begin = start, until = TimePoint::max();
  for (const SequenceRun& run : runs) {
    if (run.tokens.empty()) continue;
    begin = std::max(begin, run.tokens.front());
    until = std::min(until, run.tokens.back());
  }
  if (until <= begin) {  // some had ended before others began: what is left of the run
    until = begin;
    for (const SequenceRun& run : runs) {
      if (!run.tokens.empty()) until = std::max(until, run.tokens.back());
    }
  }
  Phases phases{.total_s = Seconds(end - start),
                .prefill_s = Seconds(begin - start),
                .decode_s = Seconds(until - begin)};
  for (const SequenceRun& run : runs) {
    phases.decode_tokens += std::count_if(run.tokens.begin(), run.tokens.end(),
                                          [&](TimePoint t) { return t > begin && t <= until; });
  }
  return phases;
}

Result<Phases> RunBatch(LocalSession& local, session::GenerateRequest request) {
  auto listener =
      std::make_shared<BatchListener>(request.prompts.size() * static_cast<size_t>(request.sampling.n));
  const TimePoint start = Now();
  CADRE_ASSIGN(const auto generation, local.session().Start(std::move(request), listener, local.Post()));
  while (!listener->ended()) local.queue().RunSome();
  const TimePoint end = Now();
  if (const Status status = listener->status(); !status)
    return std::unexpected(local.Explain(status.error()));
  return PhasesOf(listener->runs(), start, end);
}

}  // namespace cadre::app
