#include "deploy/node_group.h"

#include <unistd.h>

#include "base/log.h"
#include "deploy/node_address.h"
#include "deploy/rank_links.h"
#include "fabric/host_link.h"

namespace cadre::deploy {
namespace {

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "host";
}

// An address that cannot be listened at is most often another machine's.
Error ExplainListen(Error error, const config::Launch& launch,
                    const std::vector<sys::NetworkInterface>& interfaces) {
  error.param = launch.address_source;
  error.message =
      Format("the first node meets the others at {}:{} ({}): {}; its own interfaces are {}", launch.address,
             launch.port, launch.address_source, error.message, InterfaceList(interfaces));
  return error;
}

}  // namespace

Result<std::unique_ptr<NodeGroup>> NodeGroup::Join(const config::EngineOptions& options,
                                                   const ModelSetup& setup,
                                                   const std::function<void(const std::string&)>& on_waiting,
                                                   TimePoint deadline) {
  const config::Launch& launch = setup.launch;
  std::unique_ptr<NodeGroup> node(new NodeGroup(setup, options.parallel.tensor_parallel_size));
  CADRE_ASSIGN(const auto interfaces, sys::ListInterfaces());
  group::HostHello hello{.num_ranks_in_all = launch.num_ranks,
                         .links = fabric::LinkKinds(),
                         .config = SharedConfig(options, setup)};
  if (launch.num_local_ranks == 0) {
    // Who only answers has no arithmetic, and does not know what --max-model-len auto comes to.
    std::erase_if(hello.config, [&](const group::ConfigField& field) {
      return field.name == "instruction set" ||
             (field.name == "--max-model-len" && options.model.max_model_len == config::kAutoModelLen);
    });
  }
  hello.config.push_back({"load balancing", Format("{}", static_cast<int>(launch.balancing))});
  CADRE_ASSIGN(auto addresses, NodeAddresses(options.parallel, interfaces));
  const std::string transport =
      options.parallel.fabric_transport == "auto" ? "" : options.parallel.fabric_transport;
  if (!transport.empty()) {
    auto port = fabric::MakePort(transport, {.addresses = {"127.0.0.1"}});  // whether this machine can at all
    if (!port) {
      return FailParam(port.error().code, "--fabric-transport", "--fabric-transport {}: {}", transport,
                       port.error().message);
    }
  }
  hello.entry = {.name = HostName(),
                 .first_rank = launch.first_rank,
                 .num_ranks = launch.num_local_ranks,
                 .addresses = std::move(addresses),
                 .info = {}};
  if (launch.first) {
    if (launch.balancing == config::LoadBalancing::kInternal) {
      CADRE_ASSIGN(node->links_, LinkListener::Create(""));
      hello.entry.info = node->links_->info();
    }
    auto coordinator = group::Coordinator::Start({.address = launch.address,
                                                  .port = static_cast<uint16_t>(launch.port),
                                                  .own = hello,
                                                  .link = transport,
                                                  .connections = options.parallel.fabric_connections});
    if (!coordinator) return std::unexpected(ExplainListen(coordinator.error(), launch, interfaces));
    node->coordinator_ = std::move(*coordinator);
    LogInfo("nodes meet at {}:{} ({})", launch.address, launch.port, launch.address_source);
    if (launch.address_source == "default") {
      LogInfo(
          "the default address is reached from this machine only; for nodes on others start all of them with "
          "--data-parallel-address HOST, one of this machine's: {}",
          InterfaceList(interfaces));
    }
  }
  CADRE_ASSIGN(node->hosts_, group::HostGroup::Join({.address = launch.address,
                                                     .port = static_cast<uint16_t>(launch.port),
                                                     .own = std::move(hello),
                                                     .deadline = deadline,
                                                     .on_waiting = on_waiting}));
  const fabric::HostTable& table = node->hosts_->table();
  if (table.num_hosts() > 1) {
    LogInfo("hosts are linked by {} ({}){}", table.link,
            transport.empty() ? "the best that all have; --fabric-transport sets it" : "--fabric-transport",
            table.link == "tcp"
                ? Format(", {} connection(s) an address (--fabric-connections)", table.connections)
                : "");
  }
  return node;
}

std::vector<int> NodeGroup::EnginesAway() const {
  std::vector<int> ranks;
  if (launch_.balancing != config::LoadBalancing::kInternal) return ranks;
  for (int rank = 0; rank < launch_.num_ranks; rank += tp_size_) {
    const bool here = rank >= launch_.first_rank && rank < launch_.first_rank + launch_.num_local_ranks;
    if (here != launch_.first) ranks.push_back(rank);
  }
  return ranks;
}

std::string NodeGroup::InviteEngines() {
  return links_ ? links_->Renew() : "";
}

Result<std::map<int, sys::Fd>> NodeGroup::AcceptEngines(const std::function<Status()>& check,
                                                        TimePoint deadline) {
  if (!links_) return std::map<int, sys::Fd>();
  return links_->AcceptAll(EnginesAway(), check, deadline);
}

Result<sys::Fd> NodeGroup::ConnectEngine(int rank, TimePoint deadline) {
  const fabric::HostEntry& first = hosts_->first();
  return ConnectLink(first.info, first.addresses, rank, deadline);
}

}  // namespace cadre::deploy
