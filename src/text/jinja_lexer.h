#pragma once
// Cuts a template into tokens, with Jinja2's whitespace rules: trim_blocks, lstrip_blocks, `-` and `+` signs,
// raw blocks, one trailing newline dropped, \r\n and \r read as \n.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace cadre::jinja {

enum class Tok : uint8_t {
  kData,        ///< text between tags; `text`
  kBlockBegin,  // {%
  kBlockEnd,
  kVariableBegin,  // {{
  kVariableEnd,
  kName,     ///< `text`
  kString,   ///< `text`, escapes resolved
  kInteger,  ///< `integer`
  kFloat,    ///< `number`
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kTilde,
  kLBracket,
  kRBracket,
  kLParen,
  kRParen,
  kLBrace,
  kRBrace,
  kEq,
  kNe,
  kGt,
  kGe,
  kLt,
  kLe,
  kAssign,
  kDot,
  kColon,
  kPipe,
  kComma,
  kSemicolon,
  kEof,
};

struct Token {
  Tok type = Tok::kEof;
  int line = 1;
  std::string text;
  int64_t integer = 0;
  double number = 0;
};

/// What a token is called in a message: `end of statement block`, `(`, a name.
std::string DescribeToken(const Token& token);
const char* DescribeTok(Tok type);

/// The tokens of `source`, ended by kEof. Errors: kInvalidArgument with the line. Cost: linear.
Result<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace cadre::jinja
