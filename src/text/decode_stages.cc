// Pieces travel as chunks: Take(chunk, ends) appends `chunk` to the current piece, and `ends` says that the
// piece is complete. A token is one chunk that ends; behind Fuse there is a single piece that ends with the
// stream. Chunks hold whole code points. A stage that must see a whole piece (WholePieces) gathers it; those
// that usually stand behind Fuse (Strip, Replace of a literal, Metaspace) work on chunks, so that text flows.
#include "text/decode_stages.h"

#include "text/byte_level.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

using Kind = DecoderStep::Kind;

class Stage {
 public:
  virtual ~Stage() = default;
  virtual void Take(std::string_view chunk, bool ends) = 0;
  /// The stream ended. Stages pass it on after what they held.
  virtual void Finish() { next->Finish(); }
  Stage* next = nullptr;
};

class Sink : public Stage {
 public:
  std::string* out = nullptr;
  void Take(std::string_view chunk, bool) override { *out += chunk; }
  void Finish() override {}
};

// Calls Piece for each whole piece.
class WholePieces : public Stage {
 public:
  void Take(std::string_view chunk, bool ends) override {
    if (!ends || !gathered_.empty()) gathered_ += chunk;
    if (!ends) return;
    Piece(gathered_.empty() ? chunk : std::string_view(gathered_), index_++);
    gathered_.clear();
  }

 protected:
  virtual void Piece(std::string_view piece, size_t index) = 0;

 private:
  std::string gathered_;
  size_t index_ = 0;
};

// All tokens as bytes in one piece. A token that holds anything but letters of bytes stands for its own text.
class ByteLevelStage : public WholePieces {
 public:
  void Bytes(std::string_view bytes) {
    std::string text;
    repair_.Push(bytes, text);
    if (!text.empty()) next->Take(text, false);
  }
  void Finish() override {
    std::string text;
    repair_.Finish(text);
    next->Take(text, true);
    next->Finish();
  }

 protected:
  void Piece(std::string_view piece, size_t) override {
    std::string bytes;
    if (!LettersToBytes(piece, bytes)) bytes = piece;
    Bytes(bytes);
  }

 private:
  Utf8Repair repair_;
};

// Runs of byte tokens become text; a run that is not valid UTF-8 as a whole becomes one U+FFFD a byte.
class ByteFallbackStage : public WholePieces {
 public:
  explicit ByteFallbackStage(size_t max_held) : max_held_(max_held) {}
  void Finish() override {
    EndRun();
    next->Finish();
  }

 protected:
  void Piece(std::string_view piece, size_t) override {
    const int byte = ByteOfToken(piece);
    if (byte < 0) {
      EndRun();
      next->Take(piece, true);
      return;
    }
    if (is_damaged_) {
      next->Take(kReplacementText, true);
      return;
    }
    run_ += static_cast<char>(byte);
    checked_ += ValidUtf8Prefix(std::string_view(run_).substr(checked_));
    const std::string_view rest = std::string_view(run_).substr(checked_);
    if (!rest.empty() && ScanUtf8(rest).state == Utf8State::kInvalid) {
      is_damaged_ = true;
      for (size_t i = 0; i < run_.size(); ++i) next->Take(kReplacementText, true);
      run_.clear();
      checked_ = 0;
    } else if (run_.size() > max_held_ && checked_ > 0) {
      next->Take(std::string_view(run_).substr(0, checked_), true);
      run_.erase(0, checked_);
      checked_ = 0;
    }
  }

 private:
  void EndRun() {
    if (checked_ == run_.size()) {
      if (!run_.empty()) next->Take(run_, true);
    } else {
      for (size_t i = 0; i < run_.size(); ++i) next->Take(kReplacementText, true);
    }
    run_.clear();
    checked_ = 0;
    is_damaged_ = false;
  }

  size_t max_held_;
  std::string run_;
  size_t checked_ = 0;       // so many bytes of run_ are whole code points
  bool is_damaged_ = false;  // run_ went out as U+FFFD, and so will the rest of the run
};

class FuseStage : public Stage {
 public:
  void Take(std::string_view chunk, bool) override { next->Take(chunk, false); }
  void Finish() override {
    next->Take({}, true);
    next->Finish();
  }
};

class ReplaceStage : public WholePieces {
 public:
  explicit ReplaceStage(const DecoderStep& step) : step_(step) {}

 protected:
  void Piece(std::string_view piece, size_t) override {
    std::string out;
    ReplaceMatches(step_.pattern, step_.text, piece, out);
    next->Take(out, true);
  }

 private:
  const DecoderStep& step_;
};

// Replace of a literal, in pieces that may go on for long: holds back what may be the beginning of a match.
class ReplaceLiteralStage : public Stage {
 public:
  explicit ReplaceLiteralStage(const DecoderStep& step)
      : literal_(step.pattern.literal()), content_(step.text) {}

  void Take(std::string_view chunk, bool ends) override {
    if (held_.empty() && chunk.find(literal_[0]) == chunk.npos) return next->Take(chunk, ends);
    held_ += chunk;
    std::string out;
    size_t done = 0;
    for (size_t at = held_.find(literal_); at != held_.npos; at = held_.find(literal_, done)) {
      out.append(held_, done, at - done);
      out += content_;
      done = at + literal_.size();
    }
    const size_t keep = ends ? held_.size() : FirstPossible(done);
    out.append(held_, done, keep - done);
    held_.erase(0, keep);
    next->Take(out, ends);
  }

 private:
  // The first place at or behind `from` where a match may begin that is not complete yet.
  size_t FirstPossible(size_t from) const {
    size_t at = held_.size() - from >= literal_.size() ? held_.size() - literal_.size() + 1 : from;
    for (; at < held_.size(); ++at) {
      if (literal_.starts_with(std::string_view(held_).substr(at))) return at;
    }
    return at;
  }

  const std::string& literal_;
  const std::string& content_;
  std::string held_;
};

// Takes up to `start` of a character from the beginning of each piece and up to `stop` from its end.
class StripStage : public Stage {
 public:
  explicit StripStage(const DecoderStep& step) : step_(step), left_(step.start) {}

  void Take(std::string_view chunk, bool ends) override {
    const std::string& mark = step_.text;
    for (; left_ > 0 && chunk.starts_with(mark); --left_) chunk.remove_prefix(mark.size());
    if (!chunk.empty()) left_ = 0;
    std::string out;
    while (!chunk.empty()) {
      const size_t length = chunk.starts_with(mark) ? mark.size() : Utf8Length(chunk[0]);
      if (chunk.starts_with(mark)) {
        if (held_ == step_.stop) {
          out += mark;
        } else {
          ++held_;
        }
      } else {
        for (; held_ > 0; --held_) out += mark;
        out += chunk.substr(0, length);
      }
      chunk.remove_prefix(length);
    }
    if (ends) {
      held_ = 0;
      left_ = step_.start;
    }
    next->Take(out, ends);
  }

 private:
  const DecoderStep& step_;
  size_t left_;      // still to be taken from the beginning of this piece
  size_t held_ = 0;  // characters at the end that go if the piece ends here; at most step_.stop
};

class MetaspaceStage : public Stage {
 public:
  explicit MetaspaceStage(const DecoderStep& step) : step_(step) {}

  void Take(std::string_view chunk, bool ends) override {
    std::string out;
    size_t done = 0;
    for (size_t at = chunk.find(step_.text); at != chunk.npos; at = chunk.find(step_.text, done)) {
      out += chunk.substr(done, at - done);
      if (!is_first_ || !step_.flag) out += ' ';
      done = at + step_.text.size();
    }
    out += chunk.substr(done);
    if (ends) is_first_ = false;
    next->Take(out, ends);
  }

 private:
  const DecoderStep& step_;
  bool is_first_ = true;
};

// The end-of-word suffix becomes a space, but at the end of the last token nothing: a token with one waits
// for the next token.
class BpeStage : public WholePieces {
 public:
  explicit BpeStage(const DecoderStep& step) : step_(step) {}
  void Finish() override {
    if (has_held_) Send(held_, "");
    next->Finish();
  }

 protected:
  void Piece(std::string_view piece, size_t) override {
    if (has_held_) Send(held_, " ");
    has_held_ = piece.find(step_.text) != piece.npos;
    if (has_held_) {
      held_ = piece;
    } else {
      next->Take(piece, true);
    }
  }

 private:
  void Send(std::string_view piece, std::string_view instead) {
    std::string out;
    size_t done = 0;
    for (size_t at = piece.find(step_.text); at != piece.npos; at = piece.find(step_.text, done)) {
      out += piece.substr(done, at - done);
      out += instead;
      done = at + step_.text.size();
    }
    out += piece.substr(done);
    next->Take(out, true);
  }

  const DecoderStep& step_;
  std::string held_;
  bool has_held_ = false;
};

class WordPieceStage : public WholePieces {
 public:
  explicit WordPieceStage(const DecoderStep& step) : step_(step) {}

 protected:
  void Piece(std::string_view piece, size_t index) override {
    std::string text;
    if (index > 0) {
      if (piece.starts_with(step_.text)) {
        piece.remove_prefix(step_.text.size());
      } else {
        text += ' ';
      }
    }
    text += piece;
    if (step_.flag) CleanUp(text);
    next->Take(text, true);
  }

 private:
  static void CleanUp(std::string& text) {
    constexpr std::string_view kPairs[][2] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [from, to] : kPairs) {
      for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size())) {
        text.replace(at, from.size(), to);
      }
    }
  }

  const DecoderStep& step_;
};

// No decoder at all: tokens with a space between them.
class JoinStage : public WholePieces {
 protected:
  void Piece(std::string_view piece, size_t index) override {
    if (index > 0) next->Take(" ", true);
    next->Take(piece, true);
  }
};

std::unique_ptr<Stage> MakeStage(const DecoderStep& step, size_t max_held_bytes) {
  switch (step.kind) {
    case Kind::kByteLevel:
      return std::make_unique<ByteLevelStage>();
    case Kind::kByteFallback:
      return std::make_unique<ByteFallbackStage>(max_held_bytes);
    case Kind::kFuse:
      return std::make_unique<FuseStage>();
    case Kind::kReplace:
      if (step.pattern.literal().empty()) return std::make_unique<ReplaceStage>(step);
      return std::make_unique<ReplaceLiteralStage>(step);
    case Kind::kStrip:
      return std::make_unique<StripStage>(step);
    case Kind::kMetaspace:
      return std::make_unique<MetaspaceStage>(step);
    case Kind::kBpe:
      return std::make_unique<BpeStage>(step);
    case Kind::kWordPiece:
      return std::make_unique<WordPieceStage>(step);
    case Kind::kJoin:
      return std::make_unique<JoinStage>();
  }
  return nullptr;
}

class Chain : public DecodeStream {
 public:
  Chain(const std::vector<DecoderStep>& steps, size_t max_held_bytes) {
    for (const DecoderStep& step : steps) stages_.push_back(MakeStage(step, max_held_bytes));
    for (size_t i = 0; i < stages_.size(); ++i) {
      stages_[i]->next = i + 1 < stages_.size() ? stages_[i + 1].get() : &sink_;
    }
  }
  void Push(std::string_view token, std::string& out) override {
    sink_.out = &out;
    First().Take(token, true);
  }
  void PushBytes(std::string_view bytes, std::string& out) override {
    sink_.out = &out;
    static_cast<ByteLevelStage&>(First()).Bytes(bytes);
  }
  void Finish(std::string& out) override {
    sink_.out = &out;
    First().Finish();
  }

 private:
  Stage& First() { return stages_.empty() ? sink_ : *stages_.front(); }

  Sink sink_;
  std::vector<std::unique_ptr<Stage>> stages_;
};

}  // namespace

std::unique_ptr<DecodeStream> StartStages(const std::vector<DecoderStep>& steps, size_t max_held_bytes) {
  return std::make_unique<Chain>(steps, max_held_bytes);
}

int ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int byte = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return -1;
    byte = byte * 16 + digit;
  }
  return byte;
}

void ReplaceMatches(const Pattern& pattern, std::string_view content, std::string_view text,
                    std::string& out) {
  std::vector<Span> matches;
  pattern.FindAll(text, matches);
  size_t done = 0;
  for (const Span& match : matches) {
    out += text.substr(done, match.begin - done);
    out += content;
    done = match.end;
  }
  out += text.substr(done);
}

}  // namespace cadre::text
