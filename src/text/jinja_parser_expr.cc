#include <algorithm>

#include "text/jinja_parser.h"

namespace cadre::jinja {
namespace {

// Deeper trees than any template has; the evaluator needs about 300 bytes of stack for a level.
constexpr int kMaxTreeDepth = 300;

}  // namespace

ExprPtr Parser::WithDepth(ExprPtr node, int children_depth) {
  node->depth = children_depth + 1;
  if (node->depth > kMaxTreeDepth)
    Fail(node->line, Format("the expression nests deeper than {} levels", kMaxTreeDepth));
  return node;
}

ExprPtr Parser::Finish(ExprPtr node, std::initializer_list<const Expr*> children) {
  int depth = 0;
  for (const Expr* child : children) depth = std::max(depth, child != nullptr ? child->depth : 0);
  return WithDepth(std::move(node), depth);
}

ExprPtr Parser::FinishAll(std::unique_ptr<SequenceExpr> node) {
  int depth = 0;
  for (const ExprPtr& item : node->items) depth = std::max(depth, item->depth);
  return WithDepth(std::move(node), depth);
}

int Parser::DepthOf(const ArgList& args) const {
  int depth = 0;
  for (const ExprPtr& arg : args.pos) depth = std::max(depth, arg->depth);
  for (const auto& [name, arg] : args.kw) depth = std::max(depth, arg->depth);
  if (args.star) depth = std::max(depth, args.star->depth);
  if (args.star_star) depth = std::max(depth, args.star_star->depth);
  return depth;
}

ExprPtr Parser::Binary(ExprKind kind, int line, ExprPtr left, ExprPtr right) {
  const Expr* a = left.get();
  const Expr* b = right.get();
  return Finish(std::make_unique<BinaryExpr>(kind, line, std::move(left), std::move(right)), {a, b});
}

ExprPtr Parser::ParseTuple(const TupleRules& rules) {
  auto tuple = std::make_unique<SequenceExpr>(ExprKind::kTuple, Current().line);
  bool is_tuple = false;
  while (true) {
    if (!tuple->items.empty()) Expect(Tok::kComma);
    if (At(Tok::kVariableEnd) || At(Tok::kBlockEnd) || At(Tok::kRParen)) break;
    if (!rules.end_name.empty() && AtName(rules.end_name)) break;
    tuple->items.push_back(ParseExpression(rules.conditional));
    if (!At(Tok::kComma)) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!tuple->items.empty()) return std::move(tuple->items[0]);
    if (!rules.parentheses) {
      Fail(Current().line, Format("Expected an expression, got '{}'", DescribeToken(Current())));
    }
  }
  return FinishAll(std::move(tuple));
}

ExprPtr Parser::ParseExpression(bool conditional) {
  const Nest nest(*this);
  return conditional ? ParseConditional() : ParseOr();
}

ExprPtr Parser::ParseConditional() {
  int line = Current().line;
  const size_t num_unknown = unknown_.size();
  ExprPtr expr = ParseOr();
  while (SkipName("if")) {
    const bool was_soft = soft_;
    soft_ = true;
    unknown_.resize(num_unknown);  // inside a conditional they count only when reached
    auto cond = std::make_unique<CondExpr>(line);
    cond->then = std::move(expr);
    cond->test = ParseOr();
    if (SkipName("else")) {
      const Nest nest(*this);
      cond->otherwise = ParseConditional();
    }
    soft_ = was_soft;
    const auto children = {cond->test.get(), cond->then.get(), cond->otherwise.get()};
    expr = Finish(std::move(cond), {children.begin()[0], children.begin()[1], children.begin()[2]});
    line = Current().line;
  }
  return expr;
}

ExprPtr Parser::ParseOr() {
  int line = Current().line;
  ExprPtr left = ParseAnd();
  while (SkipName("or")) {
    left = Binary(ExprKind::kOr, line, std::move(left), ParseAnd());
    line = Current().line;
  }
  return left;
}

ExprPtr Parser::ParseAnd() {
  int line = Current().line;
  ExprPtr left = ParseNot();
  while (SkipName("and")) {
    left = Binary(ExprKind::kAnd, line, std::move(left), ParseNot());
    line = Current().line;
  }
  return left;
}

ExprPtr Parser::ParseNot() {
  if (!AtName("not")) return ParseCompare();
  const Nest nest(*this);
  const int line = Take().line;
  ExprPtr operand = ParseNot();
  const Expr* child = operand.get();
  return Finish(std::make_unique<UnaryExpr>(ExprKind::kNot, line, std::move(operand)), {child});
}

ExprPtr Parser::ParseCompare() {
  const int line = Current().line;
  ExprPtr first = ParseSum();
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
  while (true) {
    CompareOp op;
    switch (Current().type) {
      case Tok::kEq:
        op = CompareOp::kEq;
        break;
      case Tok::kNe:
        op = CompareOp::kNe;
        break;
      case Tok::kLt:
        op = CompareOp::kLt;
        break;
      case Tok::kLe:
        op = CompareOp::kLe;
        break;
      case Tok::kGt:
        op = CompareOp::kGt;
        break;
      case Tok::kGe:
        op = CompareOp::kGe;
        break;
      default:
        if (AtName("in")) {
          op = CompareOp::kIn;
        } else if (AtName("not") && Look().type == Tok::kName && Look().text == "in") {
          op = CompareOp::kNotIn;
          Take();
        } else {
          if (rest.empty()) return first;
          int depth = first->depth;
          for (const auto& [o, operand] : rest) depth = std::max(depth, operand->depth);
          auto node = std::make_unique<CompareExpr>(line, std::move(first));
          node->rest = std::move(rest);
          return WithDepth(std::move(node), depth);
        }
    }
    Take();
    rest.emplace_back(op, ParseSum());
  }
}

ExprPtr Parser::ParseSum() {
  int line = Current().line;
  ExprPtr left = ParseConcat();
  while (At(Tok::kAdd) || At(Tok::kSub)) {
    const ExprKind kind = Take().type == Tok::kAdd ? ExprKind::kAdd : ExprKind::kSub;
    left = Binary(kind, line, std::move(left), ParseConcat());
    line = Current().line;
  }
  return left;
}

ExprPtr Parser::ParseConcat() {
  const int line = Current().line;
  ExprPtr first = ParseProduct();
  if (!At(Tok::kTilde)) return first;
  auto concat = std::make_unique<SequenceExpr>(ExprKind::kConcat, line);
  concat->items.push_back(std::move(first));
  while (SkipIf(Tok::kTilde)) concat->items.push_back(ParseProduct());
  return FinishAll(std::move(concat));
}

ExprPtr Parser::ParseProduct() {
  int line = Current().line;
  ExprPtr left = ParsePower();
  while (true) {
    ExprKind kind;
    switch (Current().type) {
      case Tok::kMul:
        kind = ExprKind::kMul;
        break;
      case Tok::kDiv:
        kind = ExprKind::kDiv;
        break;
      case Tok::kFloorDiv:
        kind = ExprKind::kFloorDiv;
        break;
      case Tok::kMod:
        kind = ExprKind::kMod;
        break;
      default:
        return left;
    }
    Take();
    left = Binary(kind, line, std::move(left), ParsePower());
    line = Current().line;
  }
}

ExprPtr Parser::ParsePower() {
  // Jinja builds a tree that leans left but prints it as Python without parentheses inside, so that a ** b **
  // c is grouped by Jinja's own tree: (a ** b) ** c.
  int line = Current().line;
  ExprPtr left = ParseUnary();
  while (SkipIf(Tok::kPow)) {
    left = Binary(ExprKind::kPow, line, std::move(left), ParseUnary());
    line = Current().line;
  }
  return left;
}

ExprPtr Parser::ParseUnary(bool with_filter) {
  const int line = Current().line;
  ExprPtr node;
  if (At(Tok::kSub) || At(Tok::kAdd)) {
    const Nest nest(*this);
    const ExprKind kind = Take().type == Tok::kSub ? ExprKind::kNeg : ExprKind::kPos;
    ExprPtr operand = ParseUnary(false);
    const Expr* child = operand.get();
    node = Finish(std::make_unique<UnaryExpr>(kind, line, std::move(operand)), {child});
  } else {
    node = ParsePrimary();
  }
  node = ParsePostfix(std::move(node));
  return with_filter ? ParseFilterExpr(std::move(node)) : std::move(node);
}

ExprPtr Parser::ParsePrimary() {
  const int line = Current().line;
  switch (Current().type) {
    case Tok::kName: {
      const std::string name = Take().text;
      if (name == "true" || name == "True") return std::make_unique<ConstExpr>(line, Value::Bool(true));
      if (name == "false" || name == "False") return std::make_unique<ConstExpr>(line, Value::Bool(false));
      if (name == "none" || name == "None") return std::make_unique<ConstExpr>(line, Value());
      return std::make_unique<NameExpr>(line, Id(name), Constant(name));
    }
    case Tok::kString: {
      std::string text = std::move(Take().text);
      while (At(Tok::kString)) text += Take().text;
      return std::make_unique<ConstExpr>(line, Constant(std::move(text)));
    }
    case Tok::kInteger:
      return std::make_unique<ConstExpr>(line, Value::Int(Take().integer));
    case Tok::kFloat:
      return std::make_unique<ConstExpr>(line, Value::Float(Take().number));
    case Tok::kLParen: {
      Take();
      ExprPtr tuple = ParseTuple({.conditional = true, .parentheses = true, .end_name = {}});
      Expect(Tok::kRParen);
      return tuple;
    }
    case Tok::kLBracket:
      return ParseList();
    case Tok::kLBrace:
      return ParseDict();
    default:
      Fail(line, Format("unexpected '{}'", DescribeToken(Current())));
  }
}

ExprPtr Parser::ParseList() {
  auto list = std::make_unique<SequenceExpr>(ExprKind::kList, Expect(Tok::kLBracket).line);
  while (!At(Tok::kRBracket)) {
    if (!list->items.empty()) Expect(Tok::kComma);
    if (At(Tok::kRBracket)) break;
    list->items.push_back(ParseExpression());
  }
  Expect(Tok::kRBracket);
  return FinishAll(std::move(list));
}

ExprPtr Parser::ParseDict() {
  auto dict = std::make_unique<SequenceExpr>(ExprKind::kDict, Expect(Tok::kLBrace).line);
  while (!At(Tok::kRBrace)) {
    if (!dict->items.empty()) Expect(Tok::kComma);
    if (At(Tok::kRBrace)) break;
    dict->items.push_back(ParseExpression());
    Expect(Tok::kColon);
    dict->items.push_back(ParseExpression());
  }
  Expect(Tok::kRBrace);
  return FinishAll(std::move(dict));
}

ExprPtr Parser::ParsePostfix(ExprPtr node) {
  while (true) {
    if (At(Tok::kDot) || At(Tok::kLBracket)) {
      node = ParseSubscript(std::move(node));
    } else if (At(Tok::kLParen)) {
      node = ParseCall(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr Parser::ParseFilterExpr(ExprPtr node) {
  while (true) {
    if (At(Tok::kPipe)) {
      node = ParseFilters(std::move(node), false);
    } else if (AtName("is")) {
      node = ParseTest(std::move(node));
    } else if (At(Tok::kLParen)) {
      node = ParseCall(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr Parser::ParseSubscript(ExprPtr node) {
  const Expr* object = node.get();
  const int line = Current().line;
  if (Take().type == Tok::kDot) {
    if (At(Tok::kName)) {
      Value name = Constant(Take().text);
      return Finish(std::make_unique<GetAttrExpr>(line, std::move(node), std::move(name)), {object});
    }
    if (!At(Tok::kInteger)) Fail(Current().line, "expected name or number");
    ExprPtr key = std::make_unique<ConstExpr>(line, Value::Int(Take().integer));
    return Finish(std::make_unique<GetItemExpr>(line, std::move(node), std::move(key)), {object});
  }
  if (SkipIf(Tok::kColon)) return ParseSlice(std::move(node), nullptr, line);
  auto tuple = std::make_unique<SequenceExpr>(ExprKind::kTuple, line);
  while (!At(Tok::kRBracket)) {
    if (!tuple->items.empty()) Expect(Tok::kComma);
    ExprPtr item = ParseExpression();
    if (At(Tok::kColon)) {
      if (!tuple->items.empty()) Fail(line, "a slice cannot be one of several subscripts");
      Take();
      return ParseSlice(std::move(node), std::move(item), line);
    }
    tuple->items.push_back(std::move(item));
  }
  Expect(Tok::kRBracket);
  ExprPtr key = tuple->items.size() == 1 ? std::move(tuple->items[0]) : FinishAll(std::move(tuple));
  const Expr* key_expr = key.get();
  return Finish(std::make_unique<GetItemExpr>(line, std::move(node), std::move(key)), {object, key_expr});
}

ExprPtr Parser::ParseSlice(ExprPtr object, ExprPtr start, int line) {
  auto slice = std::make_unique<SliceExpr>(line);
  slice->object = std::move(object);
  slice->start = std::move(start);
  if (!At(Tok::kColon) && !At(Tok::kRBracket)) slice->stop = ParseExpression();
  if (SkipIf(Tok::kColon) && !At(Tok::kRBracket)) slice->step = ParseExpression();
  Expect(Tok::kRBracket);
  const SliceExpr& s = *slice;
  const Expr* children[] = {s.object.get(), s.start.get(), s.stop.get(), s.step.get()};
  return Finish(std::move(slice), {children[0], children[1], children[2], children[3]});
}

ArgList Parser::ParseArgs() {
  const Nest nest(*this);
  const int line = Expect(Tok::kLParen).line;
  ArgList args;
  const auto ensure = [&](bool valid) {
    if (!valid) Fail(line, "invalid syntax for function call expression");
  };
  bool first = true;
  while (!At(Tok::kRParen)) {
    if (!first) {
      Expect(Tok::kComma);
      if (At(Tok::kRParen)) break;  // a trailing comma
    }
    first = false;
    if (SkipIf(Tok::kMul)) {
      ensure(!args.star && !args.star_star);
      args.star = ParseExpression();
    } else if (SkipIf(Tok::kPow)) {
      ensure(!args.star_star);
      args.star_star = ParseExpression();
    } else if (At(Tok::kName) && Look().type == Tok::kAssign) {
      ensure(!args.star_star);
      std::string name = Take().text;
      Take();
      for (const auto& [other, value] : args.kw) {
        if (other == name) Fail(line, Format("keyword argument repeated: {}", name));
      }
      args.kw.emplace_back(std::move(name), ParseExpression());
    } else {
      ensure(!args.star && !args.star_star && args.kw.empty());
      args.pos.push_back(ParseExpression());
    }
  }
  Expect(Tok::kRParen);
  return args;
}

ExprPtr Parser::ParseCall(ExprPtr node) {
  const int line = Current().line;
  const int depth = node->depth;
  auto call = std::make_unique<CallExpr>(line, std::move(node));
  call->args = ParseArgs();
  const int args_depth = DepthOf(call->args);
  return WithDepth(std::move(call), std::max(depth, args_depth));
}

std::string Parser::ParseDottedName() {
  std::string name = Expect(Tok::kName).text;
  while (SkipIf(Tok::kDot)) name += "." + Expect(Tok::kName).text;
  return name;
}

ExprPtr Parser::ParseFilters(ExprPtr node, bool start_inline) {
  while (At(Tok::kPipe) || start_inline) {
    if (!start_inline) Take();
    start_inline = false;
    auto filter = std::make_unique<FilterExpr>(ExprKind::kFilter, Current().line);
    filter->name = ParseDottedName();
    filter->function = FindFilter(filter->name);
    if (filter->function == nullptr && !soft_) {
      unknown_.emplace_back(filter->line, Format("No filter named '{}'.", filter->name));
    }
    const int depth = node ? node->depth : 0;
    filter->input = std::move(node);
    if (At(Tok::kLParen)) filter->args = ParseArgs();
    const int args_depth = DepthOf(filter->args);
    node = WithDepth(std::move(filter), std::max(depth, args_depth));
  }
  return node;
}

ExprPtr Parser::ParseTest(ExprPtr node) {
  const int line = Take().line;
  const bool negated = SkipName("not");
  auto test = std::make_unique<FilterExpr>(ExprKind::kTest, line);
  test->name = ParseDottedName();
  test->function = FindTest(test->name);
  if (test->function == nullptr && !soft_) {
    unknown_.emplace_back(line, Format("No test named '{}'.", test->name));
  }
  const int depth = node->depth;
  test->input = std::move(node);
  if (At(Tok::kLParen)) {
    test->args = ParseArgs();
  } else if ((At(Tok::kName) || At(Tok::kString) || At(Tok::kInteger) || At(Tok::kFloat) ||
              At(Tok::kLBracket) || At(Tok::kLBrace)) &&
             !AtAny({"else", "or", "and"})) {
    if (AtName("is")) Fail(Current().line, "You cannot chain multiple tests with is");
    const Nest nest(*this);
    test->args.pos.push_back(ParsePostfix(ParsePrimary()));
  }
  const int args_depth = DepthOf(test->args);
  ExprPtr result = WithDepth(std::move(test), std::max(depth, args_depth));
  if (!negated) return result;
  const Expr* child = result.get();
  return Finish(std::make_unique<UnaryExpr>(ExprKind::kNot, line, std::move(result)), {child});
}

}  // namespace cadre::jinja
