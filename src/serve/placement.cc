// What a router asks, to know where a request is best placed: how prefill and decode find each other, and
// which prefixes each rank holds. docs/router.md is written for its readers.
#include <algorithm>
#include <charconv>

#include "base/caught.h"
#include "serve/api.h"
#include "serve/errors.h"

namespace cadre::serve {
namespace {

constexpr int64_t kMostNames = 1 << 16;  // in one answer: a megabyte

template <typename T>
Result<T> QueryNumber(const http::Request& request, std::string_view name, T otherwise, int base = 10) {
  const std::string text = request.QueryValue(name);
  if (text.empty()) return otherwise;
  T value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (ec == std::errc() && end == text.data() + text.size() && value >= 0) return value;
  return FailParam(Code::kInvalidArgument, std::string(name), "{} must be a number of {} digits, got '{}'",
                   name, base == 16 ? "hexadecimal" : "decimal", Excerpt(text));
}

std::string Hex(const std::vector<uint64_t>& names) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out(names.size() * 16, '0');
  char* to = out.data();
  for (const uint64_t name : names) {
    for (int shift = 60; shift >= 0; shift -= 4) *to++ = kDigits[name >> shift & 15];
  }
  return out;
}

http::Response DigestResponse(int rank, const engine::PrefixChanges& changes) {
  const Json body = Json::Object{{"names", "cadre-1"},
                                 {"rank", rank},
                                 {"num_ranks", changes.num_ranks},
                                 {"block_size", changes.block_size},
                                 {"prefix_caching", changes.caches},
                                 {"epoch", Format("{:016x}", changes.epoch)},
                                 {"version", changes.version},
                                 {"base", changes.base},
                                 {"reset", changes.reset},
                                 {"more", changes.more},
                                 {"removed", Hex(changes.removed)},
                                 {"added", Hex(changes.added)}};
  return {200, "application/json", {}, body.Dump()};
}

}  // namespace

Result<http::Response> KvTransferPlaces(Api& api, const http::Request&) {
  const engine::KvTransferInfo& info = api.session.model().kv_transfer;
  Json::Array ranks;
  if (info.enabled) {
    const std::vector<engine::KvSource> sources = api.session.engine().KvSources();
    for (size_t rank = 0; rank < sources.size(); ++rank) {
      const engine::KvSource& source = sources[rank];
      ranks.push_back(Json::Object{{"rank", static_cast<int64_t>(rank)},
                                   {"engine_id", source.engine_id},
                                   {"host", source.host},
                                   {"port", static_cast<int64_t>(source.port)},
                                   {"tp_size", static_cast<int64_t>(source.tp_size)}});
    }
  }
  const char* role = !info.enabled                    ? "none"
                     : info.produces == info.consumes ? "kv_both"
                     : info.produces                  ? "kv_producer"
                                                      : "kv_consumer";
  const Json body = Json::Object{
      {"enabled", info.enabled}, {"role", role}, {"push", info.enabled}, {"ranks", std::move(ranks)}};
  return http::Response{200, "application/json", {}, body.Dump()};
}

Status HeldPrefixes(Api& api, const http::Request& request, const WriterPtr& writer) {
  engine::PrefixQuery query;
  CADRE_ASSIGN(query.rank, QueryNumber<int>(request, "rank", 0));
  CADRE_ASSIGN(query.epoch, QueryNumber<uint64_t>(request, "epoch", 0, 16));
  CADRE_ASSIGN(query.since, QueryNumber<int64_t>(request, "since", 0));
  CADRE_ASSIGN(query.base, QueryNumber<int64_t>(request, "base", 0));
  CADRE_ASSIGN(const int64_t limit, QueryNumber<int64_t>(request, "limit", query.limit));
  query.limit = std::clamp<int64_t>(limit, 1, kMostNames);
  const int rank = query.rank;
  api.session.engine().Prefixes(query, [writer, rank](Result<engine::PrefixChanges> changes) {
    try {
      writer->Send(changes ? DigestResponse(rank, *changes) : ErrorResponse(changes.error()));
    } catch (...) {
      writer->Send(ErrorResponse(CaughtError()));
    }
  });
  return {};
}

}  // namespace cadre::serve
