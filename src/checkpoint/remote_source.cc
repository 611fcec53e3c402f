#include "checkpoint/remote_source.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <functional>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/format.h"
#include "checkpoint/safetensors.h"
#include "sys/sockets.h"

namespace cadre::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "the protocol is little-endian");

constexpr char kMagic[] = "CDRWGT01";
constexpr uint64_t kBegin = 1, kRead = 2, kEnd = 3;
constexpr uint32_t kMaxReason = 4096;
constexpr int64_t kMaxStreams = 16;  // more do not make one trainer faster

std::span<std::byte> BytesOf(auto& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

// One connection, used by one thread at a time.
struct Stream {
  std::mutex mutex;
  sys::Fd fd;
};

}  // namespace

struct RemoteWeights::State {
  std::string where;  // "host:port", for messages
  std::vector<std::unique_ptr<Stream>> streams;
  std::atomic<size_t> next = 0;
  TimePoint deadline;  // of reads
  uint64_t version = 0;

  // A lost answer leaves a stream out of step: it is closed, and every later use fails.
  Status Exchange(Stream& stream, std::array<uint64_t, 3> ask, std::span<std::byte> answer, TimePoint until) {
    if (!stream.fd)
      return Fail(Code::kUnavailable, "the connection to the sender of weights at {} is closed", where);
    Status status = sys::SendAll(stream.fd.get(), std::as_bytes(std::span(ask)), until);
    if (status && !answer.empty()) status = sys::RecvAll(stream.fd.get(), answer, until);
    if (status) return {};
    stream.fd = sys::Fd();
    return Fail(status.error().code, "the sender of weights at {}: {}", where, status.error().message);
  }

  Status Read(int64_t offset, std::span<std::byte> to) {
    // Whichever is free; else the next in turn.
    for (const auto& stream : streams) {
      std::unique_lock lock(stream->mutex, std::try_to_lock);
      if (lock) return Exchange(*stream, {kRead, static_cast<uint64_t>(offset), to.size()}, to, deadline);
    }
    Stream& stream = *streams[next.fetch_add(1, std::memory_order_relaxed) % streams.size()];
    const std::lock_guard lock(stream.mutex);
    return Exchange(stream, {kRead, static_cast<uint64_t>(offset), to.size()}, to, deadline);
  }
};

namespace {

class RemoteSource : public TensorSource {
 public:
  using Reader = std::function<Status(int64_t offset, std::span<std::byte> to)>;
  RemoteSource(std::string where, std::vector<TensorInfo> tensors, Reader read)
      : where_(std::move(where)), tensors_(std::move(tensors)), read_(std::move(read)) {
    for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
  }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const TensorInfo* Find(std::string_view name) const override {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
  }
  std::string FileOf(const TensorInfo&) const override { return where_; }
  Status Read(const TensorInfo& tensor, int64_t begin, int64_t num_bytes, void* to) const override {
    CADRE_CHECK(begin >= 0 && num_bytes >= 0 && begin + num_bytes <= tensor.num_bytes);
    return read_(tensor.offset + begin, {static_cast<std::byte*>(to), static_cast<size_t>(num_bytes)});
  }

 private:
  std::string where_;
  std::vector<TensorInfo> tensors_;
  Reader read_;
  std::unordered_map<std::string_view, size_t> by_name_;
};

Result<sys::Fd> OpenStream(const RemoteOptions& options, uint32_t stream, uint32_t num_streams) {
  CADRE_ASSIGN(sys::Fd fd,
               sys::ConnectTcp(options.host, static_cast<uint16_t>(options.port), options.deadline));
  sys::SetNoDelay(fd.get());
  std::array<char, 24> hello;
  const std::array<uint32_t, 4> numbers = {static_cast<uint32_t>(options.receiver),
                                           static_cast<uint32_t>(options.world_size), stream, num_streams};
  std::memcpy(hello.data(), kMagic, 8);
  std::memcpy(hello.data() + 8, numbers.data(), 16);
  CADRE_TRY(sys::SendAll(fd.get(), std::as_bytes(std::span(hello)), options.deadline));
  uint32_t length = 0;
  CADRE_TRY(sys::RecvAll(fd.get(), BytesOf(length), options.deadline));
  if (length == 0) return fd;
  if (length > kMaxReason)
    return Fail(Code::kDataLoss, "what answers at {}:{} is no sender of weights", options.host, options.port);
  std::string reason(length, '\0');
  CADRE_TRY(sys::RecvAll(fd.get(), std::as_writable_bytes(std::span(reason)), options.deadline));
  return Fail(Code::kInvalidArgument, "the sender of weights at {}:{} refuses receiver {}: {}", options.host,
              options.port, options.receiver, Excerpt(reason, 300));
}

}  // namespace

RemoteWeights::RemoteWeights(std::unique_ptr<State> state) : state_(std::move(state)) {}
RemoteWeights::~RemoteWeights() = default;

Result<std::unique_ptr<RemoteWeights>> RemoteWeights::Connect(const RemoteOptions& options) {
  auto state = std::make_unique<State>();
  state->where = Format("{}:{}", options.host, options.port);
  const auto count = static_cast<uint32_t>(std::clamp<int64_t>(options.num_streams, 1, kMaxStreams));
  for (uint32_t i = 0; i < count; ++i) {
    auto stream = std::make_unique<Stream>();
    CADRE_ASSIGN(stream->fd, OpenStream(options, i, count));
    state->streams.push_back(std::move(stream));
  }
  return std::unique_ptr<RemoteWeights>(new RemoteWeights(std::move(state)));
}

Result<std::unique_ptr<TensorSource>> RemoteWeights::Receive(TimePoint deadline) {
  State& s = *state_;
  s.deadline = deadline;
  s.version = 0;
  Stream& first = *s.streams.front();
  const std::lock_guard lock(first.mutex);
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Now());
  std::array<uint64_t, 3> sizes = {};  // version, file, head
  // The sender answers at its deadline; a little more is for the answer's way.
  CADRE_TRY(s.Exchange(first, {kBegin, static_cast<uint64_t>(std::max<int64_t>(left.count(), 0)), 0},
                       std::as_writable_bytes(std::span(sizes)), deadline + std::chrono::seconds(5)));
  if (sizes[0] == 0) {
    return Fail(Code::kDeadlineExceeded, "the sender of weights at {} has had nothing new for {} ms", s.where,
                left.count());
  }
  constexpr auto kMaxHead = static_cast<uint64_t>(kMaxHeaderBytes) + 8;
  if (sizes[2] < 8 || sizes[2] > kMaxHead || sizes[1] < sizes[2] || sizes[1] > (uint64_t{1} << 62)) {
    first.fd = sys::Fd();
    return Fail(Code::kDataLoss, "the sender of weights at {} offers {} bytes with a head of {}", s.where,
                sizes[1], sizes[2]);
  }
  std::string head(sizes[2], '\0');
  if (const Status read = sys::RecvAll(first.fd.get(), std::as_writable_bytes(std::span(head)), deadline);
      !read) {
    first.fd = sys::Fd();
    return Fail(read.error().code, "the sender of weights at {}: {}", s.where, read.error().message);
  }
  uint64_t length = 0;
  std::memcpy(&length, head.data(), 8);
  if (length != sizes[2] - 8) {
    return Fail(Code::kDataLoss, "the sender of weights at {}: its head says {} bytes and has {}", s.where,
                length, sizes[2] - 8);
  }
  CADRE_ASSIGN(auto tensors, ParseSafetensorsHeader(std::string_view(head).substr(8),
                                                    static_cast<int64_t>(sizes[1]), "sender " + s.where));
  s.version = sizes[0];
  return std::make_unique<RemoteSource>(
      "sender " + s.where, std::move(tensors),
      [&s](int64_t offset, std::span<std::byte> to) { return s.Read(offset, to); });
}

void RemoteWeights::Finish(bool in_use) {
  State& s = *state_;
  if (s.version == 0) return;
  Stream& first = *s.streams.front();
  const std::lock_guard lock(first.mutex);
  // A sender that is gone does not mind.
  [[maybe_unused]] const Status told = s.Exchange(
      first, {kEnd, std::exchange(s.version, 0), in_use ? 1u : 0u}, {}, Now() + std::chrono::seconds(5));
}

}  // namespace cadre::checkpoint
