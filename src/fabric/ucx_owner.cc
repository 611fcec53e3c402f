// The owner of remote_memory.h: one worker, and a thread that moves it.
//
// Answers are sent from copies, a piece at a time: so memory can be unmapped at any moment, however slow a
// reader is. Bytes: up to kMaxAnswers x kMaxAsked where that many readers ask at once; one for each in
// general.
#include <poll.h>
#include <sys/eventfd.h>
#include <ucp/api/ucp.h>

#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/random.h"
#include "fabric/ucx_context.h"
#include "sys/fd.h"

namespace cadre::fabric {
namespace {

constexpr int kMaxProgress = 256;  // calls before the thread lets others have their turn
constexpr int kMaxSleepMs = 1000;
constexpr size_t kMaxAnswers = 256;  // on their way at once; who asks beyond that is told no

struct Ucp {
  decltype(&ucp_worker_destroy) worker_destroy;
  decltype(&ucp_listener_create) listener_create;
  decltype(&ucp_listener_query) listener_query;
  decltype(&ucp_listener_destroy) listener_destroy;
  decltype(&ucp_listener_reject) listener_reject;
  decltype(&ucp_ep_create) ep_create;
  decltype(&ucp_ep_close_nbx) ep_close_nbx;
  decltype(&ucp_worker_get_efd) worker_get_efd;
  decltype(&ucp_worker_arm) worker_arm;
  decltype(&ucp_worker_progress) worker_progress;
  decltype(&ucp_worker_set_am_recv_handler) worker_set_am_recv_handler;
  decltype(&ucp_am_send_nbx) am_send_nbx;
  decltype(&ucp_request_free) request_free;
  decltype(&ucp_rkey_pack) rkey_pack;
  decltype(&ucp_rkey_buffer_release) rkey_buffer_release;
  decltype(&ucp_mem_map) mem_map;
  decltype(&ucp_mem_unmap) mem_unmap;
};

Result<Ucp> Load(UcxLibrary& library) {
  Ucp ucp;
  library.Get(ucp.worker_destroy, "ucp_worker_destroy");
  library.Get(ucp.listener_create, "ucp_listener_create");
  library.Get(ucp.listener_query, "ucp_listener_query");
  library.Get(ucp.listener_destroy, "ucp_listener_destroy");
  library.Get(ucp.listener_reject, "ucp_listener_reject");
  library.Get(ucp.ep_create, "ucp_ep_create");
  library.Get(ucp.ep_close_nbx, "ucp_ep_close_nbx");
  library.Get(ucp.worker_get_efd, "ucp_worker_get_efd");
  library.Get(ucp.worker_arm, "ucp_worker_arm");
  library.Get(ucp.worker_progress, "ucp_worker_progress");
  library.Get(ucp.worker_set_am_recv_handler, "ucp_worker_set_am_recv_handler");
  library.Get(ucp.am_send_nbx, "ucp_am_send_nbx");
  library.Get(ucp.request_free, "ucp_request_free");
  library.Get(ucp.rkey_pack, "ucp_rkey_pack");
  library.Get(ucp.rkey_buffer_release, "ucp_rkey_buffer_release");
  library.Get(ucp.mem_map, "ucp_mem_map");
  library.Get(ucp.mem_unmap, "ucp_mem_unmap");
  CADRE_TRY(library.Complete());
  return ucp;
}

// The worker's turn and what is mapped; lives as long as anything that is.
struct Owned {
  std::shared_ptr<UcxContext> context;
  Ucp ucp;
  std::mutex mutex;              // around all use of UCX
  std::atomic<int> waiting = 0;  // for the mutex: the owner's thread would take it again at once
  std::map<uint64_t, std::span<const std::byte>> regions;
  uint64_t next_number = EntropySeed() >> 1;

  template <typename Work>
  auto Alone(Work work) {
    waiting.fetch_add(1);
    const std::lock_guard lock(mutex);
    waiting.fetch_sub(1);
    return work();
  }
};

class Mapped final : public MappedMemory {
 public:
  Mapped(std::shared_ptr<Owned> owned, uint64_t number) : owned_(std::move(owned)), number_(number) {}
  ~Mapped() override {
    owned_->Alone([this] {
      owned_->regions.erase(number_);
      if (memory_ != nullptr) owned_->ucp.mem_unmap(owned_->context->handle(), memory_);
    });
  }
  const MemoryRegion& region() const override { return region_; }

  // Pins the memory and adds UCX's key. In its turn.
  Status MakeDirect(const void* data, size_t bytes) {
    const Ucp& ucp = owned_->ucp;
    ucp_mem_map_params_t params = {};
    params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
    params.address = const_cast<void*>(data);
    params.length = bytes;
    ucs_status_t status = ucp.mem_map(owned_->context->handle(), &params, &memory_);
    if (status != UCS_OK) {
      memory_ = nullptr;
      return Fail(Code::kResourceExhausted,
                  "{} of {} bytes of memory; RDMA needs a limit of locked memory (ulimit -l) that holds them",
                  owned_->context->Failed("keep hold", status).error().message, bytes);
    }
    void* key = nullptr;
    size_t key_bytes = 0;
    status = ucp.rkey_pack(owned_->context->handle(), memory_, &key, &key_bytes);
    if (status != UCS_OK) return owned_->context->Failed("make a key of memory", status);
    region_.key.append(static_cast<char*>(key), key_bytes);
    ucp.rkey_buffer_release(key);
    return {};
  }
  void Name(const void* data, size_t bytes) {
    region_ = {reinterpret_cast<uint64_t>(data), bytes, std::string(kRegionNumberBytes, '\0')};
    std::memcpy(region_.key.data(), &number_, kRegionNumberBytes);
  }

 private:
  std::shared_ptr<Owned> owned_;
  uint64_t number_;
  ucp_mem_h memory_ = nullptr;
  MemoryRegion region_;
};

class UcxOwner final : public MemoryOwner {
 public:
  UcxOwner(std::shared_ptr<UcxContext> context, const Ucp& ucp, std::string host)
      : owned_(std::make_shared<Owned>()), ucp_(ucp), host_(std::move(host)) {
    owned_->context = std::move(context);
    owned_->ucp = ucp;
  }

  Status Start() {
    const UcxContext& context = *owned_->context;
    CADRE_ASSIGN(worker_, context.MakeWorker());
    if (const auto status = ucp_.worker_get_efd(worker_, &event_); status != UCS_OK)
      return context.Failed("sleep", status);
    ucp_am_handler_param_t asked = {};
    asked.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
    asked.id = kAskMessage;
    asked.flags = UCP_AM_FLAG_WHOLE_MSG;
    asked.cb = OnAsk;
    asked.arg = this;
    if (const auto status = ucp_.worker_set_am_recv_handler(worker_, &asked); status != UCS_OK)
      return context.Failed("receive messages", status);
    CADRE_TRY(Listen());
    waker_ = sys::Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!waker_) return Fail(Code::kResourceExhausted, "no event descriptor: too many open files");
    thread_ = std::thread([this] { Serve(); });
    return {};
  }

  ~UcxOwner() override {
    stop_ = true;
    if (waker_) eventfd_write(waker_.get(), 1);
    if (thread_.joinable()) thread_.join();
    if (worker_ == nullptr) return;
    owned_->Alone([this] {
      for (const ucp_conn_request_h caller : callers_) ucp_.listener_reject(listener_, caller);
      if (listener_ != nullptr) ucp_.listener_destroy(listener_);
      for (const ucp_ep_h reader : readers_) Close(reader);
      ucp_.worker_destroy(worker_);
    });
  }

  const std::string& port() const override { return port_; }

  Result<std::unique_ptr<MappedMemory>> Map(const void* data, size_t bytes) override {
    if (bytes == 0) return Fail(Code::kInvalidArgument, "there is no memory of 0 bytes to map");
    std::unique_ptr<Mapped> mapped;
    const Status done = owned_->Alone([&]() -> Status {
      const uint64_t number = owned_->next_number++;
      mapped = std::make_unique<Mapped>(owned_, number);
      mapped->Name(data, bytes);
      if (owned_->context->direct()) CADRE_TRY(mapped->MakeDirect(data, bytes));
      owned_->regions.emplace(number, std::span(static_cast<const std::byte*>(data), bytes));
      return {};
    });
    CADRE_TRY(done);
    return mapped;
  }

 private:
  // An answer on its way, or a spare one.
  struct Outgoing {
    UcxOwner* owner = nullptr;
    Answer head;
    std::vector<std::byte> bytes;
  };

  Status Listen() {
    const UcxContext& context = *owned_->context;
    CADRE_ASSIGN(SocketAddress at, SocketAddressOf(host_, "0"));
    ucp_listener_params_t params = {};
    params.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
    params.sockaddr = {at.get(), at.bytes};
    params.conn_handler.cb = [](ucp_conn_request_h request, void* self) {
      static_cast<UcxOwner*>(self)->callers_.push_back(request);
    };
    params.conn_handler.arg = this;
    if (const auto status = ucp_.listener_create(worker_, &params, &listener_); status != UCS_OK)
      return context.Failed("listen", status);
    ucp_listener_attr_t attributes = {};
    attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
    if (const auto status = ucp_.listener_query(listener_, &attributes); status != UCS_OK)
      return context.Failed("tell its port", status);
    port_ = Format("{}", PortOf(attributes.sockaddr));
    return {};
  }

  // Lets in who has called, and closes the connections of those who have gone. In the thread, in its turn.
  // Whether there were any.
  bool LetInAndOut() {
    if (callers_.empty() && gone_.empty()) return false;
    for (const ucp_conn_request_h caller : std::exchange(callers_, {})) {
      ucp_ep_params_t params = {};
      params.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                          UCP_EP_PARAM_FIELD_ERR_HANDLER;
      params.conn_request = caller;
      params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
      params.err_handler.cb = [](void* self, ucp_ep_h reader, ucs_status_t) {
        static_cast<UcxOwner*>(self)->gone_.push_back(reader);
      };
      params.err_handler.arg = this;
      ucp_ep_h reader = nullptr;
      if (ucp_.ep_create(worker_, &params, &reader) == UCS_OK) readers_.insert(reader);
    }
    for (const ucp_ep_h reader : std::exchange(gone_, {})) {
      if (readers_.erase(reader) > 0) Close(reader);
    }
    return true;
  }

  void Close(ucp_ep_h reader) {
    ucp_request_param_t params = {};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    params.flags = UCP_EP_CLOSE_FLAG_FORCE;
    const ucs_status_ptr_t request = ucp_.ep_close_nbx(reader, &params);
    if (request != nullptr && !UCS_PTR_IS_ERR(request)) ucp_.request_free(request);  // completes on its own
  }

  static ucs_status_t OnAsk(void* self, const void* header, size_t header_bytes, void*, size_t,
                            const ucp_am_recv_param_t* param) {
    Ask ask;
    if (header_bytes != sizeof(ask) || (param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) == 0)
      return UCS_OK;
    std::memcpy(&ask, header, sizeof(ask));
    static_cast<UcxOwner*>(self)->Reply(ask, param->reply_ep);
    return UCS_OK;
  }

  // In the thread, in its turn.
  void Reply(const Ask& ask, ucp_ep_h to) {
    if (spare_.empty() && answers_.size() < kMaxAnswers) {
      spare_.push_back(answers_.emplace_back(std::make_unique<Outgoing>()).get());
    }
    if (spare_.empty()) return;  // far more readers than any deployment has; this one meets its deadline
    Outgoing* const out = spare_.back();
    spare_.pop_back();
    out->owner = this;
    const auto region = owned_->regions.find(ask.region);
    const bool fits = region != owned_->regions.end() && ask.bytes <= kMaxAsked &&
                      ask.offset <= region->second.size() && ask.bytes <= region->second.size() - ask.offset;
    out->head = {.number = ask.number, .bytes = fits ? ask.bytes : 0};
    if (out->bytes.size() < out->head.bytes) out->bytes.resize(out->head.bytes);
    if (fits) std::memcpy(out->bytes.data(), region->second.data() + ask.offset, ask.bytes);
    ucp_request_param_t params = {};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    params.user_data = out;
    params.cb.send = [](void* request, ucs_status_t, void* data) {
      auto* const done = static_cast<Outgoing*>(data);
      done->owner->spare_.push_back(done);
      done->owner->ucp_.request_free(request);
    };
    const ucs_status_ptr_t request = ucp_.am_send_nbx(to, kAnswerMessage, &out->head, sizeof(out->head),
                                                      out->bytes.data(), out->head.bytes, &params);
    // Sent at once, or nobody is there any more.
    if (request == nullptr || UCS_PTR_IS_ERR(request)) spare_.push_back(out);
  }

  void Serve() {
    std::array<pollfd, 2> entries = {{{event_, POLLIN, 0}, {waker_.get(), POLLIN, 0}}};
    while (!stop_) {
      while (owned_->waiting > 0 && !stop_) std::this_thread::yield();
      bool idle = false;
      {
        const std::lock_guard lock(owned_->mutex);
        for (int i = 0; i < kMaxProgress && !idle; ++i) idle = ucp_.worker_progress(worker_) == 0;
        idle = !LetInAndOut() && idle && ucp_.worker_arm(worker_) == UCS_OK;
      }
      if (idle) poll(entries.data(), entries.size(), kMaxSleepMs);
    }
  }

  std::shared_ptr<Owned> owned_;
  Ucp ucp_;
  std::string host_;
  ucp_worker_h worker_ = nullptr;
  ucp_listener_h listener_ = nullptr;
  std::vector<ucp_conn_request_h> callers_;
  std::set<ucp_ep_h> readers_;
  std::vector<ucp_ep_h> gone_;  // of them
  int event_ = -1;
  sys::Fd waker_;
  std::string port_;
  std::vector<std::unique_ptr<Outgoing>> answers_;  // all
  std::vector<Outgoing*> spare_;                    // of them
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<MemoryOwner>> MemoryOwner::Create(const RemoteMemoryOptions& options) {
  CADRE_ASSIGN(auto context, UcxContext::Make(options, MemoryRole::kOwner));
  CADRE_ASSIGN(const Ucp ucp, Load(context->library()));
  auto owner = std::make_unique<UcxOwner>(std::move(context), ucp,
                                          options.addresses.empty() ? "0.0.0.0" : options.addresses.front());
  CADRE_TRY(owner->Start());
  return owner;
}

}  // namespace cadre::fabric
