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
constexpr uint32_t kReadMemory = 0xff584355;           // "UCX\xff", longer than a reason can be
constexpr int64_t kMaxStreams = 16;                    // more do not make one trainer faster
constexpr auto kReachTime = std::chrono::seconds(30);  // for the first byte out of a sender's memory

std::span<std::byte> BytesOf(auto& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

// One connection, used by one thread at a time.
struct Stream {
  std::mutex mutex;
  sys::Fd fd;
  bool reads_memory = false;
};

}  // namespace

struct RemoteWeights::State {
  std::string where;  // "host:port", for messages
  std::vector<std::unique_ptr<Stream>> streams;
  std::atomic<size_t> next = 0;
  TimePoint deadline;  // of reads
  uint64_t version = 0;

  // Where the sender's memory is read; null: its streams are.
  std::unique_ptr<RemoteMemory> memory;
  RemoteOffer offer;
  uint64_t head_bytes = 0;

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

  // More of the answer to `begin`, on the first stream.
  Result<std::string> Rest(uint64_t bytes, TimePoint until) {
    sys::Fd& fd = streams.front()->fd;
    std::string text(bytes, '\0');
    const Status read = sys::RecvAll(fd.get(), std::as_writable_bytes(std::span(text)), until);
    if (read) return text;
    fd = sys::Fd();
    return Fail(read.error().code, "the sender of weights at {}: {}", where, read.error().message);
  }

  // Takes the offer behind the head, and reads out of the sender's memory what must stand there: whoever
  // cannot reach it finds out before any weight is touched.
  Status AttachMemory(uint64_t data_bytes) {
    CADRE_ASSIGN(const std::string number, Rest(sizeof(uint64_t), deadline));
    uint64_t bytes = 0;
    std::memcpy(&bytes, number.data(), sizeof(bytes));
    if (bytes > kMaxOfferBytes) {
      streams.front()->fd = sys::Fd();
      return Fail(Code::kDataLoss,
                  "the sender of weights at {} makes an offer of {} bytes; at most {} are taken", where,
                  bytes, kMaxOfferBytes);
    }
    CADRE_ASSIGN(const std::string text, Rest(bytes, deadline));
    auto parsed = RemoteOffer::Parse(text, data_bytes);
    if (!parsed)
      return Fail(parsed.error().code, "the sender of weights at {}: {}", where, parsed.error().message);
    offer = std::move(*parsed);
    memory->Attach(offer);
    std::array<std::byte, kProbeBytes> found = {};
    CADRE_TRY(ReadRegion(0, 0, found, std::min(deadline, Now() + kReachTime)));
    if (found == offer.probe()) return {};
    return Fail(Code::kUnavailable, "UCX reaches other memory than that of the sender of weights at {}",
                where);
  }

  // A sender says nothing unasked: what can be read here is its end.
  Status CheckPresent() const {
    const sys::Fd& fd = streams.front()->fd;
    if (fd && !sys::WaitReady(fd.get(), sys::Ready::kRead, Now())) return {};
    return Fail(Code::kUnavailable, "the sender of weights at {} has closed its connection", where);
  }

  Status ReadRegion(size_t region, uint64_t from, std::span<std::byte> to, TimePoint until) {
    const Status status = memory->Read(region, from, to, until, [this] { return CheckPresent(); });
    const Status present = CheckPresent();  // says more than what UCX makes of it
    if (status || !present) return present;
    return Fail(status.error().code, "the memory of the sender of weights at {}: {}", where,
                status.error().message);
  }

  Status ReadMemory(uint64_t from, std::span<std::byte> to) {
    while (!to.empty()) {
      const RemoteOffer::Stretch stretch = offer.Find(from, to.size());
      CADRE_TRY(ReadRegion(stretch.region, stretch.offset, to.first(stretch.bytes), deadline));
      from += stretch.bytes;
      to = to.subspan(stretch.bytes);
    }
    return {};
  }

  Status Read(int64_t offset, std::span<std::byte> to) {
    if (memory != nullptr) return ReadMemory(static_cast<uint64_t>(offset) - head_bytes, to);
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

Result<std::unique_ptr<Stream>> OpenStream(const RemoteOptions& options, uint32_t index,
                                           uint32_t num_streams) {
  auto stream = std::make_unique<Stream>();
  CADRE_ASSIGN(stream->fd,
               sys::ConnectTcp(options.host, static_cast<uint16_t>(options.port), options.deadline));
  sys::SetNoDelay(stream->fd.get());
  std::array<char, 24> hello;
  const std::array<uint32_t, 4> numbers = {static_cast<uint32_t>(options.receiver),
                                           static_cast<uint32_t>(options.world_size), index, num_streams};
  std::memcpy(hello.data(), kMagic, 8);
  std::memcpy(hello.data() + 8, numbers.data(), 16);
  CADRE_TRY(sys::SendAll(stream->fd.get(), std::as_bytes(std::span(hello)), options.deadline));
  uint32_t length = 0;
  CADRE_TRY(sys::RecvAll(stream->fd.get(), BytesOf(length), options.deadline));
  stream->reads_memory = length == kReadMemory;
  if (length == 0 || stream->reads_memory) return stream;
  if (length > kMaxReason)
    return Fail(Code::kDataLoss, "what answers at {}:{} is no sender of weights", options.host, options.port);
  std::string reason(length, '\0');
  CADRE_TRY(sys::RecvAll(stream->fd.get(), std::as_writable_bytes(std::span(reason)), options.deadline));
  return Fail(Code::kInvalidArgument, "the sender of weights at {}:{} refuses receiver {}: {}", options.host,
              options.port, options.receiver, Excerpt(reason, 300));
}

Result<std::unique_ptr<RemoteMemory>> OpenMemory(const RemoteOptions& options, const Stream& stream,
                                                 int32_t num_lanes) {
  if (!options.open_memory)
    return Fail(Code::kUnsupported, "this receiver reads sockets only; use transport tcp there");
  const int fd = stream.fd.get();
  return options.open_memory(
      {.here = sys::LocalHost(fd), .there = sys::PeerHost(fd), .num_lanes = num_lanes});
}

}  // namespace

RemoteWeights::RemoteWeights(std::unique_ptr<State> state) : state_(std::move(state)) {}
RemoteWeights::~RemoteWeights() = default;

Result<std::unique_ptr<RemoteWeights>> RemoteWeights::Connect(const RemoteOptions& options) {
  auto state = std::make_unique<State>();
  state->where = Format("{}:{}", options.host, options.port);
  const auto count = static_cast<uint32_t>(std::clamp<int64_t>(options.num_streams, 1, kMaxStreams));
  for (uint32_t i = 0; i < count && state->memory == nullptr; ++i) {
    CADRE_ASSIGN(auto stream, OpenStream(options, i, count));
    if (stream->reads_memory) {
      auto opened = OpenMemory(options, *stream, static_cast<int32_t>(count));
      if (!opened) {
        return Fail(opened.error().code, "the sender of weights at {} offers them over UCX: {}", state->where,
                    opened.error().message);
      }
      state->memory = std::move(*opened);
    }
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
  CADRE_ASSIGN(const std::string head, s.Rest(sizes[2], deadline));
  s.version = sizes[0];
  s.head_bytes = sizes[2];
  if (s.memory != nullptr) CADRE_TRY(s.AttachMemory(sizes[1] - sizes[2]));
  uint64_t length = 0;
  std::memcpy(&length, head.data(), 8);
  if (length != sizes[2] - 8) {
    return Fail(Code::kDataLoss, "the sender of weights at {}: its head says {} bytes and has {}", s.where,
                length, sizes[2] - 8);
  }
  CADRE_ASSIGN(auto tensors, ParseSafetensorsHeader(std::string_view(head).substr(8),
                                                    static_cast<int64_t>(sizes[1]), "sender " + s.where));
  return std::make_unique<RemoteSource>(
      "sender " + s.where, std::move(tensors),
      [&s](int64_t offset, std::span<std::byte> to) { return s.Read(offset, to); });
}

void RemoteWeights::Finish(bool in_use) {
  State& s = *state_;
  if (s.memory != nullptr) s.memory->Detach();
  if (s.version == 0) return;
  Stream& first = *s.streams.front();
  const std::lock_guard lock(first.mutex);
  // A sender that is gone does not mind.
  [[maybe_unused]] const Status told = s.Exchange(
      first, {kEnd, std::exchange(s.version, 0), in_use ? 1u : 0u}, {}, Now() + std::chrono::seconds(5));
}

}  // namespace cadre::checkpoint
