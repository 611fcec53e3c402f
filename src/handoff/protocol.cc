#include "handoff/protocol.h"

namespace cadre::handoff {
namespace {

constexpr uint32_t kMaxAddresses = 1024;

std::unexpected<Error> Broken(const char* what) {
  return Fail(Code::kDataLoss, "the other side sent a broken message ('{}')", what);
}

void PutHeads(fabric::WireWriter& out, HeadRange heads) {
  out.Put(heads.begin).Put(heads.end);
}

bool TokensMakeSense(int64_t first, int64_t end) {
  return first >= 0 && first <= end && end <= kMaxTokens;
}

}  // namespace

std::string Introduction::Encode() const {
  fabric::WireWriter out;
  out.Put(version).PutText(engine_id).PutText(boot_id).PutText(unix_address).PutText(nonce);
  out.PutText(group_key).Put(num_blocks);
  PutIdentity(out, identity);
  return out.text();
}

Result<Introduction> Introduction::Decode(const std::string& body) {
  fabric::WireReader in(body);
  Introduction made;
  made.version = in.Get<uint32_t>();
  if (in.ok() && made.version != kProtocolVersion) {
    return Fail(
        Code::kUnsupported,
        "the other side speaks version {} of the hand-off protocol, this one version {}; run the same "
        "release of Cadre on both",
        made.version, kProtocolVersion);
  }
  made.engine_id = in.GetText();
  made.boot_id = in.GetText();
  made.unix_address = in.GetText();
  made.nonce = in.GetText();
  made.group_key = in.GetText();
  made.num_blocks = in.Get<int64_t>();
  made.identity = GetIdentity(in);
  constexpr int64_t kMaxPoolTokens = int64_t{1} << 38;  // so that no size computed from it overflows
  const int64_t num_tokens = made.num_blocks < 0 || made.num_blocks > INT32_MAX
                                 ? -1
                                 : made.num_blocks * made.identity.layout.block_size;
  if (!in.ok() || num_tokens < 0 || num_tokens > kMaxPoolTokens) return Broken("introduction");
  return made;
}

std::string Want::Encode() const {
  fabric::WireWriter out;
  out.Put(stream).Put(kind).Put(uint8_t{may_wait}).PutText(request_id).Put(generation).PutText(adapter);
  out.Put(first_token).Put(end_token).Put(uint8_t{as_data}).Put(uint8_t{notes});
  PutHeads(out, heads);
  return out.text();
}

Result<Want> Want::Decode(const std::string& body) {
  fabric::WireReader in(body);
  Want want;
  want.stream = in.Get<uint32_t>();
  const auto kind = in.Get<uint8_t>();
  want.kind = static_cast<WantKind>(kind);
  want.may_wait = in.Get<uint8_t>() != 0;
  want.request_id = in.GetText();
  want.generation = in.Get<int64_t>();
  want.adapter = in.GetText();
  want.first_token = in.Get<int64_t>();
  want.end_token = in.Get<int64_t>();
  want.as_data = in.Get<uint8_t>() != 0;
  want.notes = in.Get<uint8_t>() != 0;
  want.heads.begin = in.Get<int32_t>();
  want.heads.end = in.Get<int32_t>();
  if (!in.ok() || kind > 1 || !TokensMakeSense(want.first_token, want.end_token)) return Broken("want");
  return want;
}

void PutAddresses(fabric::WireWriter& out, const std::vector<PeerAddress>& addresses) {
  out.Put(static_cast<uint32_t>(addresses.size()));
  for (const PeerAddress& a : addresses) out.PutText(a.host).Put(a.port);
}

std::vector<PeerAddress> GetAddresses(fabric::WireReader& in) {
  std::vector<PeerAddress> addresses;
  const auto count = in.Get<uint32_t>();
  for (uint32_t i = 0; i < count && i < kMaxAddresses && in.ok(); ++i) {
    PeerAddress address;
    address.host = in.GetText();
    address.port = in.Get<uint16_t>();
    addresses.push_back(std::move(address));
  }
  return addresses;
}

void PutTable(fabric::WireWriter& out, std::span<const int32_t> blocks) {
  out.PutText({reinterpret_cast<const char*>(blocks.data()), blocks.size_bytes()});
}

std::vector<int32_t> GetTable(fabric::WireReader& in) {
  const std::string bytes = in.GetText();
  std::vector<int32_t> blocks(bytes.size() / sizeof(int32_t));
  if (!blocks.empty()) std::memcpy(blocks.data(), bytes.data(), blocks.size() * sizeof(int32_t));
  return blocks;
}

std::string ShareOrder::Encode(uint32_t stream) const {
  fabric::WireWriter out;
  out.Put(stream).PutText(engine_id);
  PutAddresses(out, sources);
  out.PutText(request_id).Put(generation).Put(first_token).Put(end_token);
  PutTable(out, blocks);
  return out.text();
}

Result<ShareOrder> ShareOrder::Decode(fabric::WireReader& in) {
  ShareOrder order;
  order.engine_id = in.GetText();
  order.sources = GetAddresses(in);
  order.request_id = in.GetText();
  order.generation = in.Get<int64_t>();
  order.first_token = in.Get<int64_t>();
  order.end_token = in.Get<int64_t>();
  order.blocks = GetTable(in);
  if (!in.ok() || order.sources.empty() || !TokensMakeSense(order.first_token, order.end_token)) {
    return Broken("order");
  }
  return order;
}

std::string Outcome::Encode(uint32_t stream) const {
  fabric::WireWriter out;
  out.Put(stream).Put(uint8_t{status.has_value()});
  out.Put(static_cast<uint32_t>(status ? Code::kInternal : status.error().code));
  out.PutText(status ? std::string() : status.error().message).Put(bytes).Put(uint8_t{within_host});
  return out.text();
}

Outcome Outcome::Decode(fabric::WireReader& in) {
  Outcome made;
  const bool fine = in.Get<uint8_t>() != 0;
  const auto code = in.Get<uint32_t>();
  std::string text = Excerpt(in.GetText(), 2000);
  made.bytes = in.Get<int64_t>();
  made.within_host = in.Get<uint8_t>() != 0;
  if (!in.ok()) {
    made.status = Broken("outcome");
  } else if (!fine) {
    const Code known =
        code <= static_cast<uint32_t>(Code::kInternal) ? static_cast<Code>(code) : Code::kInternal;
    made.status = std::unexpected(Error{known, std::move(text), {}});
  }
  return made;
}

std::string OnlyStream(uint32_t stream) {
  return fabric::WireWriter().Put(stream).text();
}

}  // namespace cadre::handoff
