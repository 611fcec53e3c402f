#include "cluster/engine_cluster.h"

#include <mutex>
#include <thread>
#include <utility>

#include "base/check.h"
#include "cluster/load.h"

namespace cadre::cluster {
namespace {

// Stands between a rank and a request's own sink, and keeps the request's entry on the board: its prompt's
// work until that is computed, then what it may still generate. It also tells the board the blocks that the
// answer fills, so that the next turn of a conversation finds its way back.
class TrackedSink : public engine::EventSink {
 public:
  TrackedSink(std::shared_ptr<engine::EventSink> sink, const ClusterOptions& options, int rank,
              const engine::Request& request, BlockNames names)
      : sink_(std::move(sink)),
        board_(options.board),
        front_(options.front),
        rank_(rank),
        remembers_(options.prefix_caching),
        prompt_left_(static_cast<int64_t>(request.prompt.size())),
        output_left_(request.sampling.max_tokens),
        names_(names) {
    Report(prompt_left_ + OutputWork(output_left_), 1);
  }
  ~TrackedSink() override { Leave(); }

  /// The rank is thought to hold so many tokens of the prompt.
  void ExpectHeld(int64_t tokens) {
    prompt_left_ = std::max<int64_t>(prompt_left_ - tokens, 0);
    Report(prompt_left_ + OutputWork(output_left_));
  }

  void OnPrompt(int num_cached_tokens, std::vector<engine::Logprobs> prompt_logprobs) override {
    prompt_left_ = 0;
    Report(OutputWork(output_left_));
    sink_->OnPrompt(num_cached_tokens, std::move(prompt_logprobs));
  }
  void OnTokens(std::vector<engine::GeneratedToken> tokens) override {
    output_left_ -= static_cast<int64_t>(tokens.size());
    Report(prompt_left_ + OutputWork(output_left_));
    Remember(tokens);
    sink_->OnTokens(std::move(tokens));
  }
  void OnFinish(std::vector<engine::GeneratedToken> last_tokens, engine::Finish finish) override {
    Leave();
    sink_->OnFinish(std::move(last_tokens), std::move(finish));
  }

 private:
  void Report(int64_t work, int64_t new_requests = 0) {
    const std::lock_guard lock(mutex_);
    if (left_) return;
    if (work != reported_ || new_requests != 0)
      board_->Add(front_, rank_, {.requests = new_requests, .work = work - reported_});
    reported_ = work;
  }
  void Leave() {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(left_, true)) board_->Add(front_, rank_, {.requests = -1, .work = -reported_});
  }
  void Remember(const std::vector<engine::GeneratedToken>& tokens) {
    if (!remembers_) return;
    blocks_.clear();
    for (const engine::GeneratedToken& token : tokens) names_.Add({&token.token, 1}, blocks_);
    for (const uint64_t block : blocks_) board_->RememberBlock(rank_, block);
  }

  const std::shared_ptr<engine::EventSink> sink_;
  const std::shared_ptr<LoadBoard> board_;
  const int front_, rank_;
  const bool remembers_;
  int64_t prompt_left_, output_left_;
  // A rank that dies ends its requests on another thread than the one that hears its last events.
  std::mutex mutex_;
  int64_t reported_ = 0;  // of work; guarded by mutex_, as is left_
  bool left_ = false;
  BlockNames names_;
  std::vector<uint64_t> blocks_;
};

}  // namespace

Result<std::unique_ptr<EngineCluster>> EngineCluster::Create(std::vector<engine::Engine*> engines,
                                                             ClusterOptions options) {
  CADRE_CHECK(!engines.empty());
  if (!options.board) {
    CADRE_ASSIGN(options.board,
                 LoadBoard::Create({.num_fronts = 1,
                                    .num_ranks = static_cast<int>(engines.size()),
                                    .num_kv_blocks = engines.front()->model_info().num_kv_blocks}));
  }
  const LoadBoard& board = *options.board;
  if (board.num_ranks() != static_cast<int>(engines.size()) || options.front >= board.num_fronts()) {
    return Fail(Code::kDataLoss,
                "the load board is for {} fronts and {} ranks, not for front {} and {} ranks",
                board.num_fronts(), board.num_ranks(), options.front, engines.size());
  }
  return std::unique_ptr<EngineCluster>(new EngineCluster(std::move(engines), std::move(options)));
}

EngineCluster::EngineCluster(std::vector<engine::Engine*> engines, ClusterOptions options)
    : engines_(std::move(engines)), options_(std::move(options)) {}

Result<std::unique_ptr<engine::RequestHandle>> EngineCluster::Submit(
    engine::Request request, std::shared_ptr<engine::EventSink> sink) {
  const int wanted = request.data_parallel_rank;
  if (wanted >= static_cast<int>(engines_.size())) {
    return FailParam(Code::kInvalidArgument, "data_parallel_rank",
                     "data_parallel_rank {} is out of range [0, {})", wanted, engines_.size());
  }
  BlockNames names(std::max(model_info().block_size, 1), request.adapter.empty()
                                                             ? request.cache_salt
                                                             : request.cache_salt + '\n' + request.adapter);
  std::vector<uint64_t> blocks;
  if (options_.prefix_caching) names.Add(request.prompt, blocks);
  const size_t chosen = wanted >= 0 ? static_cast<size_t>(wanted) : Choose(request, blocks);
  const int rank = static_cast<int>(chosen);
  auto tracked = std::make_shared<TrackedSink>(std::move(sink), options_, rank, request, names);
  tracked->ExpectHeld(Held(rank, blocks));
  for (const uint64_t block : blocks) options_.board->RememberBlock(rank, block);
  return engines_[chosen]->Submit(std::move(request), std::move(tracked));
}

// Tokens of the leading blocks that the rank is thought to hold.
int64_t EngineCluster::Held(int rank, const std::vector<uint64_t>& blocks) const {
  int64_t held = 0;
  while (held < std::ssize(blocks) && options_.board->HoldsBlock(rank, blocks[static_cast<size_t>(held)]))
    ++held;
  return held * model_info().block_size;
}

size_t EngineCluster::Choose(const engine::Request& request, const std::vector<uint64_t>& blocks) {
  if (engines_.size() == 1) return 0;
  std::vector<Candidate> candidates;
  candidates.reserve(engines_.size());
  for (int rank = 0; rank < static_cast<int>(engines_.size()); ++rank) {
    const LoadBoard::Load load = options_.board->Of(rank);
    candidates.push_back({.requests = load.requests, .work = load.work, .held = Held(rank, blocks)});
  }
  return ChooseRank(candidates, static_cast<int64_t>(request.prompt.size()), options_.board->NextTurn());
}

std::vector<engine::RankStats> EngineCluster::Stats() const {
  std::vector<engine::RankStats> all;
  for (size_t i = 0; i < engines_.size(); ++i) {
    engine::RankStats stats = engines_[i]->Stats().front();
    const LoadBoard::Load load = options_.board->Of(static_cast<int>(i));
    stats.num_waiting = std::max<int64_t>(load.requests - stats.num_running, 0);
    all.push_back(std::move(stats));
  }
  return all;
}

Status EngineCluster::Health() const {
  for (engine::Engine* engine : engines_) CADRE_TRY(engine->Health());
  return {};
}

Result<engine::EplbState> EngineCluster::Eplb(TimePoint deadline) const {
  Result<engine::EplbState> answer = Fail(Code::kUnavailable, "no rank was asked");
  for (size_t i = 0; i < engines_.size(); ++i) {
    // A rank that hangs leaves its share of the time to those after it.
    const TimePoint now = Now();
    answer = engines_[i]->Eplb(now + (deadline - now) / static_cast<int64_t>(engines_.size() - i));
    if (answer || answer.error().code != Code::kUnavailable) break;
  }
  return answer;
}

Status EngineCluster::ResetPrefixCache() {
  options_.board->ForgetBlocks();
  for (engine::Engine* engine : engines_) CADRE_TRY(engine->ResetPrefixCache());
  return {};
}

namespace {

// The answers of all engines to one order.
struct Gathered {
  std::mutex mutex;
  size_t num_left;
  std::vector<Result<engine::ControlState>> answers;
  engine::ControlDone done;
};

Result<engine::ControlState> Merged(const std::vector<Result<engine::ControlState>>& answers) {
  engine::ControlState all = {};
  for (const auto& answer : answers) {
    CADRE_TRY(answer);
    all.paused |= answer->paused;
    all.generation = std::max(all.generation, answer->generation);
    all.seconds = std::max(all.seconds, answer->seconds);
    all.bytes = std::max(all.bytes, answer->bytes);
    if (answer->adapters.num_changes >= all.adapters.num_changes) all.adapters = answer->adapters;
  }
  return all;
}

}  // namespace

void EngineCluster::Control(engine::ControlRequest request, engine::ControlDone done) {
  const auto gathered = std::make_shared<Gathered>();
  gathered->num_left = engines_.size();
  gathered->answers.resize(engines_.size());
  // What ranks are thought to hold is only a guess, so it may be dropped whatever comes of the order.
  const bool forgets = request.kind == engine::ControlKind::kWeights ||
                       (request.kind == engine::ControlKind::kPause && request.clear_cache);
  gathered->done = [done = std::move(done),
                    board = forgets ? options_.board : nullptr](Result<engine::ControlState> state) {
    if (board != nullptr) board->ForgetBlocks();
    done(std::move(state));
  };
  for (size_t i = 0; i < engines_.size(); ++i) {
    engines_[i]->Control(request, [gathered, i](Result<engine::ControlState> answer) {
      {
        const std::lock_guard lock(gathered->mutex);
        gathered->answers[i] = std::move(answer);
        if (--gathered->num_left > 0) return;
      }
      gathered->done(Merged(gathered->answers));
    });
  }
}

std::vector<engine::KvSource> EngineCluster::KvSources() const {
  std::vector<engine::KvSource> all;
  for (const engine::Engine* engine : engines_) all.push_back(engine->KvSources().front());
  return all;
}

void EngineCluster::Prefixes(engine::PrefixQuery query, engine::PrefixDone done) {
  const int rank = query.rank, num_ranks = static_cast<int>(engines_.size());
  if (rank < 0 || rank >= num_ranks) {
    return done(
        FailParam(Code::kInvalidArgument, "rank", "rank {} is out of range [0, {})", rank, num_ranks));
  }
  query.rank = 0;
  engines_[static_cast<size_t>(rank)]->Prefixes(
      query, [done = std::move(done), num_ranks](Result<engine::PrefixChanges> changes) {
        if (changes) changes->num_ranks = num_ranks;
        done(std::move(changes));
      });
}

void EngineCluster::Drain(TimePoint deadline) {
  std::vector<std::jthread> threads;
  for (engine::Engine* engine : engines_)
    threads.emplace_back([engine, deadline] { engine->Drain(deadline); });
}

}  // namespace cadre::cluster
