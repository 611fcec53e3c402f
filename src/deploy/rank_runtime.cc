#include "deploy/rank_runtime.h"

#include "base/log.h"
#include "engine/warm_up.h"
#include "group/host_group.h"

namespace cadre::deploy {

Result<std::unique_ptr<RankRuntime>> RankRuntime::Start(const config::EngineOptions& options,
                                                        const ModelSetup& setup, RankPlace place,
                                                        RankLinks links, TimePoint join_deadline,
                                                        LoadProgress progress) {
  std::unique_ptr<RankRuntime> rank(new RankRuntime());
  rank->links_ = std::move(links);
  rank->spec_ = setup.spec;
  const auto local_rank = static_cast<size_t>(setup.local_rank(place));
  rank->pool_ = std::make_unique<sys::ThreadPool>(sys::ThreadPoolOptions{
      .num_threads = setup.threads_per_rank,
      .cpus = setup.cpus_of_rank.empty() ? std::vector<int>() : setup.cpus_of_rank[local_rank],
      .spin = setup.spin});
  CADRE_TRY(rank->Load(options, setup, place, join_deadline, std::move(progress)));
  CADRE_TRY(rank->Connect(options, setup, place, join_deadline));
  return rank;
}

// Ranks of a host with the same tp rank hold the same dense weights: the first of them reads them into memory
// that the others map read-only. Every rank takes part in making every shard's segment.
Result<std::byte*> RankRuntime::PlaceDense(const config::EngineOptions& options, const ModelSetup& setup,
                                           RankPlace place, int64_t bytes, TimePoint join_deadline) {
  if (links_.rendezvous == nullptr) {
    CADRE_ASSIGN(dense_, sys::AllocateRegion(static_cast<size_t>(bytes)));
    return dense_.data();
  }
  for (const int owner : links_.rendezvous->LocalRanks()) {
    const RankPlace shard = PlaceOf(options.parallel, owner);
    if (shared_dense_.contains(shard.tp_rank)) continue;
    const auto layout = WeightLayoutOf(setup, options.parallel, shard, maps_);
    CADRE_ASSIGN(const auto plan, model::PlanWeights(spec_, layout));
    CADRE_ASSIGN(shared_dense_[shard.tp_rank],
                 links_.rendezvous->Share(Format("dense{}", shard.tp_rank), owner,
                                          static_cast<size_t>(plan.dense_bytes), join_deadline));
  }
  return shared_dense_.at(place.tp_rank).data;
}

// Experts that may move lie where the other ranks of the host can read them.
Result<std::byte*> RankRuntime::PlaceExperts(const ModelSetup& setup, RankPlace place, int64_t bytes,
                                             TimePoint join_deadline) {
  if (setup.expert_places.place_bytes == 0) {
    CADRE_ASSIGN(experts_, sys::AllocateRegion(static_cast<size_t>(bytes)));
    return experts_.data();
  }
  CADRE_ASSIGN(moves_.memory, MakeExpertMemory(setup, place, *links_.rendezvous, *pool_, join_deadline));
  return moves_.memory->own(0);
}

bool RankRuntime::ReadsDense(RankPlace place) const {
  if (links_.rendezvous == nullptr) return true;
  const std::vector<int> local = links_.rendezvous->LocalRanks();
  return place.rank() - place.tp_size < local.front();
}

Status RankRuntime::Load(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place,
                         TimePoint join_deadline, LoadProgress progress) {
  maps_ = setup.expert_maps;
  if (options.parallel.eplb.replica_routing == "nearest" && links_.rendezvous != nullptr) {
    const std::vector<int> near = links_.rendezvous->LocalRanks();
    for (eplb::ExpertMap& map : maps_) map = map.Preferring(near.front(), near.back() + 1);
  }
  CADRE_ASSIGN(plan_, model::PlanWeights(spec_, WeightLayoutOf(setup, options.parallel, place, maps_)));
  const model::WeightPlan& plan = plan_;
  CADRE_ASSIGN(std::byte* const dense, PlaceDense(options, setup, place, plan.dense_bytes, join_deadline));
  CADRE_ASSIGN(std::byte* const experts, PlaceExperts(setup, place, plan.expert_bytes, join_deadline));
  weights_ = model::PlaceWeights(spec_, plan, dense, experts);
  CADRE_ASSIGN(const auto source, checkpoint::OpenCheckpoint(setup.location.folder));
  const model::LoadOptions load{.dense = ReadsDense(place), .progress = std::move(progress)};
  CADRE_ASSIGN(const model::LoadReport report,
               model::LoadWeights(spec_, plan, *source, *pool_, load, weights_));
  if (setup.local_rank(place) == 0) {
    LogInfo("loaded {} in {:.2f} s ({:.2f} GB/s)", sys::FormatBytes(report.source_bytes), report.seconds,
            static_cast<double>(report.source_bytes) / report.seconds / 1e9);
  }
  if (links_.rendezvous != nullptr) {
    CADRE_TRY(links_.rendezvous->ExchangeBlobs("loaded", {}, "",
                                               join_deadline));  // nobody reads before all is there
  }
  return {};
}

// With hand-off it is memory that other instances of this host can map, and an agent hands it out.
Status RankRuntime::MakeKvPool(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place,
                               TimePoint join_deadline) {
  const auto bytes = static_cast<size_t>(setup.memory_input.kv.AllBytes(setup.memory.num_kv_blocks));
  // Touched now: a page fault in a step costs more than the step.
  if (!options.kv_transfer.enabled()) {
    CADRE_ASSIGN(kv_.region, sys::AllocateRegion(bytes, {.pool = pool_.get()}));
    return {};
  }
  CADRE_ASSIGN(kv_, sys::CreateSegment(Format("cadre-kv-{}", place.rank()), bytes, true));
  sys::TouchPages(kv_.region.data(), kv_.region.bytes(), pool_.get());
  CADRE_ASSIGN(agent_, StartKvAgent(options, setup,
                                    {.place = place,
                                     .pool = &kv_,
                                     .rendezvous = links_.rendezvous,
                                     .waker = waker_,
                                     .deadline = join_deadline}));
  return {};
}

RankRuntime::~RankRuntime() {
  waker_->Set(nullptr);
}

Status RankRuntime::Connect(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place,
                            TimePoint join_deadline) {
  const kernels::Device device{.isa = setup.isa, .pool = pool_.get()};
  CADRE_ASSIGN(const model::DecoderOptions decoder_options, DecoderOptionsOf(setup, options));
  if (setup.is_moe()) {
    a2a::Options exchange = ExchangeOptionsOf(setup, options, maps_.front().layout());
    exchange.device = device;
    exchange.rendezvous = links_.rendezvous;
    exchange.join_deadline = join_deadline;
    exchange.spin = setup.spin;
    CADRE_ASSIGN(exchange_, a2a::CreatePhased(exchange, options.parallel.prefill_backend(),
                                              options.parallel.decode_backend()));
  }
  if (place.num_ranks() > 1 && setup.local_rank(place) == 0) {
    if (exchange_ != nullptr) LogInfo("{}", exchange_->Describe());
    if (links_.rendezvous->hosts().num_hosts() > 1)
      LogInfo("{}", group::DescribeRing(links_.rendezvous->hosts()));
  }
  const kv::Layout layout = setup.memory_input.kv;
  CADRE_TRY(MakeKvPool(options, setup, place, join_deadline));
  decoder_ = std::make_unique<model::Decoder>(spec_, weights_, decoder_options);
  engine::RunnerOptions runner{
      .device = device,
      .kv = {.layout = layout, .num_blocks = setup.memory.num_kv_blocks, .base = kv_.region.data()},
      .exchange = exchange_.get(),
      .tensor_parallel = links_.tensor_parallel.get(),
      .agent = agent_.get(),
      .vocab_size = spec_.vocab_size};
  if (options.lora.enabled) {
    adapters_ = std::make_unique<AdapterKeeper>(
        spec_, plan_,
        AdapterOptions{.max_adapters = options.lora.max_adapters(), .max_rank = options.lora.max_rank});
    runner.adapters = &adapters_->slots();
  }
  if (const std::string& strategy = options.model.routing_simulation; !strategy.empty() && setup.is_moe()) {
    CADRE_ASSIGN(simulated_routing_,
                 nn::SimulatedRouting::Create(strategy, spec_.moe.num_experts, spec_.moe.top_k));
    runner.simulated_routing = &*simulated_routing_;
    if (setup.local_rank(place) == 0)
      LogWarning("experts are chosen by {} and not by the router: answers are worth nothing", strategy);
  }
  for (const eplb::ExpertMap& map : maps_) runner.expert_maps.push_back(&map);
  if (const auto timeout = options.parallel.distributed_timeout_s)
    runner.step_timeout = std::chrono::seconds(*timeout);
  auto made = std::make_unique<engine::Runner>(*decoder_, std::move(runner));
  if (place.tp_rank != 0) {
    CADRE_TRY(engine::FollowWarmUp(*made));
  } else {
    CADRE_TRY(engine::WarmUp(*made, {.max_tokens = decoder_options.max_num_tokens,
                                     .max_model_len = setup.max_model_len,
                                     .vocab_size = spec_.vocab_size,
                                     .num_kv_blocks = setup.memory.num_kv_blocks,
                                     .block_size = layout.block_size}));
  }
  if (options.parallel.enable_eplb) {  // from here on: warming up is no load
    CADRE_TRY(
        StartBalancing(options, setup, links_.rendezvous, *pool_, join_deadline, maps_, weights_, moves_));
    made->Attach(*moves_.rebalancer);
  }
  CADRE_TRY(KeepWeights(options, setup, place, join_deadline));
  CADRE_TRY(LoadAdapters(options.lora.modules));
  made->SetWeightKeeper(keeper_.get());
  if (place.tp_rank != 0) {
    follower_ = std::move(made);
    return {};
  }
  const config::SchedulerOptions& scheduler = options.scheduler;
  engine_ = std::make_unique<engine::LocalEngine>(
      engine::LocalEngineOptions{
          .rank = place.dp_rank,
          .model_info = {.vocab_size = spec_.vocab_size,
                         .max_model_len = setup.max_model_len,
                         .num_kv_blocks = setup.memory.num_kv_blocks,
                         .block_size = layout.block_size,
                         .kv_transfer = KvTransferInfoOf(options, place, agent_.get())},
          .scheduler = {.max_num_seqs = static_cast<int32_t>(scheduler.max_num_seqs),
                        .max_num_batched_tokens = static_cast<int32_t>(scheduler.max_num_batched_tokens),
                        .long_prefill_token_threshold =
                            static_cast<int32_t>(scheduler.long_prefill_token_threshold),
                        .enable_chunked_prefill = scheduler.enable_chunked_prefill,
                        .enable_prefix_caching = options.cache.enable_prefix_caching,
                        .policy = scheduler.scheduling_policy == "priority"
                                      ? engine::SchedulingPolicy::kPriority
                                      : engine::SchedulingPolicy::kFcfs},
          .max_queued_requests = scheduler.max_num_queued_reqs.value_or(kMaxQueuedRequests),
          .weight_keeper = keeper_.get(),
          .adapters = adapters_ == nullptr ? engine::AdapterList() : adapters_->list(),
          .on_out_of_memory = std::move(links_.on_out_of_memory),
          .agent = agent_.get(),
          .hand_off = HandOffOptionsOf(options, place)},
      std::move(made), std::move(links_.gate));
  waker_->Set(engine_.get());
  return {};
}

// After the start of balancing, which says where experts lie.
Status RankRuntime::KeepWeights(const config::EngineOptions& options, const ModelSetup& setup,
                                RankPlace place, TimePoint join_deadline) {
  if (links_.rendezvous != nullptr) {
    CADRE_ASSIGN(all_ranks_, a2a::Collective::Create({.name = "weights",
                                                      .rendezvous = links_.rendezvous,
                                                      .capacity_bytes = 64 << 10,
                                                      .join_deadline = join_deadline,
                                                      .spin = false}));
  }
  WeightKeeperParts parts{.spec = &spec_,
                          .plan = plan_,
                          .weights = &weights_,
                          .pool = pool_.get(),
                          .rebalancer = moves_.rebalancer.get(),
                          .collective = all_ranks_.get(),
                          .writes_dense = ReadsDense(place),
                          .start_folder = setup.location.folder,
                          .adapters = adapters_.get(),
                          .rank = place.rank()};
  if (options.model.weight_update_copy) {
    if (parts.writes_dense) {
      std::byte* const dense = shared_dense_.empty() ? dense_.data() : shared_dense_.at(place.tp_rank).data;
      parts.copied.emplace_back(dense, static_cast<size_t>(plan_.dense_bytes));
    }
    // A place without an expert is nobody's: copying it too is simpler than knowing which.
    const ExpertPlaces& places = setup.expert_places;
    if (places.place_bytes > 0) {
      const auto count = static_cast<int32_t>(maps_.size()) * maps_.front().layout().Count(place.rank());
      parts.copied.emplace_back(moves_.memory->own(0), static_cast<size_t>((count + places.num_spares)) *
                                                           static_cast<size_t>(places.place_bytes));
    } else {
      parts.copied.emplace_back(experts_.span());
    }
  }
  CADRE_ASSIGN(keeper_, WeightKeeper::Create(std::move(parts)));
  return {};
}

// On all ranks, with the same list.
Status RankRuntime::LoadAdapters(const std::vector<config::LoraModule>& modules) {
  for (const config::LoraModule& module : modules) {
    CADRE_ASSIGN(
        const engine::WeightKeeper::Outcome outcome,
        keeper_->CarryOut(
            {.kind = engine::WeightOrder::Kind::kLoadAdapter, .folder = module.path, .name = module.name}));
    if (outcome.status) continue;
    Error error = outcome.status.error();
    error.param = "--lora-modules";
    error.message = Format("--lora-modules {}: {}", module.name, error.message);
    return std::unexpected(std::move(error));
  }
  return {};
}

Status RankRuntime::Follow() {
  while (true) {
    CADRE_ASSIGN(const bool stepped, follower_->Follow());
    if (!stepped) return {};
  }
}

}  // namespace cadre::deploy
