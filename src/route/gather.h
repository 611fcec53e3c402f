#pragma once
// An answer that is wanted whole.
#include <functional>
#include <string>
#include <utility>

#include "http/client.h"

namespace cadre::route {

struct Gathered {
  Status status;  ///< of the exchange; fine also for an answer that says no
  int code = 0;   ///< of the answer; 0: none came
  std::string body;
};

/// Hears one answer and hands it on, once. Bytes beyond `most` are an error, or dropped.
class GatherSink final : public http::ResponseSink {
 public:
  enum class Beyond { kFails, kIsDropped };
  GatherSink(size_t most, Beyond beyond, std::move_only_function<void(Gathered)> then)
      : most_(most), beyond_(beyond), then_(std::move(then)) {}
  void OnHead(int status, const http::Headers&) override { heard_.code = status; }
  void OnBody(std::string_view bytes) override {
    too_long_ |= bytes.size() > most_ - heard_.body.size();
    heard_.body += bytes.substr(0, most_ - heard_.body.size());
  }
  void OnDone(Status status) override {
    heard_.status = std::move(status);
    if (heard_.status && too_long_ && beyond_ == Beyond::kFails)
      heard_.status = Fail(Code::kDataLoss, "its answer is longer than {} bytes", most_);
    auto then = std::exchange(then_, nullptr);
    then(std::move(heard_));
  }

 private:
  const size_t most_;
  const Beyond beyond_;
  std::move_only_function<void(Gathered)> then_;
  Gathered heard_;
  bool too_long_ = false;
};

}  // namespace cadre::route
