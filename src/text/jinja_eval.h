#pragma once
// Walks the syntax tree. One Interpreter is one render, on one thread.
//
// Scopes: the template's own variables lie in an array by NameId, over the context's, over the global
// functions. Loops, macros, call blocks, with, filter and set blocks open a Scope each; `if` opens none.
// Macros keep the scope they were defined in, so scopes are counted objects.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"

namespace cadre::jinja {

struct ScopeObj : CyclicObj {
  explicit ScopeObj(Value p) : CyclicObj(Kind::kScope), parent(std::move(p)) {}
  void Clear() override {
    vars.clear();
    parent = Value();
  }
  Value* Find(NameId id) {
    for (auto& [key, value] : vars) {
      if (key == id) return &value;
    }
    return nullptr;
  }
  Value parent;  // None: the template itself
  std::vector<std::pair<NameId, Value>> vars;
};

struct MacroObj : Obj {
  MacroObj(const MacroDef* d, Value s) : Obj(Kind::kMacro), def(d), scope(std::move(s)) {}
  const MacroDef* const def;
  const Value scope;  // where it was defined
};

/// The `loop` variable. `ahead` is the next item once somebody asked for it.
struct LoopObj : CyclicObj {
  LoopObj(Runtime& rt, Value i) : CyclicObj(Kind::kLoop), iterable(i), iterator(rt, std::move(i)) {}
  void Clear() override;
  bool Next(Value& item);
  bool Peek();  ///< whether there is a next item
  int64_t Length(Runtime& rt);

  Value iterable;
  Iterator iterator;
  int64_t index0 = -1;
  int64_t length = -1;
  int64_t depth0 = 0;
  Value before = Value::Missing(), current = Value::Missing(), ahead = Value::Missing();
  Value last_changed = Value::Missing();
  const ForStmt* recursive = nullptr;  // of a recursive loop: the loop and the scope to run it in
  Value scope;
};

class Interpreter : public Caller {
 public:
  Interpreter(const Program& program, const Json& context, const RenderLimits& limits, int* line);
  /// Renders; throws EvalError.
  std::string Run();
  Value Call(const Value& callee, Args& args) override;

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  // ---- statements
  Flow Exec(const Body& body);
  Flow Exec(const Stmt& stmt);
  Flow ExecIf(const IfStmt& stmt);
  Flow ExecFor(const ForStmt& stmt);
  Flow RunLoop(const ForStmt& stmt, const Value& iterable, int64_t depth0);
  Flow ExecSetBlock(const SetBlockStmt& stmt);
  Flow ExecFilterBlock(const FilterBlockStmt& stmt);
  Flow ExecWith(const WithStmt& stmt);
  void ExecCallBlock(const CallBlockStmt& stmt);
  void Print(const Value& value);
  void Write(std::string_view text);

  // ---- expressions
  Value Eval(const Expr& expr);
  Value EvalName(const NameExpr& expr);
  Value EvalSequence(const SequenceExpr& expr);
  Value EvalDict(const SequenceExpr& expr);
  Value EvalConcat(const SequenceExpr& expr);
  Value EvalSlice(const SliceExpr& expr);
  Value EvalCall(const CallExpr& expr, const Value* caller);
  Value EvalFilter(const FilterExpr& expr);
  Value EvalBinary(const BinaryExpr& expr);
  Value EvalCompare(const CompareExpr& expr);
  Value EvalCond(const CondExpr& expr);
  bool Test(const Expr& expr) { return Truthy(Eval(expr)); }
  void EvalArgs(const ArgList& list, Args& out);
  Value CallMacro(const MacroObj& macro, Args& args);
  Value CallLoop(LoopObj& loop, Args& args);

  // ---- variables
  void Assign(const Target& target, const Value& value);
  void AssignAttribute(const Target& target, const Value& value);
  void Store(NameId id, Value value);
  /// nullptr if no variable of this number is set.
  const Value* Lookup(NameId id);
  ScopeObj& scope() { return scope_.As<ScopeObj>(); }
  Value NewScope() { return rt_.heap().MakeCyclic<ScopeObj>(scope_); }

  // Runs with another scope, or another output, while it lives.
  class InScope;
  class Capture;

  const Program& program_;
  Runtime rt_;
  std::vector<Value> context_;   // by NameId
  std::vector<Value> template_;  // by NameId: what the template itself has set
  Value scope_;                  // None, or the innermost ScopeObj
  std::string* out_ = nullptr;
  size_t buffered_bytes_ = 0;                  // in out_ and in the buffers that wait below it
  const std::string* filter_input_ = nullptr;  // the text of the filter block whose filter is evaluated
};

}  // namespace cadre::jinja
