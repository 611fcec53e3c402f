#include "engine/prefix_digest.h"

#include <algorithm>

#include "base/check.h"
#include "base/random.h"
#include "engine/engine.h"

namespace cadre::engine {

void Engine::Prefixes(PrefixQuery, PrefixDone done) {
  done(Fail(Code::kUnsupported, "this engine does not tell which prefixes it holds"));
}

PrefixDigest::PrefixDigest(int32_t block_size, bool caches, size_t max_gone)
    : epoch_(EntropySeed() | 1), block_size_(block_size), caches_(caches), max_gone_(max_gone) {}

void PrefixDigest::Published(uint64_t name) {
  const std::lock_guard lock(mutex_);
  Held& held = held_[name];
  if (++held.count > 1) return;
  held.version = ++version_;
  order_.emplace_hint(order_.end(), version_, name);
}

void PrefixDigest::Forgotten(uint64_t name) {
  const std::lock_guard lock(mutex_);
  const auto it = held_.find(name);
  CADRE_CHECK(it != held_.end());
  if (--it->second.count > 0) return;
  order_.erase(it->second.version);
  held_.erase(it);
  gone_.emplace_back(++version_, name);
  if (gone_.size() <= max_gone_) return;
  forgotten_ = gone_.front().first;
  gone_.pop_front();
}

PrefixChanges PrefixDigest::Since(const PrefixQuery& query) const {
  const std::lock_guard lock(mutex_);
  const int64_t heard_of =
      std::max(query.since, query.base);  // what went before that is nothing to the caller
  const bool knows =
      query.epoch == epoch_ && query.since >= 0 && heard_of >= forgotten_ && heard_of <= version_;
  PrefixChanges out{.epoch = epoch_,
                    .base = knows ? query.base : version_,
                    .reset = !knows,
                    .block_size = block_size_,
                    .caches = caches_,
                    .removed = {},
                    .added = {}};
  int64_t since = knows ? query.since : 0;
  auto added = order_.upper_bound(since);
  auto gone = std::ranges::upper_bound(gone_, knows ? heard_of : version_, {},
                                       [](const auto& one) { return one.first; });
  for (int64_t left = std::max<int64_t>(query.limit, 1); left > 0; --left) {
    const bool has_added = added != order_.end(), has_gone = gone != gone_.end();
    if (!has_added && !has_gone) break;
    if (has_gone && (!has_added || gone->first < added->first)) {
      since = gone->first;
      out.removed.push_back((gone++)->second);
    } else {
      since = added->first;
      out.added.push_back((added++)->second);
    }
  }
  out.more = added != order_.end() || gone != gone_.end();
  // The rest up to here concerns nothing that is held now or that the caller has heard of.
  out.version = out.more ? since : version_;
  return out;
}

}  // namespace cadre::engine
