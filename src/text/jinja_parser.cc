#include "text/jinja_parser.h"

#include <algorithm>

namespace cadre::jinja {
namespace {

constexpr int kMaxNesting = 120;  // of statements, brackets and operators that the parser recurses into

// Which of a macro's special names its body reads.
bool Reads(const std::vector<Token>& tokens, size_t begin, size_t end, std::string_view name) {
  for (size_t i = begin; i < end; ++i) {
    if (tokens[i].type == Tok::kName && tokens[i].text == name &&
        (i == 0 || tokens[i - 1].type != Tok::kDot)) {
      return true;
    }
  }
  return false;
}

}  // namespace

Parser::Nest::Nest(Parser& parser) : parser_(parser) {
  if (++parser_.nesting_ > kMaxNesting) {
    --parser_.nesting_;  // the destructor of a half-made object does not run
    parser_.Fail(parser_.Current().line, Format("the template nests deeper than {} levels", kMaxNesting));
  }
}

void Parser::Fail(int line, std::string_view message, Code code) const {
  throw SyntaxError{Error{code, Format("chat template, line {}: {}", line, message), "chat_template"}};
}

bool Parser::AtAny(std::initializer_list<std::string_view> names) const {
  return At(Tok::kName) && std::find(names.begin(), names.end(), Current().text) != names.end();
}

bool Parser::SkipIf(Tok type) {
  if (!At(type)) return false;
  Take();
  return true;
}

bool Parser::SkipName(std::string_view name) {
  if (!AtName(name)) return false;
  Take();
  return true;
}

Token& Parser::Expect(Tok type) {
  if (At(type)) return Take();
  if (At(Tok::kEof))
    Fail(Current().line, Format("unexpected end of template, expected '{}'.", DescribeTok(type)));
  Fail(Current().line, Format("expected token '{}', got '{}'", DescribeTok(type), DescribeToken(Current())));
}

void Parser::ExpectName(std::string_view name) {
  if (!SkipName(name)) {
    Fail(Current().line, Format("expected token '{}', got '{}'", name, DescribeToken(Current())));
  }
}

Value Parser::Constant(std::string text) {
  const auto found = strings_.find(text);
  if (found != strings_.end()) return found->second;
  auto owned = std::make_unique<StrObj>(std::move(text), false);
  owned->NumCodePoints();  // counted now: threads share it
  Value value(owned.get());
  program_.constants.push_back(std::move(owned));
  strings_.emplace(std::string(value.str()), value);
  return value;
}

NameId Parser::Id(const std::string& name) {
  return program_.names.emplace(name, static_cast<NameId>(program_.names.size())).first->second;
}

// ---------------------------------------------------------------- bodies

void Parser::ParseTemplate() {
  program_.loop_id = Id("loop");
  program_.caller_id = Id("caller");
  program_.kwargs_id = Id("kwargs");
  program_.varargs_id = Id("varargs");
  program_.uses_loop = Reads(tokens_, 0, tokens_.size(), "loop");
  program_.body = ParseUntil({});
  if (!unknown_.empty()) Fail(unknown_[0].first, unknown_[0].second);
  program_.globals.resize(program_.names.size(), Value::Missing());
  for (const auto& [name, id] : program_.names) {
    if (const Function function = FindGlobal(name)) {
      program_.builtins.push_back(std::make_unique<BuiltinObj>(name.c_str(), function));
      program_.globals[id] = Value(program_.builtins.back().get());
    }
  }
}

Body Parser::ParseUntil(std::initializer_list<std::string_view> ends) {
  Body body;
  while (!At(Tok::kEof)) {
    const int line = Current().line;
    if (At(Tok::kData)) {
      body.push_back(std::make_unique<TextStmt>(line, std::move(Take().text)));
    } else if (SkipIf(Tok::kVariableBegin)) {
      body.push_back(std::make_unique<PrintStmt>(line, ParseTuple()));
      Expect(Tok::kVariableEnd);
    } else {
      Expect(Tok::kBlockBegin);
      if (AtAny(ends)) return body;
      ParseStatement(body);
      Expect(Tok::kBlockEnd);
    }
  }
  if (ends.size() > 0) {
    std::string wanted;
    for (const std::string_view end : ends) wanted += Format("{}'{}'", wanted.empty() ? "" : " or ", end);
    Fail(Current().line,
         Format("Unexpected end of template. Jinja was looking for the following tags: {}.", wanted));
  }
  return body;
}

Body Parser::ParseBody(std::initializer_list<std::string_view> ends, bool drop_end) {
  const Nest nest(*this);
  SkipIf(Tok::kColon);
  Expect(Tok::kBlockEnd);
  Body body = ParseUntil(ends);
  if (drop_end) Take();
  return body;
}

void Parser::ParseStatement(Body& out) {
  if (!At(Tok::kName)) Fail(Current().line, "tag name expected");
  const std::string tag = Current().text;
  const int line = Current().line;
  if (tag == "for") return out.push_back(ParseFor());
  if (tag == "if") return out.push_back(ParseIf());
  if (tag == "set") return out.push_back(ParseSet());
  if (tag == "macro") return out.push_back(ParseMacro());
  if (tag == "call") return out.push_back(ParseCallBlock());
  if (tag == "filter") return out.push_back(ParseFilterBlock());
  if (tag == "with") return out.push_back(ParseWith());
  if (tag == "block") return out.push_back(ParseBlock());
  if (tag == "autoescape") return out.push_back(ParseAutoescape());
  if (tag == "generation") return out.push_back(ParseGeneration());
  if (tag == "break" || tag == "continue") return out.push_back(ParseLoopControl());
  if (tag == "print") return ParsePrint(out);
  if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") {
    Fail(line,
         Format("'{}' needs other template files, which a chat template has none of; put its text here", tag),
         Code::kUnsupported);
  }
  Fail(line, Format("Encountered unknown tag '{}'.{}", tag,
                    open_tags_.empty() ? std::string()
                                       : Format(" The innermost block that needs to be closed is '{}'.",
                                                open_tags_.back())));
}

// ---------------------------------------------------------------- statements

namespace {

/// Sets a value for as long as it lives.
template <typename T>
class Scoped {
 public:
  Scoped(T& place, T value) : place_(place), old_(place) { place_ = value; }
  ~Scoped() { place_ = old_; }
  Scoped(const Scoped&) = delete;
  Scoped& operator=(const Scoped&) = delete;

 private:
  T& place_;
  T old_;
};

}  // namespace

StmtPtr Parser::ParseFor() {
  auto node = std::make_unique<ForStmt>(Take().line);
  const Scoped one_more_for(fors_, fors_ + 1);
  node->target = ParseTarget(false, "in");
  ExpectName("in");
  node->iterable = ParseTuple({.conditional = false, .parentheses = false, .end_name = "recursive"});
  const Scoped hard(soft_, false);
  if (SkipName("if")) node->test = ParseExpression();
  node->recursive = SkipName("recursive");
  const Scoped one_more(loops_, loops_ + 1);
  open_tags_.push_back("for");
  node->body = ParseBody({"endfor", "else"}, false);
  if (Take().text == "else") {
    const Scoped outside(loops_, loops_ - 1);
    node->otherwise = ParseBody({"endfor"}, true);
  }
  open_tags_.pop_back();
  return node;
}

StmtPtr Parser::ParseIf() {
  auto node = std::make_unique<IfStmt>(Take().line);
  const Scoped soft(soft_, true);
  open_tags_.push_back("if");
  while (true) {
    ExprPtr test = ParseTuple({.conditional = false, .parentheses = false, .end_name = {}});
    Body body = ParseBody({"elif", "else", "endif"}, false);
    node->branches.emplace_back(std::move(test), std::move(body));
    const std::string next = Take().text;
    if (next == "elif") continue;
    if (next == "else") node->otherwise = ParseBody({"endif"}, true);
    break;
  }
  open_tags_.pop_back();
  return node;
}

StmtPtr Parser::ParseSet() {
  const int line = Take().line;
  Target target = ParseTarget(true, {});
  if (SkipIf(Tok::kAssign)) {
    auto node = std::make_unique<SetStmt>(line);
    node->target = std::move(target);
    node->value = ParseTuple();
    return node;
  }
  auto node = std::make_unique<SetBlockStmt>(line);
  node->target = std::move(target);
  const Scoped hard(soft_, false);
  node->filter = ParseFilters(nullptr, false);
  open_tags_.push_back("set");
  node->body = ParseBody({"endset"}, true);
  open_tags_.pop_back();
  return node;
}

void Parser::ParseSignature(MacroDef& macro) {
  Expect(Tok::kLParen);
  while (!At(Tok::kRParen)) {
    if (!macro.params.empty()) Expect(Tok::kComma);
    const int line = Current().line;
    std::string name = Expect(Tok::kName).text;
    if (SkipIf(Tok::kAssign)) {
      macro.defaults.push_back(ParseExpression());
    } else if (!macro.defaults.empty()) {
      Fail(line, "non-default argument follows default argument");
    }
    for (const auto& [other, id] : macro.params) {
      if (other == name) Fail(line, Format("duplicate argument '{}' in the definition of a macro", name));
    }
    const NameId id = Id(name);
    macro.params.emplace_back(std::move(name), id);
  }
  Expect(Tok::kRParen);
}

void Parser::ParseMacroBody(MacroDef& macro, std::string_view end) {
  const Scoped no_loop(loops_, 0);
  const Scoped hard(soft_, false);
  const size_t begin = pos_;
  macro.body = ParseBody({end}, true);
  const auto is_param = [&](std::string_view name) {
    return std::any_of(macro.params.begin(), macro.params.end(),
                       [&](const auto& p) { return p.first == name; });
  };
  macro.uses_caller = !is_param("caller") && Reads(tokens_, begin, pos_, "caller");
  macro.uses_kwargs = !is_param("kwargs") && Reads(tokens_, begin, pos_, "kwargs");
  macro.uses_varargs = !is_param("varargs") && Reads(tokens_, begin, pos_, "varargs");
}

StmtPtr Parser::ParseMacro() {
  auto node = std::make_unique<MacroStmt>(Take().line);
  node->macro.name = Expect(Tok::kName).text;
  node->macro.id = Id(node->macro.name);
  ParseSignature(node->macro);
  open_tags_.push_back("macro");
  ParseMacroBody(node->macro, "endmacro");
  open_tags_.pop_back();
  return node;
}

StmtPtr Parser::ParseCallBlock() {
  auto node = std::make_unique<CallBlockStmt>(Take().line);
  node->caller.name = "caller";
  if (At(Tok::kLParen)) ParseSignature(node->caller);
  node->call = ParseExpression();
  if (node->call->kind != ExprKind::kCall) Fail(node->line, "expected call");
  open_tags_.push_back("call");
  ParseMacroBody(node->caller, "endcall");
  open_tags_.pop_back();
  return node;
}

StmtPtr Parser::ParseFilterBlock() {
  auto node = std::make_unique<FilterBlockStmt>(Take().line);
  const Scoped hard(soft_, false);
  node->filter = ParseFilters(nullptr, true);
  open_tags_.push_back("filter");
  node->body = ParseBody({"endfilter"}, true);
  open_tags_.pop_back();
  return node;
}

StmtPtr Parser::ParseWith() {
  auto node = std::make_unique<WithStmt>(Take().line);
  while (!At(Tok::kBlockEnd)) {
    if (!node->bindings.empty()) Expect(Tok::kComma);
    Target target = ParseTarget(false, {});
    Expect(Tok::kAssign);
    node->bindings.emplace_back(std::move(target), ParseExpression());
  }
  const Scoped hard(soft_, false);
  open_tags_.push_back("with");
  node->body = ParseBody({"endwith"}, true);
  open_tags_.pop_back();
  return node;
}

StmtPtr Parser::ParseBlock() {
  // Without inheritance a block is its body, with a scope of its own.
  auto node = std::make_unique<BlockStmt>(Take().line);
  const std::string name = Expect(Tok::kName).text;
  SkipName("scoped");
  SkipName("required");
  const Scoped hard(soft_, false);
  const Scoped no_loop(loops_, 0);
  open_tags_.push_back("block");
  node->body = ParseBody({"endblock"}, true);
  SkipName(name);
  open_tags_.pop_back();
  return node;
}

StmtPtr Parser::ParseAutoescape() {
  auto node = std::make_unique<BlockStmt>(Take().line);
  const ExprPtr value = ParseExpression();
  const bool off = value->kind == ExprKind::kConst && !Truthy(static_cast<const ConstExpr&>(*value).value);
  if (!off) {
    Fail(node->line,
         "autoescape can only be false in a chat template, which is no HTML; use the escape filter",
         Code::kUnsupported);
  }
  const Scoped hard(soft_, false);
  open_tags_.push_back("autoescape");
  node->body = ParseBody({"endautoescape"}, true);
  open_tags_.pop_back();
  return node;
}

StmtPtr Parser::ParseGeneration() {
  // Marks what the assistant said, for training; when serving it is its body. As a call block: a scope of its
  // own.
  auto node = std::make_unique<BlockStmt>(Take().line);
  const Scoped hard(soft_, false);
  const Scoped no_loop(loops_, 0);
  open_tags_.push_back("generation");
  node->body = ParseBody({"endgeneration"}, true);
  open_tags_.pop_back();
  return node;
}

StmtPtr Parser::ParseLoopControl() {
  const Token& token = Take();
  if (loops_ == 0) Fail(token.line, Format("'{}' outside of a loop", token.text));
  return std::make_unique<Stmt>(token.text == "break" ? StmtKind::kBreak : StmtKind::kContinue, token.line);
}

void Parser::ParsePrint(Body& out) {
  const int line = Take().line;
  bool first = true;
  while (!At(Tok::kBlockEnd)) {
    if (!first) Expect(Tok::kComma);
    first = false;
    out.push_back(std::make_unique<PrintStmt>(line, ParseExpression()));
  }
}

// ---------------------------------------------------------------- targets

Target Parser::NameTarget() {
  const Token& token = Expect(Tok::kName);
  for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (token.text == constant) Fail(token.line, "can't assign to 'const'");
  }
  if (token.text == "loop" && fors_ > 0) {
    Fail(token.line, "Can't assign to special loop variable in for-loop target");
  }
  Target target;
  target.id = Id(token.text);
  target.name = Constant(token.text);
  return target;
}

Target Parser::ParseSimpleTarget(bool attributes) {
  if (At(Tok::kLParen)) {
    const Nest nest(*this);
    Take();
    Target target = ParseTarget(attributes, {});
    Expect(Tok::kRParen);
    return target;
  }
  if (!At(Tok::kName)) Fail(Current().line, Format("can't assign to '{}'", DescribeToken(Current())));
  Target target = NameTarget();
  if (attributes && SkipIf(Tok::kDot)) {
    target.kind = Target::Kind::kAttribute;
    target.attribute = Constant(Expect(Tok::kName).text);
  }
  return target;
}

Target Parser::ParseTarget(bool attributes, std::string_view end_name) {
  const auto at_end = [&] {
    return At(Tok::kBlockEnd) || At(Tok::kVariableEnd) || At(Tok::kRParen) || At(Tok::kAssign) ||
           At(Tok::kPipe) || (!end_name.empty() && AtName(end_name));
  };
  const int line = Current().line;
  Target tuple;
  tuple.kind = Target::Kind::kTuple;
  bool is_tuple = false;
  while (!at_end()) {
    tuple.parts.push_back(ParseSimpleTarget(attributes));
    if (!SkipIf(Tok::kComma)) break;
    is_tuple = true;
  }
  if (tuple.parts.empty()) Fail(line, Format("Expected an expression, got '{}'", DescribeToken(Current())));
  if (is_tuple) return tuple;
  return std::move(tuple.parts[0]);
}

// ---------------------------------------------------------------- the door

Result<std::shared_ptr<const Program>> Parse(std::string source) {
  CADRE_ASSIGN(std::vector<Token> tokens, Tokenize(source));
  auto program = std::make_shared<Program>();
  program->source = std::move(source);
  try {
    Parser(std::move(tokens), *program).ParseTemplate();
  } catch (Parser::SyntaxError& e) {
    return std::unexpected(std::move(e.error));
  }
  return std::shared_ptr<const Program>(std::move(program));
}

}  // namespace cadre::jinja
