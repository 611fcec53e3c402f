#pragma once
// What one render has at hand: the heap that its values live on, its limits, and the operations of the
// language on values. Everything that can take long or much goes through Charge, Builder or Push, so the
// limits hold everywhere.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/chat_template.h"
#include "text/jinja_value.h"

namespace cadre::jinja {

/// Counts and frees the objects of a render.
class Heap {
 public:
  explicit Heap(size_t max_live_bytes) : max_live_bytes_(max_live_bytes) {}
  ~Heap();
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  template <typename T, typename... Args>
  Value Make(size_t extra_bytes, Args&&... args) {
    Reserve(sizeof(T) + extra_bytes);
    T* obj = new T(std::forward<Args>(args)...);
    obj->heap = this;
    obj->bytes = sizeof(T) + extra_bytes;
    return Value(obj);
  }
  /// As Make, for objects that can be part of a cycle.
  template <typename T, typename... Args>
  Value MakeCyclic(Args&&... args) {
    Value v = Make<T>(64, std::forward<Args>(args)...);
    Link(static_cast<CyclicObj*>(v.object()));
    return v;
  }
  /// Counts bytes that an object has grown by.
  void Grow(Obj* obj, size_t bytes) {
    Reserve(bytes);
    obj->bytes += bytes;
  }
  void Free(Obj* obj);

 private:
  void Reserve(size_t bytes) {
    live_bytes_ += bytes;
    if (live_bytes_ > max_live_bytes_) TooMuch(bytes);
  }
  [[noreturn]] void TooMuch(size_t bytes);
  void Link(CyclicObj* obj);

  const size_t max_live_bytes_;
  size_t live_bytes_ = 0;
  Obj* dead_ = nullptr;  // waiting to be freed: nested objects are freed in a loop, not by recursion
  bool freeing_ = false;
  CyclicObj* cyclic_ = nullptr;
};

/// Arguments of a call.
struct Args {
  ValueVec pos;
  std::vector<std::pair<std::string_view, Value>> kw;
  Value held;  // what the names of kw lie in
};

class Runtime;

/// Filters, tests, methods and global functions. `self` is the value before the pipe, dot or `is`.
using Function = Value (*)(Runtime& rt, const Value& self, Args& args);

struct Method {
  const char* name;
  Function function;  ///< nullptr: exists in Python, but the sandbox forbids it
};

struct MethodObj : Obj {
  MethodObj(Value s, const Method* m) : Obj(Kind::kMethod), self(std::move(s)), method(m) {}
  const Value self;
  const Method* const method;
};

struct BuiltinObj : Obj {
  BuiltinObj(const char* n, Function f) : Obj(Kind::kBuiltin), name(n), function(f) {}
  const char* const name;
  const Function function;
};

/// Calls values: the interpreter, seen from the filters.
class Caller {
 public:
  virtual ~Caller() = default;
  virtual Value Call(const Value& callee, Args& args) = 0;
};

class Runtime {
 public:
  /// `current_line` always holds the line of the template that is being evaluated, for messages.
  Runtime(const RenderLimits& limits, Caller* the_caller, int* current_line)
      : caller(the_caller),
        line(*current_line),
        limits_(limits),
        heap_(limits.max_live_bytes),
        stack_base_(StackAddress()) {}

  Caller* const caller;
  int& line;

  const RenderLimits& limits() const { return limits_; }
  void Charge(size_t steps = 1) {
    steps_ += static_cast<int64_t>(steps);
    if (steps_ > limits_.max_steps) OutOfSteps();
  }
  void ChargeBytes(size_t bytes) { Charge(bytes / 64); }

  /// One level of recursion, while it lives.
  class Level {
   public:
    explicit Level(Runtime& rt) : rt_(rt) {
      if (++rt.depth_ > rt.limits_.max_depth || rt.StackUsed() > rt.limits_.max_stack_bytes) {
        --rt.depth_;
        rt.TooDeep();
      }
    }
    ~Level() { --rt_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Runtime& rt_;
  };

  Heap& heap() { return heap_; }

  // Making values.
  Value Str(std::string text, bool markup = false);
  /// A string that borrows `text`: of the context, of the template, or static.
  Value Borrow(std::string_view text) { return heap_.Make<StrObj>(0, text, false); }
  /// A piece of `owner`, which must be a string; keeps markup.
  Value Piece(const Value& owner, std::string_view text);
  Value List(ValueVec items) { return heap_.Make<ListObj>(SizeOf(items), Kind::kList, std::move(items)); }
  Value Tuple(ValueVec items) { return heap_.Make<ListObj>(SizeOf(items), Kind::kTuple, std::move(items)); }
  Value Pair(Value a, Value b);
  /// Throws TypeError for what cannot be a key.
  void NeedHashable(const Value& v);
  /// A later equal key replaces the value of the earlier one. Throws TypeError for unhashable keys.
  Value Dict(DictObj::Items items);
  Value Generator(GeneratorObj::Next next, const char* type = "generator") {
    return heap_.Make<GeneratorObj>(64, std::move(next), type);
  }
  Value Undefined(UndefinedObj::Why why, const char* owner_type, Value name) {
    return heap_.Make<UndefinedObj>(0, why, owner_type, std::move(name));
  }
  Value UndefinedHint(std::string_view hint) {
    return Undefined(UndefinedObj::Why::kHint, "", Str(std::string(hint)));
  }
  Value FromJson(const Json& json);

  /// Appends to a list under construction.
  void Push(ValueVec& items, Value v) {
    Charge();
    if ((items.size() + 1) * sizeof(Value) > limits_.max_value_bytes) TooLarge("list");
    items.push_back(std::move(v));
  }
  void CheckStringSize(size_t bytes) const {
    if (bytes > limits_.max_value_bytes) TooLarge("string");
  }
  [[noreturn]] void TooLarge(const char* what) const;

  // Text of values.
  void AppendStr(std::string& out, const Value& v);   ///< str(v)
  void AppendRepr(std::string& out, const Value& v);  ///< repr(v)
  std::string ToStr(const Value& v);
  std::string ToRepr(const Value& v);
  /// v as a string value: v itself if it is one (soft_str).
  Value SoftStr(const Value& v);

  // Operations; see jinja_ops.cc.
  bool Equal(const Value& a, const Value& b);
  enum class Order { kLt, kLe, kGt, kGe };
  bool Compare(const Value& a, const Value& b, Order op);
  bool Less(const Value& a, const Value& b) { return Compare(a, b, Order::kLt); }
  bool Contains(const Value& container, const Value& item);
  Value Add(const Value& a, const Value& b);
  Value Sub(const Value& a, const Value& b);
  Value Mul(const Value& a, const Value& b);
  Value Div(const Value& a, const Value& b);
  Value FloorDiv(const Value& a, const Value& b);
  Value Mod(const Value& a, const Value& b);
  Value Pow(const Value& a, const Value& b);
  Value Negate(const Value& a);
  Value Plus(const Value& a);
  /// len(v); throws TypeError where Python would.
  int64_t Length(const Value& v);
  Value GetItem(const Value& obj, const Value& key);
  Value GetSlice(const Value& obj, const Value& start, const Value& stop, const Value& step);
  /// obj.name: attribute first, then item.
  Value GetAttr(const Value& obj, const Value& name);
  Value GetAttr(const Value& obj, const Value& name, const Method* const* methods);
  /// Throws the error that using an undefined value is.
  [[noreturn]] void FailUndefined(const Value& v);
  std::string UndefinedMessage(const Value& v);
  void FailIfUndefined(const Value& v) {
    if (v.IsUndefined()) FailUndefined(v);
  }
  /// An integer argument (int or bool), else TypeError.
  int64_t NeedInt(const Value& v, const char* what);
  std::string_view NeedStr(const Value& v, const char* what);

  size_t SizeOf(const ValueVec& items) const {
    const size_t bytes = items.capacity() * sizeof(Value);
    if (items.size() * sizeof(Value) > limits_.max_value_bytes) TooLarge("list");
    return bytes;
  }

 private:
  static uintptr_t StackAddress() { return reinterpret_cast<uintptr_t>(__builtin_frame_address(0)); }
  size_t StackUsed() const {
    const uintptr_t here = StackAddress();
    return here < stack_base_ ? stack_base_ - here : here - stack_base_;
  }
  [[noreturn]] void OutOfSteps() const;
  [[noreturn]] void TooDeep() const;
  Value GetAttribute(const Value& obj, std::string_view name, const Method* const* methods);
  Value SliceStr(const Value& s, int64_t start, int64_t count, int64_t step);

  const RenderLimits& limits_;
  Heap heap_;
  int64_t steps_ = 0;
  int depth_ = 0;
  const uintptr_t stack_base_;
};

/// A string under construction, held to the limits.
class Builder {
 public:
  explicit Builder(Runtime& rt) : rt_(rt) {}
  void Append(std::string_view s) {
    rt_.CheckStringSize(text_.size() + s.size());
    rt_.ChargeBytes(s.size());
    text_ += s;
  }
  void Append(size_t n, char c) {
    if (n > rt_.limits().max_value_bytes) rt_.TooLarge("string");
    rt_.CheckStringSize(text_.size() + n);
    rt_.ChargeBytes(n);
    text_.append(n, c);
  }
  void AppendValue(const Value& v) {
    if (v.IsStr()) {
      Append(v.str());
    } else {
      rt_.AppendStr(text_, v);
      rt_.CheckStringSize(text_.size());
    }
  }
  std::string& text() { return text_; }
  Value Take(bool markup = false) { return rt_.Str(std::move(text_), markup); }

 private:
  Runtime& rt_;
  std::string text_;
};

/// Walks any iterable. Holds the value it walks.
class Iterator {
 public:
  Iterator(Runtime& rt, Value iterable);  ///< throws TypeError if it is none
  bool Next(Value& out);
  void Restart(Value list) {
    over_ = std::move(list);
    pos_ = 0;
  }
  void Drop() { over_ = Value(); }
  static bool IsIterable(const Value& v);

 private:
  Runtime& rt_;
  Value over_;
  size_t pos_ = 0;
};

ValueVec ToVector(Runtime& rt, const Value& iterable);

/// Python's call rules for built-in functions: names of the parameters, in order. Throws TypeError for a
/// surplus, unknown or missing argument. p[i] is nullptr where nothing was given.
class Params {
 public:
  Params(const char* function, Args& args, std::initializer_list<const char*> names, size_t num_required = 0);
  const Value* operator[](size_t i) const { return values_[i]; }
  /// The argument, or None.
  const Value& OrNone(size_t i) const { return values_[i] != nullptr ? *values_[i] : none_; }
  bool Flag(size_t i, bool otherwise = false) const {
    return values_[i] != nullptr ? Truthy(*values_[i]) : otherwise;
  }

 private:
  static constexpr size_t kMax = 6;
  const Value* values_[kMax] = {};
  Value none_;
};

// The tables, one file each. nullptr where the name is unknown.
Function FindFilter(std::string_view name);
Function FindTest(std::string_view name);
Function FindGlobal(std::string_view name);
/// Methods by the kind of value that they are called on: str, list, tuple, dict.
constexpr int kNumMethodKinds = 4;
const Method* FindMethod(int method_kind, std::string_view name);
int MethodKind(const Value& v);  ///< -1 if the value has no methods

/// Calls a filter or test by name at run time (map, select, ...).
Value CallFilter(Runtime& rt, const Value& name, const Value& self, Args& args);
bool CallTest(Runtime& rt, const Value& name, const Value& self, Args& args);

// Formatting; jinja_format.cc, jinja_json.cc.
Value PercentFormat(Runtime& rt, const Value& pattern, const Value& values);
Value StrFormat(Runtime& rt, const Value& pattern, Args& args);
std::string FormatFloat(double d);  ///< repr(float)
std::string Strftime(Runtime& rt, std::string_view format);
Value ToJson(Runtime& rt, const Value& v, Args& args);
/// HTML escapes, as markupsafe writes them.
std::string EscapeHtml(Runtime& rt, std::string_view text);

}  // namespace cadre::jinja
