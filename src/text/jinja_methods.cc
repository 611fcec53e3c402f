// The methods of lists, tuples and dicts, and the table of all methods. A method without a function exists in
// Python but changes its object or leaves the language, so the sandbox forbids it.
#include <array>
#include <unordered_map>

#include "text/jinja_methods.h"

namespace cadre::jinja {
namespace {

// ---------------------------------------------------------------- list, tuple

Value ListCopy(Runtime& rt, const Value& self, Args& args) {
  Params("copy", args, {});
  rt.Charge(self.As<ListObj>().items.size());
  return rt.List(self.As<ListObj>().items);
}

Value ListCount(Runtime& rt, const Value& self, Args& args) {
  const Params p("count", args, {"value"}, 1);
  int64_t n = 0;
  for (const Value& item : self.As<ListObj>().items) {
    rt.Charge();
    n += rt.Equal(item, *p[0]);
  }
  return Value::Int(n);
}

Value ListIndex(Runtime& rt, const Value& self, Args& args) {
  const Params p("index", args, {"value", "start", "stop"}, 1);
  const ValueVec& items = self.As<ListObj>().items;
  const int64_t size = static_cast<int64_t>(items.size());
  const auto bound = [&](size_t i, int64_t otherwise) {
    if (p[i] == nullptr) return otherwise;
    const int64_t given = rt.NeedInt(*p[i], "index bound");
    return given < 0 ? std::max<int64_t>(given + size, 0) : std::min(given, size);
  };
  const int64_t stop = bound(2, size);
  for (int64_t i = bound(1, 0); i < stop; ++i) {
    rt.Charge();
    if (rt.Equal(items[static_cast<size_t>(i)], *p[0])) return Value::Int(i);
  }
  RaiseValue("{} is not in list", rt.ToRepr(*p[0]));
}

// ---------------------------------------------------------------- dict

template <DictViewObj::Part part>
Value DictView(Runtime& rt, const Value& self, Args& args) {
  Params("dict method", args, {});
  return rt.heap().Make<DictViewObj>(0, self, part);
}

Value DictGet(Runtime& rt, const Value& self, Args& args) {
  // Python's takes no keywords.
  if (!args.kw.empty()) RaiseType("dict.get() takes no keyword arguments");
  const Params p("get", args, {"key", "default"}, 1);
  rt.NeedHashable(*p[0]);
  const Value* found = self.As<DictObj>().Find(*p[0]);
  return found != nullptr ? *found : p.OrNone(1);
}

Value DictCopy(Runtime&, const Value& self, Args& args) {
  Params("copy", args, {});
  return self;  // dicts never change, so the copy may be the same
}

Value DictFromKeys(Runtime& rt, const Value&, Args& args) {
  const Params p("fromkeys", args, {"iterable", "value"}, 1);
  DictObj::Items items;
  for (const Value& key : ToVector(rt, *p[0])) items.emplace_back(key, p.OrNone(1));
  return rt.Dict(std::move(items));
}

constexpr Method kListMethods[] = {
    {"append", nullptr}, {"clear", nullptr},   {"copy", ListCopy},  {"count", ListCount},
    {"extend", nullptr}, {"index", ListIndex}, {"insert", nullptr}, {"pop", nullptr},
    {"remove", nullptr}, {"reverse", nullptr}, {"sort", nullptr},
};

constexpr Method kTupleMethods[] = {{"count", ListCount}, {"index", ListIndex}};

constexpr Method kDictMethods[] = {
    {"clear", nullptr},
    {"copy", DictCopy},
    {"fromkeys", DictFromKeys},
    {"get", DictGet},
    {"items", DictView<DictViewObj::Part::kItems>},
    {"keys", DictView<DictViewObj::Part::kKeys>},
    {"pop", nullptr},
    {"popitem", nullptr},
    {"setdefault", nullptr},
    {"update", nullptr},
    {"values", DictView<DictViewObj::Part::kValues>},
};

using Table = std::unordered_map<std::string_view, const Method*>;

template <typename Range>
Table TableOf(const Range& methods) {
  Table table;
  for (const Method& method : methods) table.emplace(method.name, &method);
  return table;
}

}  // namespace

const Method* FindMethod(int method_kind, std::string_view name) {
  static const auto* const kTables = new std::array<Table, kNumMethodKinds>{
      TableOf(StrMethods()), TableOf(kListMethods), TableOf(kTupleMethods), TableOf(kDictMethods)};
  const Table& table = (*kTables)[static_cast<size_t>(method_kind)];
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace cadre::jinja
