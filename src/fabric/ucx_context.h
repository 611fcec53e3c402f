#pragma once
// What the two sides of remote_memory.h share: UCX started, and the words that they exchange. No header of
// UCX here.
#include <sys/socket.h>

#include <memory>
#include <string>

#include "fabric/remote_memory.h"
#include "fabric/ucx_library.h"

struct ucp_context;
struct ucp_worker;

namespace cadre::fabric {

enum class MemoryRole { kOwner, kReader };

class UcxContext {
 public:
  /// A process has owners or readers, never both (remote_memory.h says why). Errors: kUnsupported.
  static Result<std::shared_ptr<UcxContext>> Make(const RemoteMemoryOptions& options, MemoryRole role);
  ~UcxContext();
  UcxContext(const UcxContext&) = delete;
  UcxContext& operator=(const UcxContext&) = delete;

  /// For one thread at a time; ends with ucp_worker_destroy.
  Result<ucp_worker*> MakeWorker() const;
  /// "UCX cannot <what>: <its status in words>"
  std::unexpected<Error> Failed(const char* what, int status) const;

  UcxLibrary& library() { return library_; }
  ucp_context* handle() const { return handle_; }
  bool direct() const { return direct_; }
  /// Whether several workers may be used by several threads.
  bool many_threads() const { return many_threads_; }

 private:
  UcxContext(UcxLibrary library, MemoryRole role) : library_(std::move(library)), role_(role) {}
  Status Start(const RemoteMemoryOptions& options);

  UcxLibrary library_;
  MemoryRole role_;
  ucp_context* handle_ = nullptr;
  bool direct_ = false, many_threads_ = false;
};

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t bytes = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};
/// `host`: a numeric address; `port`: digits. Errors: kInvalidArgument.
Result<SocketAddress> SocketAddressOf(const std::string& host, const std::string& port);
int PortOf(const sockaddr_storage& address);

// Active messages of the asked way. Both ends run the same kind of machine: numbers as they are in memory.
constexpr unsigned kAskMessage = 1, kAnswerMessage = 2;
constexpr uint64_t kMaxAsked = 1 << 20;  // bytes of one answer

struct Ask {
  uint64_t number = 0;  ///< comes back with the answer
  uint64_t region = 0;
  uint64_t offset = 0, bytes = 0;
};
struct Answer {
  uint64_t number = 0;
  uint64_t bytes = 0;  ///< that follow: all that were asked for, or none, because they are not mapped
};

// A region's key: its number at the owner, then UCX's own key if it can be read directly.
constexpr size_t kRegionNumberBytes = sizeof(uint64_t);

}  // namespace cadre::fabric
