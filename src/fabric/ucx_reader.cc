// The reader of remote_memory.h: one worker and one endpoint for each lane, moved by whoever reads over it.
//
// Endpoints report a dead peer (UCP_ERR_HANDLING_MODE_PEER): in the other mode UCX ends the process. A read
// that is given up leaves UCX free to write into the caller's memory, so its lane's endpoint and worker are
// destroyed before the read returns; the next Attach brings new ones. Between two owners a lane has neither:
// UCX wants its worker moved as long as somebody is connected to it.
//
// An endpoint that is still meeting its peer is given time for that before it is closed: a connection that
// goes while it is being made may leave the owner's end half wired, which ends the owner's process (UCX 1.13,
// tcp_ep.c:478). And one lane at a time opens or closes one, for their descriptors' sake (remote_memory.h).
#include <poll.h>
#include <ucp/api/ucp.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "fabric/ucx_context.h"

namespace cadre::fabric {
namespace {

using namespace std::chrono_literals;

// UCX is told no lengths of addresses and keys. What it may take for the parts of a wild key ends within
// this: at most 64 of at most 256 bytes.
constexpr size_t kPadding = 32 << 10;
constexpr int kSpins = 200;         // about 50 us: an answer's way
constexpr auto kLookAround = 5ms;   // between looks at the deadline
constexpr int kSleepMs = 1;         // at once: UCX makes connections in a thread that does not signal
constexpr auto kCloseTime = 200ms;  // for an endpoint whose peer may be gone
constexpr auto kMeetTime = 1s;      // for one that is closed before it has met its peer

struct Ucp {
  decltype(&ucp_worker_destroy) worker_destroy;
  decltype(&ucp_worker_get_efd) worker_get_efd;
  decltype(&ucp_worker_arm) worker_arm;
  decltype(&ucp_worker_progress) worker_progress;
  decltype(&ucp_worker_set_am_recv_handler) worker_set_am_recv_handler;
  decltype(&ucp_ep_create) ep_create;
  decltype(&ucp_ep_close_nbx) ep_close_nbx;
  decltype(&ucp_ep_rkey_unpack) ep_rkey_unpack;
  decltype(&ucp_rkey_destroy) rkey_destroy;
  decltype(&ucp_get_nbx) get_nbx;
  decltype(&ucp_am_send_nbx) am_send_nbx;
  decltype(&ucp_am_recv_data_nbx) am_recv_data_nbx;
  decltype(&ucp_request_check_status) request_check_status;
  decltype(&ucp_request_free) request_free;
};

Result<Ucp> Load(UcxLibrary& library) {
  Ucp ucp;
  library.Get(ucp.worker_destroy, "ucp_worker_destroy");
  library.Get(ucp.worker_get_efd, "ucp_worker_get_efd");
  library.Get(ucp.worker_arm, "ucp_worker_arm");
  library.Get(ucp.worker_progress, "ucp_worker_progress");
  library.Get(ucp.worker_set_am_recv_handler, "ucp_worker_set_am_recv_handler");
  library.Get(ucp.ep_create, "ucp_ep_create");
  library.Get(ucp.ep_close_nbx, "ucp_ep_close_nbx");
  library.Get(ucp.ep_rkey_unpack, "ucp_ep_rkey_unpack");
  library.Get(ucp.rkey_destroy, "ucp_rkey_destroy");
  library.Get(ucp.get_nbx, "ucp_get_nbx");
  library.Get(ucp.am_send_nbx, "ucp_am_send_nbx");
  library.Get(ucp.am_recv_data_nbx, "ucp_am_recv_data_nbx");
  library.Get(ucp.request_check_status, "ucp_request_check_status");
  library.Get(ucp.request_free, "ucp_request_free");
  CADRE_TRY(library.Complete());
  return ucp;
}

// What all lanes read from.
struct Source {
  std::string host, port;
  std::vector<MemoryRegion> regions;
};

class Lane {
 public:
  Lane(std::shared_ptr<UcxContext> context, const Ucp& ucp, std::mutex& door)
      : context_(std::move(context)), ucp_(ucp), door_(door) {}
  ~Lane() { Disconnect(nullptr); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  std::mutex mutex;  // held by whoever uses the lane

  // Forgets what was read from and what failed.
  void Begin(size_t num_regions) {
    Disconnect(nullptr);
    keys_.assign(num_regions, nullptr);
    broken_ = {};
  }

  Status Read(const Source& source, size_t region, uint64_t offset, std::span<std::byte> to,
              const ReadLimits& limits) {
    CADRE_TRY(broken_);
    const MemoryRegion& from = source.regions[region];
    if (from.key.size() < kRegionNumberBytes)
      return Fail(Code::kUnavailable, "the owner's key of region {} has {} bytes", region, from.key.size());
    if (endpoint_ == nullptr) CADRE_TRY(Connect(source));
    if (context_->direct() && from.key.size() > kRegionNumberBytes) {
      if (keys_[region] == nullptr) CADRE_TRY(Unpack(from, keys_[region]));
      return Get(from.address + offset, keys_[region], to, limits);
    }
    while (!to.empty()) {
      const size_t bytes = std::min<size_t>(to.size(), kMaxAsked);
      CADRE_TRY(AskFor(from, offset, to.first(bytes), limits));
      offset += bytes;
      to = to.subspan(bytes);
    }
    return {};
  }

 private:
  Status Connect(const Source& source) {
    CADRE_ASSIGN(SocketAddress at, SocketAddressOf(source.host, source.port));
    const std::lock_guard lock(door_);
    CADRE_ASSIGN(worker_, context_->MakeWorker());
    if (const auto status = ucp_.worker_get_efd(worker_, &event_); status != UCS_OK)
      return Break("sleep", status);
    ucp_am_handler_param_t answered = {};
    answered.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                          UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
    answered.id = kAnswerMessage;
    answered.flags = UCP_AM_FLAG_WHOLE_MSG;
    answered.cb = OnAnswer;
    answered.arg = this;
    if (const auto status = ucp_.worker_set_am_recv_handler(worker_, &answered); status != UCS_OK)
      return Break("receive messages", status);
    ucp_ep_params_t params = {};
    params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR |
                        UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
    params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
    params.sockaddr = {at.get(), at.bytes};
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    params.err_handler.cb = [](void* self, ucp_ep_h, ucs_status_t status) {
      auto* const me = static_cast<Lane*>(self);
      me->settled_ = true;
      [[maybe_unused]] const Status broken = me->Break("read", status);
    };
    params.err_handler.arg = this;
    settled_ = false;
    const ucs_status_t status = ucp_.ep_create(worker_, &params, &endpoint_);
    if (status == UCS_OK) return {};
    endpoint_ = nullptr;
    return Break("reach the other side", status);
  }

  Status Unpack(const MemoryRegion& from, ucp_rkey_h& key) {
    const std::string padded = from.key.substr(kRegionNumberBytes) + std::string(kPadding, '\0');
    const ucs_status_t status = ucp_.ep_rkey_unpack(endpoint_, padded.data(), &key);
    if (status == UCS_OK) return {};
    key = nullptr;
    return Break("use the key of the other side's memory", status);
  }

  Status Break(const char* what, ucs_status_t status) {
    if (broken_) broken_ = context_->Failed(what, status);
    return broken_;
  }

  Status Get(uint64_t address, ucp_rkey_h key, std::span<std::byte> to, const ReadLimits& limits) {
    ucp_request_param_t params = {};
    const ucs_status_ptr_t request = ucp_.get_nbx(endpoint_, to.data(), to.size(), address, key, &params);
    if (request == nullptr) return {};
    if (UCS_PTR_IS_ERR(request)) return Break("read", UCS_PTR_STATUS(request));
    ucs_status_t status = UCS_INPROGRESS;
    const auto done = [&] {
      status = ucp_.request_check_status(request);
      return status != UCS_INPROGRESS;
    };
    if (Status given_up = Await(done, limits); !given_up) {
      Disconnect(request);
      return given_up;
    }
    ucp_.request_free(request);
    if (status != UCS_OK) return Break("read", status);
    settled_ = true;
    return {};
  }

  Status AskFor(const MemoryRegion& from, uint64_t offset, std::span<std::byte> to,
                const ReadLimits& limits) {
    ask_ = {.number = ask_.number + 1, .offset = offset, .bytes = to.size()};
    std::memcpy(&ask_.region, from.key.data(), sizeof(ask_.region));
    to_ = to;
    state_ = State::kAsked;
    CADRE_TRY(SendAsk());
    const auto done = [this] { return state_ == State::kHere || state_ == State::kRefused || !broken_; };
    const Status given_up = Await(done, limits);
    to_ = {};
    if (given_up && state_ == State::kHere) return {};
    if (given_up && broken_ && state_ == State::kRefused)
      broken_ = Fail(Code::kUnavailable, "the owner does not have this memory mapped");
    if (!given_up) broken_ = given_up;
    Disconnect(nullptr);  // a part of the answer may be on its way into `to`
    return broken_;
  }

  Status SendAsk() {
    ucp_request_param_t params = {};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    params.flags = UCP_AM_SEND_FLAG_REPLY | UCP_AM_SEND_FLAG_EAGER;
    const ucs_status_ptr_t request =
        ucp_.am_send_nbx(endpoint_, kAskMessage, &ask_, sizeof(ask_), nullptr, 0, &params);
    if (UCS_PTR_IS_ERR(request)) return Break("read", UCS_PTR_STATUS(request));
    if (request != nullptr) ucp_.request_free(request);  // completes on its own
    return {};
  }

  // Waits for any answer: UCX has no other word of a connection that is made.
  void Meet() {
    ask_ = {.number = ask_.number + 1};
    if (!SendAsk()) return;
    [[maybe_unused]] const Status met = Await([this] { return settled_; }, {.deadline = Now() + kMeetTime});
  }

  static ucs_status_t OnAnswer(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                               const ucp_am_recv_param_t* param) {
    Answer answer;
    if (header_bytes != sizeof(answer)) return UCS_OK;
    std::memcpy(&answer, header, sizeof(answer));
    auto* const me = static_cast<Lane*>(self);
    me->settled_ = true;
    return me->Take(answer, data, bytes, (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0);
  }

  // `announced`: the bytes are still at the other side, and UCX moves them to where they are wanted.
  ucs_status_t Take(const Answer& answer, void* data, size_t bytes, bool announced) {
    if (state_ != State::kAsked || answer.number != ask_.number) return UCS_OK;  // of nobody's asking
    if (answer.bytes != to_.size() || bytes != to_.size()) {
      state_ = State::kRefused;
      return UCS_OK;
    }
    if (!announced) {
      std::memcpy(to_.data(), data, bytes);
      state_ = State::kHere;
      return UCS_OK;
    }
    state_ = State::kComing;
    ucp_request_param_t params = {};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    params.user_data = this;
    params.cb.recv_am = [](void* request, ucs_status_t status, size_t, void* lane) {
      auto* const me = static_cast<Lane*>(lane);
      if (status == UCS_OK) {
        me->state_ = State::kHere;
      } else {
        [[maybe_unused]] const Status broken = me->Break("read", status);
      }
      me->ucp_.request_free(request);
    };
    const ucs_status_ptr_t request = ucp_.am_recv_data_nbx(worker_, data, to_.data(), bytes, &params);
    if (request == nullptr) state_ = State::kHere;
    if (UCS_PTR_IS_ERR(request)) {
      [[maybe_unused]] const Status broken = Break("read", UCS_PTR_STATUS(request));
    }
    return UCS_OK;
  }

  // Moves the worker until `done`. Errors: a limit was met.
  template <typename Done>
  Status Await(Done done, const ReadLimits& limits) {
    TimePoint looked = Now();
    for (int idle = 0; !done();) {
      if (ucp_.worker_progress(worker_) != 0) {
        idle = 0;
      } else if (++idle > kSpins && ucp_.worker_arm(worker_) == UCS_OK) {
        pollfd entry = {event_, POLLIN, 0};
        poll(&entry, 1, kSleepMs);
      }
      const TimePoint now = Now();
      if (now - looked < kLookAround) continue;
      looked = now;
      if (limits.check) CADRE_TRY(limits.check());
      if (now >= limits.deadline)
        return Fail(Code::kDeadlineExceeded, "a read over UCX was not answered in time");
    }
    return {};
  }

  // Ends everything, `request` too: afterwards nothing of this lane writes anywhere.
  void Disconnect(ucs_status_ptr_t request) {
    state_ = State::kIdle;
    if (endpoint_ != nullptr && !settled_) Meet();
    const std::lock_guard lock(door_);
    for (ucp_rkey_h& key : keys_) {
      if (key != nullptr) ucp_.rkey_destroy(std::exchange(key, nullptr));
    }
    const TimePoint until = Now() + kCloseTime;
    const auto finish = [&](ucs_status_ptr_t pending) {
      if (pending == nullptr || UCS_PTR_IS_ERR(pending)) return;
      while (ucp_.request_check_status(pending) == UCS_INPROGRESS && Now() < until)
        ucp_.worker_progress(worker_);
      ucp_.request_free(pending);
    };
    if (endpoint_ != nullptr) {
      ucp_request_param_t params = {};
      params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
      params.flags = UCP_EP_CLOSE_FLAG_FORCE;
      finish(ucp_.ep_close_nbx(std::exchange(endpoint_, nullptr), &params));
    }
    finish(request);
    if (worker_ != nullptr) ucp_.worker_destroy(std::exchange(worker_, nullptr));
  }

  enum class State { kIdle, kAsked, kComing, kHere, kRefused };

  std::shared_ptr<UcxContext> context_;
  Ucp ucp_;
  std::mutex& door_;  // held by the lane that opens or closes its connection
  ucp_worker_h worker_ = nullptr;
  int event_ = -1;
  ucp_ep_h endpoint_ = nullptr;
  bool settled_ = false;          // the endpoint has met its peer, or failed
  std::vector<ucp_rkey_h> keys_;  // of the source's regions, unpacked when first used
  Ask ask_;                       // the last one
  std::span<std::byte> to_;       // where its answer goes
  State state_ = State::kIdle;
  Status broken_;
};

class UcxReader final : public MemoryReader {
 public:
  UcxReader(const std::shared_ptr<UcxContext>& context, const Ucp& ucp, int num_lanes) {
    for (int i = 0; i < num_lanes; ++i) lanes_.push_back(std::make_unique<Lane>(context, ucp, door_));
  }

  void Attach(std::string host, std::string port, std::vector<MemoryRegion> regions) override {
    source_ = {std::move(host), std::move(port), std::move(regions)};
    for (const auto& lane : lanes_) lane->Begin(source_.regions.size());
  }

  Status Read(size_t region, uint64_t offset, std::span<std::byte> to, const ReadLimits& limits) override {
    CADRE_CHECK(region < source_.regions.size() && offset <= source_.regions[region].bytes &&
                to.size() <= source_.regions[region].bytes - offset);
    if (to.empty()) return {};
    // Whichever is free; else the next in turn.
    for (const auto& lane : lanes_) {
      const std::unique_lock lock(lane->mutex, std::try_to_lock);
      if (lock) return lane->Read(source_, region, offset, to, limits);
    }
    Lane& lane = *lanes_[next_.fetch_add(1, std::memory_order_relaxed) % lanes_.size()];
    const std::lock_guard lock(lane.mutex);
    return lane.Read(source_, region, offset, to, limits);
  }

 private:
  Source source_;
  std::mutex door_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::atomic<size_t> next_ = 0;
};

}  // namespace

Result<std::unique_ptr<MemoryReader>> MemoryReader::Create(const RemoteMemoryOptions& options) {
  CADRE_CHECK(options.num_lanes > 0);
  CADRE_ASSIGN(auto context, UcxContext::Make(options, MemoryRole::kReader));
  CADRE_ASSIGN(const Ucp ucp, Load(context->library()));
  const int num_lanes = context->many_threads() ? options.num_lanes : 1;
  return std::make_unique<UcxReader>(context, ucp, num_lanes);
}

}  // namespace cadre::fabric
