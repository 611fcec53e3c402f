#pragma once
// A deployment whose ranks are threads of this process, for tests: the same rooms as in use, on loop memory.
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cluster/engine_cluster.h"
#include "deploy/rank_links.h"
#include "fabric/loop.h"

namespace cadre::test {

inline config::EngineOptions TestOptions(const std::string& folder, const std::string& dtype) {
  config::EngineOptions options;
  options.model.model = folder;
  options.model.dtype = dtype;
  options.cache.num_gpu_blocks_override = 64;
  options.model.max_model_len = 512;
  options.scheduler.max_num_seqs = 8;
  options.scheduler.max_num_batched_tokens = 64;
  options.cpu.threads = 1;
  options.cpu.bind = config::CpuOptions::Bind::kNobind;
  options.parallel.distributed_timeout_s = 120;  // sanitizers are slow
  return options;
}

/// What a request gave.
class Collector : public engine::EventSink {
 public:
  void OnPrompt(int num_cached, std::vector<engine::Logprobs> of_prompt) override {
    num_cached_tokens = num_cached;
    prompt_logprobs = std::move(of_prompt);
  }
  void OnTokens(std::vector<engine::GeneratedToken> generated) override {
    for (auto& token : generated) {
      tokens.push_back(token.token);
      logprobs.push_back(std::move(token.logprobs));
    }
  }
  void OnFinish(std::vector<engine::GeneratedToken> last, engine::Finish finish) override {
    num_last_tokens = last.size();
    if (!last.empty()) OnTokens(std::move(last));
    done_.set_value(std::move(finish));
  }

  /// Waits for the end; the other members may be read after it.
  engine::Finish Wait() { return future_.get(); }

  int num_cached_tokens = -1;
  size_t num_last_tokens = 0;  ///< that came with the end
  std::vector<int32_t> tokens;
  std::vector<engine::Logprobs> logprobs, prompt_logprobs;

 private:
  std::promise<engine::Finish> done_;
  std::future<engine::Finish> future_ = done_.get_future();
};

class ThreadRanks {
 public:
  /// Errors of PrepareModel (an illegal layout) leave engine() null and say why in error(). The ranks lie on
  /// hosts of `ranks_per_host`; empty: on one.
  explicit ThreadRanks(const config::EngineOptions& options, std::vector<int> ranks_per_host = {})
      : host_(ranks_per_host.empty() ? std::vector{options.parallel.expert_parallel_size()} : ranks_per_host,
              "loop") {
    auto setup = deploy::PrepareModel(options);
    if (!setup) {
      error_ = setup.error();
      return;
    }
    const int num_ranks = options.parallel.expert_parallel_size();
    std::vector<std::promise<engine::Engine*>> started(static_cast<size_t>(num_ranks));
    for (int rank = 0; rank < num_ranks; ++rank) {
      threads_.emplace_back([this, &options, &setup, rank, promise = &started[static_cast<size_t>(rank)]] {
        RunRank(options, *setup, deploy::PlaceOf(options.parallel, rank), *promise);
      });
    }
    for (auto& promise : started) {
      if (engine::Engine* engine = promise.get_future().get()) engines_.push_back(engine);
    }
    if (static_cast<int>(engines_.size()) == options.parallel.data_parallel_size) {
      cluster_ = *cluster::EngineCluster::Create(engines_);
    }
  }

  ~ThreadRanks() {
    if (cluster_) cluster_->Drain(Now() + std::chrono::seconds(60));
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    stopped_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  engine::Engine* engine() { return cluster_.get(); }
  const Error& error() const { return error_; }

 private:
  void RunRank(const config::EngineOptions& options, const deploy::ModelSetup& setup, deploy::RankPlace place,
               std::promise<engine::Engine*>& started) {
    const auto rendezvous = host_.Join(place.rank());
    const TimePoint deadline = Now() + std::chrono::seconds(120);
    auto runtime = [&]() -> Result<std::unique_ptr<deploy::RankRuntime>> {
      if (place.num_ranks() == 1) return deploy::RankRuntime::Start(options, setup, place, {}, deadline, {});
      CADRE_ASSIGN(auto links, deploy::MakeLinks(options, setup, place, *rendezvous, deadline));
      return deploy::RankRuntime::Start(options, setup, place, std::move(links), deadline, {});
    }();
    if (!runtime) {
      const std::lock_guard lock(mutex_);
      error_ = runtime.error();
      started.set_value(nullptr);
      return;
    }
    started.set_value((*runtime)->engine());
    if ((*runtime)->engine() == nullptr) {
      EXPECT_TRUE((*runtime)->Follow().has_value());
    } else {
      std::unique_lock lock(mutex_);
      stopped_.wait(lock, [&] { return stop_; });
    }
  }

  fabric::LoopHost host_;
  std::vector<engine::Engine*> engines_;
  std::unique_ptr<cluster::EngineCluster> cluster_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  Error error_;
  std::vector<std::thread> threads_;
};

/// A greedy request for `max_tokens` tokens.
inline engine::Request GreedyRequest(std::vector<int32_t> prompt, int max_tokens) {
  engine::Request request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

/// Runs all requests at once; their tokens.
inline std::vector<std::vector<int32_t>> Generate(engine::Engine& engine,
                                                  const std::vector<engine::Request>& requests) {
  std::vector<std::shared_ptr<Collector>> collectors;
  std::vector<std::unique_ptr<engine::RequestHandle>> handles;
  for (const auto& request : requests) {
    collectors.push_back(std::make_shared<Collector>());
    auto handle = engine.Submit(request, collectors.back());
    EXPECT_TRUE(handle.has_value()) << handle.error().message;
    if (!handle) return {};
    handles.push_back(std::move(*handle));
  }
  std::vector<std::vector<int32_t>> tokens;
  for (const auto& collector : collectors) {
    const engine::Finish finish = collector->Wait();
    EXPECT_EQ(finish.reason, engine::FinishReason::kLength) << finish.error.message;
    tokens.push_back(collector->tokens);
  }
  return tokens;
}

}  // namespace cadre::test
