#include "deploy/weight_keeper.h"

#include <algorithm>
#include <cstring>

#include "base/json.h"
#include "base/log.h"
#include "model/weight_map.h"

namespace cadre::deploy {
namespace {

constexpr int64_t kCopyBytes = 4 << 20;  // of one thread at a time

// What ranks tell each other of one phase. Trivial: it goes through shared memory.
struct Verdict {
  uint64_t order = 0;
  int64_t bytes = 0;
  int32_t code = -1;  // of Code; -1: fine
  std::array<char, 492> message = {};
};
static_assert(std::is_trivially_copyable_v<Verdict>);

Verdict VerdictOf(const Status& status) {
  Verdict verdict;
  if (status) return verdict;
  verdict.code = static_cast<int32_t>(status.error().code);
  const std::string text = Excerpt(status.error().message, verdict.message.size() - 8);
  std::copy(text.begin(), text.end(), verdict.message.begin());
  return verdict;
}

// [[name, type, shape], ...] against what came.
Status CheckExpected(const std::string& expected, const checkpoint::TensorSource& source) {
  if (expected.empty()) return {};
  CADRE_ASSIGN(const Json list, Json::Parse(expected));
  for (const Json& entry : list.AsArray()) {
    const Json::Array& parts = entry.AsArray();
    const std::string& name = parts[0].AsString();
    const checkpoint::TensorInfo* tensor = source.Find(name);
    if (tensor == nullptr)
      return Fail(Code::kNotFound, "update_info names '{}', which the sender does not have", Excerpt(name));
    std::vector<int64_t> shape;
    for (const Json& dim : parts[2].AsArray()) shape.push_back(dim.AsInt());
    if (tensor->shape != shape || DTypeName(tensor->dtype) != parts[1].AsString()) {
      return Fail(Code::kInvalidArgument, "update_info says that '{}' is {} {}; the sender has {} {}",
                  Excerpt(name), parts[1].AsString(), parts[2].Dump(), DTypeName(tensor->dtype),
                  tensor->ShapeText());
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<WeightKeeper>> WeightKeeper::Create(WeightKeeperParts parts) {
  std::unique_ptr<WeightKeeper> made(new WeightKeeper(std::move(parts)));
  made->last_folder_ = made->parts_.start_folder;
  for (const std::span<std::byte> memory : made->parts_.copied) {
    CADRE_ASSIGN(made->copies_.emplace_back(),
                 sys::AllocateRegion(memory.size(), {.pool = made->parts_.pool}));  // touched now
  }
  return made;
}

// Every rank's verdict; the first failure is everybody's. Adds up bytes_.
Result<Status> WeightKeeper::Agree(Status own) {
  if (parts_.collective == nullptr) return own;
  Verdict mine = VerdictOf(own);
  mine.order = order_id_;
  mine.bytes = bytes_;
  std::vector<Verdict> all(static_cast<size_t>(parts_.collective->size()));
  const std::vector<int64_t> sizes(all.size(), sizeof(Verdict));
  parts_.collective->BeginStep(num_orders_, deadline_);
  CADRE_TRY(parts_.collective->AllGather(&mine, sizes, all.data()));
  bytes_ = 0;
  for (const Verdict& verdict : all) bytes_ += verdict.bytes;
  // Without a lockstep before it (a model without experts) ranks may have been given two orders in two ways.
  const auto other = [&](const Verdict& verdict) { return verdict.order != all.front().order; };
  if (std::ranges::any_of(all, other))
    return Status(
        Fail(Code::kUnavailable, "two orders about weights came at once; send them one after the other"));
  for (size_t r = 0; r < all.size(); ++r) {
    if (all[r].code < 0) continue;
    const std::string message(all[r].message.data(), strnlen(all[r].message.data(), all[r].message.size()));
    return Status(Fail(static_cast<Code>(all[r].code), "rank {}: {}", r, message));
  }
  return Status();
}

Result<engine::WeightKeeper::Outcome> WeightKeeper::CarryOut(const engine::WeightOrder& order) {
  using Kind = engine::WeightOrder::Kind;
  ++num_orders_;
  order_id_ = order.Id();
  bytes_ = 0;
  deadline_ = Now() + std::chrono::seconds(order.timeout_s);
  if (order.concerns_adapter()) return ChangeAdapter(order);
  if (order.kind != Kind::kConnect) return Replace(order);
  remote_.reset();
  auto connected = checkpoint::RemoteWeights::Connect({.host = order.host,
                                                       .port = order.port,
                                                       .receiver = order.first_receiver + parts_.rank,
                                                       .world_size = order.world_size,
                                                       .num_streams = parts_.pool->num_threads(),
                                                       .deadline = deadline_,
                                                       .open_memory = parts_.open_memory});
  if (connected) remote_ = std::move(*connected);
  const Status own = connected ? Status() : std::unexpected(std::move(connected).error());
  CADRE_ASSIGN(Status all, Agree(own));
  if (!all) remote_.reset();
  return Outcome{.status = std::move(all), .generation = generation_};
}

// A new adapter is read beside the old ones and becomes visible when all ranks have it, so a failure leaves
// everything as it was.
Result<engine::WeightKeeper::Outcome> WeightKeeper::ChangeAdapter(const engine::WeightOrder& order) {
  const TimePoint start = Now();
  Outcome outcome{.status = {}, .generation = generation_};
  Status own, name;
  if (parts_.adapters == nullptr) {
    name = Fail(Code::kUnsupported, "LoRA is not enabled; start the server with --enable-lora");
  } else if (name = parts_.adapters->CheckName(order); name) {
    own = parts_.adapters->Prepare(order);
    bytes_ = parts_.adapters->prepared_bytes();
  }
  CADRE_ASSIGN(Status all, Agree(own));  // also where the name is wrong: ranks may have been given two orders
  outcome.status = all ? name : std::move(all);
  if (!outcome.status) {
    if (parts_.adapters != nullptr) parts_.adapters->Abandon();
    return outcome;
  }
  const bool loads = order.kind == engine::WeightOrder::Kind::kLoadAdapter;
  (loads ? outcome.loaded : outcome.unloaded) = parts_.adapters->Commit(order);
  outcome.bytes = bytes_;
  if (parts_.rank == 0 && loads) {
    LogInfo("LoRA adapter '{}' loaded from {}: {} in {:.2f} s", Excerpt(order.name), order.folder,
            sys::FormatBytes(bytes_), SecondsSince(start));
  } else if (parts_.rank == 0) {
    LogInfo("LoRA adapter '{}' unloaded", Excerpt(order.name));
  }
  return outcome;
}

Result<WeightKeeper::Source> WeightKeeper::Open(const engine::WeightOrder& order) {
  using Kind = engine::WeightOrder::Kind;
  if (order.kind == Kind::kFolder) return parts_.open(order.folder);
  if (order.kind == Kind::kReload) return parts_.open(parts_.start_folder);
  if (remote_ == nullptr) {
    return Fail(Code::kInvalidArgument,
                "no sender of weights is connected: POST /init_broadcaster with its host and port first");
  }
  CADRE_ASSIGN(Source source, remote_->Receive(deadline_));
  CADRE_TRY(CheckExpected(order.expected, *source));
  return source;
}

Result<int64_t> WeightKeeper::Write(const checkpoint::TensorSource& source, int64_t generation) {
  const model::LoadOptions load{.dense = parts_.writes_dense, .generation = generation};
  CADRE_ASSIGN(const model::LoadReport report,
               model::LoadWeights(*parts_.spec, parts_.plan, source, *parts_.pool, load, *parts_.weights));
  return report.source_bytes;
}

Result<engine::WeightKeeper::Outcome> WeightKeeper::Replace(const engine::WeightOrder& order) {
  using Kind = engine::WeightOrder::Kind;
  const TimePoint start = Now();
  Outcome outcome{.status = {}, .generation = generation_};
  Result<Source> source = Open(order);
  Status own;
  if (!source) {
    own = std::unexpected(source.error());
  } else if (auto map = model::MapWeights(*parts_.spec, parts_.plan, *parts_.weights, **source); !map) {
    own = std::unexpected(std::move(map).error());
  }
  CADRE_ASSIGN(outcome.status, Agree(own));
  if (!outcome.status) {
    if (remote_ && order.kind == Kind::kReceive) remote_->Finish(false);
    return outcome;  // nothing has been touched
  }
  if (parts_.rebalancer != nullptr) parts_.rebalancer->Abandon("the weights are replaced");
  Copy(false);
  const Result<int64_t> written = Write(**source, generation_ + 1);
  bytes_ = written.value_or(0);
  CADRE_ASSIGN(Status all, Agree(written ? Status() : std::unexpected(written.error())));
  if (remote_ && order.kind == Kind::kReceive) remote_->Finish(all.has_value());
  if (!all) return GoBack(std::move(outcome), all.error());
  ++generation_;
  last_folder_ = order.kind == Kind::kFolder   ? std::optional(order.folder)
                 : order.kind == Kind::kReload ? std::optional(parts_.start_folder)
                                               : std::nullopt;
  if (parts_.rank == 0) {
    LogInfo("weights replaced: generation {}, {} in {:.2f} s, from {}", generation_, sys::FormatBytes(bytes_),
            SecondsSince(start), last_folder_.value_or("the connected sender"));
  }
  broken_ = false;
  outcome.new_weights = true;
  outcome.generation = generation_;
  outcome.bytes = bytes_;
  return outcome;
}

// After places were overwritten in part.
Result<engine::WeightKeeper::Outcome> WeightKeeper::GoBack(Outcome outcome, const Error& why) {
  if (parts_.rank == 0) LogWarning("an update of the weights failed while it was written: {}", why.message);
  if (!copies_.empty()) {
    Copy(true);
    CADRE_ASSIGN([[maybe_unused]] const Status all, Agree({}));  // nobody reads before all is there
    outcome.status = Fail(why.code, "{}; the weights from before are back in place", why.message);
    return outcome;
  }
  Status own = Fail(Code::kUnavailable, "the last weights did not come from a folder");
  if (last_folder_) {
    auto source = parts_.open(*last_folder_);
    const auto written = source ? Write(**source, generation_) : std::unexpected(source.error());
    own = written ? Status() : std::unexpected(written.error());
  }
  deadline_ = std::max(deadline_, Now() + std::chrono::seconds(60));
  CADRE_ASSIGN(const Status all, Agree(own));
  if (all) {
    outcome.new_weights = std::exchange(broken_, false);
    outcome.status = Fail(why.code, "{}; the weights of {} are in place again", why.message, *last_folder_);
    return outcome;
  }
  outcome.broken = broken_ = true;
  outcome.status =
      Fail(Code::kUnavailable,
           "the weights are damaged: an update failed while it was written ({}) and the last ones could "
           "not be read again ({}); send /update_weights or /reload_weights",
           why.message, all.error().message);
  return outcome;
}

// The places into their copies, or back, on all threads.
void WeightKeeper::Copy(bool back) {
  for (size_t i = 0; i < copies_.size(); ++i) {
    const std::span<std::byte> place = parts_.copied[i];
    const auto size = static_cast<int64_t>(place.size());
    parts_.pool->ForEach((size + kCopyBytes - 1) / kCopyBytes, [&](int64_t piece, int) {
      const int64_t begin = piece * kCopyBytes, bytes = std::min(kCopyBytes, size - begin);
      std::byte* const to = back ? place.data() : copies_[i].data();
      const std::byte* const from = back ? copies_[i].data() : place.data();
      std::memcpy(to + begin, from + begin, static_cast<size_t>(bytes));
    });
  }
}

}  // namespace cadre::deploy
