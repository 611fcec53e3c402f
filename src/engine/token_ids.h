#pragma once
// Token ids that nobody changes any more, shared by all who hold them: the n sequences of a prompt have one
// copy of it.
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

namespace cadre::engine {

/// Copying shares. Never without a vector behind it, which may be empty.
class TokenIds {
 public:
  TokenIds() : TokenIds(std::vector<int32_t>()) {}
  TokenIds(std::vector<int32_t> ids) : ids_(std::make_shared<const std::vector<int32_t>>(std::move(ids))) {}
  TokenIds(std::initializer_list<int32_t> ids) : TokenIds(std::vector<int32_t>(ids)) {}

  operator const std::vector<int32_t>&() const { return *ids_; }
  const std::vector<int32_t>& vector() const { return *ids_; }
  size_t size() const { return ids_->size(); }
  bool empty() const { return ids_->empty(); }
  const int32_t* data() const { return ids_->data(); }
  const int32_t* begin() const { return ids_->data(); }
  const int32_t* end() const { return ids_->data() + ids_->size(); }
  int32_t front() const { return ids_->front(); }
  int32_t back() const { return ids_->back(); }
  int32_t operator[](size_t i) const { return (*ids_)[i]; }

  friend bool operator==(const TokenIds& a, const TokenIds& b) { return *a.ids_ == *b.ids_; }

 private:
  std::shared_ptr<const std::vector<int32_t>> ids_;
};

}  // namespace cadre::engine
