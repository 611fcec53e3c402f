#include "text/jinja_eval.h"

namespace cadre::jinja {

Value Interpreter::Eval(const Expr& expr) {
  rt_.Charge();
  switch (expr.kind) {
    case ExprKind::kConst:
      return static_cast<const ConstExpr&>(expr).value;
    case ExprKind::kName:
      return EvalName(static_cast<const NameExpr&>(expr));
    default:
      break;
  }
  const Runtime::Level level(rt_);
  switch (expr.kind) {
    case ExprKind::kTuple:
    case ExprKind::kList:
      return EvalSequence(static_cast<const SequenceExpr&>(expr));
    case ExprKind::kDict:
      return EvalDict(static_cast<const SequenceExpr&>(expr));
    case ExprKind::kConcat:
      return EvalConcat(static_cast<const SequenceExpr&>(expr));
    case ExprKind::kGetAttr: {
      const auto& node = static_cast<const GetAttrExpr&>(expr);
      const Value object = Eval(*node.object);
      rt_.line = node.line;
      return rt_.GetAttr(object, node.name, node.methods.data());
    }
    case ExprKind::kGetItem: {
      const auto& node = static_cast<const GetItemExpr&>(expr);
      const Value object = Eval(*node.object);
      const Value key = Eval(*node.key);
      rt_.line = node.line;
      return rt_.GetItem(object, key);
    }
    case ExprKind::kSlice:
      return EvalSlice(static_cast<const SliceExpr&>(expr));
    case ExprKind::kCall:
      return EvalCall(static_cast<const CallExpr&>(expr), nullptr);
    case ExprKind::kFilter:
    case ExprKind::kTest:
      return EvalFilter(static_cast<const FilterExpr&>(expr));
    case ExprKind::kNot:
      return Value::Bool(!Test(*static_cast<const UnaryExpr&>(expr).operand));
    case ExprKind::kNeg:
      return rt_.Negate(Eval(*static_cast<const UnaryExpr&>(expr).operand));
    case ExprKind::kPos:
      return rt_.Plus(Eval(*static_cast<const UnaryExpr&>(expr).operand));
    case ExprKind::kAnd: {
      Value left = Eval(*static_cast<const BinaryExpr&>(expr).left);
      return Truthy(left) ? Eval(*static_cast<const BinaryExpr&>(expr).right) : left;
    }
    case ExprKind::kOr: {
      Value left = Eval(*static_cast<const BinaryExpr&>(expr).left);
      return Truthy(left) ? left : Eval(*static_cast<const BinaryExpr&>(expr).right);
    }
    case ExprKind::kCompare:
      return EvalCompare(static_cast<const CompareExpr&>(expr));
    case ExprKind::kCond:
      return EvalCond(static_cast<const CondExpr&>(expr));
    default:
      return EvalBinary(static_cast<const BinaryExpr&>(expr));
  }
}

Value Interpreter::EvalName(const NameExpr& expr) {
  if (const Value* found = Lookup(expr.id)) return *found;
  return rt_.Undefined(UndefinedObj::Why::kName, "", expr.name);
}

Value Interpreter::EvalSequence(const SequenceExpr& expr) {
  ValueVec items;
  items.reserve(expr.items.size());
  for (const ExprPtr& item : expr.items) items.push_back(Eval(*item));
  return expr.kind == ExprKind::kList ? rt_.List(std::move(items)) : rt_.Tuple(std::move(items));
}

Value Interpreter::EvalDict(const SequenceExpr& expr) {
  DictObj::Items items;
  items.reserve(expr.items.size() / 2);
  for (size_t i = 0; i + 1 < expr.items.size(); i += 2) {
    Value key = Eval(*expr.items[i]);
    Value value = Eval(*expr.items[i + 1]);
    items.emplace_back(std::move(key), std::move(value));
  }
  return rt_.Dict(std::move(items));
}

Value Interpreter::EvalConcat(const SequenceExpr& expr) {
  Builder out(rt_);
  for (const ExprPtr& item : expr.items) out.AppendValue(Eval(*item));
  return out.Take();
}

Value Interpreter::EvalSlice(const SliceExpr& expr) {
  const Value object = Eval(*expr.object);
  const Value start = expr.start ? Eval(*expr.start) : Value();
  const Value stop = expr.stop ? Eval(*expr.stop) : Value();
  const Value step = expr.step ? Eval(*expr.step) : Value();
  rt_.line = expr.line;
  return rt_.GetSlice(object, start, stop, step);
}

void Interpreter::EvalArgs(const ArgList& list, Args& out) {
  out.pos.reserve(list.pos.size());
  for (const ExprPtr& arg : list.pos) out.pos.push_back(Eval(*arg));
  for (const auto& [name, arg] : list.kw) out.kw.emplace_back(name, Eval(*arg));
  if (list.star) {
    Iterator it(rt_, Eval(*list.star));
    Value item;
    while (it.Next(item)) rt_.Push(out.pos, item);
  }
  if (list.star_star) {
    const Value mapping = Eval(*list.star_star);
    if (!mapping.Is(Kind::kDict)) {
      RaiseType("argument after ** must be a mapping, not {}", TypeName(mapping));
    }
    // The names stay alive with the dict, which the argument list must hold.
    out.held = mapping;
    for (const auto& [key, value] : mapping.As<DictObj>().items) {
      if (!key.IsStr()) RaiseType("keywords must be strings");
      rt_.Charge(list.kw.size() + 1);
      for (const auto& [name, arg] : list.kw) {
        if (name == key.str()) RaiseType("got multiple values for keyword argument '{}'", name);
      }
      out.kw.emplace_back(key.str(), value);
    }
  }
}

Value Interpreter::EvalCall(const CallExpr& expr, const Value* caller) {
  Args args;
  // A method that is called at once needs no object of its own.
  if (expr.callee->kind == ExprKind::kGetAttr) {
    const auto& attr = static_cast<const GetAttrExpr&>(*expr.callee);
    const Value object = Eval(*attr.object);
    rt_.line = attr.line;
    const int kind = MethodKind(object);
    const Method* method = kind >= 0 ? attr.methods[static_cast<size_t>(kind)] : nullptr;
    const bool direct = method != nullptr && method->function != nullptr;
    const Value callee = direct ? Value() : rt_.GetAttr(object, attr.name, attr.methods.data());
    EvalArgs(expr.args, args);
    if (caller != nullptr) args.kw.emplace_back("caller", *caller);
    rt_.line = expr.line;
    return direct ? method->function(rt_, object, args) : Call(callee, args);
  }
  const Value callee = Eval(*expr.callee);
  EvalArgs(expr.args, args);
  if (caller != nullptr) args.kw.emplace_back("caller", *caller);
  rt_.line = expr.line;
  Value result = Call(callee, args);
  rt_.line = expr.line;
  return result;
}

Value Interpreter::EvalFilter(const FilterExpr& expr) {
  const Value input = expr.input ? Eval(*expr.input) : rt_.Str(*filter_input_);
  Args args;
  EvalArgs(expr.args, args);
  rt_.line = expr.line;
  if (expr.function == nullptr) {
    Raise(EvalError::Kind::kTemplate, "No {} named '{}' found.",
          expr.kind == ExprKind::kTest ? "test" : "filter", expr.name);
  }
  return expr.function(rt_, input, args);
}

Value Interpreter::EvalBinary(const BinaryExpr& expr) {
  const Value left = Eval(*expr.left);
  const Value right = Eval(*expr.right);
  rt_.line = expr.line;
  switch (expr.kind) {
    case ExprKind::kAdd:
      return rt_.Add(left, right);
    case ExprKind::kSub:
      return rt_.Sub(left, right);
    case ExprKind::kMul:
      return rt_.Mul(left, right);
    case ExprKind::kDiv:
      return rt_.Div(left, right);
    case ExprKind::kFloorDiv:
      return rt_.FloorDiv(left, right);
    case ExprKind::kMod:
      return rt_.Mod(left, right);
    default:
      return rt_.Pow(left, right);
  }
}

Value Interpreter::EvalCompare(const CompareExpr& expr) {
  Value left = Eval(*expr.first);
  bool result = true;
  for (const auto& [op, operand] : expr.rest) {
    Value right = Eval(*operand);
    rt_.line = expr.line;
    switch (op) {
      case CompareOp::kEq:
        result = rt_.Equal(left, right);
        break;
      case CompareOp::kNe:
        result = !rt_.Equal(left, right);
        break;
      case CompareOp::kLt:
        result = rt_.Compare(left, right, Runtime::Order::kLt);
        break;
      case CompareOp::kLe:
        result = rt_.Compare(left, right, Runtime::Order::kLe);
        break;
      case CompareOp::kGt:
        result = rt_.Compare(left, right, Runtime::Order::kGt);
        break;
      case CompareOp::kGe:
        result = rt_.Compare(left, right, Runtime::Order::kGe);
        break;
      case CompareOp::kIn:
        result = rt_.Contains(right, left);
        break;
      case CompareOp::kNotIn:
        result = !rt_.Contains(right, left);
        break;
    }
    if (!result) break;
    left = std::move(right);
  }
  return Value::Bool(result);
}

Value Interpreter::EvalCond(const CondExpr& expr) {
  if (Test(*expr.test)) return Eval(*expr.then);
  if (expr.otherwise) return Eval(*expr.otherwise);
  return rt_.UndefinedHint(
      Format("the inline if-expression on line {} evaluated to false and no else section was "
             "defined.",
             expr.line));
}

}  // namespace cadre::jinja
