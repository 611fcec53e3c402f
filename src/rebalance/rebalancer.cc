#include "rebalance/rebalancer.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"

namespace cadre::rebalance {
namespace {

constexpr int64_t kFirstMessageBytes = 256 << 10;
constexpr int64_t kLeastMessageBytes = 64 << 10;
constexpr Duration kLeastCopyTime = std::chrono::microseconds(20);
constexpr int64_t kReportSteps = 100;  // between two sums for people to see

eplb::Hosts HostsOf(ExpertMemory* memory, int num_ranks) {
  eplb::Hosts hosts;
  for (int r = 0; r < num_ranks; ++r)
    hosts.of_rank.push_back(memory == nullptr ? 0 : memory->fabric().hosts().HostOf(r));
  return hosts;
}

// The same expert's weights in another place.
void PointTo(kernels::ExpertWeights& expert, const std::byte* from, std::byte* to) {
  for (kernels::PackedMatrix* matrix : {&expert.gate_up, &expert.down}) {
    if (matrix->data != nullptr) matrix->data = to + (matrix->data - from);
  }
  for (const float** bias : {&expert.gate_up_bias, &expert.down_bias}) {
    if (*bias != nullptr)
      *bias = reinterpret_cast<const float*>(to + (reinterpret_cast<const std::byte*>(*bias) - from));
  }
}

}  // namespace

Result<std::unique_ptr<Rebalancer>> Rebalancer::Create(const RebalanceOptions& options,
                                                       RebalanceParts parts) {
  if (parts.maps.empty() || parts.maps.size() != parts.weights.size()) {
    return Fail(Code::kInternal, "a rebalancer needs a map and weights for each MoE layer; got {} and {}",
                parts.maps.size(), parts.weights.size());
  }
  CADRE_ASSIGN(const eplb::Policy* const policy, eplb::FindPolicy(options.policy));
  std::unique_ptr<Rebalancer> made(new Rebalancer(options, std::move(parts)));
  made->policy_ = policy;
  made->Report(made->window_.sum());
  made->snapshot_.start_slots = made->snapshot_.slots;
  return made;
}

Rebalancer::Rebalancer(const RebalanceOptions& options, RebalanceParts parts)
    : options_(options),
      parts_(std::move(parts)),
      hosts_(HostsOf(parts_.memory, parts_.maps.front().layout().num_ranks)),
      maps_(std::move(parts_.maps)),
      slot_counts_(maps_.size() * static_cast<size_t>(maps_.front().layout().num_slots)),
      expert_counts_(maps_.size() * static_cast<size_t>(maps_.front().num_experts())),
      window_(num_layers(), maps_.front().num_experts(), options.window_size),
      cadence_(options.step_interval),
      places_(num_layers(), layout(), options.num_spares),
      message_bytes_(kFirstMessageBytes) {
  for (const eplb::ExpertMap& map : maps_) map_addresses_.push_back(&map);
  if (parts_.memory != nullptr) mover_ = std::make_unique<Mover>(*parts_.memory, hosts_, *parts_.pool);
}

int64_t Rebalancer::report_steps() const {
  return options_.log_balancedness ? options_.log_balancedness_interval : kReportSteps;
}

Status Rebalancer::AfterStep(const StepReport& report) {
  Count(report.had_rows);
  if (parts_.collective != nullptr) parts_.collective->BeginStep(report.step, report.deadline);
  if (cadence_.Advance(moving())) {
    CADRE_TRY(Start());
  } else if (report.step % report_steps() == 0) {
    CADRE_ASSIGN(const eplb::LoadTable load, SummedLoad());
    Report(load);
    if (options_.log_balancedness && rank() == 0) LogBalance(eplb::BalanceOf(maps_, load));
  }
  return moving() ? Move(report) : Status();
}

void Rebalancer::Count(bool had_rows) {
  if (!had_rows) return;
  std::ranges::fill(expert_counts_, 0);
  const auto slots = static_cast<size_t>(layout().num_slots);
  const auto experts = static_cast<size_t>(maps_.front().num_experts());
  for (size_t layer = 0; layer < maps_.size(); ++layer) {
    eplb::FoldSlots(maps_[layer], std::span(slot_counts_).subspan(layer * slots, slots),
                    std::span(expert_counts_).subspan(layer * experts, experts));
  }
  window_.Push(expert_counts_);
  std::ranges::fill(slot_counts_, 0);
}

// Counts travel as f32: they are exact up to 2^24, and rounded alike on all ranks beyond.
Result<eplb::LoadTable> Rebalancer::SummedLoad() {
  eplb::LoadTable load = window_.sum();
  if (parts_.collective == nullptr) return load;
  std::vector<float> sums(load.counts.begin(), load.counts.end());
  CADRE_TRY(parts_.collective->AllReduceSum(sums.data(), std::ssize(sums)));
  for (size_t i = 0; i < sums.size(); ++i) load.counts[i] = static_cast<int64_t>(sums[i]);
  return load;
}

Status Rebalancer::Start() {
  CADRE_ASSIGN(planned_load_, SummedLoad());
  Report(planned_load_);
  if (mover_ == nullptr) return {};
  started_ = Now();
  tries_ = 0;
  if (rank() == 0) {
    LogInfo("Rearranging experts {} …", options_.use_async ? "(async mode)" : "sync mode");
  }
  return Plan();
}

// From the present maps to the plan for planned_load_.
Status Rebalancer::Plan() {
  const eplb::PolicyInput input{
      .load = &planned_load_, .num_groups = options_.num_groups, .hosts = hosts_, .layout = layout()};
  CADRE_ASSIGN(const eplb::Plan plan, eplb::MakePlan(*policy_, input, maps_));
  CADRE_ASSIGN(schedule_, eplb::MakeSchedule(maps_, plan, places_, hosts_));
  // Equal inputs give equal plans; a rank that differs would put rows where others do not look for them.
  std::vector<uint64_t> hashes(static_cast<size_t>(parts_.collective->size()));
  const std::vector<int64_t> sizes(hashes.size(), sizeof(uint64_t));
  CADRE_TRY(parts_.collective->AllGather(&schedule_->hash, sizes, hashes.data()));
  for (size_t r = 0; r < hashes.size(); ++r) {
    if (hashes[r] == hashes[0]) continue;
    return Fail(Code::kInternal, "ranks 0 and {} planned different expert maps from the same load", r);
  }
  wave_ = 0;
  if (schedule_->waves.empty()) Tell([](Snapshot& s) { ++s.num_unchanged; });
  BeginWave();
  return {};
}

void Rebalancer::BeginWave() {
  stalled_ = false;
  if (wave_ == schedule_->waves.size()) return Finish();
  wave_started_ = Now();
  Tell([](Snapshot& s) { s.moving = true; });
  mover_->Begin(schedule_->waves[wave_]);
}

void Rebalancer::Finish() {
  const eplb::Schedule done = *std::exchange(schedule_, std::nullopt);
  Tell([](Snapshot& s) {
    ++s.num_rebalances;
    s.moving = s.stalled = false;
  });
  Report(planned_load_);
  if (rank() != 0) return;
  LogInfo("Rearranged experts in {:.2f} s: {} sent to other ranks ({} to other hosts), {} copied within one",
          SecondsSince(started_), done.num_received, done.num_from_hosts, done.num_local);
}

RoundBudget Rebalancer::BudgetFor(const StepReport& report) const {
  if (!options_.use_async) return {};
  const Duration share = std::max<Duration>(
      kLeastCopyTime, std::chrono::duration_cast<Duration>(report.busy * options_.step_share));
  return {.copy_until = Now() + share, .message_bytes = message_bytes_};
}

// Keeps the time that messages take near their share of a step.
void Rebalancer::LearnMessageSize(Duration spent, Duration allowed) {
  if (spent > allowed) {
    message_bytes_ = std::max(kLeastMessageBytes, message_bytes_ / 2);
  } else if (spent * 2 < allowed) {
    message_bytes_ = std::min(parts_.memory->message_bytes(), message_bytes_ * 5 / 4);
  }
}

// One round a step; without async all rounds at once.
Status Rebalancer::Move(const StepReport& report) {
  do {
    const TimePoint start = Now();
    const RoundBudget budget = BudgetFor(report);
    const bool gives_up = parts_.fails && parts_.fails(schedule_->waves[wave_]);
    CADRE_ASSIGN(const Verdict verdict,
                 mover_->Round(budget, {"a rebalance", report.step, report.deadline}, gives_up));
    const Duration spent = Now() - start;
    LearnMessageSize(spent, std::chrono::duration_cast<Duration>(2 * report.busy * options_.step_share));
    {
      const std::lock_guard lock(mutex_);
      snapshot_.moving_seconds += Seconds(spent);
    }
    if (verdict != Verdict::kGoing) CADRE_TRY(EndWave(verdict));
  } while (moving() && !options_.use_async);
  if (moving()) WatchForStall();
  return {};
}

Status Rebalancer::EndWave(Verdict verdict) {
  if (verdict == Verdict::kDone) {
    Flip(schedule_->waves[wave_]);
    ++wave_;
    BeginWave();
    return {};
  }
  Tell([](Snapshot& s) { ++s.num_failed_waves; });
  const bool again = ++tries_ < options_.num_tries;
  if (rank() == 0) {
    LogWarning("a rebalance of experts failed in wave {} of {}; the maps stay as they are, {}", wave_ + 1,
               schedule_->waves.size(), again ? "it is tried again" : "the next one is tried in its turn");
  }
  schedule_.reset();
  if (again) return Plan();
  Tell([](Snapshot& s) { s.moving = s.stalled = false; });
  return {};
}

void Rebalancer::Flip(const eplb::Wave& wave) {
  const int32_t first = layout().Begin(rank());
  for (const eplb::Flip& flip : wave.flips) {
    const auto layer = static_cast<size_t>(flip.layer);
    nn::MoeWeights& weights = *parts_.weights[layer];
    for (size_t i = 0; i < weights.experts.size(); ++i) {
      const int32_t slot = first + static_cast<int32_t>(i);
      PointTo(weights.experts[i], parts_.memory->own(places_.PlaceOf(flip.layer, slot)),
              parts_.memory->own(flip.slot_to_place[static_cast<size_t>(slot)]));
      weights.logical[i] = flip.slot_to_expert[static_cast<size_t>(slot)];
    }
    auto map = eplb::ExpertMap::Create(maps_[layer].num_experts(), layout(), flip.slot_to_expert,
                                       Epoch(maps_[layer].epoch().value + 1));
    CADRE_CHECK(map.has_value());  // MakeSchedule makes legal maps only
    const fabric::MemberRange near = parts_.memory->fabric().local();
    maps_[layer] = parts_.prefer_own_host ? map->Preferring(near.begin, near.begin + near.count) : *map;
  }
  places_.Apply(wave);
  const int64_t received = std::ranges::count_if(
      wave.writes, [](const eplb::Write& write) { return write.rank != write.source_rank; });
  Tell([&](Snapshot& s) {
    s.num_moved += received;
    s.moved_bytes += received * parts_.memory->place_bytes();
  });
}

void Rebalancer::Abandon(const std::string& why) {
  if (!moving()) return;
  schedule_.reset();
  if (rank() == 0) LogInfo("a rebalance of experts ends early: {}", why);
  Tell([](Snapshot& s) { s.moving = s.stalled = false; });
}

void Rebalancer::WatchForStall() {
  const bool stalled = Now() - wave_started_ > options_.stalled_after;
  if (stalled == stalled_) return;
  stalled_ = stalled;
  std::string waits_for = stalled ? mover_->Missing() : "";
  if (stalled && rank() == 0) {
    LogWarning("a rebalance of experts is stalled: wave {} of {} is not done after {} s; it waits for {}",
               wave_ + 1, schedule_->waves.size(), fabric::SecondsText(Now() - wave_started_), waits_for);
  }
  Tell([&](Snapshot& s) {
    s.stalled = stalled;
    s.waits_for = std::move(waits_for);
  });
}

void Rebalancer::Report(const eplb::LoadTable& load) {
  eplb::Balance all;
  std::vector<eplb::Balance> layers(maps_.size());
  Snapshot next;
  for (int32_t l = 0; l < num_layers(); ++l) {
    const eplb::ExpertMap& map = maps_[static_cast<size_t>(l)];
    const std::vector<double> loads = eplb::RankLoads(map, load.Layer(l));
    all.Add(loads);
    layers[static_cast<size_t>(l)].Add(loads);
    std::vector<int32_t>& slots = next.slots.emplace_back();
    for (int32_t s = 0; s < layout().num_slots; ++s) slots.push_back(map.ExpertOf(Slot(s)).value);
    next.epoch = std::max(next.epoch, map.epoch().value);
    next.layer_epochs.push_back(map.epoch().value);
  }
  Tell([&](Snapshot& s) {
    s.epoch = next.epoch;
    s.slots = std::move(next.slots);
    s.layer_epochs = std::move(next.layer_epochs);
    s.steps_until_next = cadence_.StepsUntilNext();
    s.window_steps = window_.steps();
    s.load = load;
    s.layout = layout();
    s.balance = all;
    s.layer_balance = std::move(layers);
  });
}

void Rebalancer::LogBalance(const eplb::Balance& balance) const {
  LogInfo(
      "EPLB step: {} for model {}: avg_tokens={:.2f}, max_tokens={:.0f}, balancedness={:.4f}, "
      "steps until the next rearrangement: {}",
      options_.step_interval - cadence_.StepsUntilNext(), options_.model_name, balance.avg_tokens,
      balance.max_tokens, balance.balancedness(), cadence_.StepsUntilNext());
}

Snapshot Rebalancer::snapshot() const {
  const std::lock_guard lock(mutex_);
  return snapshot_;
}

}  // namespace cadre::rebalance
