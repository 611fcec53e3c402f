#include "deploy/deployment.h"

#include <sys/eventfd.h>

#include <mutex>

#include "base/log.h"
#include "deploy/expert_start.h"
#include "deploy/load_recorder.h"
#include "deploy/process_deployment.h"
#include "deploy/progress.h"
#include "deploy/rank_runtime.h"
#include "fabric/host_table.h"
#include "sys/cpu.h"
#include "sys/files.h"
#include "sys/memory.h"

namespace cadre::deploy {
namespace {

/// Once for all ranks: they prepare the model for themselves again.
void LogArithmetic(const config::ModelOptions& options, const ModelSetup& setup) {
  if (options.dtype == "auto" && setup.spec.checkpoint_type != DType::kBf16) {
    LogInfo("the checkpoint is {}; it is computed in bfloat16 (--dtype float32 computes in float32)",
            DTypeName(setup.spec.checkpoint_type));
  }
  if (setup.spec.quant.fp8()) {
    LogInfo("weights are {}; activations are not quantised{}: they stay {}", WeightsText(setup),
            setup.spec.quant.static_activations ? " with the checkpoint's static scales" : "",
            DTypeName(setup.type));
  } else if (setup.fp8) {
    LogInfo("weights of experts and dense linear layers become {} while they are loaded; activations stay {}",
            WeightsText(setup), DTypeName(setup.type));
  }
}

void LogSetup(const config::EngineOptions& options, const ModelSetup& setup) {
  const model::ModelSpec& spec = setup.spec;
  LogInfo("{}: {} layers, {:.2f} G parameters ({:.2f} G active), {}", spec.architecture, spec.num_layers(),
          static_cast<double>(spec.num_parameters()) / 1e9,
          static_cast<double>(spec.num_active_parameters()) / 1e9, setup.location.folder);
  if (setup.launch.num_local_ranks > 0)
    LogInfo("{}, {} kernels, {} thread(s) a rank, {}", sys::CpuModelName(), kernels::IsaName(setup.isa),
            setup.threads_per_rank, DTypeName(setup.type));
  LogArithmetic(options.model, setup);
  if (const auto gpus = sys::ListFolder("/proc/driver/nvidia/gpus"); gpus && !gpus->empty()) {
    LogInfo("{} GPU(s) found; this build runs on the CPU", gpus->size());
  }
  const config::ParallelOptions& parallel = options.parallel;
  if (parallel.expert_parallel_size() > 1) {
    LogInfo("tensor parallel {}, data parallel {}, expert parallel {}", parallel.tensor_parallel_size,
            parallel.data_parallel_size,
            parallel.enable_expert_parallel ? Format("{}", parallel.expert_parallel_size()) : "off");
    const config::Launch& launch = setup.launch;
    if (!launch.one_node()) {
      LogInfo("this node runs {} of {}{}", fabric::NameRange(launch.first_rank, launch.num_local_ranks),
              launch.num_ranks, launch.headless ? ", headless" : "");
    }
    const std::string prefill = parallel.prefill_backend(), decode = parallel.decode_backend();
    if (setup.is_moe()) {
      LogInfo("exchange {}", prefill == decode
                                 ? Format("{} ({})", prefill, parallel.all2all_backend_source)
                                 : Format("{} in prefill steps, {} in decode steps", prefill, decode));
    }
  }
  if (setup.launch.one_node() && (parallel.fabric_transport != "auto" || parallel.fabric_connections != 1)) {
    LogInfo("--fabric-transport and --fabric-connections have no effect: all ranks are in one node");
  }
  if (!setup.is_moe() && parallel.enable_expert_parallel) {
    LogInfo("{} has no experts: --enable-expert-parallel has no effect", spec.architecture);
  }
  for (const std::string& note : EplbNotes(parallel, setup)) LogInfo("{}", note);
  if (setup.launch.num_local_ranks > 0) LogInfo("{}", setup.memory.table);
}

// The embedded default: no further processes, sockets or shared memory.
class LocalDeployment : public Deployment {
 public:
  explicit LocalDeployment(ModelSetup setup)
      : Deployment(std::move(setup)), ended_(eventfd(0, EFD_CLOEXEC)) {}

  Status Start(const config::EngineOptions& options) {
    Progress progress("loading weights", options.model.show_progress);
    RankLinks links{.on_out_of_memory = [this](const Error& error) {
      const std::lock_guard lock(mutex_);
      outcome_ = std::unexpected(error);
      eventfd_write(ended_.get(), 1);
    }};
    CADRE_ASSIGN(rank_,
                 RankRuntime::Start(options, setup(), {}, std::move(links), TimePoint::max(),
                                    [&](int64_t done, int64_t total) { progress.Update(done, total); }));
    return {};
  }

  engine::Engine& engine() override { return *rank_->engine(); }
  Result<FrontLinks> ConnectFront(TimePoint) override {
    return Fail(Code::kInternal, "an engine in this process has no further fronts");
  }
  std::shared_ptr<cluster::LoadBoard> board() override { return nullptr; }
  int ended_fd() const override { return ended_.get(); }
  Status Outcome() const override {
    const std::lock_guard lock(mutex_);
    return outcome_;
  }

 private:
  sys::Fd ended_;
  mutable std::mutex mutex_;  // guards outcome_
  Status outcome_;
  std::unique_ptr<RankRuntime> rank_;
};

}  // namespace

Result<std::unique_ptr<Deployment>> Deployment::Start(const config::EngineOptions& options, ModelSetup setup,
                                                      const StartOptions& start) {
  // Here and not in rank 0, whose peers would end with errors about it beside its own.
  if (const auto& record = options.parallel.eplb.record_file;
      record && setup.launch.num_local_ranks > 0 && setup.launch.first_rank == 0)
    CADRE_TRY(CheckRecordFile(*record));
  LogSetup(options, setup);
  if (options.parallel.expert_parallel_size() > 1 || start.num_fronts > 0 || !setup.launch.one_node())
    return StartProcesses(options, std::move(setup), start);
  auto local = std::make_unique<LocalDeployment>(std::move(setup));
  CADRE_TRY(local->Start(options));
  return local;
}

}  // namespace cadre::deploy
