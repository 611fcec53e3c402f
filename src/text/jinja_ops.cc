// The operators: arithmetic, comparison, containment, subscripts and attributes, by Python's rules.
#include <algorithm>
#include <cmath>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

[[noreturn]] void Unsupported(const char* op, const Value& a, const Value& b) {
  RaiseType("unsupported operand type(s) for {}: '{}' and '{}'", op, TypeName(a), TypeName(b));
}

[[noreturn]] void Overflow() {
  throw EvalError{EvalError::Kind::kPython, "OverflowError: integers past 64 bits are not supported"};
}

[[noreturn]] void DivisionByZero() {
  throw EvalError{EvalError::Kind::kPython, "ZeroDivisionError: division by zero"};
}

/// -1, 0, 1; 2 if one is NaN. long double holds every int64_t and double exactly on x86 and is the best there
/// is elsewhere.
int CompareNumbers(const Value& a, const Value& b) {
  if (a.IsIntegral() && b.IsIntegral()) return a.AsInt() < b.AsInt() ? -1 : a.AsInt() > b.AsInt() ? 1 : 0;
  const auto wide = [](const Value& v) {
    return v.IsIntegral() ? static_cast<long double>(v.AsInt()) : static_cast<long double>(v.AsDouble());
  };
  const long double x = wide(a);
  const long double y = wide(b);
  return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
}

double PythonFloorMod(double a, double b) {
  double mod = std::fmod(a, b);
  if (mod != 0 && (b < 0) != (mod < 0)) mod += b;
  if (mod == 0) mod = std::copysign(0.0, b);
  return mod;
}

double PythonFloorDiv(double a, double b) {
  const double mod = PythonFloorMod(a, b);
  const double div = (a - mod) / b;
  if (div == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(div);
  return div - floor > 0.5 ? floor + 1 : floor;
}

Value Repeat(Runtime& rt, const Value& what, int64_t times) {
  times = std::max<int64_t>(times, 0);
  if (what.IsStr()) {
    const std::string_view s = what.str();
    if (s.empty() || times == 0) return rt.Str("", what.As<StrObj>().markup);
    if (times > static_cast<int64_t>(rt.limits().max_value_bytes / s.size())) rt.TooLarge("string");
    rt.ChargeBytes(s.size() * static_cast<size_t>(times));
    std::string out;
    out.reserve(s.size() * static_cast<size_t>(times));
    for (int64_t i = 0; i < times; ++i) out += s;
    return rt.Str(std::move(out), what.As<StrObj>().markup);
  }
  const ValueVec& items = what.As<ListObj>().items;
  ValueVec out;
  if (!items.empty()) {
    for (int64_t i = 0; i < times; ++i) {
      for (const Value& item : items) rt.Push(out, item);
    }
  }
  return what.Is(Kind::kList) ? rt.List(std::move(out)) : rt.Tuple(std::move(out));
}

Value JoinLists(Runtime& rt, const Value& a, const Value& b) {
  const ValueVec& x = a.As<ListObj>().items;
  const ValueVec& y = b.As<ListObj>().items;
  rt.Charge(x.size() + y.size());
  if ((x.size() + y.size()) * sizeof(Value) > rt.limits().max_value_bytes) rt.TooLarge("list");
  ValueVec out;
  out.reserve(x.size() + y.size());
  out.insert(out.end(), x.begin(), x.end());
  out.insert(out.end(), y.begin(), y.end());
  return a.Is(Kind::kList) ? rt.List(std::move(out)) : rt.Tuple(std::move(out));
}

Value JoinStrings(Runtime& rt, const Value& a, const Value& b) {
  const bool left = a.As<StrObj>().markup;
  const bool right = b.As<StrObj>().markup;
  Builder out(rt);
  out.text().reserve(a.str().size() + b.str().size());
  // Markup escapes what plain text is added to it, on either side.
  if (right && !left) {
    out.Append(EscapeHtml(rt, a.str()));
  } else {
    out.Append(a.str());
  }
  if (left && !right) {
    out.Append(EscapeHtml(rt, b.str()));
  } else {
    out.Append(b.str());
  }
  return out.Take(left || right);
}

}  // namespace

// ---------------------------------------------------------------- comparison

bool Truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::kMissing:
    case Kind::kNone:
    case Kind::kUndefined:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.AsInt() != 0;
    case Kind::kFloat:
      return v.AsDouble() != 0;
    case Kind::kStr:
      return !v.str().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !v.As<ListObj>().items.empty();
    case Kind::kDict:
      return !v.As<DictObj>().items.empty();
    case Kind::kRange:
      return v.As<RangeObj>().Length() > 0;
    case Kind::kDictView:
      return !v.As<DictViewObj>().dict.As<DictObj>().items.empty();
    default:
      return true;
  }
}

bool Runtime::Equal(const Value& a, const Value& b) {
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kMissing:
    case Kind::kNone:
    case Kind::kUndefined:
      return true;
    case Kind::kStr: {
      const std::string_view x = a.str();
      const std::string_view y = b.str();
      if (x.size() != y.size()) return false;
      ChargeBytes(x.size());
      return x == y;
    }
    case Kind::kList:
    case Kind::kTuple: {
      const ValueVec& x = a.As<ListObj>().items;
      const ValueVec& y = b.As<ListObj>().items;
      if (x.size() != y.size()) return false;
      const Level level(*this);
      Charge(x.size());
      for (size_t i = 0; i < x.size(); ++i) {
        if (!Equal(x[i], y[i])) return false;
      }
      return true;
    }
    case Kind::kDict: {
      const DictObj::Items& x = a.As<DictObj>().items;
      const DictObj& y = b.As<DictObj>();
      if (x.size() != y.items.size()) return false;
      const Level level(*this);
      for (const auto& [key, value] : x) {
        Charge(4);
        const Value* other = y.Find(key);
        if (other == nullptr || !Equal(value, *other)) return false;
      }
      return true;
    }
    case Kind::kRange: {
      const RangeObj& x = a.As<RangeObj>();
      const RangeObj& y = b.As<RangeObj>();
      if (x.Length() != y.Length()) return false;
      return x.Length() == 0 || (x.begin == y.begin && (x.Length() == 1 || x.step == y.step));
    }
    case Kind::kMethod: {
      const MethodObj& x = a.As<MethodObj>();
      const MethodObj& y = b.As<MethodObj>();
      return x.method == y.method && x.self.object() == y.self.object();
    }
    case Kind::kBuiltin:
      return a.As<BuiltinObj>().function == b.As<BuiltinObj>().function;
    default:
      return a.object() == b.object();
  }
}

bool Runtime::Compare(const Value& a, const Value& b, Order op) {
  FailIfUndefined(a);
  FailIfUndefined(b);
  int order = 2;
  if (a.IsNumber() && b.IsNumber()) {
    order = CompareNumbers(a, b);
  } else if (a.IsStr() && b.IsStr()) {
    // UTF-8 sorts by bytes as by code points.
    ChargeBytes(std::min(a.str().size(), b.str().size()));
    const int c = a.str().compare(b.str());
    order = c < 0 ? -1 : c > 0 ? 1 : 0;
  } else if (a.kind() == b.kind() && (a.Is(Kind::kList) || a.Is(Kind::kTuple))) {
    const ValueVec& x = a.As<ListObj>().items;
    const ValueVec& y = b.As<ListObj>().items;
    const Level level(*this);
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      Charge();
      if (!Equal(x[i], y[i])) return Compare(x[i], y[i], op);
    }
    order = x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
  } else {
    constexpr const char* kNames[] = {"<", "<=", ">", ">="};
    RaiseType("'{}' not supported between instances of '{}' and '{}'", kNames[static_cast<int>(op)],
              TypeName(a), TypeName(b));
  }
  if (order == 2) return false;
  switch (op) {
    case Order::kLt:
      return order < 0;
    case Order::kLe:
      return order <= 0;
    case Order::kGt:
      return order > 0;
    case Order::kGe:
      return order >= 0;
  }
  return false;
}

bool Runtime::Contains(const Value& container, const Value& item) {
  Charge();
  switch (container.kind()) {
    case Kind::kStr:
      if (!item.IsStr()) RaiseType("'in <string>' requires string as left operand, not {}", TypeName(item));
      ChargeBytes(container.str().size());
      return Find(container.str(), item.str()) != std::string_view::npos;
    case Kind::kDict:
      NeedHashable(item);
      return container.As<DictObj>().Find(item) != nullptr;
    case Kind::kDictView:
      if (container.As<DictViewObj>().part == DictViewObj::Part::kKeys) {
        NeedHashable(item);
        return container.As<DictViewObj>().dict.As<DictObj>().Find(item) != nullptr;
      }
      break;
    case Kind::kList:
    case Kind::kTuple:
      for (const Value& candidate : container.As<ListObj>().items) {
        Charge();
        if (Equal(candidate, item)) return true;
      }
      return false;
    default:
      break;
  }
  if (!Iterator::IsIterable(container))
    RaiseType("argument of type '{}' is not iterable", TypeName(container));
  Iterator it(*this, container);
  Value candidate;
  while (it.Next(candidate)) {
    if (Equal(candidate, item)) return true;
  }
  return false;
}

// ---------------------------------------------------------------- arithmetic

Value Runtime::Add(const Value& a, const Value& b) {
  if (a.IsStr() && b.IsStr()) return JoinStrings(*this, a, b);
  FailIfUndefined(a);
  FailIfUndefined(b);
  if (a.IsIntegral() && b.IsIntegral()) {
    int64_t sum = 0;
    if (__builtin_add_overflow(a.AsInt(), b.AsInt(), &sum)) Overflow();
    return Value::Int(sum);
  }
  if (a.IsNumber() && b.IsNumber()) return Value::Float(a.AsDouble() + b.AsDouble());
  if (a.kind() == b.kind() && (a.Is(Kind::kList) || a.Is(Kind::kTuple))) return JoinLists(*this, a, b);
  if (a.IsStr()) RaiseType("can only concatenate str (not \"{}\") to str", TypeName(b));
  if (a.Is(Kind::kList)) RaiseType("can only concatenate list (not \"{}\") to list", TypeName(b));
  if (a.Is(Kind::kTuple)) RaiseType("can only concatenate tuple (not \"{}\") to tuple", TypeName(b));
  Unsupported("+", a, b);
}

Value Runtime::Sub(const Value& a, const Value& b) {
  FailIfUndefined(a);
  FailIfUndefined(b);
  if (a.IsIntegral() && b.IsIntegral()) {
    int64_t difference = 0;
    if (__builtin_sub_overflow(a.AsInt(), b.AsInt(), &difference)) Overflow();
    return Value::Int(difference);
  }
  if (a.IsNumber() && b.IsNumber()) return Value::Float(a.AsDouble() - b.AsDouble());
  Unsupported("-", a, b);
}

Value Runtime::Mul(const Value& a, const Value& b) {
  FailIfUndefined(a);
  FailIfUndefined(b);
  if (a.IsIntegral() && b.IsIntegral()) {
    int64_t product = 0;
    if (__builtin_mul_overflow(a.AsInt(), b.AsInt(), &product)) Overflow();
    return Value::Int(product);
  }
  if (a.IsNumber() && b.IsNumber()) return Value::Float(a.AsDouble() * b.AsDouble());
  const auto repeatable = [](const Value& v) { return v.IsStr() || v.Is(Kind::kList) || v.Is(Kind::kTuple); };
  if (repeatable(a) && b.IsIntegral()) return Repeat(*this, a, b.AsInt());
  if (repeatable(b) && a.IsIntegral()) return Repeat(*this, b, a.AsInt());
  if (repeatable(a)) RaiseType("can't multiply sequence by non-int of type '{}'", TypeName(b));
  if (repeatable(b)) RaiseType("can't multiply sequence by non-int of type '{}'", TypeName(a));
  Unsupported("*", a, b);
}

Value Runtime::Div(const Value& a, const Value& b) {
  FailIfUndefined(a);
  FailIfUndefined(b);
  if (!a.IsNumber() || !b.IsNumber()) Unsupported("/", a, b);
  if (b.AsDouble() == 0) DivisionByZero();
  return Value::Float(a.AsDouble() / b.AsDouble());
}

Value Runtime::FloorDiv(const Value& a, const Value& b) {
  FailIfUndefined(a);
  FailIfUndefined(b);
  if (!a.IsNumber() || !b.IsNumber()) Unsupported("//", a, b);
  if (b.AsDouble() == 0) DivisionByZero();
  if (!a.IsIntegral() || !b.IsIntegral()) return Value::Float(PythonFloorDiv(a.AsDouble(), b.AsDouble()));
  if (b.AsInt() == -1) return Negate(a);
  const int64_t quotient = a.AsInt() / b.AsInt();
  const bool round_down = a.AsInt() % b.AsInt() != 0 && (a.AsInt() < 0) != (b.AsInt() < 0);
  return Value::Int(quotient - (round_down ? 1 : 0));
}

Value Runtime::Mod(const Value& a, const Value& b) {
  if (a.IsStr()) return PercentFormat(*this, a, b);
  FailIfUndefined(a);
  FailIfUndefined(b);
  if (!a.IsNumber() || !b.IsNumber()) Unsupported("%", a, b);
  if (b.AsDouble() == 0) DivisionByZero();
  if (!a.IsIntegral() || !b.IsIntegral()) return Value::Float(PythonFloorMod(a.AsDouble(), b.AsDouble()));
  if (b.AsInt() == -1) return Value::Int(0);
  int64_t mod = a.AsInt() % b.AsInt();
  if (mod != 0 && (mod < 0) != (b.AsInt() < 0)) mod += b.AsInt();
  return Value::Int(mod);
}

Value Runtime::Pow(const Value& a, const Value& b) {
  FailIfUndefined(a);
  FailIfUndefined(b);
  if (!a.IsNumber() || !b.IsNumber()) Unsupported("** or pow()", a, b);
  if (a.IsIntegral() && b.IsIntegral() && b.AsInt() >= 0) {
    int64_t result = 1;
    int64_t base = a.AsInt();
    for (int64_t exponent = b.AsInt(); exponent > 0; exponent >>= 1) {
      if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) Overflow();
      if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) Overflow();
    }
    return Value::Int(result);
  }
  const double x = a.AsDouble();
  const double y = b.AsDouble();
  if (x == 0 && y < 0) {
    throw EvalError{EvalError::Kind::kPython, "ZeroDivisionError: 0.0 cannot be raised to a negative power"};
  }
  if (x < 0 && std::isfinite(y) && y != std::floor(y)) RaiseType("complex results are not supported");
  const double power = std::pow(x, y);
  if (std::isinf(power) && std::isfinite(x) && std::isfinite(y)) {
    throw EvalError{EvalError::Kind::kPython, "OverflowError: numerical result out of range"};
  }
  return Value::Float(power);
}

Value Runtime::Negate(const Value& a) {
  FailIfUndefined(a);
  if (a.IsIntegral()) {
    int64_t negative = 0;
    if (__builtin_sub_overflow(int64_t{0}, a.AsInt(), &negative)) Overflow();
    return Value::Int(negative);
  }
  if (a.Is(Kind::kFloat)) return Value::Float(-a.AsDouble());
  RaiseType("bad operand type for unary -: '{}'", TypeName(a));
}

Value Runtime::Plus(const Value& a) {
  FailIfUndefined(a);
  if (a.IsIntegral()) return Value::Int(a.AsInt());
  if (a.Is(Kind::kFloat)) return a;
  RaiseType("bad operand type for unary +: '{}'", TypeName(a));
}

// ---------------------------------------------------------------- subscripts

int64_t Runtime::Length(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kStr:
      ChargeBytes(v.str().size());
      return v.As<StrObj>().NumCodePoints();
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(v.As<ListObj>().items.size());
    case Kind::kDict:
      return static_cast<int64_t>(v.As<DictObj>().items.size());
    case Kind::kRange:
      return v.As<RangeObj>().Length();
    case Kind::kDictView:
      return static_cast<int64_t>(v.As<DictViewObj>().dict.As<DictObj>().items.size());
    default:
      RaiseType("object of type '{}' has no len()", TypeName(v));
  }
}

int64_t Runtime::NeedInt(const Value& v, const char* what) {
  FailIfUndefined(v);
  if (!v.IsIntegral()) RaiseType("{} must be an integer, not '{}'", what, TypeName(v));
  return v.AsInt();
}

std::string_view Runtime::NeedStr(const Value& v, const char* what) {
  FailIfUndefined(v);
  if (!v.IsStr()) RaiseType("{} must be str, not {}", what, TypeName(v));
  return v.str();
}

Value Runtime::GetItem(const Value& obj, const Value& key) {
  FailIfUndefined(obj);
  if (obj.Is(Kind::kDict)) {
    bool hashable = !key.Is(Kind::kList) && !key.Is(Kind::kDict) && !key.Is(Kind::kDictView);
    if (hashable && key.Is(Kind::kTuple)) NeedHashable(key);
    if (const Value* found = hashable ? obj.As<DictObj>().Find(key) : nullptr) return *found;
  } else if (key.IsIntegral()) {
    int64_t i = key.AsInt();
    if (obj.Is(Kind::kList) || obj.Is(Kind::kTuple)) {
      const ValueVec& items = obj.As<ListObj>().items;
      if (i < 0) i += static_cast<int64_t>(items.size());
      if (i >= 0 && i < static_cast<int64_t>(items.size())) return items[static_cast<size_t>(i)];
    } else if (obj.IsStr() || obj.Is(Kind::kRange)) {
      const int64_t length = Length(obj);
      if (i < 0) i += length;
      if (i >= 0 && i < length) {
        if (obj.Is(Kind::kRange)) return Value::Int(obj.As<RangeObj>().begin + i * obj.As<RangeObj>().step);
        const std::string_view s = obj.str();
        const size_t pos = obj.As<StrObj>().IsAscii() ? static_cast<size_t>(i) : ByteOffset(s, i);
        return Piece(obj, s.substr(pos, CharSize(s, pos)));
      }
    }
  }
  if (key.IsStr()) {
    const int kind = MethodKind(obj);
    const Method* methods[kNumMethodKinds] = {};
    if (kind >= 0) methods[kind] = FindMethod(kind, key.str());
    Value attribute = GetAttribute(obj, key.str(), methods);
    if (!attribute.IsMissing()) return attribute;
    return Undefined(UndefinedObj::Why::kAttribute, TypeRepr(obj), key);
  }
  FailIfUndefined(key);
  return Undefined(UndefinedObj::Why::kElement, TypeRepr(obj), key);
}

Value Runtime::GetSlice(const Value& obj, const Value& start, const Value& stop, const Value& step) {
  FailIfUndefined(obj);
  const auto bound = [&](const Value& v) {
    if (!v.IsNone() && !v.IsIntegral()) RaiseType("slice indices must be integers or None");
    return v.AsInt();
  };
  const bool is_list = obj.Is(Kind::kList) || obj.Is(Kind::kTuple);
  if (!is_list && !obj.IsStr() && !obj.Is(Kind::kRange)) {
    if (obj.Is(Kind::kDict)) RaiseType("unhashable type: 'slice'");
    RaiseType("'{}' object is not subscriptable", TypeName(obj));
  }
  const int64_t length = Length(obj);
  const int64_t stride = step.IsNone() ? 1 : bound(step);
  if (stride == 0) RaiseValue("slice step cannot be zero");
  // As Python's slice.indices().
  const auto clamp = [&](const Value& v, int64_t otherwise) {
    if (v.IsNone()) return otherwise;
    int64_t i = bound(v);
    if (i < 0) {
      i = i < -length ? (stride < 0 ? -1 : 0) : i + length;
    } else if (i >= length) {
      i = stride < 0 ? length - 1 : length;
    }
    return i;
  };
  const int64_t first = clamp(start, stride < 0 ? length - 1 : 0);
  const int64_t last = clamp(stop, stride < 0 ? -1 : length);
  int64_t count = 0;
  if (stride > 0 && first < last) count = (last - first - 1) / stride + 1;
  if (stride < 0 && first > last) count = (first - last - 1) / -(stride + (stride == INT64_MIN ? 1 : 0)) + 1;
  if (obj.Is(Kind::kRange)) {
    const RangeObj& range = obj.As<RangeObj>();
    // first and last are at most the length, so that times the step they stay within the range's own 2^62; a
    // step that would leave 2^61 (it then steps over everything) is cut.
    constexpr int64_t kMaxStep = int64_t{1} << 61;
    int64_t new_step = 0;
    const bool huge = __builtin_mul_overflow(range.step, stride, &new_step);
    if (huge) new_step = (range.step < 0) == (stride < 0) ? kMaxStep : -kMaxStep;
    new_step = std::clamp(new_step, -kMaxStep, kMaxStep);
    const int64_t begin = range.begin + first * range.step;
    return heap_.Make<RangeObj>(0, begin, range.begin + last * range.step, new_step);
  }
  if (obj.IsStr()) return SliceStr(obj, first, count, stride);
  const ValueVec& items = obj.As<ListObj>().items;
  ValueVec out;
  out.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) Push(out, items[static_cast<size_t>(first + i * stride)]);
  return obj.Is(Kind::kList) ? List(std::move(out)) : Tuple(std::move(out));
}

Value Runtime::SliceStr(const Value& s, int64_t start, int64_t count, int64_t step) {
  const std::string_view text = s.str();
  const bool ascii = s.As<StrObj>().IsAscii();
  if (count <= 0) return Str("", s.As<StrObj>().markup);
  ChargeBytes(text.size());
  if (step == 1) {
    const size_t begin = ascii ? static_cast<size_t>(start) : ByteOffset(text, start);
    const size_t bytes = ascii ? static_cast<size_t>(count) : ByteOffset(text.substr(begin), count);
    return Piece(s, text.substr(begin, bytes));
  }
  Builder out(*this);
  std::vector<uint32_t> offsets;  // of every code point, where they are not all one byte
  if (!ascii) {
    CheckStringSize(text.size() * sizeof(uint32_t) / 4);
    for (size_t pos = 0; pos < text.size(); pos += CharSize(text, pos))
      offsets.push_back(static_cast<uint32_t>(pos));
  }
  for (int64_t i = 0; i < count; ++i) {
    const size_t index = static_cast<size_t>(start + i * step);
    const size_t pos = ascii ? index : offsets[index];
    out.Append(text.substr(pos, CharSize(text, pos)));
  }
  return out.Take(s.As<StrObj>().markup);
}

// ---------------------------------------------------------------- attributes

int MethodKind(const Value& v) {
  switch (v.kind()) {
    case Kind::kStr:
      return 0;
    case Kind::kList:
      return 1;
    case Kind::kTuple:
      return 2;
    case Kind::kDict:
      return 3;
    default:
      return -1;
  }
}

Value Runtime::GetAttr(const Value& obj, const Value& name) {
  const Method* methods[kNumMethodKinds] = {};
  if (const int kind = MethodKind(obj); kind >= 0) methods[kind] = FindMethod(kind, name.str());
  return GetAttr(obj, name, methods);
}

Value Runtime::GetAttr(const Value& obj, const Value& name, const Method* const* methods) {
  if (obj.Is(Kind::kDict) && methods[3] == nullptr && !name.str().starts_with("__")) {
    if (const Value* found = obj.As<DictObj>().Find(name.str())) return *found;
    return Undefined(UndefinedObj::Why::kAttribute, "dict object", name);
  }
  FailIfUndefined(obj);
  Value attribute = GetAttribute(obj, name.str(), methods);
  if (!attribute.IsMissing()) return attribute;
  if (obj.Is(Kind::kDict)) {
    if (const Value* found = obj.As<DictObj>().Find(name.str())) return *found;
  }
  return Undefined(UndefinedObj::Why::kAttribute, TypeRepr(obj), name);
}

void Runtime::FailUndefined(const Value& v) {
  Raise(EvalError::Kind::kTemplate, "{}", UndefinedMessage(v));
}

std::string Runtime::UndefinedMessage(const Value& v) {
  const UndefinedObj& undefined = v.As<UndefinedObj>();
  switch (undefined.why) {
    case UndefinedObj::Why::kName:
      return Format("{} is undefined", ToRepr(undefined.name));
    case UndefinedObj::Why::kHint:
      return std::string(undefined.name.str());
    case UndefinedObj::Why::kAttribute:
      return Format("'{}' has no attribute {}", undefined.owner_type, ToRepr(undefined.name));
    case UndefinedObj::Why::kElement:
      return Format("{} has no element {}", undefined.owner_type, ToRepr(undefined.name));
    case UndefinedObj::Why::kUnsafe:
      return Format("access to attribute {} of '{}' object is unsafe.", ToRepr(undefined.name),
                    undefined.owner_type);
  }
  return "undefined value";
}

}  // namespace cadre::jinja
