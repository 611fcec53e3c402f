#pragma once
// Recursive descent over the tokens, in two files: expressions (jinja_parser_expr.cc) and statements
// (jinja_parser.cc). The grammar is Jinja2's. Nesting is bounded, so that neither parsing nor evaluating can
// run out of stack.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace cadre::jinja {

class Parser {
 public:
  Parser(std::vector<Token> tokens, Program& program) : tokens_(std::move(tokens)), program_(program) {}
  /// Fills the program. Throws SyntaxError.
  void ParseTemplate();

  struct SyntaxError {
    Error error;
  };

 private:
  // ---- tokens
  const Token& Current() const { return tokens_[pos_]; }
  const Token& Look() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  Token& Take() { return tokens_[pos_ + 1 < tokens_.size() ? pos_++ : pos_]; }
  bool At(Tok type) const { return Current().type == type; }
  bool AtName(std::string_view name) const { return At(Tok::kName) && Current().text == name; }
  bool AtAny(std::initializer_list<std::string_view> names) const;
  bool SkipIf(Tok type);
  bool SkipName(std::string_view name);
  Token& Expect(Tok type);
  void ExpectName(std::string_view name);
  [[noreturn]] void Fail(int line, std::string_view message, Code code = Code::kInvalidArgument) const;

  // One level of nesting, while it lives.
  class Nest {
   public:
    explicit Nest(Parser& parser);
    ~Nest() { --parser_.nesting_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;

   private:
    Parser& parser_;
  };

  // ---- expressions
  struct TupleRules {
    bool conditional = true;    // a if b else c is allowed
    bool parentheses = false;   // () is an empty tuple
    std::string_view end_name;  // a name that ends the tuple
  };
  ExprPtr ParseTuple(const TupleRules& rules);
  ExprPtr ParseTuple() { return ParseTuple(TupleRules()); }
  ExprPtr ParseExpression(bool conditional = true);
  ExprPtr ParseConditional();
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  ExprPtr ParseCompare();
  ExprPtr ParseSum();
  ExprPtr ParseConcat();
  ExprPtr ParseProduct();
  ExprPtr ParsePower();
  ExprPtr ParseUnary(bool with_filter = true);
  ExprPtr ParsePrimary();
  ExprPtr ParseList();
  ExprPtr ParseDict();
  ExprPtr ParsePostfix(ExprPtr node);
  ExprPtr ParseFilterExpr(ExprPtr node);
  ExprPtr ParseSubscript(ExprPtr node);
  ExprPtr ParseSlice(ExprPtr object, ExprPtr start, int line);
  ExprPtr ParseCall(ExprPtr node);
  ExprPtr ParseFilters(ExprPtr node, bool start_inline);
  ExprPtr ParseTest(ExprPtr node);
  ArgList ParseArgs();
  std::string ParseDottedName();
  ExprPtr Binary(ExprKind kind, int line, ExprPtr left, ExprPtr right);
  ExprPtr Finish(ExprPtr node, std::initializer_list<const Expr*> children);
  ExprPtr FinishAll(std::unique_ptr<SequenceExpr> node);
  int DepthOf(const ArgList& args) const;
  ExprPtr WithDepth(ExprPtr node, int children_depth);

  // ---- statements
  Body ParseBody(std::initializer_list<std::string_view> ends, bool drop_end);
  Body ParseUntil(std::initializer_list<std::string_view> ends);
  void ParseStatement(Body& out);
  StmtPtr ParseFor();
  StmtPtr ParseIf();
  StmtPtr ParseSet();
  StmtPtr ParseMacro();
  StmtPtr ParseCallBlock();
  StmtPtr ParseFilterBlock();
  StmtPtr ParseWith();
  StmtPtr ParseBlock();
  StmtPtr ParseAutoescape();
  StmtPtr ParseGeneration();
  StmtPtr ParseLoopControl();
  void ParsePrint(Body& out);
  void ParseSignature(MacroDef& macro);
  void ParseMacroBody(MacroDef& macro, std::string_view end);
  Target ParseTarget(bool attributes, std::string_view end_name);
  Target ParseSimpleTarget(bool attributes);
  Target NameTarget();

  // ---- names
  Value Constant(std::string text);
  NameId Id(const std::string& name);

  std::vector<Token> tokens_;
  size_t pos_ = 0;
  Program& program_;
  int nesting_ = 0;
  int fors_ = 0;       // around the current statement, macros or not
  int loops_ = 0;      // around the current statement, within its macro
  bool soft_ = false;  // in an if: an unknown filter is an error only when it is reached
  std::vector<std::pair<int, std::string>>
      unknown_;  // unknown filters and tests that make the template invalid
  std::vector<std::string_view> open_tags_;
  std::map<std::string, Value, std::less<>> strings_;
};

}  // namespace cadre::jinja
