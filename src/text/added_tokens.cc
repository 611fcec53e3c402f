#include "text/added_tokens.h"

#include <algorithm>

#include "base/format.h"
#include "text/json_fields.h"
#include "text/regex.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace cadre::text {
namespace {

constexpr size_t kMaxTokenBytes = 4096;  // bounds the walk at every byte of a text

// Letters, marks, digits, connectors and joiners: what \w is to the reference library.
bool BeginsWithWord(std::string_view text) {
  static const Regex* word = new Regex(std::move(*Regex::Compile("\\A[\\w\\x{200c}\\x{200d}]")));
  if (text.empty()) return false;
  std::vector<Span> found;
  word->FindAll(text.substr(0, Utf8Length(text[0])), found);
  return !found.empty();
}

// Offset of the last code point; 0 for empty text.
size_t LastPoint(std::string_view text) {
  size_t at = text.empty() ? 0 : text.size() - 1;
  while (at > 0 && IsUtf8Tail(text[at])) --at;
  return at;
}

bool EndsWithWord(std::string_view text) {
  return BeginsWithWord(text.substr(LastPoint(text)));
}

size_t SpacesBefore(std::string_view text, size_t least) {
  size_t begin = text.size();
  while (begin > least) {
    size_t at = LastPoint(text.substr(0, begin));
    const size_t before = at;
    if (!IsWhitespace(NextCodePoint(text, at))) break;
    begin = before;
  }
  return std::max(begin, least);
}

size_t SpacesBehind(std::string_view text, size_t pos) {
  while (pos < text.size()) {
    size_t next = pos;
    if (!IsWhitespace(NextCodePoint(text, next))) break;
    pos = next;
  }
  return pos;
}

}  // namespace

Result<AddedToken> ReadAddedToken(const Json& json, const std::string& what) {
  AddedToken token;
  CADRE_ASSIGN(token.content, TextField(json, "content", "", what));
  CADRE_ASSIGN(token.single_word, BoolField(json, "single_word", false, what));
  CADRE_ASSIGN(token.lstrip, BoolField(json, "lstrip", false, what));
  CADRE_ASSIGN(token.rstrip, BoolField(json, "rstrip", false, what));
  CADRE_ASSIGN(token.special, BoolField(json, "special", false, what));
  CADRE_ASSIGN(token.normalized, BoolField(json, "normalized", !token.special, what));
  if (token.content.size() > kMaxTokenBytes) {
    return Fail(Code::kInvalidArgument, "{}: a token of {} bytes; the most is {}", what, token.content.size(),
                kMaxTokenBytes);
  }
  return token;
}

Status AddedTokens::Read(const Json& json, const Model& model) {
  if (json.is_null()) return {};
  if (!json.is_array())
    return Fail(Code::kInvalidArgument, "added_tokens: expected an array, found {}", json.TypeName());
  for (size_t i = 0; i < json.AsArray().size(); ++i) {
    CADRE_ASSIGN(AddedToken token, ReadAddedToken(json.AsArray()[i], fmt::format("added_tokens[{}]", i)));
    Add(std::move(token), model);
  }
  return {};
}

void AddedTokens::Add(AddedToken token, const Model& model) {
  if (token.content.empty()) return;
  if (const auto known = by_content_.find(token.content); known != by_content_.end()) {
    token.id = list_[known->second].id;
    list_[known->second] = std::move(token);
    return;
  }
  token.id = model.vocab().Find(token.content);
  if (token.id < 0) token.id = std::max(greatest_id_ + 1, static_cast<int32_t>(model.size()));
  greatest_id_ = std::max(greatest_id_, token.id);
  by_content_[token.content] = list_.size();
  by_id_[token.id] = list_.size();
  list_.push_back(std::move(token));
}

void AddedTokens::Prepare(const Normalizer* normalizer) {
  std::vector<std::pair<std::string_view, int32_t>> plain;
  std::vector<std::pair<std::string_view, int32_t>> normalized;
  for (size_t i = 0; i < list_.size(); ++i) {
    AddedToken& token = list_[i];
    token.shown = token.content;
    if (!token.normalized) {
      plain.emplace_back(token.content, static_cast<int32_t>(i));
      continue;
    }
    Normalized normal{token.content};
    if (normalizer != nullptr) normalizer->Apply(normal);
    token.shown = std::move(normal.text);
    if (!token.shown.empty()) normalized.emplace_back(token.shown, static_cast<int32_t>(i));
  }
  std::reverse(normalized.begin(),
               normalized.end());  // of equal normal forms the first counts; Build keeps the last
  plain_.Build(plain);
  normalized_.Build(normalized);
}

void AddedTokens::Split(std::string_view text, bool normalized, std::vector<Part>& parts) const {
  const Trie& trie = normalized ? normalized_ : plain_;
  size_t done = 0;                    // up to here the text is in parts
  size_t run_begin = 1, run_end = 0;  // the spaces that rstrip looked at last
  size_t pos = trie.empty() ? text.size() : 0;
  while (pos < text.size()) {
    if (!trie.StartsKey(text[pos])) {
      ++pos;
      continue;
    }
    size_t length = 0;
    int32_t found = -1;
    trie.ForEachPrefix(text.substr(pos), [&](size_t size, int32_t index) {
      length = size;
      found = index;
    });
    if (found < 0) {
      ++pos;
      continue;
    }
    const AddedToken& token = list_[static_cast<size_t>(found)];
    size_t begin = pos;
    size_t end = pos + length;
    pos = end;
    if (token.single_word && (EndsWithWord(text.substr(0, begin)) || BeginsWithWord(text.substr(end))))
      continue;
    // A token of spaces may be found again in the spaces that the one before it took along. What then happens
    // is the reference library's way: it counts again, unless it takes spaces to its left.
    if (token.lstrip) begin = std::max(done, SpacesBefore(text.substr(0, begin), std::min(done, begin)));
    if (token.rstrip) {
      if (end < run_begin || end > run_end) run_begin = end, run_end = SpacesBehind(text, end);
      end = run_end;
    }
    if (begin > done) parts.push_back({text.substr(done, begin - done), -1});
    if (begin < end) parts.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
}

const AddedToken* AddedTokens::Find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &list_[found->second];
}

const AddedToken* AddedTokens::Find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &list_[found->second];
}

int32_t AddedTokens::id_end() const {
  return greatest_id_ + 1;
}

}  // namespace cadre::text
