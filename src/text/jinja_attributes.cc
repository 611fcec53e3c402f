// What a dot finds on each kind of value, and what of Python's attributes the sandbox keeps away.
#include <algorithm>

#include "text/jinja_eval.h"

namespace cadre::jinja {
namespace {

Value LoopCycle(Runtime&, const Value& self, Args& args) {
  if (args.pos.empty()) RaiseType("no items for cycling given");
  return args.pos[static_cast<size_t>(self.As<LoopObj>().index0) % args.pos.size()];
}

Value LoopChanged(Runtime& rt, const Value& self, Args& args) {
  LoopObj& loop = self.As<LoopObj>();
  Value now = rt.Tuple(args.pos);
  if (!loop.last_changed.IsMissing() && rt.Equal(loop.last_changed, now)) return Value::Bool(false);
  loop.last_changed = std::move(now);
  return Value::Bool(true);
}

Value CyclerNext(Runtime&, const Value& self, Args&) {
  CyclerObj& cycler = self.As<CyclerObj>();
  Value item = cycler.items[cycler.pos];
  cycler.pos = (cycler.pos + 1) % cycler.items.size();
  return item;
}

Value CyclerReset(Runtime&, const Value& self, Args&) {
  self.As<CyclerObj>().pos = 0;
  return Value();
}

constexpr Method kLoopCycle = {"cycle", LoopCycle};
constexpr Method kLoopChanged = {"changed", LoopChanged};
constexpr Method kCyclerNext = {"next", CyclerNext};
constexpr Method kCyclerReset = {"reset", CyclerReset};

Value Bound(Runtime& rt, const Value& self, const Method& method) {
  return rt.heap().Make<MethodObj>(0, self, &method);
}

Value LoopAttribute(Runtime& rt, const Value& self, std::string_view name) {
  LoopObj& loop = self.As<LoopObj>();
  if (name == "index") return Value::Int(loop.index0 + 1);
  if (name == "index0") return Value::Int(loop.index0);
  if (name == "first") return Value::Bool(loop.index0 == 0);
  if (name == "last") return Value::Bool(!loop.Peek());
  if (name == "length") return Value::Int(loop.Length(rt));
  if (name == "revindex") return Value::Int(loop.Length(rt) - loop.index0);
  if (name == "revindex0") return Value::Int(loop.Length(rt) - loop.index0 - 1);
  if (name == "depth") return Value::Int(loop.depth0 + 1);
  if (name == "depth0") return Value::Int(loop.depth0);
  if (name == "previtem")
    return loop.index0 == 0 ? rt.UndefinedHint("there is no previous item") : loop.before;
  if (name == "nextitem") return loop.Peek() ? loop.ahead : rt.UndefinedHint("there is no next item");
  if (name == "cycle") return Bound(rt, self, kLoopCycle);
  if (name == "changed") return Bound(rt, self, kLoopChanged);
  return Value::Missing();
}

Value MacroAttribute(Runtime& rt, const Value& self, std::string_view name) {
  const MacroDef& def = *self.As<MacroObj>().def;
  if (name == "name") return rt.Borrow(def.name);
  if (name == "catch_kwargs") return Value::Bool(def.uses_kwargs);
  if (name == "catch_varargs") return Value::Bool(def.uses_varargs);
  if (name == "caller") return Value::Bool(def.uses_caller);
  if (name != "arguments") return Value::Missing();
  ValueVec names;
  for (const auto& [param, id] : def.params) names.push_back(rt.Borrow(param));
  return rt.Tuple(std::move(names));
}

Value CyclerAttribute(Runtime& rt, const Value& self, std::string_view name) {
  const CyclerObj& cycler = self.As<CyclerObj>();
  if (name == "current") return cycler.items[cycler.pos];
  if (name == "items") return rt.Tuple(cycler.items);
  if (name == "pos") return Value::Int(static_cast<int64_t>(cycler.pos));
  if (name == "next") return Bound(rt, self, kCyclerNext);
  if (name == "reset") return Bound(rt, self, kCyclerReset);
  return Value::Missing();
}

Value NumberAttribute(const Value& self, std::string_view name) {
  const bool integral = self.IsIntegral();
  if (name == "real") return integral ? Value::Int(self.AsInt()) : self;
  if (name == "imag") return integral ? Value::Int(0) : Value::Float(0);
  if (integral && name == "numerator") return Value::Int(self.AsInt());
  if (integral && name == "denominator") return Value::Int(1);
  return Value::Missing();
}

}  // namespace

Value Runtime::GetAttribute(const Value& obj, std::string_view name, const Method* const* methods) {
  const auto unsafe = [&] {
    return Undefined(UndefinedObj::Why::kUnsafe, TypeName(obj), Str(std::string(name)));
  };
  if (obj.Is(Kind::kNamespace)) {
    NamespaceObj& ns = obj.As<NamespaceObj>();
    Charge(ns.attrs.size() / 8);
    const Value* found = ns.Find(name);
    if (found == nullptr) return name.starts_with("__") ? unsafe() : Value::Missing();
    return name.starts_with("_") ? unsafe() : *found;
  }
  if (name.starts_with("__") && name.ends_with("__")) return unsafe();
  switch (obj.kind()) {
    case Kind::kLoop:
      return LoopAttribute(*this, obj, name);
    case Kind::kMacro:
      return MacroAttribute(*this, obj, name);
    case Kind::kCycler:
      return CyclerAttribute(*this, obj, name);
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return NumberAttribute(obj, name);
    case Kind::kStr:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict: {
      const Method* method = methods[MethodKind(obj)];
      if (method == nullptr) return Value::Missing();
      return method->function == nullptr ? unsafe() : Bound(*this, obj, *method);
    }
    default:
      return Value::Missing();
  }
}

}  // namespace cadre::jinja
