#include "python/engine/exchange.h"

#include <algorithm>
#include <cstring>

#include "sys/cpu.h"

namespace cadre::python {
namespace {

constexpr auto kBad = Code::kInvalidArgument;

// This rank's position. The group is rising and has it once.
Result<int> IndexIn(const std::shared_ptr<World>& world, const std::vector<int>& ranks) {
  if (world == nullptr) {
    if (ranks.size() > 1) return Fail(kBad, "a group of {} ranks wants a process group", ranks.size());
    return 0;
  }
  CADRE_TRY(world->Check());
  const WorldOptions& o = world->options();
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i] < 0 || ranks[i] >= o.size || (i > 0 && ranks[i] <= ranks[i - 1]))
      return Fail(kBad, "a group's ranks rise, each once, from 0 to {}; {} does not fit", o.size - 1,
                  ranks[i]);
  }
  const auto at = std::ranges::find(ranks, o.rank);
  if (at == ranks.end()) return Fail(kBad, "rank {} is not in the group that it asks for", o.rank);
  return static_cast<int>(at - ranks.begin());
}

// Only where every rank of the host can have a CPU for itself.
bool Spin(const std::shared_ptr<World>& world) {
  return world != nullptr && world->options().local_size <= sys::UsableCpus();
}

}  // namespace

Result<std::shared_ptr<Exchange>> Exchange::Create(const ExchangeOptions& options) {
  CADRE_ASSIGN(const int index, IndexIn(options.world, options.ranks));
  const int size = options.world == nullptr ? 1 : static_cast<int>(options.ranks.size());
  if (options.hidden < 1 || options.hidden > 1 << 20)
    return Fail(kBad, "hidden_size is {}; it goes from 1 to {}", options.hidden, 1 << 20);
  if (options.top_k > options.num_experts)
    return Fail(kBad, "top_k {} of {} experts: a token's experts are distinct", options.top_k,
                options.num_experts);
  CADRE_ASSIGN(const auto placement, eplb::ParsePlacement(options.placement));
  CADRE_ASSIGN(auto map, eplb::StartMap(options.num_experts, 0, size, placement));
  a2a::Options o;
  o.backend = options.backend;
  o.hidden = static_cast<int32_t>(options.hidden);
  o.act_type = DType::kF32;
  o.top_k = options.top_k;
  o.max_rows = options.max_rows;
  o.layout = map.layout();
  o.device = options.device->get();
  if (options.world != nullptr) {
    o.rendezvous = options.world->rendezvous();
    o.ranks = options.ranks;
  }
  o.join_deadline = Now() + options.timeout;
  o.spin = Spin(options.world);
  o.chunk_rows = options.max_rows;
  std::shared_ptr<Exchange> exchange(new Exchange(options, index, std::move(map)));
  CADRE_ASSIGN(exchange->exchange_, a2a::Create(o));
  if (options.world != nullptr) options.world->Add(exchange);
  return exchange;
}

Status Exchange::CheckUsable() const {
  if (exchange_ == nullptr) return Fail(Code::kUnavailable, "the process group of this exchange was closed");
  return broken_;
}

Status Exchange::Keep(Status status) {
  if (!status) broken_ = status;
  return status;
}

Status Exchange::CheckChoices(int64_t num_rows, const int32_t* experts) const {
  const int32_t k = options_.top_k;
  for (int64_t t = 0; t < num_rows; ++t) {
    const int32_t* row = experts + t * k;
    for (int32_t i = 0; i < k; ++i) {
      if (row[i] < -1 || row[i] >= options_.num_experts)
        return Fail(kBad, "token {} wants expert {}; experts go from 0 to {}, and -1 is none", t, row[i],
                    options_.num_experts - 1);
      if (row[i] >= 0 && std::find(row, row + i, row[i]) != row + i)
        return Fail(kBad, "token {} wants expert {} twice", t, row[i]);
    }
  }
  return {};
}

Result<int64_t> Exchange::Dispatch(const float* rows, int64_t num_rows, const int32_t* experts,
                                   const float* weights) {
  CADRE_TRY(CheckUsable());
  if (stage_ != Stage::kIdle) return Fail(kBad, "dispatch before the last dispatch was combined");
  if (num_rows > options_.max_rows)
    return Fail(kBad, "{} tokens; this exchange was made for at most {} (max_tokens)", num_rows,
                options_.max_rows);
  CADRE_TRY(CheckChoices(num_rows, experts));
  slots_.resize(static_cast<size_t>(num_rows * options_.top_k));
  map_.MapChoices(num_rows, options_.top_k, experts, nullptr, slots_.data());
  exchange_->BeginStep(step_++, Now() + options_.timeout);
  std::byte* stage = exchange_->Stage(num_rows);
  if (num_rows > 0) std::memcpy(stage, rows, static_cast<size_t>(num_rows * options_.hidden) * sizeof(float));
  auto table = exchange_->Dispatch({num_rows, slots_.data(), weights});
  if (!table) {
    broken_ = std::unexpected(table.error());
    return std::unexpected(table.error());
  }
  table_ = *table;
  num_rows_ = num_rows;
  expert_rows_ = nullptr;
  stage_ = Stage::kReceived;
  return table_.num_rows;
}

Status Exchange::Received(float* rows, int32_t* offsets, float* weights) const {
  CADRE_TRY(CheckUsable());
  if (stage_ == Stage::kIdle) return Fail(kBad, "nothing was dispatched");
  for (int64_t n = 0; n < table_.num_rows; ++n) {
    std::memcpy(rows + n * options_.hidden, table_.rows[n],
                static_cast<size_t>(options_.hidden) * sizeof(float));
    weights[n] = table_.row_weights == nullptr ? 1.0f : table_.row_weights[n];
  }
  std::ranges::copy(table_.offsets, offsets);
  return {};
}

Status Exchange::Compute(const nn::ExpertBank& bank) {
  CADRE_TRY(CheckUsable());
  if (stage_ != Stage::kReceived) return Fail(kBad, "experts can be run once after each dispatch");
  const int32_t num_held = map_.layout().Count(index_);
  if (bank.size() != num_held || bank.hidden() != options_.hidden) {
    return Fail(kBad, "the bank has {} experts of hidden size {}; this rank holds {} of hidden size {}",
                bank.size(), bank.hidden(), num_held, options_.hidden);
  }
  expert_rows_ = exchange_->StageResults();
  if (expert_rows_ == nullptr) {
    buffer_.resize(std::max(buffer_.size(), static_cast<size_t>(table_.num_rows * options_.hidden)));
    expert_rows_ = buffer_.data();
  }
  const auto turn = options_.device->Hold();
  bank.Run(options_.device->get(), table_, expert_rows_);
  stage_ = Stage::kComputed;
  return {};
}

Status Exchange::Combine(const float* expert_rows, float* out) {
  CADRE_TRY(CheckUsable());
  if (stage_ == Stage::kIdle) return Fail(kBad, "combine without a dispatch");
  if (expert_rows == nullptr && stage_ != Stage::kComputed)
    return Fail(kBad, "combine wants expert rows, or run() before it");
  const float* results = expert_rows == nullptr ? expert_rows_ : expert_rows;
  stage_ = Stage::kIdle;
  if (float* place = exchange_->StageResults(); place != nullptr && results != place) {
    std::copy_n(results, table_.num_rows * options_.hidden, place);
    results = place;
  }
  const auto turn = options_.device->Hold();
  return Keep(exchange_->Combine(results, out, false));
}

std::vector<int32_t> Exchange::held() const {
  const auto experts = map_.ExpertsOn(index_);
  return {experts.begin(), experts.end()};
}

std::vector<int32_t> Exchange::homes() const {
  std::vector<int32_t> homes;
  for (int32_t e = 0; e < options_.num_experts; ++e)
    homes.push_back(map_.layout().RankOf(map_.SlotsOf(LogicalExpert(e)).front()));
  return homes;
}

a2a::ByteCounts Exchange::bytes() const {
  return exchange_ == nullptr ? a2a::ByteCounts() : exchange_->bytes();
}

std::string Exchange::Describe() const {
  return exchange_ == nullptr ? "closed" : exchange_->Describe();
}

Result<std::shared_ptr<Collective>> Collective::Create(const CollectiveOptions& options) {
  CADRE_ASSIGN([[maybe_unused]] const int index, IndexIn(options.world, options.ranks));
  std::shared_ptr<Collective> collective(new Collective(options));
  const bool alone = options.world == nullptr;
  CADRE_ASSIGN(collective->collective_,
               a2a::Collective::Create({.name = "python",
                                        .rendezvous = alone ? nullptr : options.world->rendezvous(),
                                        .ranks = alone ? std::vector<int>() : options.ranks,
                                        .join_deadline = Now() + options.timeout,
                                        .spin = Spin(options.world)}));
  if (!alone) options.world->Add(collective);
  return collective;
}

Status Collective::Begin() {
  if (collective_ == nullptr) return Fail(Code::kUnavailable, "the process group was closed");
  CADRE_TRY(broken_);
  collective_->BeginStep(step_++, Now() + options_.timeout);
  return {};
}

Status Collective::Keep(Status status) {
  if (!status) broken_ = status;
  return status;
}

Status Collective::Barrier() {
  CADRE_TRY(Begin());
  return Keep(collective_->Barrier());
}

Status Collective::AllReduceSum(float* x, int64_t count) {
  CADRE_TRY(Begin());
  return Keep(collective_->AllReduceSum(x, count));
}

Status Collective::AllGather(const void* own, const std::vector<int64_t>& sizes, void* out) {
  CADRE_TRY(Begin());
  return Keep(collective_->AllGather(own, sizes, out));
}

Status Collective::Broadcast(int root, std::string& bytes) {
  CADRE_TRY(Begin());
  if (root < 0 || root >= collective_->size())
    return Fail(kBad, "root is {}; it goes from 0 to {}", root, collective_->size() - 1);
  return Keep(collective_->Broadcast(root, bytes));
}

}  // namespace cadre::python
