#include "http/sse.h"

namespace cadre::http {

void SseReader::Push(std::string_view bytes, const std::function<void(std::string_view)>& on_data) {
  while (true) {
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) {
      partial_ += bytes;
      return;
    }
    if (partial_.empty()) {
      Line(bytes.substr(0, end), on_data);
    } else {
      partial_ += bytes.substr(0, end);
      Line(partial_, on_data);
      partial_.clear();
    }
    bytes.remove_prefix(end + 1);
  }
}

void SseReader::Line(std::string_view line, const std::function<void(std::string_view)>& on_data) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.empty()) {
    if (has_data_) on_data(data_);
    data_.clear();
    has_data_ = false;
    return;
  }
  if (!line.starts_with("data:")) return;
  line.remove_prefix(5);
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (has_data_) data_ += '\n';
  data_ += line;
  has_data_ = true;
}

}  // namespace cadre::http
