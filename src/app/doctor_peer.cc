// The side of two doctors that asks: is the other host reached, and how fast is each kind of link?
#include <algorithm>

#include "app/doctor.h"
#include "app/doctor_link.h"
#include "app/statistics.h"
#include "config/value.h"
#include "fabric/wire.h"
#include "sys/files.h"
#include "sys/memory.h"
#include "sys/sockets.h"

namespace cadre::app {
namespace {

struct PeerName {
  std::string host;
  uint16_t port = kDoctorPort;
};

// HOST, HOST:PORT, [v6]:PORT, or a bare IPv6 address.
Result<PeerName> ParsePeer(const std::string& text) {
  PeerName peer{.host = text};
  const size_t colon = text.rfind(':');
  std::string port;
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string::npos)
      return FailParam(Code::kInvalidArgument, "--peer", "--peer '{}' lacks a ]", text);
    peer.host = text.substr(1, close - 1);
    const bool more = close + 1 < text.size();
    if (more) port = text[close + 1] == ':' ? text.substr(close + 2) : std::string(1, '?');
    if (more && port.empty()) port = std::string(1, '?');
  } else if (colon != std::string::npos && text.find(':') == colon) {
    peer.host = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (port.empty()) port = std::string(1, '?');
  }
  if (!port.empty()) {
    const auto number = config::ParseInt(port);
    if (!number || *number < 1 || *number > 65535) {
      return FailParam(Code::kInvalidArgument, "--peer", "'{}' in --peer {} is no port: 1 to 65535", port,
                       text);
    }
    peer.port = static_cast<uint16_t>(*number);
  }
  if (peer.host.empty())
    return FailParam(Code::kInvalidArgument, "--peer", "--peer '{}' names no host", text);
  return peer;
}

Duration ToDuration(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

// One sentence with what to check.
std::string Advice(const Error& error, const PeerName& peer) {
  if (error.code == Code::kNotFound)
    return "Check the spelling, DNS or /etc/hosts; an address works as well.";
  if (error.code == Code::kDeadlineExceeded) {
    return Format(
        "Check that the host is up, that its firewall or security group lets TCP port {} pass, and that the "
        "address belongs to a network that both hosts share.",
        peer.port);
  }
  if (error.message.contains(sys::ErrnoText(ECONNREFUSED))) {
    return Format(
        "The host is there, but nobody listens on port {}: run `cadre doctor --listen {}` or the first node "
        "there, or check --data-parallel-rpc-port; a firewall may also answer like this.",
        peer.port, peer.port);
  }
  return "Check that both hosts share a network, and the routes between them.";
}

std::string UsText(double us) {
  return us < 1000 ? Format("{:.0f} us", us) : Format("{:.1f} ms", us / 1000);
}

std::string RateText(double bytes_per_s) {
  return bytes_per_s >= 1e9 ? Format("{:.2f} GB/s", bytes_per_s / 1e9)
                            : Format("{:.1f} MB/s", bytes_per_s / 1e6);
}

class Conversation {
 public:
  Conversation(const config::DoctorOptions& options, const std::string& name, sys::Fd fd)
      : options_(options), name_(name), fd_(std::move(fd)) {}

  struct Greeting {
    uint32_t version = 0;
    std::string host;
    std::vector<std::string> kinds;
  };

  /// Nothing if the port belongs to something else than a doctor.
  std::optional<Greeting> Hear() {
    const auto frame = sys::RecvFrame(fd_.get(), kMaxDoctorFrame, Deadline());
    if (!frame || frame->kind != kDoctorGreeting) return std::nullopt;
    fabric::WireReader reader(frame->body);
    Greeting greeting{.version = reader.Get<uint32_t>(), .host = reader.GetText(), .kinds = {}};
    const auto count = std::min<uint32_t>(reader.Get<uint32_t>(), 16);
    for (uint32_t i = 0; i < count; ++i) greeting.kinds.push_back(reader.GetText());
    if (!reader.ok()) return std::nullopt;
    return greeting;
  }

  /// A frame there and back over the plain connection, median.
  Result<double> PlainRoundTripUs() {
    std::vector<double> times;
    const TimePoint end = Now() + std::chrono::milliseconds(500);
    while (times.size() < 3 || (times.size() < 200 && Now() < end)) {
      const TimePoint start = Now();
      CADRE_TRY(sys::SendFrame(fd_.get(), kDoctorEcho, std::string(64, 'x'), {}, Deadline()));
      CADRE_ASSIGN(const sys::Frame frame, sys::RecvFrame(fd_.get(), kMaxDoctorFrame, Deadline()));
      if (frame.kind != kDoctorEcho) return Fail(Code::kDataLoss, "the other doctor answered something else");
      times.push_back(Seconds(Now() - start) * 1e6);
    }
    return Median(times);
  }

  struct Speeds {
    double small_us = 0, row_us = 0;  ///< there and back: 64 bytes, 14 KiB
    double bytes_per_s = 0;
  };
  Result<Speeds> Measure(const std::string& kind) {
    auto addresses = OwnAddresses(options_);
    if (addresses.empty()) addresses = {sys::LocalHost(fd_.get())};
    CADRE_ASSIGN(const auto end, LinkEnd::Open(kind, addresses));
    fabric::WireWriter wish;
    wish.PutText(kind).PutText(end->address());
    CADRE_TRY(sys::SendFrame(fd_.get(), kDoctorTry, wish.text(), {}, Deadline()));
    CADRE_ASSIGN(const sys::Frame frame, sys::RecvFrame(fd_.get(), kMaxDoctorFrame, Deadline()));
    if (frame.kind == kDoctorRefused)
      return Fail(Code::kUnsupported, "the other host: {}", Excerpt(frame.body, 300));
    if (frame.kind != kDoctorReady) return Fail(Code::kDataLoss, "the other doctor answered something else");
    fabric::WireReader reader(frame.body);
    const std::string address = reader.GetText();
    const auto key = reader.Get<uint64_t>();
    if (!reader.ok()) return Fail(Code::kDataLoss, "the other doctor's answer is damaged");
    CADRE_TRY(end->Connect(address, key, true, Deadline()));
    Speeds speeds;
    CADRE_ASSIGN(speeds.small_us, MedianUs(*end, 64));
    CADRE_ASSIGN(speeds.row_us, MedianUs(*end, 14336));
    CADRE_ASSIGN(speeds.bytes_per_s, BytesPerSecond(*end, speeds));
    CADRE_TRY(sys::SendFrame(fd_.get(), kDoctorDone, "", {}, Deadline()));
    return speeds;
  }

 private:
  TimePoint Deadline() const { return Now() + ToDuration(options_.timeout_s); }

  Result<double> MedianUs(LinkEnd& end, size_t bytes) {
    std::vector<double> times;
    const TimePoint until = Now() + std::chrono::milliseconds(300);
    while (times.size() < 3 || (times.size() < 1000 && Now() < until)) {
      CADRE_ASSIGN(const double us, end.RoundTripUs(0, bytes, Deadline()));
      times.push_back(us);
    }
    return Median(times);
  }

  // Messages large enough to hide the answer's way, as large as can go in a tenth of a second.
  Result<double> BytesPerSecond(LinkEnd& end, const Speeds& speeds) {
    const double slope_us = std::max((speeds.row_us - speeds.small_us) / 2, 1.0);
    const double guess = 14336 / slope_us * 1e6;
    const auto bytes =
        static_cast<size_t>(std::clamp(guess * 0.1, 65536.0, static_cast<double>(kMaxLinkMessage)));
    double total = 0, seconds = 0;
    const TimePoint until = Now() + std::chrono::milliseconds(700);
    for (int i = 0; i < 3 || Now() < until; ++i) {
      CADRE_ASSIGN(const double us, end.RoundTripUs(1, bytes, Deadline()));
      if (i == 0) continue;  // windows and pages warm up
      total += static_cast<double>(bytes);
      seconds += us / 1e6;
    }
    return total / seconds;
  }

  const config::DoctorOptions& options_;
  const std::string& name_;
  sys::Fd fd_;
};

Finding LinkFinding(const std::string& peer, const std::string& kind,
                    const Result<Conversation::Speeds>& speeds) {
  Finding f{.section = "peer " + peer, .name = "link " + kind, .level = Level::kInfo};
  if (!speeds) {
    const Error& error = speeds.error();
    f.value = error.message;
    f.level = kind == "tcp" ? Level::kBlocks : Level::kWarning;
    f.meaning = error.code == Code::kDeadlineExceeded || error.code == Code::kUnavailable
                    ? "The port given is open, but not those that the kernel hands out to ranks (see "
                      "network, between "
                      "nodes): open them in the firewall between the hosts."
                    : "This kind of link cannot be used between the two hosts.";
    f.data = Json::Object{{"error", error.message}};
    return f;
  }
  f.value = Format("64 bytes there and back {}, 14 KiB {}, {}", UsText(speeds->small_us),
                   UsText(speeds->row_us), RateText(speeds->bytes_per_s));
  f.data = Json::Object{{"round_trip_us", speeds->small_us},
                        {"round_trip_14k_us", speeds->row_us},
                        {"bytes_per_second", speeds->bytes_per_s}};
  return f;
}

void MeasureLinks(const config::DoctorOptions& options, const std::string& peer, Conversation& conversation,
                  const std::vector<std::string>& theirs, Findings& findings) {
  struct Best {
    std::string kind;
    double rate = 0, us = 0;
  } best;
  std::string chosen;
  for (const std::string& kind : fabric::LinkKinds()) {
    if (std::ranges::find(theirs, kind) == theirs.end()) continue;
    if (options.link != "all" && options.link != kind) continue;
    const auto speeds = conversation.Measure(kind);
    findings.push_back(LinkFinding(peer, kind, speeds));
    // After an error the other side's state is unknown: end here.
    if (!speeds && speeds.error().code != Code::kUnsupported) return;
    if (!speeds) continue;
    if (chosen.empty()) chosen = kind;
    if (speeds->bytes_per_s > best.rate) best = {kind, speeds->bytes_per_s, speeds->small_us};
  }
  if (best.kind.empty()) return;
  // DeepSeek-V3: a token that has an expert on the other host costs one row of 14 KiB in each of 58 layers.
  const double tokens = best.rate / (58.0 * 14336);
  findings.push_back(
      {.section = "peer " + peer,
       .name = "meaning",
       .level = Level::kInfo,
       .value = Format("{} would be used; {} is the faster one here", chosen, best.kind),
       .meaning =
           Format("Each MoE layer waits for at least two one-way trips ({} a step of 58 layers); rows of "
                  "hidden size 7168 in bfloat16 for all 58 layers pass at most {:.0f} tokens a second "
                  "and direction.",
                  UsText(58 * best.us), tokens),
       .flags = "--decode-all2all-backend, --prefill-all2all-backend",
       .data = Json::Object{{"chosen", chosen}, {"fastest", best.kind}}});
}

}  // namespace

void ExaminePeer(const config::DoctorOptions& options, const std::string& peer_text, Findings& findings) {
  Finding reach{.section = "peer " + peer_text,
                .name = "reached",
                .flags =
                    "--data-parallel-address, "
                    "--data-parallel-rpc-port"};
  const auto peer = ParsePeer(peer_text);
  if (!peer) {
    reach.level = Level::kBlocks;
    reach.value = peer.error().message;
    reach.meaning = "Give HOST or HOST:PORT.";
    findings.push_back(std::move(reach));
    return;
  }
  const TimePoint start = Now();
  auto fd = sys::ConnectTcp(peer->host, peer->port, start + ToDuration(options.timeout_s));
  const double connect_us = Seconds(Now() - start) * 1e6;
  if (!fd) {
    reach.level = Level::kBlocks;
    reach.value = fd.error().message;
    reach.meaning = Advice(fd.error(), *peer);
    reach.data = Json::Object{{"reached", false}, {"error", fd.error().message}};
    findings.push_back(std::move(reach));
    return;
  }
  reach.value = Format("{} port {}, connected in {}, from {}", sys::PeerHost(fd->get()), peer->port,
                       UsText(connect_us), sys::LocalHost(fd->get()));
  reach.data = Json::Object{{"reached", true},
                            {"connect_us", connect_us},
                            {"address", sys::PeerHost(fd->get())},
                            {"own_address", sys::LocalHost(fd->get())}};
  Conversation conversation(options, peer_text, std::move(*fd));
  const auto greeting = conversation.Hear();
  if (!greeting || greeting->version != kDoctorVersion) {
    reach.meaning =
        greeting ? Format(
                       "A doctor of another version ({}, here {}) listens there: use the same program on "
                       "all hosts.",
                       greeting->version, kDoctorVersion)
                 : Format(
                       "Something listens there, but no doctor: only the connection was timed. Run `cadre "
                       "doctor --listen {}` there to measure latency and bandwidth.",
                       peer->port);
    if (greeting) reach.level = Level::kBlocks;
    reach.data.Set("doctor", false);
    findings.push_back(std::move(reach));
    return;
  }
  reach.data.Set("doctor", true);
  if (const auto us = conversation.PlainRoundTripUs()) {
    reach.value += Format(", 64 bytes there and back in {}", UsText(*us));
    reach.data.Set("plain_round_trip_us", *us);
  }
  reach.meaning = Format("A doctor answers there (host name {}).", Excerpt(greeting->host, 64));
  findings.push_back(std::move(reach));
  MeasureLinks(options, peer_text, conversation, greeting->kinds, findings);
}

}  // namespace cadre::app
