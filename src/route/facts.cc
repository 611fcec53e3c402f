#include "route/facts.h"

#include "route/prefix.h"

namespace cadre::route {
namespace {

// Bytes beyond what decides are not gathered.
constexpr size_t kMaxPromptBytes = kPrefixBlockBytes * kMaxPrefixBlocks;

void AppendValue(const Json& value, std::string& out) {
  if (out.size() >= kMaxPromptBytes) return;
  if (value.is_string()) {
    out += value.AsString();
  } else if (value.is_int()) {
    const int64_t id = value.AsInt();
    out.append(reinterpret_cast<const char*>(&id), 4);  // token ids
  } else if (value.is_array()) {
    for (const Json& item : value.AsArray()) AppendValue(item, out);
  } else if (value.is_object()) {
    for (const auto& [name, member] : value.AsObject()) {
      out += name;
      out += '\0';
      AppendValue(member, out);
      out += '\1';
    }
  }
}

uint64_t SeedOf(const Json& body) {
  uint64_t seed = 0;
  for (const char* name : {"model", "cache_salt"}) {
    const Json* value = body.Find(name);
    seed = HashText(value != nullptr && value->is_string() ? value->AsString() : "", seed);
  }
  return seed;
}

}  // namespace

std::string KeyOf(std::string_view name) {
  constexpr size_t kMaxKeyBytes = 128;
  return name.size() <= kMaxKeyBytes ? std::string(name) : Format("{:016x}", HashText(name));
}

std::string SessionKey(const http::Request& request, const Json* body) {
  for (const char* name :
       {"X-Session-ID", "X-User-ID", "X-Tenant-ID", "X-Request-ID", "X-Correlation-ID", "X-Trace-ID"}) {
    const std::string* value = request.Header(name);
    if (value != nullptr && !value->empty()) return KeyOf(*value);
  }
  for (const char* name : {"session_id", "user"}) {
    const Json* value = body != nullptr ? body->Find(name) : nullptr;
    if (value != nullptr && value->is_string() && !value->AsString().empty()) return KeyOf(value->AsString());
  }
  return Format("{:016x}", HashText(request.body));
}

std::string CacheSalt(const Json& body) {
  const Json* salt = body.Find("cache_salt");
  return salt != nullptr && salt->is_string() ? salt->AsString() : "";
}

std::vector<uint64_t> PromptChain(const Json& body, int64_t* num_bytes) {
  std::string text;
  for (const char* name : {"tools", "messages", "prompt", "tokens", "token_ids", "input"}) {
    if (const Json* value = body.Find(name); value != nullptr) AppendValue(*value, text);
  }
  if (num_bytes != nullptr) *num_bytes = static_cast<int64_t>(text.size());
  return PrefixChain(text, SeedOf(body));
}

}  // namespace cadre::route
