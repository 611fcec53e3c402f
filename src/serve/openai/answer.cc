#include "serve/openai/answer.h"

#include <algorithm>
#include <charconv>
#include <ctime>

#include "base/log.h"
#include "serve/errors.h"
#include "serve/openai/kv_transfer.h"

namespace cadre::serve {

void AppendInt(std::string& out, int64_t value) {
  char digits[24];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

void AppendInts(std::string& out, std::span<const int32_t> values) {
  out += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ',';
    AppendInt(out, values[i]);
  }
  out += ']';
}

void AppendLogprob(std::string& out, float value) {
  // The shortest text of the float, not of the double it becomes.
  char digits[32];
  const float shown = value > -9999.0f ? value : -9999.0f;
  out.append(digits, std::to_chars(digits, digits + sizeof digits, shown).ptr);
}

const char* FinishName(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kAbort:
      return "abort";
    case engine::FinishReason::kError:
      return "error";
  }
  return "error";
}

void AppendStopReason(std::string& out, const session::StopReason& reason) {
  if (const auto* token = std::get_if<int32_t>(&reason)) {
    AppendInt(out, *token);
  } else if (const auto* text = std::get_if<std::string>(&reason)) {
    AppendJsonString(out, *text);
  } else {
    out += "null";
  }
}

void AppendFinish(std::string& out, const session::SequenceEnd* end) {
  if (end == nullptr) {
    out += ",\"finish_reason\":null";
    return;
  }
  out += ",\"finish_reason\":\"";
  out += FinishName(end->reason);
  out += "\",\"stop_reason\":";
  AppendStopReason(out, end->stop_reason);
}

Answer::Answer(Api& api, AnswerOptions options, WriterPtr writer)
    : api_(api), options_(std::move(options)), writer_(std::move(writer)), created_(time(nullptr)) {
  ++api_.num_in_flight;
  frame_ = "data: ";
  AppendHead(frame_, options_.chunk_object);
}

Answer::~Answer() {
  --api_.num_in_flight;
}

Status Answer::Start(session::GenerateRequest request) {
  const WriterPtr writer = writer_;
  auto generation =
      api_.session.Start(std::move(request), shared_from_this(),
                         [writer](std::move_only_function<void()> task) { writer->Post(std::move(task)); });
  if (!generation.has_value()) return std::unexpected(generation.error());
  writer->Post([self = shared_from_this(), generation = *generation] {
    if (self->failed_) return generation->Cancel();
    self->generation_ = generation;
    self->writer_->OnDisconnect([generation, id = self->options_.id] {
      LogDebug("{}: the client has gone", id);
      generation->Cancel();
    });
  });
  return {};
}

void Answer::OnAccepted(session::Accepted accepted) {
  accepted_ = std::move(accepted);
  choices_.resize(accepted_.prompts.size() * static_cast<size_t>(accepted_.n));
  if (api_.options.log_requests) {
    LogInfo("request {}: {} prompt(s) of {}... tokens, n = {}, at most {} tokens", options_.id,
            accepted_.prompts.size(), accepted_.prompts[0].size(), accepted_.n, accepted_.max_tokens);
  }
}

void Answer::OnPrompt(size_t sequence, session::PromptResult prompt) {
  choices_[sequence].prompt = std::move(prompt);
}

void Answer::OnDelta(size_t sequence, const session::Delta& delta, std::span<const TimePoint> step_times) {
  if (failed_) return;
  Choice& choice = choices_[sequence];
  Count(sequence, delta, step_times);
  if (delta.end != nullptr) {
    if (delta.end->reason == engine::FinishReason::kError) return Fail(delta.end->error);
    choice.finish_reason = FinishName(delta.end->reason);
    choice.stop_reason = delta.end->stop_reason;
    choice.held = delta.end->held;
    choice.routed = delta.end->routed;
  }
  const bool first = !std::exchange(choice.begun, true);
  if (options_.stream) {
    AppendChunk(out_, sequence, choice, delta, first);
    if (!choice.held) return;
    out_ += frame_;  // a chunk of its own, as the usage is
    out_ += "],\"kv_transfer_params\":";
    AppendKvTransferParams(out_, choice.held);
    out_ += "}\n\n";
    return;
  }
  Keep(choice, sequence, delta, first);
  choice.text += delta.text;
  if (!options_.return_token_ids) return;
  for (const engine::GeneratedToken& token : delta.tokens) choice.token_ids.push_back(token.token);
}

void Answer::Count(size_t sequence, const session::Delta& delta, std::span<const TimePoint> step_times) {
  Choice& choice = choices_[sequence];
  if (choice.metrics == nullptr) choice.metrics = &api_.metrics.OfRank(delta.rank);
  for (const TimePoint step : step_times) {
    if (choice.last_step == TimePoint{}) {
      choice.metrics->OnFirstToken(Seconds(step - arrival_));
    } else {
      choice.metrics->OnNextToken(Seconds(step - choice.last_step));
    }
    choice.last_step = step;
  }
  choice.num_tokens += static_cast<int>(delta.tokens.size());
  if (delta.end == nullptr) return;
  choice.metrics->OnEnd({.end = *delta.end,
                         .arrival = arrival_,
                         .num_prompt_tokens = static_cast<int64_t>(PromptOf(sequence).size()),
                         .num_cached_tokens = choice.prompt.num_cached_tokens,
                         .max_tokens = accepted_.max_tokens});
  choice.counted = true;
  const auto n = static_cast<size_t>(accepted_.n);
  const std::span<const Choice> siblings(choices_.data() + sequence / n * n, n);
  if (!std::ranges::all_of(siblings, &Choice::counted)) return;
  choice.metrics->OnPromptEnd(accepted_.n, std::ranges::max(siblings, {}, &Choice::num_tokens).num_tokens);
}

void Answer::OnFailure(const Error& error) {
  if (!failed_) Fail(error);
}

void Answer::OnBatchEnd(bool all_ended) {
  if (failed_) return;
  if (!options_.stream) {
    if (all_ended) SendFull();
    return;
  }
  if (!stream_started_ && (!out_.empty() || all_ended)) {
    stream_started_ = true;
    writer_->StartStream(200, "text/event-stream; charset=utf-8", {{"Cache-Control", "no-cache"}});
  }
  if (all_ended) {
    if (options_.include_usage) {
      out_ += frame_;
      out_ += "],\"usage\":";
      AppendUsage(out_);
      out_ += "}\n\n";
    }
    out_ += "data: [DONE]\n\n";
  }
  if (!out_.empty()) writer_->Write(out_);
  out_.clear();
  if (all_ended) writer_->End();
}

void Answer::Fail(const Error& error) {
  failed_ = true;
  if (const auto generation = generation_.lock()) generation->Cancel();  // the other choices
  if (!stream_started_) {
    writer_->Send(ErrorResponse(error));
    return;
  }
  // The status line has left long ago: the error travels as an event.
  out_ += "data: " + ErrorBody(HttpStatus(error.code), error.message, error.param) + "\n\ndata: [DONE]\n\n";
  writer_->Write(out_);
  writer_->End();
}

void Answer::AppendUsage(std::string& out) const {
  int64_t prompt = 0, completion = 0, cached = 0;
  for (size_t p = 0; p < accepted_.prompts.size(); ++p) {
    prompt += static_cast<int64_t>(accepted_.prompts[p].size());
    cached += choices_[p * static_cast<size_t>(accepted_.n)].prompt.num_cached_tokens;
  }
  for (const Choice& choice : choices_) completion += choice.num_tokens;
  out += Format(
      "{{\"prompt_tokens\":{},\"total_tokens\":{},\"completion_tokens\":{},"
      "\"prompt_tokens_details\":{{\"cached_tokens\":{}}}}}",
      prompt, prompt + completion, completion, cached);
}

void Answer::AppendChunkUsage(std::string& out, size_t index, const Choice& choice) const {
  if (!options_.continuous_usage) return;
  const auto prompt = static_cast<int64_t>(PromptOf(index).size());
  out += Format(",\"usage\":{{\"prompt_tokens\":{},\"total_tokens\":{},\"completion_tokens\":{}}}", prompt,
                prompt + choice.num_tokens, choice.num_tokens);
}

std::string Answer::TokenText(int32_t token) const {
  if (options_.tokens_as_ids || api_.session.text() == nullptr) return Format("token_id:{}", token);
  return api_.session.text()->Decode({&token, 1}, false);
}

// [null, {"<id>": {"logprob", "rank", "decoded_token"}, ...}, ...]
void Answer::AppendPromptLogprobs(std::string& out, const Choice& choice) const {
  out += '[';
  for (size_t i = 0; i < choice.prompt.logprobs.size(); ++i) {
    if (i > 0) out += ',';
    const engine::Logprobs& entries = choice.prompt.logprobs[i];
    if (entries.empty()) {
      out += "null";
      continue;
    }
    out += '{';
    for (size_t k = 0; k < entries.size(); ++k) {
      if (k > 0 && entries[k].token == entries[0].token) continue;
      if (k > 0) out += ',';
      out += Format("\"{}\":{{\"logprob\":", entries[k].token);
      AppendLogprob(out, entries[k].logprob);
      out += Format(",\"rank\":{},\"decoded_token\":", entries[k].rank);
      AppendJsonString(out, TokenText(entries[k].token));
      out += '}';
    }
    out += '}';
  }
  out += ']';
}

// Up to the first choice.
void Answer::AppendHead(std::string& out, const char* object) const {
  out += is_openai() ? "{\"id\":" : "{\"request_id\":";
  AppendJsonString(out, options_.id);
  if (is_openai()) {
    out += Format(",\"object\":\"{}\",\"created\":{},\"model\":", object, created_);
    AppendJsonString(out, options_.model);
  }
  out += ",\"choices\":[";
}

void Answer::SendFull() {
  std::string body;
  AppendHead(body, options_.object);
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (i > 0) body += ',';
    body += "{\"index\":";
    AppendInt(body, static_cast<int64_t>(i));
    AppendChoice(body, i, choices_[i]);
    body += '}';
  }
  body += is_openai() ? "],\"system_fingerprint\":null,\"usage\":" : "],\"usage\":";
  AppendUsage(body);
  body += ",\"kv_transfer_params\":";
  AppendKvTransferParams(body, choices_.front().held);
  AppendExtras(body);
  body += '}';
  writer_->Send({200, "application/json", {}, std::move(body)});
}

}  // namespace cadre::serve
