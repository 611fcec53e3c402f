#pragma once
// Server-sent events: the reader's side. (Writing one is "data: " + text + "\n\n".)
#include <functional>
#include <string>
#include <string_view>

namespace cadre::http {

/// Cuts a byte stream into events, whatever pieces it arrives in.
class SseReader {
 public:
  /// `on_data` hears the data of each complete event (several data lines joined by '\n'); comments and other
  /// fields are skipped. The view lives during the call. Cost: linear.
  void Push(std::string_view bytes, const std::function<void(std::string_view data)>& on_data);

 private:
  void Line(std::string_view line, const std::function<void(std::string_view)>& on_data);

  std::string partial_;  // an unfinished line
  std::string data_;
  bool has_data_ = false;
};

}  // namespace cadre::http
