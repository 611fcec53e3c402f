#include "python/engine/llm.h"

#include <poll.h>
#include <signal.h>

#include "base/caught.h"
#include "base/log.h"
#include "deploy/api_front.h"

namespace cadre::python {
namespace {

constexpr auto kCloseGrace = std::chrono::seconds(1);  // nobody waits for answers of a model that is closed

/// Gathers what a wake brings and hands it to the mailbox as one update.
class Courier : public session::Listener {
 public:
  Courier(int64_t number, std::shared_ptr<Mailbox> mailbox) : number_(number), mailbox_(std::move(mailbox)) {
    next_.request = number;
  }
  void OnAccepted(session::Accepted accepted) override { next_.accepted = std::move(accepted); }
  void OnPrompt(size_t sequence, session::PromptResult prompt) override {
    PartOf(sequence).prompt = std::move(prompt);
  }
  void OnDelta(size_t sequence, const session::Delta& delta, std::span<const TimePoint>) override {
    SequencePart& part = PartOf(sequence);
    part.text += delta.text;
    part.tokens.insert(part.tokens.end(), std::make_move_iterator(delta.tokens.begin()),
                       std::make_move_iterator(delta.tokens.end()));
    part.rank = delta.rank;
    if (delta.end != nullptr) part.end = *delta.end;
  }
  void OnFailure(const Error& error) override {
    next_.failure = error;
    next_.ended = true;
    Send();
  }
  void OnBatchEnd(bool all_ended) override {
    next_.ended = all_ended;
    if (all_ended || !next_.parts.empty()) Send();
  }

 private:
  SequencePart& PartOf(size_t sequence) {
    for (SequencePart& part : next_.parts) {
      if (part.sequence == sequence) return part;
    }
    next_.parts.push_back({.sequence = sequence});
    return next_.parts.back();
  }
  void Send() {
    Update update{.request = number_};
    std::swap(update, next_);
    mailbox_->Put(std::move(update));
  }

  const int64_t number_;
  const std::shared_ptr<Mailbox> mailbox_;
  Update next_;
};

/// All signals but those that a thread's own fault raises are Python's.
std::thread StartWithoutSignals(std::function<void()> work) {
  sigset_t all, before;
  sigfillset(&all);
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) sigdelset(&all, own);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  std::thread thread(std::move(work));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace

Result<std::unique_ptr<Llm>> Llm::Open(const LlmOptions& options, const config::Environment& env) {
  CADRE_ASSIGN(auto parsed, config::ParseServe(options.words, env));
  const config::EngineOptions& engine = parsed.options.engine;
  if (engine.parallel.headless) {
    return FailParam(Code::kInvalidArgument, "headless",
                     "a headless node answers no requests; start it with: cadre serve MODEL --headless ...");
  }
  ConfigureLog(ParseLogLevel(engine.log_level).value_or(LogLevel::kInfo), "", engine.log_color);
  for (const config::Notice& notice : parsed.notices)
    LogAt(notice.warning ? LogLevel::kWarning : LogLevel::kInfo, "{}", notice.text);
  std::unique_ptr<Llm> llm(new Llm(engine, options, parsed.options.api));
  llm->keeper_ = StartWithoutSignals([raw = llm.get()] { raw->Keep(); });
  return llm;
}

Llm::Llm(config::EngineOptions options, LlmOptions how, config::ApiOptions api)
    : options_(std::move(options)), how_(std::move(how)), api_(std::move(api)) {}

Llm::~Llm() {
  Close();
  const std::lock_guard lock(join_mutex_);
  if (keeper_.joinable()) keeper_.join();
}

void Llm::Keep() {
  Status started;
  try {
    started = Start();
  } catch (...) {
    started = std::unexpected(CaughtError());
  }
  {
    const std::unique_lock open(open_mutex_);
    const std::lock_guard lock(mutex_);
    starting_ = false;
    started_ = started;
    open_ = started.has_value() && !closing_;
    changed_.notify_all();
  }
  if (started) RunTasks();
  {
    const std::unique_lock open(open_mutex_);  // nobody is inside the engine any more, and nobody will be
    open_ = false;
  }
  if (deployment_ != nullptr && session_ != nullptr) deployment_->engine().Drain(Now() + kCloseGrace);
  RunTasks();  // the ends of what was running
  session_.reset();
  deployment_.reset();
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

Status Llm::Start() {
  CADRE_ASSIGN(deploy::ModelSetup setup, deploy::PrepareModel(options_));
  if (how_.program.empty() && setup.launch.num_ranks > 1) {
    return FailParam(Code::kNotFound, "CADRE_BIN",
                     "ranks are processes of the program `cadre`, and it was not found: not in the package, "
                     "not beside the build's package, and not in PATH; set CADRE_BIN to its path");
  }
  CADRE_ASSIGN(auto text, deploy::LoadText(options_.model, setup, how_.chat_template));
  CADRE_ASSIGN(auto session, deploy::SessionOptionsOf(options_, api_, setup));
  // A SamplingParams says everything itself; the model's defaults are for who asks for them by name.
  defaults_ = std::exchange(session.defaults, {.eos_token_ids = session.defaults.eos_token_ids});
  session.cap_max_tokens = true;
  std::vector<std::string> words = {"serve"};
  words.insert(words.end(), how_.words.begin(), how_.words.end());
  CADRE_ASSIGN(deployment_, deploy::Deployment::Start(options_, std::move(setup),
                                                      {.program = how_.program, .words = std::move(words)}));
  session_ = std::make_unique<session::Session>(std::move(session), deployment_->engine(), std::move(text));
  return {};
}

void Llm::Post(Task task) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  if (tasks_.size() == 1) changed_.notify_all();
}

// Until the model is closed; what was posted has run when it returns.
void Llm::RunTasks() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return closing_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    std::vector<Task> tasks = std::exchange(tasks_, {});
    lock.unlock();
    for (Task& task : tasks) task();
    tasks.clear();
    lock.lock();
  }
}

Result<bool> Llm::WaitStarted(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_until(lock, deadline, [this] { return !starting_; })) return false;
  if (!started_) return std::unexpected(started_.error());
  return true;
}

bool Llm::busy() const {
  const std::lock_guard lock(mutex_);
  return !ended_ && (starting_ || closing_);
}

void Llm::Close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
    if (starting_) return;
  }
  const std::lock_guard lock(join_mutex_);
  if (keeper_.joinable()) keeper_.join();
}

Error Llm::ClosedError() const {
  return {Code::kUnavailable, "this LLM is shut down; make a new one", {}};
}

Result<std::weak_ptr<session::Generation>> Llm::Submit(session::GenerateRequest request, int64_t number,
                                                       std::shared_ptr<Mailbox> mailbox) {
  using Handle = std::weak_ptr<session::Generation>;
  return With([&](const session::Session& session, deploy::Deployment&) -> Result<Handle> {
    CADRE_ASSIGN(auto generation,
                 session.Start(std::move(request), std::make_shared<Courier>(number, std::move(mailbox)),
                               [this](Task task) { Post(std::move(task)); }));
    return Handle(generation);
  });
}

void Llm::Cancel(const std::weak_ptr<session::Generation>& generation) {
  // The sinks in the engine keep a generation alive until it has ended.
  (void)With([&](const session::Session&, deploy::Deployment&) -> Status {
    if (const auto alive = generation.lock()) alive->Cancel();
    return {};
  });
}

Error Llm::Explain(Error error) {
  const auto outcome = With([](const session::Session&, deploy::Deployment& deployment) -> Status {
    pollfd entry = {deployment.ended_fd(), POLLIN, 0};
    // A dead rank is noticed by its waiters and by its parent at about the same time.
    constexpr int kWaitMs = 500;
    if (entry.fd < 0 || poll(&entry, 1, kWaitMs) <= 0) return {};
    return deployment.Outcome();
  });
  return outcome ? error : outcome.error();
}

}  // namespace cadre::python
