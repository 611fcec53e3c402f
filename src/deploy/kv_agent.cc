#include "deploy/kv_agent.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/random.h"
#include "deploy/expert_start.h"
#include "deploy/node_address.h"
#include "sys/files.h"

namespace cadre::deploy {
namespace {

constexpr int kSamples = 64;  // of each weight file
constexpr size_t kSampleBytes = 4096;

uint64_t Mix(uint64_t h, std::string_view bytes) {
  for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

// Two fine-tunes have one config.json, and keys of one mean nothing to the other. All bytes would take as
// long to read as the model; these tell any two checkpoints apart that training has told apart.
uint64_t WeightsHash(const std::string& folder) {
  uint64_t h = 0xcbf29ce484222325;
  const auto names = sys::ListFolder(folder);
  if (!names) return h;
  std::string bytes(kSampleBytes, '\0');
  for (const std::string& name : *names) {
    if (!name.ends_with(".safetensors")) continue;
    const sys::Fd fd(open((folder + "/" + name).c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info = {};
    if (!fd || fstat(fd.get(), &info) != 0) continue;
    h = Mix(h, Format("{} {}", name, info.st_size));
    for (int i = 0; i < kSamples; ++i) {
      const auto at = static_cast<off_t>(static_cast<double>(info.st_size) * i / kSamples);
      const ssize_t got = pread(fd.get(), bytes.data(), bytes.size(), at);
      if (got > 0) h = Mix(h, std::string_view(bytes).substr(0, static_cast<size_t>(got)));
    }
  }
  return h;
}

std::string RandomText() {
  return Format("{:016x}{:016x}", EntropySeed(), EntropySeed());
}

handoff::Identity IdentityOf(const config::EngineOptions& options, const ModelSetup& setup, RankPlace place) {
  const nn::AttentionSpec& attention = setup.spec.attention;
  const bool latent = attention.kind == nn::AttentionKind::kMla;
  return {.model = Format("{}, weights {:016x}", LoadIdentity(setup), WeightsHash(setup.location.folder)),
          .model_name = options.model.served_model_names.empty() ? options.model.model
                                                                 : options.model.served_model_names.front(),
          .weight_generation = 1,  // as engine::ControlDesk counts
          .layout = setup.memory_input.kv,
          .num_kv_heads = latent ? 1 : attention.num_kv_heads,
          .tp_rank = place.tp_rank,
          .tp_size = place.tp_size,
          .arithmetic = {}};
}

// The first rank's words, which all ranks need.
struct Shared {
  std::string engine_id, group_key;
};
Result<Shared> Agree(const config::EngineOptions& options, const KvAgentInput& input) {
  Shared own{.engine_id = options.kv_transfer.engine_id.value_or(RandomText()), .group_key = RandomText()};
  if (input.rendezvous == nullptr) return own;
  CADRE_ASSIGN(const auto blobs, input.rendezvous->ExchangeBlobs(
                                     "kv agents", {}, own.group_key + own.engine_id, input.deadline));
  const std::string& first = blobs.front();
  own.group_key = first.substr(0, own.group_key.size());
  own.engine_id = first.substr(own.group_key.size());
  return own;
}

// Which ranks have which agent: of the replica's, each is told.
Status Introduce(const KvAgentInput& input, handoff::Agent& agent) {
  if (input.rendezvous == nullptr || input.place.tp_size == 1) return {};
  std::vector<int> replica;
  for (int tp = 0; tp < input.place.tp_size; ++tp)
    replica.push_back(input.place.dp_rank * input.place.tp_size + tp);
  CADRE_ASSIGN(const auto blobs,
               input.rendezvous->ExchangeBlobs(Format("kv agents {}", input.place.dp_rank), replica,
                                               Format("{} {}", agent.port(), agent.host()), input.deadline));
  std::vector<handoff::PeerAddress> peers;
  for (const std::string& blob : blobs) {
    const size_t space = blob.find(' ');
    peers.push_back(
        {.host = blob.substr(space + 1), .port = static_cast<uint16_t>(std::stoi(blob.substr(0, space)))});
  }
  agent.SetPeers(std::move(peers));
  return {};
}

}  // namespace

Result<std::string> AdvertisedHost(const config::EngineOptions& options,
                                   const std::vector<sys::NetworkInterface>& interfaces) {
  const std::string& side = options.kv_transfer.side_channel_host;
  if (!side.empty() && side != "0.0.0.0" && side != "::") return side;
  CADRE_ASSIGN(const auto addresses, NodeAddresses(options.parallel, interfaces));
  if (!addresses.empty()) return addresses.front();
  for (const auto& interface : interfaces) {
    if (!interface.loopback && !interface.addresses.empty()) return interface.addresses.front();
  }
  return "127.0.0.1";
}

Result<std::unique_ptr<handoff::Agent>> StartKvAgent(const config::EngineOptions& options,
                                                     const ModelSetup& setup, const KvAgentInput& input) {
  const config::KvTransferOptions& kv = options.kv_transfer;
  CADRE_ASSIGN(const Shared shared, Agree(options, input));
  CADRE_ASSIGN(const auto interfaces, sys::ListInterfaces());
  handoff::AgentOptions agent_options{
      .identity = IdentityOf(options, setup, input.place),
      .engine_id = input.place.dp_size > 1 ? Format("{}_dp{}", shared.engine_id, input.place.dp_rank)
                                           : shared.engine_id,
      .kv_fd = input.pool->fd.get(),
      .kv = input.pool->region.data(),
      .num_blocks = setup.memory.num_kv_blocks,
      .group_key = shared.group_key,
      .max_bytes_per_s = kv.max_bytes_per_s,
      .wake = [waker = input.waker] { waker->Wake(); }};
  const int first_port = (kv.by_request_id() ? kv.port : kv.side_channel_port) + input.place.rank();
  if (first_port > 65535) {
    return FailParam(Code::kInvalidArgument, "--kv-transfer-config",
                     "rank {} would listen for other instances at port {}; choose a lower first port",
                     input.place.rank(), first_port);
  }
  agent_options.port = static_cast<uint16_t>(first_port);
  if (kv.by_request_id()) {
    agent_options.host = kv.ip;
    agent_options.num_ports = 1;  // request ids name this one
  } else {
    CADRE_ASSIGN(agent_options.host, AdvertisedHost(options, interfaces));
  }
  auto agent = handoff::StartAgent(std::move(agent_options));
  if (!agent) {
    return FailParam(agent.error().code, "--kv-transfer-config", "{}; set another first port with {}",
                     agent.error().message,
                     kv.by_request_id() ? "--kv-transfer-config.kv_port" : "VLLM_NIXL_SIDE_CHANNEL_PORT");
  }
  CADRE_TRY(Introduce(input, **agent));
  if (input.place.tp_rank == 0) {
    LogInfo(
        "KV blocks: {} of {}, reached at {}:{}{}", kv.role, (*agent)->engine_id(), (*agent)->host(),
        (*agent)->port(),
        !kv.by_request_id() && (*agent)->port() != first_port ? Format(" ({} is in use)", first_port) : "");
  }
  return agent;
}

engine::KvHandOffOptions HandOffOptionsOf(const config::EngineOptions& options, RankPlace place) {
  const config::KvTransferOptions& kv = options.kv_transfer;
  const auto duration = [](double seconds) {
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
  };
  return {.lease = duration(kv.lease_s),
          .fetch_timeout = duration(kv.lease_s),
          .push_timeout = duration(kv.abort_timeout_s),
          .recompute = kv.load_failure_policy == "recompute",
          .tp_size = place.tp_size,
          .name = Format("rank {}", place.rank())};
}

engine::KvTransferInfo KvTransferInfoOf(const config::EngineOptions& options, RankPlace place,
                                        const handoff::Agent* agent) {
  const config::KvTransferOptions& kv = options.kv_transfer;
  engine::KvSource source;
  if (agent != nullptr) {
    source = {.engine_id = agent->engine_id(),
              .host = agent->host(),
              .port = agent->port(),
              .tp_size = place.tp_size};
  }
  return {.enabled = kv.enabled(),
          .by_request_id = kv.by_request_id(),
          .produces = kv.enabled() && kv.role != "kv_consumer",
          .consumes = kv.enabled() && kv.role != "kv_producer",
          .holds_answers = kv.bidirectional,
          .first_port = kv.port,
          .tp_size = place.tp_size,
          .dp_size = options.parallel.data_parallel_size,
          .source = std::move(source)};
}

}  // namespace cadre::deploy
