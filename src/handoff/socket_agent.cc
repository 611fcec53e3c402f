#include "handoff/socket_agent.h"

#include <sys/eventfd.h>

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "base/random.h"
#include "sys/files.h"
#include "sys/sockets.h"

namespace cadre::handoff {
namespace {

std::string BootId() {
  auto text = sys::ReadFile("/proc/sys/kernel/random/boot_id", 128);
  return text ? *text : std::string();
}

Status CheckOptions(const AgentOptions& options) {
  CADRE_TRY(CheckIdentity(options.identity));
  if (options.kv == nullptr || options.kv_fd < 0 || options.num_blocks < 1 || options.engine_id.empty() ||
      options.host.empty()) {
    return Fail(Code::kInvalidArgument, "an agent needs a pool, an engine id and a host");
  }
  if (options.identity.tp_size > 1 && options.group_key.empty()) {
    return Fail(Code::kInvalidArgument, "an agent of {} tp ranks needs a group key",
                options.identity.tp_size);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Agent>> StartAgent(AgentOptions options) {
  return SocketAgent::Start(std::move(options));
}

Result<std::unique_ptr<Agent>> SocketAgent::Start(AgentOptions options) {
  CADRE_TRY(CheckOptions(options));
  std::unique_ptr<SocketAgent> agent(new SocketAgent(std::move(options)));
  CADRE_TRY(agent->Listen());
  agent->thread_ = std::thread([a = agent.get()] { a->Run(); });
  return agent;
}

SocketAgent::SocketAgent(AgentOptions options)
    : options_(std::move(options)),
      boot_id_(BootId()),
      nonce_(Format("{:016x}{:016x}", EntropySeed(), EntropySeed())),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      generation_(options_.identity.weight_generation),
      links_(Self(), options_.share_memory, options_.connect_timeout, [this] { Wake(); }),
      source_({.pool = {options_.identity.layout, options_.kv, options_.num_blocks},
               .tp_rank = options_.identity.tp_rank,
               .max_bytes_per_s = options_.max_bytes_per_s,
               .links = &links_,
               .ended = [this](EndedLease ended) { GiveEnded(std::move(ended)); }}),
      target_({.share = {.pool = {options_.identity.layout, options_.kv, options_.num_blocks},
                         .identity = options_.identity,
                         .links = &links_},
               .engine_id = options_.engine_id,
               .silence_timeout = options_.silence_timeout,
               .fetched = [this](FetchResult result) { GiveFetched(std::move(result)); }}) {
  CADRE_CHECK(wake_);
}

SocketAgent::~SocketAgent() {
  stop_ = true;
  Wake();
  if (thread_.joinable()) thread_.join();
}

Status SocketAgent::Listen() {
  const int tries = options_.port == 0 ? 1 : std::max(options_.num_ports, 1);
  Status last;
  for (int i = 0; i < tries && options_.port + i <= UINT16_MAX; ++i) {
    auto listener = sys::ListenTcp(options_.bind_host, static_cast<uint16_t>(options_.port + i));
    if (listener) {
      listener_ = std::move(*listener);
      break;
    }
    last = std::unexpected(listener.error());
    if (listener.error().code == Code::kNotFound) break;  // no such host: other ports will not help
  }
  if (!listener_) {
    return Fail(last.error().code, "no port for the side channel of the KV hand-off among {} from {} on: {}",
                tries, options_.port, last.error().message);
  }
  CADRE_ASSIGN(port_, sys::LocalPort(listener_.get()));
  if (options_.port != 0 && port_ != options_.port) {
    LogInfo("hand-off: side-channel port {} is in use; took {}", options_.port, port_);
  }
  if (!options_.share_memory || boot_id_.empty()) return {};
  const std::string address = "@cadre-handoff-" + nonce_;
  if (auto near = sys::ListenUnix(address)) {
    near_listener_ = std::move(*near);
    unix_address_ = address;
  } else {
    LogWarning("hand-off: within this host keys and values go over TCP: {}", near.error().message);
  }
  return {};
}

// For Hello as it is; Welcome adds where memory can be had.
Introduction SocketAgent::Self() const {
  return {.engine_id = options_.engine_id,
          .boot_id = options_.share_memory ? boot_id_ : std::string(),
          .nonce = nonce_,
          .group_key = options_.group_key,
          .num_blocks = options_.num_blocks,
          .identity = options_.identity};
}

void SocketAgent::Wake() {
  if (!wake_pending_.exchange(true)) eventfd_write(wake_.get(), 1);
}

void SocketAgent::Post(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(call));
  }
  Wake();
}

void SocketAgent::SetPeers(std::vector<PeerAddress> peers) {
  Post([this, peers = std::move(peers)] {
    source_.SetPeers(peers);
    target_.SetPeers(peers);
  });
}

void SocketAgent::SetWeightGeneration(int64_t generation) {
  generation_ = generation;
}

Status SocketAgent::Open(const std::string& request_id, int64_t num_tokens, const std::string& adapter) {
  auto& entry = open_[request_id];
  if (entry != nullptr) {
    return Fail(Code::kInvalidArgument, "a request '{}' is open or under a lease here already",
                Excerpt(request_id));
  }
  entry = std::make_shared<Progress>(request_id, options_.identity.layout);
  Post([this, progress = entry, num_tokens, generation = generation_, adapter] {
    source_.Open(progress, num_tokens, generation, adapter);
  });
  return {};
}

void SocketAgent::Blocks(const std::string& request_id, std::span<const int32_t> blocks) {
  auto at = open_.find(request_id);
  if (options_.identity.tp_rank > 0 && (at == open_.end() || at->second->closed.load())) {
    std::erase_if(open_, [](const auto& entry) { return entry.second->closed.load(); });
    at = open_.emplace(request_id, std::make_shared<Progress>(request_id, options_.identity.layout)).first;
  }
  if (at == open_.end()) return;
  Post([this, progress = at->second, table = std::vector(blocks.begin(), blocks.end())] {
    source_.Blocks(progress, table);
  });
}

void SocketAgent::Written(const std::string& request_id, int32_t layer, int64_t num_tokens) {
  const auto at = open_.find(request_id);
  if (at == open_.end()) return;
  Progress& progress = *at->second;
  // Both sides store first and look then, in one order of all: either the agent sees the token when it looks
  // after `watched`, or this sees `watched`.
  progress.written[static_cast<size_t>(layer)].store(num_tokens);
  if (progress.watched.load()) Wake();
}

void SocketAgent::Lease(const std::string& request_id, TimePoint until) {
  Post([this, request_id, until] { source_.Lease(request_id, until); });
}

void SocketAgent::Drop(const std::string& request_id, const Error& why) {
  Post([this, request_id, why] { source_.Drop(request_id, why); });
}

std::vector<EndedLease> SocketAgent::TakeEnded() {
  std::vector<EndedLease> taken;
  {
    const std::lock_guard lock(mutex_);
    taken.swap(ended_);
  }
  for (const EndedLease& ended : taken) open_.erase(ended.request_id);
  return taken;
}

void SocketAgent::Fetch(FetchOrder order) {
  CADRE_CHECK(options_.identity.tp_rank == 0);
  Post([this, order = std::move(order), generation = generation_] { target_.Fetch(order, generation); });
}

void SocketAgent::CancelFetch(FetchId id) {
  Post([this, id] { target_.Cancel(id); });
}

void SocketAgent::Reject(const SourceAddress& source) {
  Post([this, source] { target_.Tell(source, true); });
}

void SocketAgent::Touch(const SourceAddress& source) {
  Post([this, source] { target_.Tell(source, false); });
}

std::vector<FetchResult> SocketAgent::TakeFetched() {
  const std::lock_guard lock(mutex_);
  return std::exchange(fetched_, {});
}

AgentStats SocketAgent::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

// With the mutex held.
void SocketAgent::TakeStats() {
  stats_.bytes_sent = source_.bytes_sent();
  stats_.num_leases = source_.num_leases();
  stats_.num_expired_leases = source_.num_expired();
  stats_.num_open = source_.num_open();
  stats_.num_failed_notifications = target_.num_failed_tells();
}

// Source and Target name each request and fetch once, here.
void SocketAgent::GiveEnded(EndedLease ended) {
  {
    const std::lock_guard lock(mutex_);
    TakeStats();
    ended_.push_back(std::move(ended));
  }
  if (options_.wake) options_.wake();
}

void SocketAgent::GiveFetched(FetchResult result) {
  {
    const std::lock_guard lock(mutex_);
    ++stats_.num_fetches;
    TakeStats();
    stats_.num_failed_fetches += !result.status.has_value();
    stats_.bytes_fetched += result.bytes;
    if (result.status) stats_.fetch_seconds += result.seconds;
    fetched_.push_back(std::move(result));
  }
  if (options_.wake) options_.wake();
}

}  // namespace cadre::handoff
