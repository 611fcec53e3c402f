// The UCX kind of host_link.h: one worker a port, one endpoint a link, active messages.
//
// Small messages are copied once on arrival; large ones are announced, and UCX writes them straight to their
// place (rendezvous), by RDMA where the network has it. Shared-memory transports are left out: with the error
// mode that reports a dead peer UCX cannot use them, and ranks of one host share memory without it.
#include <poll.h>
#include <sys/eventfd.h>
#include <ucp/api/ucp.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "base/format.h"
#include "fabric/host_link.h"
#include "fabric/ucx_library.h"

namespace cadre::fabric {
namespace {

constexpr unsigned kMessageId = 1, kHelloId = 2;
constexpr size_t kMaxEarly = 4096;
constexpr auto kCloseTime = std::chrono::seconds(1);

// What is used of libucp.
struct Ucp {
  decltype(&ucp_config_read) config_read;
  decltype(&ucp_config_modify) config_modify;
  decltype(&ucp_config_release) config_release;
  decltype(&ucp_init_version) init_version;
  decltype(&ucp_cleanup) cleanup;
  decltype(&ucp_worker_create) worker_create;
  decltype(&ucp_worker_destroy) worker_destroy;
  decltype(&ucp_worker_get_address) worker_get_address;
  decltype(&ucp_worker_release_address) worker_release_address;
  decltype(&ucp_worker_get_efd) worker_get_efd;
  decltype(&ucp_worker_arm) worker_arm;
  decltype(&ucp_worker_progress) worker_progress;
  decltype(&ucp_worker_set_am_recv_handler) worker_set_am_recv_handler;
  decltype(&ucp_ep_create) ep_create;
  decltype(&ucp_ep_close_nbx) ep_close_nbx;
  decltype(&ucp_ep_flush_nbx) ep_flush_nbx;
  decltype(&ucp_am_send_nbx) am_send_nbx;
  decltype(&ucp_am_recv_data_nbx) am_recv_data_nbx;
  decltype(&ucp_request_check_status) request_check_status;
  decltype(&ucp_request_free) request_free;
  decltype(&ucs_status_string) status_string;
};

Result<Ucp> Load() {
  CADRE_ASSIGN(auto library, UcxLibrary::Open("hosts cannot be linked by UCX"));
  Ucp ucp;
  library.Get(ucp.config_read, "ucp_config_read");
  library.Get(ucp.config_modify, "ucp_config_modify");
  library.Get(ucp.config_release, "ucp_config_release");
  library.Get(ucp.init_version, "ucp_init_version");
  library.Get(ucp.cleanup, "ucp_cleanup");
  library.Get(ucp.worker_create, "ucp_worker_create");
  library.Get(ucp.worker_destroy, "ucp_worker_destroy");
  library.Get(ucp.worker_get_address, "ucp_worker_get_address");
  library.Get(ucp.worker_release_address, "ucp_worker_release_address");
  library.Get(ucp.worker_get_efd, "ucp_worker_get_efd");
  library.Get(ucp.worker_arm, "ucp_worker_arm");
  library.Get(ucp.worker_progress, "ucp_worker_progress");
  library.Get(ucp.worker_set_am_recv_handler, "ucp_worker_set_am_recv_handler");
  library.Get(ucp.ep_create, "ucp_ep_create");
  library.Get(ucp.ep_close_nbx, "ucp_ep_close_nbx");
  library.Get(ucp.ep_flush_nbx, "ucp_ep_flush_nbx");
  library.Get(ucp.am_send_nbx, "ucp_am_send_nbx");
  library.Get(ucp.am_recv_data_nbx, "ucp_am_recv_data_nbx");
  library.Get(ucp.request_check_status, "ucp_request_check_status");
  library.Get(ucp.request_free, "ucp_request_free");
  library.Get(ucp.status_string, "ucs_status_string");
  CADRE_TRY(library.Complete());
  return ucp;
}

struct WireHead {
  uint64_t key = 0;
  MessageHead message;
};

class UcxPort;

class UcxLink final : public HostLink {
 public:
  UcxLink(UcxPort* port, const LinkRequest& request);
  ~UcxLink() override;

  void Send(const MessageHead& head, std::span<const Piece> pieces) override;
  bool sent() const override { return !status_ || outstanding_.empty(); }
  const Status& status() const override { return status_; }

 private:
  friend class UcxPort;

  // Lives until UCX is done with it.
  struct Outgoing {
    UcxPort* port;
    UcxLink* link;  // null when that is gone
    WireHead head;
    std::vector<ucp_dt_iov_t> parts;
  };
  struct Incoming {
    uint64_t key;
    UcxPort* port;
    MessageHead head;
  };

  Status Open();
  void Hello();
  void Break(std::string reason);
  ucs_status_t Arrive(const WireHead& head, void* data, size_t bytes, bool rendezvous);

  UcxPort* port_;
  uint64_t key_;
  std::string peer_address_, peer_name_;
  LinkSink* sink_;
  Status status_;
  ucp_ep_h endpoint_ = nullptr;
  std::set<Outgoing*> outstanding_;
};

class UcxPort final : public HostPort {
 public:
  static Result<std::shared_ptr<HostPort>> Make(const PortOptions& options) {
    CADRE_ASSIGN(const Ucp ucp, Load());
    std::shared_ptr<UcxPort> port(new UcxPort(ucp, options.waker));
    CADRE_TRY(port->Start(options));
    return std::shared_ptr<HostPort>(std::move(port));
  }

  ~UcxPort() override {
    if (worker_ != nullptr) ucp_.worker_destroy(worker_);
    if (context_ != nullptr) ucp_.cleanup(context_);
  }

  std::string address() const override { return address_; }
  std::string Describe() const override { return "UCX active messages over " + devices_; }

  Result<std::vector<std::unique_ptr<HostLink>>> Connect(std::span<const LinkRequest> requests,
                                                         const Control& control,
                                                         TimePoint deadline) override {
    std::vector<std::unique_ptr<HostLink>> links;
    for (const LinkRequest& request : requests) {
      auto link = std::make_unique<UcxLink>(this, request);
      CADRE_TRY(link->Open());
      link->Hello();
      links.push_back(std::move(link));
    }
    while (true) {
      while (Progress()) {
      }
      std::string missing;
      for (size_t i = 0; i < requests.size(); ++i) {
        if (hellos_.contains(requests[i].key)) continue;
        if (!links[i]->status()) {
          return Fail(Code::kUnavailable, "cannot reach {}: {}", requests[i].peer_name,
                      links[i]->status().error().message);
        }
        missing += (missing.empty() ? "" : ", ") + requests[i].peer_name;
      }
      if (missing.empty()) break;
      CADRE_TRY(control.Check());
      if (Now() >= deadline) return Fail(Code::kDeadlineExceeded, "no connection came from {}", missing);
      Sleep(std::min(deadline, Now() + std::chrono::milliseconds(10)));
    }
    for (const LinkRequest& request : requests) hellos_.erase(request.key);
    return links;
  }

  bool Progress() override { return ucp_.worker_progress(worker_) != 0; }

  void Sleep(TimePoint until) override {
    if (ucp_.worker_arm(worker_) == UCS_OK) {
      std::array<pollfd, 2> entries = {{{event_, POLLIN, 0}, {waker_, POLLIN, 0}}};
      const auto left = until == TimePoint::max()
                            ? 60'000
                            : std::chrono::ceil<std::chrono::milliseconds>(until - Now()).count();
      poll(entries.data(), waker_ >= 0 ? 2 : 1, static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
    }
    eventfd_t rung;
    if (waker_ >= 0) eventfd_read(waker_, &rung);
  }

 private:
  friend class UcxLink;

  UcxPort(const Ucp& ucp, int waker) : ucp_(ucp), waker_(waker) {}

  std::unexpected<Error> FailUcs(const char* what, ucs_status_t status) const {
    return Fail(Code::kUnavailable, "UCX cannot {}: {}", what, ucp_.status_string(status));
  }

  Status Start(const PortOptions& options);
  Status Handle(unsigned id, ucp_am_recv_callback_t handler);

  static ucs_status_t OnHello(void* self, const void* header, size_t bytes, void*, size_t,
                              const ucp_am_recv_param_t*) {
    auto* port = static_cast<UcxPort*>(self);
    uint64_t key = 0;
    if (bytes == sizeof(key)) std::memcpy(&key, header, sizeof(key));
    if (port->hellos_.size() < kMaxEarly) port->hellos_.insert(key);
    return UCS_OK;
  }
  static ucs_status_t OnMessage(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                const ucp_am_recv_param_t* param) {
    auto* port = static_cast<UcxPort*>(self);
    WireHead head;
    if (header_bytes != sizeof(head)) return UCS_OK;
    std::memcpy(&head, header, sizeof(head));
    const auto at = port->links_.find(head.key);
    if (at == port->links_.end()) return UCS_OK;  // of a link that is gone
    return at->second->Arrive(head, data, bytes, (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0);
  }

  // Runs the worker until `request` is done.
  void Finish(ucs_status_ptr_t request, TimePoint deadline) {
    if (request == nullptr || UCS_PTR_IS_ERR(request)) return;
    while (ucp_.request_check_status(request) == UCS_INPROGRESS && Now() < deadline) {
      if (!Progress()) Sleep(Now() + std::chrono::milliseconds(5));
    }
    ucp_.request_free(request);
  }

  Ucp ucp_;
  int waker_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int event_ = -1;
  std::string address_, devices_ = "all networks";
  std::map<uint64_t, UcxLink*> links_;  // by key
  std::set<uint64_t> hellos_;           // keys whose other end is there
};

Status UcxPort::Handle(unsigned id, ucp_am_recv_callback_t handler) {
  ucp_am_handler_param_t param = {};
  param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                     UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  param.id = id;
  param.flags = UCP_AM_FLAG_WHOLE_MSG;
  param.cb = handler;
  param.arg = this;
  const ucs_status_t status = ucp_.worker_set_am_recv_handler(worker_, &param);
  if (status != UCS_OK) return FailUcs("receive messages", status);
  return {};
}

Status UcxPort::Start(const PortOptions& options) {
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_.config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) return FailUcs("read its settings", status);
  ucp_.config_modify(config, "TLS", "^sm,self");
  ucp_.config_modify(config, "KEEPALIVE_INTERVAL", "1s");
  // Over RDMA the devices have other names than the interfaces; there UCX chooses.
  if (const std::string devices = NetworkDevicesOf(options.addresses); !HasRdma() && !devices.empty()) {
    ucp_.config_modify(config, "NET_DEVICES", devices.c_str());
    devices_ = devices;
  }
  ucp_params_t params = {};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  status = ucp_.init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &context_);
  ucp_.config_release(config);
  if (status != UCS_OK) return FailUcs("start", status);
  ucp_worker_params_t worker = {};
  worker.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker.thread_mode =
      UCS_THREAD_MODE_SERIALIZED;  // one thread at a time: the one that starts a rank hands over
  if (status = ucp_.worker_create(context_, &worker, &worker_); status != UCS_OK) {
    return FailUcs("make a worker", status);
  }
  if (status = ucp_.worker_get_efd(worker_, &event_); status != UCS_OK) return FailUcs("sleep", status);
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  if (status = ucp_.worker_get_address(worker_, &address, &bytes); status != UCS_OK) {
    return FailUcs("tell its address", status);
  }
  address_.assign(reinterpret_cast<const char*>(address), bytes);
  ucp_.worker_release_address(worker_, address);
  CADRE_TRY(Handle(kMessageId, OnMessage));
  return Handle(kHelloId, OnHello);
}

UcxLink::UcxLink(UcxPort* port, const LinkRequest& request)
    : port_(port),
      key_(request.key),
      peer_address_(request.peer_address),
      peer_name_(request.peer_name),
      sink_(request.sink) {
  port_->links_[key_] = this;
}

Status UcxLink::Open() {
  ucp_ep_params_t params = {};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(peer_address_.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = [](void* self, ucp_ep_h, ucs_status_t status) {
    auto* link = static_cast<UcxLink*>(self);
    link->Break(link->port_->ucp_.status_string(status));
  };
  params.err_handler.arg = this;
  const ucs_status_t status = port_->ucp_.ep_create(port_->worker_, &params, &endpoint_);
  if (status == UCS_OK) return {};
  return Fail(Code::kUnavailable, "cannot reach {} over UCX: {}", peer_name_,
              port_->ucp_.status_string(status));
}

UcxLink::~UcxLink() {
  const Ucp& ucp = port_->ucp_;
  if (endpoint_ != nullptr) {
    const TimePoint deadline = Now() + kCloseTime;
    ucp_request_param_t param = {};
    if (status_) port_->Finish(ucp.ep_flush_nbx(endpoint_, &param), deadline);
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_EP_CLOSE_FLAG_FORCE;
    port_->Finish(ucp.ep_close_nbx(endpoint_, &param), deadline + kCloseTime);
  }
  while (!outstanding_.empty() && port_->Progress()) {
  }
  for (Outgoing* out : outstanding_) out->link = nullptr;
  port_->links_.erase(key_);
}

void UcxLink::Break(std::string reason) {
  if (status_) status_ = Fail(Code::kUnavailable, "{}", reason);
}

void UcxLink::Hello() {
  ucp_request_param_t param = {};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
  const ucs_status_ptr_t request =
      port_->ucp_.am_send_nbx(endpoint_, kHelloId, &key_, sizeof(key_), nullptr, 0, &param);
  if (UCS_PTR_IS_ERR(request)) return Break(port_->ucp_.status_string(UCS_PTR_STATUS(request)));
  if (request != nullptr) port_->ucp_.request_free(request);  // completes on its own
}

void UcxLink::Send(const MessageHead& head, std::span<const Piece> pieces) {
  if (!status_) return;
  auto* out = new Outgoing{port_, this, {key_, head}, {}};
  for (const Piece& piece : pieces) {
    if (piece.bytes > 0) out->parts.push_back({const_cast<std::byte*>(piece.data), piece.bytes});
  }
  ucp_request_param_t param = {};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_DATATYPE;
  param.user_data = out;
  param.cb.send = [](void* request, ucs_status_t status, void* user_data) {
    const std::unique_ptr<Outgoing> done(static_cast<Outgoing*>(user_data));
    if (done->link != nullptr) {
      done->link->outstanding_.erase(done.get());
      if (status != UCS_OK) done->link->Break(done->port->ucp_.status_string(status));
    }
    done->port->ucp_.request_free(request);
  };
  const void* buffer = out->parts.data();
  size_t count = out->parts.size();
  param.datatype = ucp_dt_make_iov();
  if (count <= 1) {  // in one piece UCX takes it from where it lies
    param.datatype = ucp_dt_make_contig(1);
    buffer = count == 0 ? nullptr : out->parts[0].buffer;
    count = head.bytes;
  }
  outstanding_.insert(out);
  const ucs_status_ptr_t request =
      port_->ucp_.am_send_nbx(endpoint_, kMessageId, &out->head, sizeof(out->head), buffer, count, &param);
  if (request != nullptr && !UCS_PTR_IS_ERR(request)) return;
  outstanding_.erase(out);
  delete out;
  if (request != nullptr) Break(port_->ucp_.status_string(UCS_PTR_STATUS(request)));
}

ucs_status_t UcxLink::Arrive(const WireHead& head, void* data, size_t bytes, bool rendezvous) {
  if (!status_) return UCS_OK;
  if (bytes != head.message.bytes) {
    Break("the peer sent what is no message");
    return UCS_OK;
  }
  const auto place = sink_->Place(head.message);
  if (!place) {
    Break(place.error().message);
    return UCS_OK;
  }
  if (!rendezvous) {
    if (bytes > 0) std::memcpy(*place, data, bytes);
    sink_->Arrived(head.message);
    return UCS_OK;
  }
  auto* in = new Incoming{key_, port_, head.message};
  ucp_request_param_t param = {};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  param.user_data = in;
  param.cb.recv_am = [](void* request, ucs_status_t status, size_t, void* user_data) {
    const std::unique_ptr<Incoming> done(static_cast<Incoming*>(user_data));
    const auto at = done->port->links_.find(done->key);
    if (at != done->port->links_.end()) {
      if (status == UCS_OK) {
        at->second->sink_->Arrived(done->head);
      } else {
        at->second->Break(done->port->ucp_.status_string(status));
      }
    }
    done->port->ucp_.request_free(request);
  };
  const ucs_status_ptr_t request = port_->ucp_.am_recv_data_nbx(port_->worker_, data, *place, bytes, &param);
  if (UCS_PTR_IS_ERR(request)) {
    delete in;
    Break(port_->ucp_.status_string(UCS_PTR_STATUS(request)));
  }
  return UCS_OK;
}

}  // namespace

Result<std::shared_ptr<HostPort>> MakeUcxPort(const PortOptions& options) {
  return UcxPort::Make(options);
}

}  // namespace cadre::fabric
