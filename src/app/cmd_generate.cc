// cadre generate: one answer, or a chat on the terminal or through a pipe.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "app/local_session.h"
#include "app/run.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "text/utf8.h"

namespace cadre::app {
namespace {

std::atomic<bool> g_interrupted = false;
std::atomic<TaskQueue*> g_queue = nullptr;

void OnInterrupt(int) {
  g_interrupted = true;
  if (TaskQueue* queue = g_queue) queue->Wake();
}

/// Ctrl-C ends the answer instead of the process while this lives. Reads from the terminal end with EINTR.
class InterruptGuard {
 public:
  explicit InterruptGuard(TaskQueue& queue) {
    g_queue = &queue;
    struct sigaction action = {};
    action.sa_handler = OnInterrupt;
    sigaction(SIGINT, &action, &before_);
  }
  ~InterruptGuard() {
    sigaction(SIGINT, &before_, nullptr);
    g_queue = nullptr;
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  struct sigaction before_ = {};
};

/// Prints one answer as it comes and keeps what is needed afterwards.
class AnswerPrinter : public session::Listener {
 public:
  AnswerPrinter(bool has_text, TimePoint start) : has_text_(has_text), start_(start) {}

  void OnAccepted(session::Accepted accepted) override {
    num_prompt_tokens_ = accepted.prompts.front().size();
  }
  void OnPrompt(size_t, session::PromptResult prompt) override {
    num_cached_tokens_ = prompt.num_cached_tokens;
  }
  void OnDelta(size_t, const session::Delta& delta, std::span<const TimePoint> step_times) override {
    if (!step_times.empty() && num_tokens_ == 0) first_token_ = step_times.front();
    if (!step_times.empty()) last_token_ = step_times.back();
    num_tokens_ += delta.tokens.size();
    if (has_text_) {
      Write(delta.text);
    } else {
      for (const auto& token : delta.tokens) Write(Format("{}{}", text_.empty() ? "" : " ", token.token));
    }
    if (delta.end != nullptr) end_ = *delta.end;
  }
  void OnFailure(const Error& error) override {
    end_ = {.reason = engine::FinishReason::kError, .error = error};
    ended_ = true;
  }
  void OnBatchEnd(bool all_ended) override {
    std::fflush(stdout);
    ended_ = all_ended;
  }

  bool ended() const { return ended_; }
  const std::string& text() const { return text_; }
  const session::SequenceEnd& end() const { return end_; }

  /// "12 prompt tokens in 0.05 s (240.0 tokens/s), 34 tokens in 0.30 s (110.0 tokens/s), ended by ..."
  std::string Summary(bool interrupted) const {
    const double prefill_s = num_tokens_ > 0 ? Seconds(first_token_ - start_) : 0;
    const double decode_s = num_tokens_ > 1 ? Seconds(last_token_ - first_token_) : 0;
    std::string line = Format("{} prompt tokens", num_prompt_tokens_);
    if (num_cached_tokens_ > 0) line += Format(" ({} of them cached)", num_cached_tokens_);
    if (prefill_s > 0)
      line += Format(", first token after {:.2f} s ({:.1f} tokens/s)", prefill_s,
                     static_cast<double>(num_prompt_tokens_) / prefill_s);
    line += Format("; {} tokens", num_tokens_);
    if (decode_s > 0)
      line +=
          Format(" in {:.2f} s ({:.1f} tokens/s)", decode_s, static_cast<double>(num_tokens_ - 1) / decode_s);
    if (interrupted) return line + ", interrupted";
    return line + (end_.reason == engine::FinishReason::kLength ? ", ended by the token limit" : "");
  }

 private:
  void Write(std::string_view piece) {
    text_ += piece;
    WriteModelText(piece);
  }

  const bool has_text_;
  const TimePoint start_;
  TimePoint first_token_, last_token_;
  size_t num_prompt_tokens_ = 0, num_tokens_ = 0;
  int num_cached_tokens_ = 0;
  bool ended_ = false;
  std::string text_;
  session::SequenceEnd end_;
};

class Generator {
 public:
  Generator(const config::GenerateOptions& options, LocalSession& local) : options_(options), local_(local) {}

  /// Answers on stdout, with a line of numbers on stderr. kCancelled after Ctrl-C. `answer`: as far as it
  /// came.
  Status Answer(session::PromptInput prompt, std::string& answer) {
    const TimePoint start = Now();
    const bool has_text = local_.session().text() != nullptr;
    auto printer = std::make_shared<AnswerPrinter>(has_text, start);
    g_interrupted = false;
    CADRE_ASSIGN(const auto generation,
                 local_.session().Start(MakeRequest(std::move(prompt)), printer, local_.Post()));
    while (!printer->ended() && !g_interrupted) local_.queue().RunSome();
    const bool interrupted = !printer->ended();
    if (interrupted) generation->Cancel();
    answer = printer->text();
    std::fputs("\n", stdout);
    std::fflush(stdout);
    if (!interrupted && printer->end().reason == engine::FinishReason::kError) {
      return std::unexpected(local_.Explain(printer->end().error));
    }
    std::fprintf(stderr, "[%s]\n", printer->Summary(interrupted).c_str());
    if (interrupted) return cadre::Fail(Code::kCancelled, "interrupted");
    return {};
  }

  session::ChatPrompt NewChat(const Json& messages) const {
    session::ChatPrompt chat;
    chat.messages = messages;
    return chat;
  }

 private:
  session::GenerateRequest MakeRequest(session::PromptInput prompt) {
    session::GenerateRequest request;
    request.id = Format("generate-{}", turn_);
    request.stream = true;
    // A chat template writes the special tokens itself.
    request.add_special_tokens = !std::holds_alternative<session::ChatPrompt>(prompt);
    request.prompts.push_back(std::move(prompt));
    session::SamplingRequest& sampling = request.sampling;
    const config::SamplingOptions& given = options_.sampling;
    sampling.temperature = given.temperature;
    sampling.top_p = given.top_p;
    sampling.top_k = given.top_k;
    sampling.min_p = given.min_p;
    sampling.repetition_penalty = given.repetition_penalty;
    sampling.presence_penalty = given.presence_penalty.value_or(0);
    sampling.frequency_penalty = given.frequency_penalty.value_or(0);
    sampling.seed = options_.engine.model.seed + turn_++;
    sampling.max_tokens = options_.max_tokens;
    sampling.max_tokens_name = "--max-tokens";
    sampling.stop = options_.stop;
    sampling.ignore_eos = options_.ignore_eos;
    return request;
  }

  const config::GenerateOptions& options_;
  LocalSession& local_;
  int64_t turn_ = 0;
};

Json Message(const char* role, std::string content) {
  return Json::Object{{"role", role}, {"content", std::move(content)}};
}

Json FirstMessages(const std::optional<std::string>& system) {
  Json messages = Json::Array();
  if (system) messages.Push(Message("system", text::RepairUtf8(*system)));
  return messages;
}

constexpr const char* kChatHelp =
    "  /help           this list\n"
    "  /reset          forget the conversation\n"
    "  /system TEXT    a system message; starts the conversation anew (without TEXT: none)\n"
    "  /exit           end (also Ctrl-D); Ctrl-C stops an answer\n";

/// The conversation that lines of stdin make.
class Chat {
 public:
  Chat(const config::GenerateOptions& options, Generator& generator)
      : options_(options),
        generator_(generator),
        system_(options.system),
        terminal_(isatty(STDIN_FILENO) == 1) {
    messages_ = FirstMessages(system_);
  }

  Status Run() {
    if (terminal_) std::fputs("Write a message and Enter; /help lists commands.\n", stderr);
    LineReader reader(STDIN_FILENO);
    while (true) {
      if (terminal_) std::fputs("> ", stderr);
      g_interrupted = false;
      CADRE_ASSIGN(const std::optional<std::string> line, reader.Next());
      if (!line) break;
      if (reader.interrupted()) {
        if (!terminal_) return cadre::Fail(Code::kCancelled, "interrupted");
        std::fputs("\n(Ctrl-D or /exit ends)\n", stderr);
        continue;
      }
      if (line->empty()) continue;
      if (*line == "/exit" || *line == "/quit") return {};
      if (line->front() == '/' && Command(*line)) continue;
      CADRE_TRY(Turn(*line));
    }
    if (terminal_) std::fputs("\n", stderr);
    return {};
  }

 private:
  /// Whether the line was a command. A path like /etc/hosts in a message is none.
  bool Command(const std::string& line) {
    if (line == "/help") {
      std::fputs(kChatHelp, stderr);
      return true;
    }
    const bool is_system = line == "/system" || line.starts_with("/system ");
    if (line != "/reset" && !is_system) {
      if (line.find('/', 1) != std::string::npos || line.find(' ') != std::string::npos) return false;
      std::fprintf(stderr, "unknown command %s; /help lists them\n", line.c_str());
      return true;
    }
    if (is_system) {
      system_ = line.size() > 8 ? std::optional(line.substr(8)) : std::nullopt;
    }
    messages_ = FirstMessages(system_);
    return true;
  }

  Status Turn(const std::string& line) {
    std::string answer;
    session::PromptInput prompt = session::TextPrompt{line};
    const size_t num_before = messages_.AsArray().size();
    if (!options_.raw) {
      messages_.Push(Message("user", line));
      prompt = generator_.NewChat(messages_);
    }
    const Status status = generator_.Answer(std::move(prompt), answer);
    if (!status && status.error().code != Code::kCancelled) {
      messages_.AsArray().resize(num_before);  // as if the line had not been written
      if (!terminal_ || status.error().code != Code::kInvalidArgument) return status;
      std::fprintf(stderr, "%s\n", status.error().message.c_str());
      return {};
    }
    if (!status && !terminal_) return status;
    if (!options_.raw) messages_.Push(Message("assistant", std::move(answer)));
    return {};
  }

  const config::GenerateOptions& options_;
  Generator& generator_;
  std::optional<std::string> system_;
  const bool terminal_;
  Json messages_;
};

Status CheckOptions(const config::GenerateOptions& options) {
  const bool ids = !options.prompt_token_ids.empty();
  const char* plain = ids ? "--prompt-token-ids" : options.raw ? "--raw" : nullptr;
  if (plain != nullptr && options.system) {
    return FailParam(Code::kInvalidArgument, "--system",
                     "--system needs the chat template, which {} leaves out", plain);
  }
  if (plain != nullptr && options.chat_template) {
    return FailParam(Code::kInvalidArgument, "--chat-template", "--chat-template has no use with {}", plain);
  }
  if (options.engine.model.skip_tokenizer_init && !ids) {
    return FailParam(Code::kInvalidArgument, "--skip-tokenizer-init",
                     "without a tokenizer the prompt must be token ids: --prompt-token-ids '[1, 2, 3]'");
  }
  return {};
}

Status Run(const config::GenerateOptions& options) {
  CADRE_TRY(CheckOptions(options));
  CADRE_ASSIGN(const auto local,
               LocalSession::Open(options.engine, {.cap_max_tokens = true,
                                                   .chat_template = options.chat_template.value_or("")}));
  const InterruptGuard guard(local->queue());
  Generator generator(options, *local);
  std::string answer;
  if (!options.prompt_token_ids.empty()) {
    return generator.Answer(session::TokenPrompt{options.prompt_token_ids}, answer);
  }
  if (!options.prompt) return Chat(options, generator).Run();
  if (options.raw) return generator.Answer(session::TextPrompt{text::RepairUtf8(*options.prompt)}, answer);
  Json messages = FirstMessages(options.system);
  messages.Push(Message("user", text::RepairUtf8(*options.prompt)));
  return generator.Answer(generator.NewChat(messages), answer);
}

}  // namespace

int Generate(Args args, const config::Environment& env) {
  return RunParsed(config::ParseGenerate, args, env, Run);
}

}  // namespace cadre::app
