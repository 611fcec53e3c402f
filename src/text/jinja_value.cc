#include "text/jinja_value.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "text/jinja_runtime.h"
#include "text/jinja_sort.h"
#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

constexpr size_t kSmallDict = 12;  // up to here a search beats the index

template <typename T>
int Sign(const T& a, const T& b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

// Numbers that are equal share a key, so all of them are one class; NaN equals nothing and gets its own.
int KeyClass(const Value& v) {
  switch (v.kind()) {
    case Kind::kNone:
      return 0;
    case Kind::kBool:
    case Kind::kInt:
      return 1;
    case Kind::kFloat:
      return std::isnan(v.AsDouble()) ? 2 : 1;
    case Kind::kStr:
      return 3;
    case Kind::kUndefined:
      return 4;
    case Kind::kTuple:
      return 5;
    default:
      return 6;
  }
}

}  // namespace

Obj::~Obj() = default;

CyclicObj::~CyclicObj() {
  if (place == nullptr) return;
  *place = after;
  if (after != nullptr) after->place = place;
}

void FreeObj(Obj* obj) {
  obj->heap->Free(obj);
}

int64_t StrObj::CountCodePoints() const {
  return CountChars(view);
}

// begin, end and step are within 2^61 (the range function sees to it), so nothing here overflows.
int64_t RangeObj::Length() const {
  if (step > 0) return end > begin ? (end - begin - 1) / step + 1 : 0;
  return begin > end ? (begin - end - 1) / -step + 1 : 0;
}

Value* NamespaceObj::Find(std::string_view name) {
  for (auto& [key, value] : attrs) {
    if (key.str() == name) return &value;
  }
  return nullptr;
}

int CompareKeys(const Value& a, const Value& b) {
  const int group = KeyClass(a);
  if (const int other = KeyClass(b); group != other) return Sign(group, other);
  switch (group) {
    case 1:
      if (a.IsIntegral() && b.IsIntegral()) return Sign(a.AsInt(), b.AsInt());
      {
        // long double holds every int64_t and double exactly on x86 and AArch64.
        const auto wide = [](const Value& v) {
          return v.IsIntegral() ? static_cast<long double>(v.AsInt())
                                : static_cast<long double>(v.AsDouble());
        };
        return Sign(wide(a), wide(b));
      }
    case 3:
      return Sign(a.str().compare(b.str()), 0);
    case 5: {
      const ValueVec& x = a.As<ListObj>().items;
      const ValueVec& y = b.As<ListObj>().items;
      for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
        if (const int order = CompareKeys(x[i], y[i]); order != 0) return order;
      }
      return Sign(x.size(), y.size());
    }
    case 6:
      return Sign(a.object(), b.object());
    default:
      return 0;
  }
}

const Value* DictObj::Find(std::string_view key) const {
  if (items.size() <= kSmallDict) {
    for (const auto& [k, v] : items) {
      if (k.IsStr() && k.str() == key) return &v;
    }
    return nullptr;
  }
  if (index_.empty()) BuildIndex();
  // Strings are class 3 of CompareKeys, in order of their bytes.
  const auto found =
      std::lower_bound(index_.begin(), index_.end(), key, [this](uint32_t i, std::string_view k) {
        const Value& mine = items[i].first;
        return mine.IsStr() ? mine.str() < k : KeyClass(mine) < 3;
      });
  if (found == index_.end()) return nullptr;
  const auto& [k, v] = items[*found];
  return k.IsStr() && k.str() == key ? &v : nullptr;
}

const Value* DictObj::Find(const Value& key) const {
  if (key.IsStr()) return Find(key.str());
  if (key.Is(Kind::kFloat) && std::isnan(key.AsDouble())) return nullptr;
  if (items.size() <= kSmallDict) {
    for (const auto& [k, v] : items) {
      if (CompareKeys(k, key) == 0) return &v;
    }
    return nullptr;
  }
  if (index_.empty()) BuildIndex();
  const auto found = std::lower_bound(index_.begin(), index_.end(), key, [this](uint32_t i, const Value& k) {
    return CompareKeys(items[i].first, k) < 0;
  });
  if (found == index_.end() || CompareKeys(items[*found].first, key) != 0) return nullptr;
  return &items[*found].second;
}

void DictObj::BuildIndex() const {
  index_ = StableOrder(items.size(), [this](uint32_t a, uint32_t b) {
    return CompareKeys(items[a].first, items[b].first) < 0;
  });
}

const char* TypeName(const Value& v) {
  switch (v.kind()) {
    case Kind::kMissing:
      return "missing";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kStr:
      return v.As<StrObj>().markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kRange:
      return "range";
    case Kind::kDictView:
      switch (v.As<DictViewObj>().part) {
        case DictViewObj::Part::kKeys:
          return "dict_keys";
        case DictViewObj::Part::kValues:
          return "dict_values";
        case DictViewObj::Part::kItems:
          return "dict_items";
      }
      return "dict_items";
    case Kind::kGenerator:
      return v.As<GeneratorObj>().type_name;
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kMacro:
      return "Macro";
    case Kind::kMethod:
      return "builtin_function_or_method";
    case Kind::kBuiltin:
      return "function";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCycler:
      return "Cycler";
    case Kind::kJoiner:
      return "Joiner";
    case Kind::kScope:
      return "scope";
  }
  return "object";
}

const char* TypeRepr(const Value& v) {
  switch (v.kind()) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "bool object";
    case Kind::kInt:
      return "int object";
    case Kind::kFloat:
      return "float object";
    case Kind::kUndefined:
      return "jinja2.runtime.Undefined object";
    case Kind::kStr:
      return v.As<StrObj>().markup ? "markupsafe.Markup object" : "str object";
    case Kind::kList:
      return "list object";
    case Kind::kTuple:
      return "tuple object";
    case Kind::kDict:
      return "dict object";
    case Kind::kRange:
      return "range object";
    case Kind::kDictView:
      switch (v.As<DictViewObj>().part) {
        case DictViewObj::Part::kKeys:
          return "dict_keys object";
        case DictViewObj::Part::kValues:
          return "dict_values object";
        case DictViewObj::Part::kItems:
          return "dict_items object";
      }
      return "dict_items object";
    case Kind::kGenerator:
      for (const char* repr : {"list_reverseiterator object", "reversed object", "range_iterator object"}) {
        const std::string_view type = v.As<GeneratorObj>().type_name;
        if (std::string_view(repr).starts_with(type)) return repr;
      }
      return "generator object";
    case Kind::kNamespace:
      return "jinja2.utils.Namespace object";
    case Kind::kMacro:
      return "jinja2.runtime.Macro object";
    case Kind::kMethod:
      return "builtin_function_or_method object";
    case Kind::kLoop:
      return "jinja2.runtime.LoopContext object";
    case Kind::kCycler:
      return "jinja2.utils.Cycler object";
    case Kind::kJoiner:
      return "jinja2.utils.Joiner object";
    default:
      return "function object";
  }
}

}  // namespace cadre::jinja
