#include "text/jinja_runtime.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja_sort.h"
#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

constexpr int kMaxNesting = 256;  // of JSON handed in; the server's parser stops at 64

bool RangeItem(const RangeObj& range, size_t i, Value& out) {
  if (static_cast<int64_t>(i) >= range.Length()) return false;
  out = Value::Int(range.begin + static_cast<int64_t>(i) * range.step);
  return true;
}

}  // namespace

// ---------------------------------------------------------------- heap

Heap::~Heap() {
  while (cyclic_ != nullptr) {
    CyclicObj* obj = cyclic_;
    cyclic_ = obj->after;
    if (cyclic_ != nullptr) cyclic_->place = &cyclic_;
    obj->place = nullptr;
    const Value keep(obj);  // it may be held only by what it holds
    obj->Clear();
  }
}

void Heap::Link(CyclicObj* obj) {
  obj->after = cyclic_;
  if (cyclic_ != nullptr) cyclic_->place = &obj->after;
  obj->place = &cyclic_;
  cyclic_ = obj;
}

void Heap::Free(Obj* obj) {
  obj->next = dead_;
  dead_ = obj;
  if (freeing_) return;
  freeing_ = true;
  while (dead_ != nullptr) {
    Obj* victim = dead_;
    dead_ = victim->next;
    live_bytes_ -= victim->bytes;
    delete victim;
  }
  freeing_ = false;
}

void Heap::TooMuch(size_t bytes) {
  live_bytes_ -= bytes;
  Raise(EvalError::Kind::kLimit, "the values of the template take more than max_live_bytes = {}",
        max_live_bytes_);
}

// ---------------------------------------------------------------- limits

void Runtime::OutOfSteps() const {
  Raise(EvalError::Kind::kLimit, "the template takes more than max_steps = {}", limits_.max_steps);
}
void Runtime::TooDeep() const {
  Raise(EvalError::Kind::kLimit,
        "the template nests deeper than max_depth = {} evaluations or {} bytes of stack", limits_.max_depth,
        limits_.max_stack_bytes);
}
void Runtime::TooLarge(const char* what) const {
  Raise(EvalError::Kind::kLimit, "a {} is larger than max_value_bytes = {}", what, limits_.max_value_bytes);
}

// ---------------------------------------------------------------- making values

Value Runtime::Str(std::string text, bool markup) {
  CheckStringSize(text.size());
  ChargeBytes(text.size());
  const size_t extra = text.capacity() > 15 ? text.capacity() : 0;
  return heap_.Make<StrObj>(extra, std::move(text), markup);
}

Value Runtime::Piece(const Value& owner, std::string_view text) {
  constexpr size_t kCopyBytes = 32;  // below this a copy is smaller than holding the owner
  const StrObj& whole = owner.As<StrObj>();
  if (text.size() == whole.view.size()) return owner;
  if (whole.IsBorrowed()) return heap_.Make<StrObj>(0, text, whole.markup);
  if (text.size() <= kCopyBytes) return Str(std::string(text), whole.markup);
  return heap_.Make<StrObj>(0, text, whole.markup, whole.owner.IsNone() ? owner : whole.owner);
}

Value Runtime::Pair(Value a, Value b) {
  ValueVec items;
  items.reserve(2);
  items.push_back(std::move(a));
  items.push_back(std::move(b));
  return Tuple(std::move(items));
}

void Runtime::NeedHashable(const Value& v) {
  // A key is compared some 16 times while it is sorted in.
  if (v.IsStr()) {
    ChargeBytes(v.str().size() * 16);
  } else if (v.Is(Kind::kTuple)) {
    const Level level(*this);
    Charge(v.As<ListObj>().items.size() * 16);
    for (const Value& item : v.As<ListObj>().items) NeedHashable(item);
  } else if (v.Is(Kind::kList) || v.Is(Kind::kDict) ||
             (v.Is(Kind::kDictView) && v.As<DictViewObj>().part != DictViewObj::Part::kValues)) {
    RaiseType("unhashable type: '{}'", TypeName(v));
  }
}

Value Runtime::Dict(DictObj::Items items) {
  Charge(items.size());
  bool all_distinct = true;
  for (const auto& [key, value] : items) NeedHashable(key);
  if (items.size() <= 8) {
    for (size_t i = 1; i < items.size() && all_distinct; ++i) {
      for (size_t j = 0; j < i; ++j)
        all_distinct = all_distinct && CompareKeys(items[i].first, items[j].first) != 0;
    }
  } else {
    all_distinct = false;
  }
  if (!all_distinct) {
    const std::vector<uint32_t> order = StableOrder(items.size(), [&](uint32_t x, uint32_t y) {
      return CompareKeys(items[x].first, items[y].first) < 0;
    });
    // Of equal keys the first keeps its place and gets the last one's value.
    std::vector<bool> drop(items.size());
    for (size_t first = 0; first < order.size();) {
      size_t last = first;
      while (last + 1 < order.size() &&
             CompareKeys(items[order[first]].first, items[order[last + 1]].first) == 0) {
        drop[order[++last]] = true;
      }
      if (last != first) items[order[first]].second = items[order[last]].second;
      first = last + 1;
    }
    size_t kept = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      if (drop[i]) continue;
      if (kept != i) items[kept] = std::move(items[i]);
      ++kept;
    }
    items.resize(kept);
  }
  const size_t bytes = items.capacity() * sizeof(items[0]);
  if (bytes > limits_.max_value_bytes) TooLarge("dict");
  return heap_.Make<DictObj>(bytes, std::move(items));
}

Value Runtime::FromJson(const Json& json) {
  Charge();
  if (json.is_null()) return Value();
  if (json.is_bool()) return Value::Bool(json.AsBool());
  if (json.is_int()) return Value::Int(json.AsInt());
  if (json.is_double()) return Value::Float(json.AsDouble());
  if (json.is_string()) return Borrow(json.AsString());
  const Level level(*this);
  if (depth_ > kMaxNesting)
    Raise(EvalError::Kind::kLimit, "the context nests deeper than {} levels", kMaxNesting);
  if (json.is_array()) {
    ValueVec items;
    items.reserve(json.AsArray().size());
    for (const Json& item : json.AsArray()) items.push_back(FromJson(item));
    return List(std::move(items));
  }
  DictObj::Items items;
  items.reserve(json.AsObject().size());
  for (const auto& [key, value] : json.AsObject()) items.emplace_back(Borrow(key), FromJson(value));
  return Dict(std::move(items));
}

// ---------------------------------------------------------------- text of values

std::string Runtime::ToStr(const Value& v) {
  std::string out;
  AppendStr(out, v);
  return out;
}

std::string Runtime::ToRepr(const Value& v) {
  std::string out;
  AppendRepr(out, v);
  return out;
}

Value Runtime::SoftStr(const Value& v) {
  return v.IsStr() ? v : Str(ToStr(v));
}

void Runtime::AppendStr(std::string& out, const Value& v) {
  switch (v.kind()) {
    case Kind::kStr:
      CheckStringSize(out.size() + v.str().size());
      ChargeBytes(v.str().size());
      out += v.str();
      break;
    case Kind::kUndefined:
      break;
    default:
      AppendRepr(out, v);
  }
}

void Runtime::AppendRepr(std::string& out, const Value& v) {
  Charge();
  CheckStringSize(out.size());
  const auto sequence = [&](const char* open, const ValueVec& items, const char* close) {
    const Level level(*this);
    out += open;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += ", ";
      AppendRepr(out, items[i]);
    }
    out += close;
  };
  switch (v.kind()) {
    case Kind::kMissing:
    case Kind::kNone:
      out += "None";
      break;
    case Kind::kBool:
      out += v.AsInt() != 0 ? "True" : "False";
      break;
    case Kind::kInt: {
      char buffer[24];
      const auto end = std::to_chars(buffer, buffer + sizeof(buffer), v.AsInt()).ptr;
      out.append(buffer, static_cast<size_t>(end - buffer));
      break;
    }
    case Kind::kFloat:
      out += FormatFloat(v.AsDouble());
      break;
    case Kind::kUndefined:
      out += "Undefined";
      break;
    case Kind::kStr:
      CheckStringSize(out.size() + v.str().size());
      ChargeBytes(v.str().size() * 8);
      if (v.As<StrObj>().markup) out += "Markup(";
      AppendStrRepr(out, v.str(), limits_.max_value_bytes);
      CheckStringSize(out.size());
      if (v.As<StrObj>().markup) out += ")";
      break;
    case Kind::kList:
      sequence("[", v.As<ListObj>().items, "]");
      break;
    case Kind::kTuple:
      sequence("(", v.As<ListObj>().items, v.As<ListObj>().items.size() == 1 ? ",)" : ")");
      break;
    case Kind::kDict: {
      const Level level(*this);
      out += '{';
      bool first = true;
      for (const auto& [key, value] : v.As<DictObj>().items) {
        if (!first) out += ", ";
        first = false;
        AppendRepr(out, key);
        out += ": ";
        AppendRepr(out, value);
      }
      out += '}';
      break;
    }
    case Kind::kRange: {
      const RangeObj& range = v.As<RangeObj>();
      out += Format("range({}, {}", range.begin, range.end);
      out += range.step == 1 ? ")" : Format(", {})", range.step);
      break;
    }
    case Kind::kDictView:
      out += TypeName(v);
      sequence("([", ToVector(*this, v), "])");
      break;
    case Kind::kNamespace: {
      const Level level(*this);
      out += "<Namespace {";
      bool first = true;
      for (const auto& [name, value] : v.As<NamespaceObj>().attrs) {
        if (!first) out += ", ";
        first = false;
        AppendRepr(out, name);
        out += ": ";
        AppendRepr(out, value);
      }
      out += "}>";
      break;
    }
    default:
      out += '<';
      out += TypeName(v);
      out += " object>";
  }
}

// ---------------------------------------------------------------- iteration

bool Iterator::IsIterable(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kStr:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kRange:
    case Kind::kDictView:
    case Kind::kGenerator:
      return true;
    default:
      return false;
  }
}

Iterator::Iterator(Runtime& rt, Value iterable) : rt_(rt), over_(std::move(iterable)) {
  if (!IsIterable(over_)) RaiseType("'{}' object is not iterable", TypeName(over_));
}

bool Iterator::Next(Value& out) {
  rt_.Charge();
  switch (over_.kind()) {
    case Kind::kList:
    case Kind::kTuple: {
      const ValueVec& items = over_.As<ListObj>().items;
      if (pos_ >= items.size()) return false;
      out = items[pos_++];
      return true;
    }
    case Kind::kDict: {
      const DictObj::Items& items = over_.As<DictObj>().items;
      if (pos_ >= items.size()) return false;
      out = items[pos_++].first;
      return true;
    }
    case Kind::kDictView: {
      const DictViewObj& view = over_.As<DictViewObj>();
      const DictObj::Items& items = view.dict.As<DictObj>().items;
      if (pos_ >= items.size()) return false;
      const auto& [key, value] = items[pos_++];
      switch (view.part) {
        case DictViewObj::Part::kKeys:
          out = key;
          break;
        case DictViewObj::Part::kValues:
          out = value;
          break;
        case DictViewObj::Part::kItems:
          out = rt_.Pair(key, value);
          break;
      }
      return true;
    }
    case Kind::kStr: {
      const std::string_view s = over_.str();
      if (pos_ >= s.size()) return false;
      const size_t n = CharSize(s, pos_);
      // Characters of markup are plain text, as str's iterator gives them.
      out = over_.As<StrObj>().markup ? rt_.Str(std::string(s.substr(pos_, n)))
                                      : rt_.Piece(over_, s.substr(pos_, n));
      pos_ += n;
      return true;
    }
    case Kind::kRange:
      return RangeItem(over_.As<RangeObj>(), pos_++, out);
    case Kind::kGenerator: {
      const Runtime::Level level(rt_);
      GeneratorObj& generator = over_.As<GeneratorObj>();
      if (!generator.next) return false;
      // A generator that reads itself would run a function inside itself; Python raises ValueError.
      GeneratorObj::Next next = std::move(generator.next);
      generator.next = nullptr;
      if (!next(out)) return false;
      generator.next = std::move(next);
      return true;
    }
    default:
      return false;
  }
}

ValueVec ToVector(Runtime& rt, const Value& iterable) {
  Iterator it(rt, iterable);
  ValueVec items;
  Value item;
  while (it.Next(item)) rt.Push(items, item);
  return items;
}

// ---------------------------------------------------------------- parameters

Params::Params(const char* function, Args& args, std::initializer_list<const char*> names,
               size_t num_required) {
  if (args.pos.size() > names.size()) {
    RaiseType("{}() takes at most {} arguments ({} given)", function, names.size(), args.pos.size());
  }
  for (size_t i = 0; i < args.pos.size(); ++i) values_[i] = &args.pos[i];
  for (const auto& [key, value] : args.kw) {
    const auto found = std::find(names.begin(), names.end(), key);
    if (found == names.end()) RaiseType("{}() got an unexpected keyword argument '{}'", function, key);
    const size_t i = static_cast<size_t>(found - names.begin());
    if (values_[i] != nullptr) RaiseType("{}() got multiple values for argument '{}'", function, key);
    values_[i] = &value;
  }
  for (size_t i = 0; i < num_required; ++i) {
    if (values_[i] == nullptr) RaiseType("{}() missing required argument: '{}'", function, names.begin()[i]);
  }
}

}  // namespace cadre::jinja
