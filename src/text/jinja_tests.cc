// The tests behind `is`, and the global functions.
#include <unordered_map>

#include "text/jinja_eval.h"
#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

template <bool (*F)(Runtime&, const Value&)>
Value Test0(Runtime& rt, const Value& v, Args& args) {
  Params("test", args, {});
  return Value::Bool(F(rt, v));
}
template <bool (*F)(Runtime&, const Value&, const Value&)>
Value Test1(Runtime& rt, const Value& v, Args& args) {
  const Params p("test", args, {"other"}, 1);
  return Value::Bool(F(rt, v, *p[0]));
}

bool IsOdd(Runtime& rt, const Value& v) {
  return rt.Equal(rt.Mod(v, Value::Int(2)), Value::Int(1));
}
bool IsEven(Runtime& rt, const Value& v) {
  return rt.Equal(rt.Mod(v, Value::Int(2)), Value::Int(0));
}
bool IsDivisible(Runtime& rt, const Value& v, const Value& n) {
  return rt.Equal(rt.Mod(v, n), Value::Int(0));
}
bool IsDefined(Runtime&, const Value& v) {
  return !v.IsUndefined();
}
bool IsUndefinedTest(Runtime&, const Value& v) {
  return v.IsUndefined();
}
bool IsFilter(Runtime&, const Value& v) {
  return v.IsStr() && FindFilter(v.str()) != nullptr;
}
bool IsTest(Runtime&, const Value& v) {
  return v.IsStr() && FindTest(v.str()) != nullptr;
}
bool IsNoneTest(Runtime&, const Value& v) {
  return v.IsNone();
}
bool IsBoolean(Runtime&, const Value& v) {
  return v.Is(Kind::kBool);
}
bool IsFalse(Runtime&, const Value& v) {
  return v.Is(Kind::kBool) && v.AsInt() == 0;
}
bool IsTrue(Runtime&, const Value& v) {
  return v.Is(Kind::kBool) && v.AsInt() != 0;
}
bool IsInteger(Runtime&, const Value& v) {
  return v.Is(Kind::kInt);
}
bool IsFloatTest(Runtime&, const Value& v) {
  return v.Is(Kind::kFloat);
}
bool IsNumberTest(Runtime&, const Value& v) {
  return v.IsNumber();
}
bool IsString(Runtime&, const Value& v) {
  return v.IsStr();
}
bool IsMapping(Runtime&, const Value& v) {
  return v.Is(Kind::kDict);
}
bool IsIterableTest(Runtime&, const Value& v) {
  return Iterator::IsIterable(v) || v.Is(Kind::kLoop);
}
bool IsSequence(Runtime&, const Value& v) {
  // Python: it has a length and a subscript; a dict has both, and so has an undefined value.
  return Iterator::IsIterable(v) && !v.Is(Kind::kGenerator) && !v.Is(Kind::kDictView);
}
bool IsCallable(Runtime&, const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:  // has __call__, which raises
    case Kind::kMacro:
    case Kind::kMethod:
    case Kind::kBuiltin:
    case Kind::kLoop:
    case Kind::kJoiner:
      return true;
    default:
      return false;
  }
}
bool IsEscaped(Runtime&, const Value& v) {
  return v.IsStr() && v.As<StrObj>().markup;
}
bool IsLowerTest(Runtime& rt, const Value& v) {
  Args none;
  const Value text = rt.SoftStr(v);
  return Truthy(FindMethod(MethodKind(text), "islower")->function(rt, text, none));
}
bool IsUpperTest(Runtime& rt, const Value& v) {
  Args none;
  const Value text = rt.SoftStr(v);
  return Truthy(FindMethod(MethodKind(text), "isupper")->function(rt, text, none));
}
bool IsSameAs(Runtime&, const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  if (!a.IsObject())
    return a.Is(Kind::kFloat) ? a.AsDouble() == b.AsDouble() : a.AsInt() == b.AsInt() || a.IsNone();
  // Python interns short strings; equal ones are the same for every practical question.
  return a.object() == b.object() || (a.IsStr() && a.str() == b.str());
}
bool IsIn(Runtime& rt, const Value& v, const Value& container) {
  return rt.Contains(container, v);
}
bool IsEqual(Runtime& rt, const Value& a, const Value& b) {
  return rt.Equal(a, b);
}
bool IsNotEqual(Runtime& rt, const Value& a, const Value& b) {
  return !rt.Equal(a, b);
}
bool IsGreater(Runtime& rt, const Value& a, const Value& b) {
  return rt.Compare(a, b, Runtime::Order::kGt);
}
bool IsGreaterEqual(Runtime& rt, const Value& a, const Value& b) {
  return rt.Compare(a, b, Runtime::Order::kGe);
}
bool IsLess(Runtime& rt, const Value& a, const Value& b) {
  return rt.Compare(a, b, Runtime::Order::kLt);
}
bool IsLessEqual(Runtime& rt, const Value& a, const Value& b) {
  return rt.Compare(a, b, Runtime::Order::kLe);
}

using Table = std::unordered_map<std::string_view, Function>;

const Table& Tests() {
  static const Table* const kTests = new Table{
      {"odd", Test0<IsOdd>},
      {"even", Test0<IsEven>},
      {"divisibleby", Test1<IsDivisible>},
      {"defined", Test0<IsDefined>},
      {"undefined", Test0<IsUndefinedTest>},
      {"filter", Test0<IsFilter>},
      {"test", Test0<IsTest>},
      {"none", Test0<IsNoneTest>},
      {"boolean", Test0<IsBoolean>},
      {"false", Test0<IsFalse>},
      {"true", Test0<IsTrue>},
      {"integer", Test0<IsInteger>},
      {"float", Test0<IsFloatTest>},
      {"number", Test0<IsNumberTest>},
      {"string", Test0<IsString>},
      {"mapping", Test0<IsMapping>},
      {"iterable", Test0<IsIterableTest>},
      {"sequence", Test0<IsSequence>},
      {"callable", Test0<IsCallable>},
      {"escaped", Test0<IsEscaped>},
      {"lower", Test0<IsLowerTest>},
      {"upper", Test0<IsUpperTest>},
      {"sameas", Test1<IsSameAs>},
      {"in", Test1<IsIn>},
      {"==", Test1<IsEqual>},
      {"eq", Test1<IsEqual>},
      {"equalto", Test1<IsEqual>},
      {"!=", Test1<IsNotEqual>},
      {"ne", Test1<IsNotEqual>},
      {">", Test1<IsGreater>},
      {"gt", Test1<IsGreater>},
      {"greaterthan", Test1<IsGreater>},
      {">=", Test1<IsGreaterEqual>},
      {"ge", Test1<IsGreaterEqual>},
      {"<", Test1<IsLess>},
      {"lt", Test1<IsLess>},
      {"lessthan", Test1<IsLess>},
      {"<=", Test1<IsLessEqual>},
      {"le", Test1<IsLessEqual>},
  };
  return *kTests;
}

// ---------------------------------------------------------------- global functions

Value GlobalRaise(Runtime& rt, const Value&, Args& args) {
  const Params p("raise_exception", args, {"message"}, 1);
  throw EvalError{EvalError::Kind::kRaised, rt.ToStr(*p[0])};
}

Value GlobalStrftime(Runtime& rt, const Value&, Args& args) {
  const Params p("strftime_now", args, {"format"}, 1);
  return rt.Str(Strftime(rt, rt.NeedStr(*p[0], "strftime_now format")));
}

Value GlobalRange(Runtime& rt, const Value&, Args& args) {
  if (!args.kw.empty()) RaiseType("range() takes no keyword arguments");
  if (args.pos.empty() || args.pos.size() > 3) {
    RaiseType("range expected 1 to 3 arguments, got {}", args.pos.size());
  }
  constexpr int64_t kMaxItems = 100'000;           // Jinja's MAX_RANGE
  constexpr int64_t kMaxBound = int64_t{1} << 61;  // keeps RangeObj's arithmetic from overflowing
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < args.pos.size(); ++i) {
    const size_t place = args.pos.size() == 1 ? 1 : i;
    bounds[place] = rt.NeedInt(args.pos[i], "range argument");
    if (bounds[place] > kMaxBound || bounds[place] < -kMaxBound)
      RaiseValue("range bounds past 2**61 are not supported");
  }
  if (bounds[2] == 0) RaiseValue("range() arg 3 must not be zero");
  Value range = rt.heap().Make<RangeObj>(0, bounds[0], bounds[1], bounds[2]);
  if (range.As<RangeObj>().Length() > kMaxItems) {
    throw EvalError{
        EvalError::Kind::kPython,
        Format("OverflowError: Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).",
               kMaxItems)};
  }
  return range;
}

// dict(mapping or pairs, **keywords)
DictObj::Items DictItems(Runtime& rt, const char* function, Args& args) {
  if (args.pos.size() > 1) RaiseType("{} expected at most 1 argument, got {}", function, args.pos.size());
  DictObj::Items items;
  if (!args.pos.empty()) {
    const Value& source = args.pos[0];
    if (source.Is(Kind::kDict)) {
      items = source.As<DictObj>().items;
      rt.Charge(items.size());
    } else {
      Iterator it(rt, source);
      Value pair;
      while (it.Next(pair)) {
        ValueVec parts = ToVector(rt, pair);
        if (parts.size() != 2)
          RaiseValue("dictionary update sequence element has length {}; 2 is required", parts.size());
        items.emplace_back(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : args.kw) items.emplace_back(rt.Str(std::string(name)), value);
  return items;
}

Value GlobalDict(Runtime& rt, const Value&, Args& args) {
  return rt.Dict(DictItems(rt, "dict", args));
}

Value GlobalNamespace(Runtime& rt, const Value&, Args& args) {
  const Value dict = rt.Dict(DictItems(rt, "namespace", args));
  Value ns = rt.heap().MakeCyclic<NamespaceObj>();
  const DictObj::Items& items = dict.As<DictObj>().items;
  rt.heap().Grow(ns.object(), items.size() * 2 * sizeof(Value));
  for (const auto& [name, value] : items) {
    if (!name.IsStr()) RaiseType("the attributes of a namespace must be named by strings");
    ns.As<NamespaceObj>().attrs.emplace_back(name, value);
  }
  return ns;
}

Value GlobalCycler(Runtime& rt, const Value&, Args& args) {
  if (args.pos.empty() || !args.kw.empty()) RaiseValue("at least one item has to be provided");
  return rt.heap().Make<CyclerObj>(args.pos.size() * sizeof(Value), args.pos);
}

Value GlobalJoiner(Runtime& rt, const Value&, Args& args) {
  const Params p("joiner", args, {"sep"});
  return rt.heap().Make<JoinerObj>(0, p[0] != nullptr ? *p[0] : rt.Str(", "));
}

Value GlobalLipsum(Runtime&, const Value&, Args&) {
  Raise(EvalError::Kind::kTemplate, "lipsum makes random text and is not supported in chat templates");
}

const Table& Globals() {
  static const Table* const kGlobals = new Table{
      {"raise_exception", GlobalRaise}, {"strftime_now", GlobalStrftime},
      {"range", GlobalRange},           {"dict", GlobalDict},
      {"namespace", GlobalNamespace},   {"cycler", GlobalCycler},
      {"joiner", GlobalJoiner},         {"lipsum", GlobalLipsum},
  };
  return *kGlobals;
}

}  // namespace

Function FindTest(std::string_view name) {
  const auto found = Tests().find(name);
  return found == Tests().end() ? nullptr : found->second;
}

Function FindGlobal(std::string_view name) {
  const auto found = Globals().find(name);
  return found == Globals().end() ? nullptr : found->second;
}

bool CallTest(Runtime& rt, const Value& name, const Value& self, Args& args) {
  const Function function = FindTest(rt.NeedStr(name, "test name"));
  if (function == nullptr) Raise(EvalError::Kind::kTemplate, "No test named {}.", rt.ToRepr(name));
  return Truthy(function(rt, self, args));
}

}  // namespace cadre::jinja
