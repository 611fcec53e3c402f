#pragma once
// Private to the room: Beast's incremental parser, filling our own messages. Used by server.cc and client.cc
// alone.
#include <atomic>
#include <boost/beast/http/basic_parser.hpp>
#include <functional>
#include <string>

#include "http/message.h"

namespace cadre::http {

namespace beast = boost::beast;
using ErrorCode = boost::system::error_code;

/// Bytes of all bodies that a server holds; a parser takes from it and gives back when it dies.
class BodyBudget {
 public:
  explicit BodyBudget(int64_t limit) : limit_(limit) {}
  bool Take(int64_t bytes) {
    if (used_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= limit_) return true;
    used_.fetch_sub(bytes, std::memory_order_relaxed);
    return false;
  }
  void Give(int64_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }

 private:
  const int64_t limit_;
  std::atomic<int64_t> used_{0};
};

template <bool kIsRequest>
class MessageParser final : public beast::http::basic_parser<kIsRequest> {
 public:
  using Base = beast::http::basic_parser<kIsRequest>;

  MessageParser(int64_t header_limit, int max_header_count, BodyBudget* budget)
      : max_header_count_(max_header_count), budget_(budget) {
    this->header_limit(static_cast<uint32_t>(header_limit));
    this->eager(true);
  }
  ~MessageParser() override {
    if (budget_ != nullptr) budget_->Give(taken_);
  }

  std::string method, target;
  Headers headers;
  std::string body;  // unless on_body is set
  int status = 0;
  int version = 11;
  bool too_many_headers = false;
  bool out_of_budget = false;
  std::function<void()> on_header;
  std::function<void(std::string_view)> on_body;

 private:
  void on_request_impl(beast::http::verb, beast::string_view name, beast::string_view where, int v,
                       ErrorCode& ec) override {
    ec = {};
    method.assign(name.data(), name.size());
    target.assign(where.data(), where.size());
    version = v;
  }
  void on_response_impl(int code, beast::string_view, int v, ErrorCode& ec) override {
    ec = {};
    status = code;
    version = v;
  }
  void on_field_impl(beast::http::field, beast::string_view name, beast::string_view value,
                     ErrorCode& ec) override {
    ec = {};
    if (static_cast<int>(headers.size()) >= max_header_count_) {
      too_many_headers = true;
      ec = beast::http::error::header_limit;
      return;
    }
    headers.emplace_back(std::string(name.data(), name.size()), std::string(value.data(), value.size()));
  }
  void on_header_impl(ErrorCode& ec) override {
    ec = {};
    if (on_header) on_header();
  }
  void on_body_init_impl(const boost::optional<uint64_t>&, ErrorCode& ec) override { ec = {}; }
  size_t on_body_impl(beast::string_view bytes, ErrorCode& ec) override { return AddBody(bytes, ec); }
  void on_chunk_header_impl(uint64_t, beast::string_view, ErrorCode& ec) override { ec = {}; }
  size_t on_chunk_body_impl(uint64_t, beast::string_view bytes, ErrorCode& ec) override {
    return AddBody(bytes, ec);
  }
  void on_finish_impl(ErrorCode& ec) override { ec = {}; }

  size_t AddBody(beast::string_view bytes, ErrorCode& ec) {
    ec = {};
    if (on_body) {
      on_body(std::string_view(bytes.data(), bytes.size()));
      return bytes.size();
    }
    if (budget_ != nullptr) {
      if (!budget_->Take(static_cast<int64_t>(bytes.size()))) {
        out_of_budget = true;
        ec = beast::http::error::body_limit;
        return 0;
      }
      taken_ += static_cast<int64_t>(bytes.size());
    }
    body.append(bytes.data(), bytes.size());
    return bytes.size();
  }

  const int max_header_count_;
  BodyBudget* const budget_;
  int64_t taken_ = 0;
};

}  // namespace cadre::http
