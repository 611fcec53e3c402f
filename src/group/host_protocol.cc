#include "group/host_protocol.h"

#include "fabric/wire.h"

namespace cadre::group {

std::string HostHello::Encode() const {
  fabric::WireWriter to;
  to.Put(version).Put(num_ranks_in_all);
  to.PutText(entry.name).Put(int32_t{entry.first_rank}).Put(int32_t{entry.num_ranks}).PutText(entry.info);
  const auto put_all = [&](const std::vector<std::string>& texts) {
    to.Put(static_cast<uint32_t>(texts.size()));
    for (const std::string& text : texts) to.PutText(text);
  };
  put_all(entry.addresses);
  put_all(links);
  to.Put(static_cast<uint32_t>(config.size()));
  for (const ConfigField& field : config) to.PutText(field.name).PutText(field.value);
  return to.text();
}

std::optional<HostHello> HostHello::Decode(const std::string& body) {
  fabric::WireReader from(body);
  HostHello hello;
  hello.version = from.Get<uint32_t>();
  if (from.ok() && hello.version != kHostProtocol) return hello;
  hello.num_ranks_in_all = from.Get<int32_t>();
  hello.entry.name = from.GetText();
  hello.entry.first_rank = from.Get<int32_t>();
  hello.entry.num_ranks = from.Get<int32_t>();
  hello.entry.info = from.GetText();
  const auto get_all = [&](std::vector<std::string>& texts) {
    const auto n = from.Get<uint32_t>();
    for (uint32_t i = 0; i < n && from.ok(); ++i) texts.push_back(from.GetText());
  };
  get_all(hello.entry.addresses);
  get_all(hello.links);
  const auto num_fields = from.Get<uint32_t>();
  for (uint32_t i = 0; i < num_fields && from.ok(); ++i) {
    std::string name = from.GetText();
    hello.config.push_back({std::move(name), from.GetText()});
  }
  if (!from.ok()) return std::nullopt;
  return hello;
}

}  // namespace cadre::group
