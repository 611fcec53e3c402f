#include "fabric/ucx_context.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <ucp/api/ucp.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "fabric/host_link.h"

namespace cadre::fabric {
namespace {

struct Ucp {
  decltype(&ucp_config_read) config_read;
  decltype(&ucp_config_modify) config_modify;
  decltype(&ucp_config_print) config_print;
  decltype(&ucp_config_release) config_release;
  decltype(&ucp_init_version) init_version;
  decltype(&ucp_context_query) context_query;
};

// Lines NAME=value: what the environment and UCX's own files say.
std::string Print(const Ucp& ucp, const ucp_config_t* config) {
  char* text = nullptr;
  size_t bytes = 0;
  std::FILE* const file = open_memstream(&text, &bytes);
  if (file == nullptr) return "";
  ucp.config_print(config, file, "", UCS_CONFIG_PRINT_CONFIG);
  std::fclose(file);
  std::string lines = "\n";
  lines.append(text, bytes);
  std::free(text);
  return lines;
}

// What Cadre chooses, where the user has not.
void Choose(const Ucp& ucp, ucp_config_t* config, const RemoteMemoryOptions& options) {
  const std::string settings = Print(ucp, config);
  const auto is = [&](const char* line) { return settings.find(line) != std::string::npos; };
  if (is("\nUCX_TLS=all\n")) ucp.config_modify(config, "TLS", "^sm,self");
  // Over RDMA the devices have other names than the interfaces; there UCX chooses.
  if (const std::string devices = NetworkDevicesOf(options.addresses);
      is("\nUCX_NET_DEVICES=all\n") && !HasRdma() && !devices.empty()) {
    ucp.config_modify(config, "NET_DEVICES", devices.c_str());
  }
  ucp.config_modify(config, "KEEPALIVE_INTERVAL", "1s");
}

// Of this process.
std::mutex roles_mutex;
int num_contexts[2] = {0, 0};  // by MemoryRole

}  // namespace

Result<SocketAddress> SocketAddressOf(const std::string& host, const std::string& port) {
  SocketAddress address;
  auto* const v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* const v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  uint16_t number = 0;
  const auto [end, wrong] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (wrong != std::errc() || end != port.data() + port.size())
    return Fail(Code::kInvalidArgument, "'{}' is no port", Excerpt(port));
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(number);
    address.bytes = sizeof(*v4);
  } else if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(number);
    address.bytes = sizeof(*v6);
  } else {
    return Fail(Code::kInvalidArgument, "'{}' is no numeric address", Excerpt(host));
  }
  return address;
}

int PortOf(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

Result<std::shared_ptr<UcxContext>> UcxContext::Make(const RemoteMemoryOptions& options, MemoryRole role) {
  CADRE_ASSIGN(auto library, UcxLibrary::Open("memory cannot be read over UCX"));
  std::shared_ptr<UcxContext> context;
  {
    const std::lock_guard lock(roles_mutex);
    if (num_contexts[role == MemoryRole::kOwner ? 1 : 0] > 0)
      return Fail(Code::kUnsupported,
                  "one process cannot offer memory over UCX and read some too, and this one {} already; "
                  "use sockets, or two processes",
                  role == MemoryRole::kOwner ? "reads" : "offers");
    context.reset(new UcxContext(std::move(library), role));
    ++num_contexts[static_cast<int>(role)];
  }
  CADRE_TRY(context->Start(options));
  return context;
}

Status UcxContext::Start(const RemoteMemoryOptions& options) {
  Ucp ucp;
  library_.Get(ucp.config_read, "ucp_config_read");
  library_.Get(ucp.config_modify, "ucp_config_modify");
  library_.Get(ucp.config_print, "ucp_config_print");
  library_.Get(ucp.config_release, "ucp_config_release");
  library_.Get(ucp.init_version, "ucp_init_version");
  library_.Get(ucp.context_query, "ucp_context_query");
  CADRE_TRY(library_.Complete());
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp.config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) return Failed("read its settings", status);
  Choose(ucp, config, options);
  direct_ = options.direct.value_or(HasRdma());
  ucp_params_t params = {};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  if (direct_) params.features |= UCP_FEATURE_RMA;  // who has it not, serves no ucp_get
  params.mt_workers_shared = 1;
  status = ucp.init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &handle_);
  ucp.config_release(config);
  if (status != UCS_OK) return Failed("start", status);
  ucp_context_attr_t attributes = {};
  attributes.field_mask = UCP_ATTR_FIELD_THREAD_MODE;
  status = ucp.context_query(handle_, &attributes);
  many_threads_ = status == UCS_OK && attributes.thread_mode == UCS_THREAD_MODE_MULTI;
  return {};
}

UcxContext::~UcxContext() {
  decltype(&ucp_cleanup) cleanup = nullptr;
  library_.Get(cleanup, "ucp_cleanup");
  if (handle_ != nullptr && cleanup != nullptr) cleanup(handle_);
  const std::lock_guard lock(roles_mutex);
  --num_contexts[static_cast<int>(role_)];
}

Result<ucp_worker*> UcxContext::MakeWorker() const {
  decltype(&ucp_worker_create) create = nullptr;
  UcxLibrary library = library_;
  CADRE_TRY(library.Get(create, "ucp_worker_create").Complete());
  ucp_worker_params_t params = {};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  ucp_worker_h worker = nullptr;
  if (const auto status = create(handle_, &params, &worker); status != UCS_OK)
    return Failed("make a worker", status);
  return worker;
}

std::unexpected<Error> UcxContext::Failed(const char* what, int status) const {
  decltype(&ucs_status_string) words = nullptr;
  UcxLibrary library = library_;
  library.Get(words, "ucs_status_string");
  return Fail(Code::kUnavailable, "UCX cannot {}: {}", what,
              words == nullptr ? "?" : words(static_cast<ucs_status_t>(status)));
}

}  // namespace cadre::fabric
