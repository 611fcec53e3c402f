// The part of fabric.h that crosses hosts.
#include <algorithm>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/format.h"
#include "fabric/broker.h"
#include "fabric/fabric.h"

namespace cadre::fabric {
namespace {

constexpr auto kPollTime = std::chrono::milliseconds(10);  // aborts do not wake who sleeps on sockets

size_t RoundUp(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// Hosts for which `member` carries, before `until`.
int NumCarried(const GroupHosts& hosts, int member, int until) {
  const int at = hosts.HostOf(member);
  int n = 0;
  for (int h = 0; h < until; ++h) n += h != at && hosts.Carrier(at, h) == member;
  return n;
}

}  // namespace

Result<GroupHosts> GroupHosts::Of(const HostTable& table, const std::vector<int>& ranks, int own_rank) {
  GroupHosts hosts;
  std::vector<int> seen;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const int h = table.host_of(ranks[i]);
    if (h < 0) return Fail(Code::kInvalidArgument, "no host has rank {}", ranks[i]);
    if (seen.empty() || seen.back() != h) {
      if (std::ranges::find(seen, h) != seen.end()) {
        return Fail(Code::kInvalidArgument, "a group's ranks of one host must be neighbours in its order");
      }
      seen.push_back(h);
      hosts.entries.push_back(table.hosts[static_cast<size_t>(h)]);
      hosts.members.push_back({static_cast<int>(i), 0});
    }
    ++hosts.members.back().count;
    if (ranks[i] == own_rank) hosts.own = static_cast<int>(seen.size()) - 1;
  }
  return hosts;
}

int GroupHosts::HostOf(int member) const {
  for (size_t h = 0; h < members.size(); ++h) {
    if (member < members[h].begin + members[h].count) return static_cast<int>(h);
  }
  return -1;
}

struct Fabric::Carried final : LinkSink {
  Carried(Fabric* owner, int of_host)
      : fabric(owner), host(of_host), rounds(static_cast<size_t>(owner->spec_.num_channels)) {
    std::ranges::fill(rounds, owner->spec_.first_round - 1);
  }

  Result<std::byte*> Place(const MessageHead& head) override {
    const FabricSpec& spec = fabric->spec_;
    if (head.channel >= rounds.size() || head.bytes > spec.landing_bytes ||
        head.offset > spec.landing_bytes - head.bytes) {
      return Fail(Code::kDataLoss, "a message of {} bytes for place {} on channel {} does not fit '{}'",
                  head.bytes, head.offset, head.channel, spec.name);
    }
    if (static_cast<int32_t>(head.round - rounds[head.channel]) <= 0) {
      return Fail(Code::kDataLoss, "a message of round {} came after that of round {}", head.round,
                  rounds[head.channel]);
    }
    return fabric->own() + fabric->LandingOffset(host) + head.offset;
  }
  void Arrived(const MessageHead& head) override {
    rounds[head.channel] = head.round;
    fabric->Raise(fabric->HostLine(host, static_cast<int>(head.channel)), head.round,
                  static_cast<uint32_t>(head.bytes));
  }

  Fabric* fabric;
  int host;
  std::vector<uint32_t> rounds;  // the last that has come, by channel
  TimePoint broken = TimePoint::max();
  std::unique_ptr<HostLink> link;  // last, so first to go
};

Fabric::Fabric(FabricParts parts)
    : spec_(std::move(parts.spec)),
      index_(parts.index),
      control_(std::move(parts.control)),
      shared_(parts.shared),
      hosts_(std::move(parts.hosts)),
      data_(std::move(parts.data)),
      flags_(std::move(parts.flags)),
      port_(std::move(parts.port)) {}

Fabric::~Fabric() {
  const TimePoint deadline = Now() + std::chrono::seconds(1);
  while (!AllSent() && !control_.aborted() && Now() < deadline) {
    if (!port_->Progress()) port_->Sleep(Now() + kPollTime);
  }
}

size_t Fabric::SegmentBytes(const FabricSpec& spec, const GroupHosts& hosts, int member) {
  const auto zones = static_cast<size_t>(NumCarried(hosts, member, hosts.size()));
  return zones == 0 ? spec.segment_bytes : RoundUp(spec.segment_bytes) + zones * RoundUp(spec.landing_bytes);
}

size_t Fabric::FlagBytes(const FabricSpec& spec, const GroupHosts& hosts) {
  const int host_flags = hosts.size() > 1 ? hosts.size() * spec.num_channels : 0;
  return static_cast<size_t>(spec.num_flags + host_flags) * sizeof(FlagLine);
}

size_t Fabric::LandingOffset(int host) const {
  const int carrier = hosts_.Carrier(hosts_.own, host);
  return RoundUp(spec_.segment_bytes) +
         static_cast<size_t>(NumCarried(hosts_, carrier, host)) * RoundUp(spec_.landing_bytes);
}

const std::byte* Fabric::landing(int host) const {
  return peer(hosts_.Carrier(hosts_.own, host)) + LandingOffset(host);
}

// Of two hosts the earlier one accepts. The key comes from its carrier.
Status Fabric::Connect(std::span<const std::string> addresses, std::span<const uint64_t> keys,
                       TimePoint deadline) {
  std::vector<LinkRequest> requests;
  carried_.resize(static_cast<size_t>(num_hosts()));
  for (int h = 0; h < num_hosts(); ++h) {
    if (!carries(h)) continue;
    carried_[static_cast<size_t>(h)] = std::make_unique<Carried>(this, h);
    const int peer_rank = hosts_.Carrier(h, hosts_.own);
    const bool active = hosts_.own > h;
    const auto acceptor = static_cast<size_t>(active ? peer_rank : index_);
    // One acceptor gives the same key to all its connectors; they differ by who connects.
    const uint64_t key = keys[acceptor] + static_cast<uint64_t>(std::max(hosts_.own, h));
    requests.push_back({.peer_address = addresses[static_cast<size_t>(peer_rank)],
                        .peer_name = Format("rank {} on {}", world_rank(peer_rank),
                                            NameHost(hosts_.entries[static_cast<size_t>(h)])),
                        .key = key,
                        .active = active,
                        .sink = carried_[static_cast<size_t>(h)].get()});
  }
  if (requests.empty()) return {};
  CADRE_ASSIGN(auto links, port_->Connect(requests, control_, deadline));
  size_t next = 0;
  for (auto& carried : carried_) {
    if (carried != nullptr) carried->link = std::move(links[next++]);
  }
  return {};
}

void Fabric::Post(int host, int channel, uint32_t round, size_t offset, std::span<const Piece> pieces) {
  CADRE_CHECK(carries(host) && channel < spec_.num_channels);
  MessageHead head{.channel = static_cast<uint32_t>(channel), .round = round, .offset = offset};
  for (const Piece& piece : pieces) head.bytes += piece.bytes;
  CADRE_CHECK(head.bytes <= UINT32_MAX && offset + head.bytes <= spec_.landing_bytes);
  carried_[static_cast<size_t>(host)]->link->Send(head, pieces);
}

// A broken link is the end, but whoever knows why (a parent that saw its child die) may speak first.
Status Fabric::CheckLink(int host) {
  if (host < 0 || !carries(host)) return {};
  Carried& carried = *carried_[static_cast<size_t>(host)];
  if (carried.link->status()) return {};
  if (carried.broken == TimePoint::max()) carried.broken = Now();
  if (Now() - carried.broken < Broker::kGrace) return {};
  return Blame(world_rank(hosts_.Carrier(host, hosts_.own)), Code::kUnavailable,
               Format("the connection to {} broke: {}", NameHost(hosts_.entries[static_cast<size_t>(host)]),
                      carried.link->status().error().message));
}

bool Fabric::HostArrived(int host, int channel, uint32_t round) const {
  return Reached(HostLine(host, channel).word.load(std::memory_order_acquire), round);
}

Status Fabric::FailMissingHost(int host, int channel, uint32_t round, Duration waited,
                               const WaitContext& context) {
  if (HostArrived(host, channel, round)) return {};
  const HostEntry& entry = hosts_.entries[static_cast<size_t>(host)];
  return Blame(entry.first_rank, Code::kDeadlineExceeded,
               Format("{} did not send its part of {} of step {} within {} s", NameHost(entry), context.what,
                      context.step, SecondsText(waited)));
}

Result<uint32_t> Fabric::AwaitHost(int host, int channel, uint32_t round, const WaitContext& context) {
  FlagLine& line = HostLine(host, channel);
  if (!HostArrived(host, channel, round)) {
    const TimePoint start = Now();
    // If a rank is missing over there, its neighbours know which; let them say so.
    const TimePoint deadline =
        context.deadline == TimePoint::max() ? context.deadline : context.deadline + Broker::kGrace;
    if (const Status status = AwaitLine(line, round, deadline, host); !status) {
      if (status.error().code != Code::kDeadlineExceeded) return std::unexpected(status.error());
      CADRE_TRY(FailMissingHost(host, channel, round, context.deadline - start, context));
    }
  }
  return static_cast<uint32_t>(line.word.load(std::memory_order_acquire));
}

bool Fabric::carries_any() const {
  for (int h = 0; h < num_hosts(); ++h) {
    if (carries(h)) return true;
  }
  return false;
}

void Fabric::PostAll(int channel, uint32_t round, size_t offset, Gather gather) {
  std::vector<Piece> pieces;
  for (int h = 0; h < num_hosts(); ++h) {
    if (!carries(h)) continue;
    pieces.clear();
    gather(h, pieces);
    Post(h, channel, round, offset, pieces);
  }
}

Status Fabric::AwaitHosts(int channel, uint32_t round, uint32_t* bytes, const WaitContext& context) {
  for (int h = 0; h < num_hosts(); ++h) {
    if (h == hosts_.own) continue;
    CADRE_ASSIGN(const uint32_t got, AwaitHost(h, channel, round, context));
    if (bytes != nullptr) bytes[h] = got;
  }
  return Flush(context);
}

Status Fabric::Trade(int channel, uint32_t round, size_t offset, uint32_t* bytes, const WaitContext& context,
                     Gather gather) {
  PostAll(channel, round, offset, gather);
  return AwaitHosts(channel, round, bytes, context);
}

bool Fabric::AllSent() const {
  return std::ranges::all_of(carried_,
                             [](const auto& c) { return c == nullptr || !c->link || c->link->sent(); });
}

// Whoever leaves a wait may compute for long; nobody would move what is still to go.
Status Fabric::Flush(const WaitContext& context) {
  while (!AllSent()) {
    if (port_->Progress()) continue;
    CADRE_TRY(control_.Check());
    const TimePoint now = Now();
    if (now >= context.deadline) {
      return Blame(
          -1, Code::kDeadlineExceeded,
          Format("another host did not take what was sent at {} of step {}", context.what, context.step));
    }
    port_->Sleep(std::min(context.deadline, now + kPollTime));
  }
  return {};
}

Result<bool> Fabric::AwaitRingOrHost(uint32_t ticket, int channel, uint32_t round, TimePoint deadline) {
  if (port_ == nullptr) return control_.AwaitRing(ticket, deadline);
  const int me = world_rank(index_);
  control_.AddPoller(me);
  while (control_.Ticket() == ticket && !control_.aborted() && Now() < deadline) {
    for (int h = 0; h < num_hosts(); ++h) {
      if (carries(h) && HostArrived(h, channel, round)) control_.Ring();
    }
    if (control_.Ticket() != ticket) break;
    if (!port_->Progress()) port_->Sleep(deadline);
  }
  control_.RemovePoller(me);
  CADRE_TRY(control_.Check());
  return control_.Ticket() != ticket;
}

}  // namespace cadre::fabric
