#pragma once
// Values of a template: Python's, as far as a template can see them. Value is 16 bytes, a kind and either the
// number itself or a counted reference to an object on the render's Heap. Objects of a compiled template
// (constants) have no heap: they are never counted, so that threads may share them.
//
// Lists, tuples and dicts never change once made (the sandbox forbids it); namespaces and scopes may, so
// cycles run through those two only, and the Heap empties them at the end. Freeing never recurses (see
// Heap::Free).
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/format.h"

namespace cadre::jinja {

/// Why an evaluation stopped. Thrown inside this room only; ChatTemplate::Render turns it into an Error.
struct EvalError {
  enum class Kind {
    kRaised,    ///< the template called raise_exception
    kTemplate,  ///< Jinja's own: undefined used, unsafe access, unknown filter
    kPython,    ///< what Python would raise: TypeError, ValueError, ...
    kLimit,     ///< a render limit
  };
  Kind kind;
  std::string message;
};

template <typename... Args>
[[noreturn]] void Raise(EvalError::Kind kind, fmt::format_string<Args...> pattern, Args&&... args) {
  throw EvalError{kind, fmt::format(pattern, std::forward<Args>(args)...)};
}
template <typename... Args>
[[noreturn]] void RaiseType(fmt::format_string<Args...> pattern, Args&&... args) {
  throw EvalError{EvalError::Kind::kPython,
                  "TypeError: " + fmt::format(pattern, std::forward<Args>(args)...)};
}
template <typename... Args>
[[noreturn]] void RaiseValue(fmt::format_string<Args...> pattern, Args&&... args) {
  throw EvalError{EvalError::Kind::kPython,
                  "ValueError: " + fmt::format(pattern, std::forward<Args>(args)...)};
}

enum class Kind : uint8_t {
  kMissing,  ///< no value at all; never seen by a template
  kNone,
  kBool,
  kInt,
  kFloat,
  kUndefined,  // from here on: objects
  kStr,
  kList,
  kTuple,
  kDict,
  kRange,
  kDictView,
  kGenerator,
  kNamespace,
  kMacro,
  kMethod,
  kBuiltin,
  kLoop,
  kCycler,
  kJoiner,
  kScope,  ///< internal
};

class Heap;

struct Obj {
  explicit Obj(Kind k) : kind(k) {}
  virtual ~Obj();
  Obj(const Obj&) = delete;
  Obj& operator=(const Obj&) = delete;
  /// Drops all references; called at the end of a render on the objects that can be in a cycle.
  virtual void Clear() {}

  const Kind kind;
  uint32_t refs = 0;
  size_t bytes = 0;      // what the heap counted for it
  Heap* heap = nullptr;  // nullptr: belongs to a compiled template
  Obj* next = nullptr;   // in the heap's list of objects to free
};

void FreeObj(Obj* obj);

/// An object that can be part of a cycle: the heap knows all of these and empties them at the end of the
/// render.
struct CyclicObj : Obj {
  using Obj::Obj;
  ~CyclicObj() override;
  CyclicObj** place = nullptr;  // the pointer that points here
  CyclicObj* after = nullptr;
};

class Value {
 public:
  Value() : kind_(Kind::kNone), i_(0) {}
  static Value Missing() { return Value(Kind::kMissing); }
  static Value Bool(bool b) { return Value(Kind::kBool, int64_t{b}); }
  static Value Int(int64_t i) { return Value(Kind::kInt, i); }
  static Value Float(double d) {
    Value v(Kind::kFloat);
    v.d_ = d;
    return v;
  }
  explicit Value(Obj* o) : kind_(o->kind), o_(o) { Hold(); }
  Value(const Value& other) : kind_(other.kind_), i_(other.i_) { Hold(); }
  Value(Value&& other) noexcept : kind_(other.kind_), i_(other.i_) { other.kind_ = Kind::kNone; }
  Value& operator=(const Value& other) {
    Value copy(other);
    Swap(copy);
    return *this;
  }
  Value& operator=(Value&& other) noexcept {
    Swap(other);
    return *this;
  }
  ~Value() {
    if (IsObject() && o_->heap != nullptr && --o_->refs == 0) FreeObj(o_);
  }

  Kind kind() const { return kind_; }
  bool Is(Kind k) const { return kind_ == k; }
  bool IsObject() const { return kind_ >= Kind::kUndefined; }
  bool IsNone() const { return kind_ == Kind::kNone; }
  bool IsMissing() const { return kind_ == Kind::kMissing; }
  bool IsStr() const { return kind_ == Kind::kStr; }
  bool IsUndefined() const { return kind_ == Kind::kUndefined; }
  /// int or bool: Python's bool is an int.
  bool IsIntegral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool IsNumber() const { return IsIntegral() || kind_ == Kind::kFloat; }

  int64_t AsInt() const { return i_; }  ///< of kInt and kBool
  double AsDouble() const { return kind_ == Kind::kFloat ? d_ : static_cast<double>(i_); }
  Obj* object() const { return o_; }
  template <typename T>
  T& As() const {
    return *static_cast<T*>(o_);
  }
  std::string_view str() const;  ///< of kStr

 private:
  explicit Value(Kind k, int64_t i = 0) : kind_(k), i_(i) {}
  void Hold() {
    if (IsObject() && o_->heap != nullptr) ++o_->refs;
  }
  void Swap(Value& other) {
    std::swap(kind_, other.kind_);
    std::swap(i_, other.i_);
  }

  Kind kind_;
  union {
    int64_t i_;
    double d_;
    Obj* o_;
  };
};

/// A string: UTF-8, indexed by code point as Python's. The text is its own, or a piece of another string that
/// it holds, or borrowed from what outlives the render (the context, the template).
struct StrObj : Obj {
  StrObj(std::string text, bool is_markup)
      : Obj(Kind::kStr), own(std::move(text)), view(own), markup(is_markup) {}
  StrObj(std::string_view text, bool is_markup, Value held = Value())
      : Obj(Kind::kStr), owner(std::move(held)), view(text), markup(is_markup) {}
  bool IsBorrowed() const { return own.empty() && owner.IsNone(); }
  int64_t NumCodePoints() const {
    if (num_code_points < 0) num_code_points = CountCodePoints();
    return num_code_points;
  }
  bool IsAscii() const { return NumCodePoints() == static_cast<int64_t>(view.size()); }

  const std::string own;
  const Value owner;
  const std::string_view view;
  mutable int64_t num_code_points = -1;
  const bool markup;  ///< markupsafe.Markup: what |safe and |escape return

 private:
  int64_t CountCodePoints() const;
};

inline std::string_view Value::str() const {
  return static_cast<const StrObj*>(o_)->view;
}

using ValueVec = std::vector<Value>;

struct ListObj : Obj {  ///< kList and kTuple
  ListObj(Kind k, ValueVec v) : Obj(k), items(std::move(v)) {}
  const ValueVec items;
};

/// A dict in order of insertion. Small ones are searched, larger ones through a sorted index (no hash that
/// hostile keys could collide in).
struct DictObj : Obj {
  using Items = std::vector<std::pair<Value, Value>>;
  /// Keys must be hashable and distinct; see Heap::MakeDict.
  explicit DictObj(Items v) : Obj(Kind::kDict), items(std::move(v)) {}
  const Value* Find(std::string_view key) const;
  const Value* Find(const Value& key) const;

  const Items items;

 private:
  void BuildIndex() const;
  mutable std::vector<uint32_t> index_;  // of items, sorted by KeyLess
};

struct UndefinedObj : Obj {
  enum class Why : uint8_t { kName, kAttribute, kElement, kHint, kUnsafe };
  UndefinedObj(Why w, const char* type, Value n)
      : Obj(Kind::kUndefined), why(w), owner_type(type), name(std::move(n)) {}
  const Why why;
  const char* const owner_type;  ///< object_type_repr of what was asked, without quotes
  const Value name;              ///< the name asked for, or the hint
};

struct RangeObj : Obj {
  RangeObj(int64_t b, int64_t e, int64_t s) : Obj(Kind::kRange), begin(b), end(e), step(s) {}
  int64_t Length() const;
  const int64_t begin, end, step;
};

struct DictViewObj : Obj {
  enum class Part : uint8_t { kKeys, kValues, kItems };
  DictViewObj(Value d, Part p) : Obj(Kind::kDictView), dict(std::move(d)), part(p) {}
  const Value dict;
  const Part part;
};

/// An iterator that is used up: what map, select, items, reverse, batch... return.
struct GeneratorObj : Obj {
  using Next = std::function<bool(Value&)>;
  GeneratorObj(Next n, const char* type) : Obj(Kind::kGenerator), next(std::move(n)), type_name(type) {}
  Next next;
  const char* const type_name;
};

struct NamespaceObj : CyclicObj {
  NamespaceObj() : CyclicObj(Kind::kNamespace) {}
  void Clear() override { attrs.clear(); }
  Value* Find(std::string_view name);
  std::vector<std::pair<Value, Value>> attrs;
};

struct CyclerObj : Obj {
  explicit CyclerObj(ValueVec v) : Obj(Kind::kCycler), items(std::move(v)) {}
  const ValueVec items;
  size_t pos = 0;
};

struct JoinerObj : Obj {
  explicit JoinerObj(Value s) : Obj(Kind::kJoiner), separator(std::move(s)) {}
  const Value separator;
  bool used = false;
};

/// A total order on hashable values under which equal keys are equal. Needs both to be hashable.
int CompareKeys(const Value& a, const Value& b);

const char* TypeName(const Value& v);  ///< as Python prints type(v).__name__
/// Jinja's object_type_repr, without the word "object" for None: "list object", "None".
const char* TypeRepr(const Value& v);

bool Truthy(const Value& v);

}  // namespace cadre::jinja
