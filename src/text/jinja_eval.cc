#include "text/jinja_eval.h"

#include <algorithm>

namespace cadre::jinja {

class Interpreter::InScope {
 public:
  InScope(Interpreter& in, Value scope) : in_(in), saved_(std::move(in.scope_)) {
    in_.scope_ = std::move(scope);
  }
  ~InScope() { in_.scope_ = std::move(saved_); }
  InScope(const InScope&) = delete;
  InScope& operator=(const InScope&) = delete;

 private:
  Interpreter& in_;
  Value saved_;
};

class Interpreter::Capture {
 public:
  explicit Capture(Interpreter& in) : in_(in), saved_(in.out_) { in_.out_ = &text; }
  ~Capture() {
    in_.out_ = saved_;
    in_.buffered_bytes_ -= taken_ + text.size();
  }
  /// The text; it still counts as buffered until the capture ends.
  std::string Take() {
    taken_ = text.size();
    return std::exchange(text, {});
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  std::string text;

 private:
  Interpreter& in_;
  std::string* saved_;
  size_t taken_ = 0;
};

Interpreter::Interpreter(const Program& program, const Json& context, const RenderLimits& limits, int* line)
    : program_(program), rt_(limits, this, line) {
  context_.resize(program.names.size(), Value::Missing());
  template_.resize(program.names.size(), Value::Missing());
  for (const auto& [name, value] : context.AsObject()) {
    const auto found = program.names.find(name);
    if (found != program.names.end()) context_[found->second] = rt_.FromJson(value);
  }
}

std::string Interpreter::Run() {
  std::string out;
  out_ = &out;
  Exec(program_.body);
  return out;
}

// ---------------------------------------------------------------- variables

const Value* Interpreter::Lookup(NameId id) {
  for (const Value* s = &scope_; !s->IsNone(); s = &s->As<ScopeObj>().parent) {
    if (const Value* found = s->As<ScopeObj>().Find(id)) return found;
  }
  if (!template_[id].IsMissing()) return &template_[id];
  if (!context_[id].IsMissing()) return &context_[id];
  return program_.globals[id].IsMissing() ? nullptr : &program_.globals[id];
}

void Interpreter::Store(NameId id, Value value) {
  if (scope_.IsNone()) {
    template_[id] = std::move(value);
  } else if (Value* found = scope().Find(id)) {
    *found = std::move(value);
  } else {
    scope().vars.emplace_back(id, std::move(value));
  }
}

void Interpreter::AssignAttribute(const Target& target, const Value& value) {
  const Value* owner = Lookup(target.id);
  if (owner == nullptr || !owner->Is(Kind::kNamespace)) {
    Raise(EvalError::Kind::kTemplate, "cannot assign attribute on non-namespace object");
  }
  const Value keep = *owner;
  NamespaceObj& ns = keep.As<NamespaceObj>();
  if (Value* found = ns.Find(target.attribute.str())) {
    *found = value;
  } else {
    rt_.heap().Grow(&ns, 2 * sizeof(Value));
    ns.attrs.emplace_back(target.attribute, value);
  }
}

void Interpreter::Assign(const Target& target, const Value& value) {
  switch (target.kind) {
    case Target::Kind::kName:
      Store(target.id, value);
      return;
    case Target::Kind::kAttribute:
      AssignAttribute(target, value);
      return;
    case Target::Kind::kTuple:
      break;
  }
  if (!Iterator::IsIterable(value)) RaiseType("cannot unpack non-iterable {} object", TypeName(value));
  Iterator it(rt_, value);
  ValueVec items;
  Value item;
  while (items.size() <= target.parts.size() && it.Next(item)) items.push_back(item);
  if (items.size() > target.parts.size())
    RaiseValue("too many values to unpack (expected {})", target.parts.size());
  if (items.size() < target.parts.size()) {
    RaiseValue("not enough values to unpack (expected {}, got {})", target.parts.size(), items.size());
  }
  for (size_t i = 0; i < items.size(); ++i) Assign(target.parts[i], items[i]);
}

// ---------------------------------------------------------------- statements

void Interpreter::Write(std::string_view text) {
  buffered_bytes_ += text.size();
  if (buffered_bytes_ > rt_.limits().max_output_bytes) {
    Raise(EvalError::Kind::kLimit, "the template writes more than max_output_bytes = {}",
          rt_.limits().max_output_bytes);
  }
  rt_.ChargeBytes(text.size());
  out_->append(text);
}

void Interpreter::Print(const Value& value) {
  if (value.IsStr()) return Write(value.str());
  if (value.IsUndefined()) return;
  Write(rt_.ToStr(value));
}

Interpreter::Flow Interpreter::Exec(const Body& body) {
  for (const StmtPtr& stmt : body) {
    if (const Flow flow = Exec(*stmt); flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::Exec(const Stmt& stmt) {
  rt_.Charge();
  rt_.line = stmt.line;
  switch (stmt.kind) {
    case StmtKind::kText:
      Write(static_cast<const TextStmt&>(stmt).text);
      return Flow::kNext;
    case StmtKind::kPrint:
      Print(Eval(*static_cast<const PrintStmt&>(stmt).expr));
      return Flow::kNext;
    case StmtKind::kSet: {
      const auto& set = static_cast<const SetStmt&>(stmt);
      Assign(set.target, Eval(*set.value));
      return Flow::kNext;
    }
    case StmtKind::kIf:
      return ExecIf(static_cast<const IfStmt&>(stmt));
    case StmtKind::kFor:
      return ExecFor(static_cast<const ForStmt&>(stmt));
    case StmtKind::kSetBlock:
      return ExecSetBlock(static_cast<const SetBlockStmt&>(stmt));
    case StmtKind::kMacro: {
      const MacroDef& def = static_cast<const MacroStmt&>(stmt).macro;
      Store(def.id, rt_.heap().Make<MacroObj>(0, &def, scope_));
      return Flow::kNext;
    }
    case StmtKind::kCallBlock:
      ExecCallBlock(static_cast<const CallBlockStmt&>(stmt));
      return Flow::kNext;
    case StmtKind::kFilterBlock:
      return ExecFilterBlock(static_cast<const FilterBlockStmt&>(stmt));
    case StmtKind::kWith:
      return ExecWith(static_cast<const WithStmt&>(stmt));
    case StmtKind::kBlock: {
      const Runtime::Level level(rt_);
      const InScope in(*this, NewScope());
      return Exec(static_cast<const BlockStmt&>(stmt).body);
    }
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecIf(const IfStmt& stmt) {
  const Runtime::Level level(rt_);
  for (const auto& [test, body] : stmt.branches) {
    rt_.line = test->line;
    if (Test(*test)) return Exec(body);
  }
  return Exec(stmt.otherwise);
}

Interpreter::Flow Interpreter::ExecFor(const ForStmt& stmt) {
  const Value iterable = Eval(*stmt.iterable);
  return RunLoop(stmt, iterable, 0);
}

Interpreter::Flow Interpreter::RunLoop(const ForStmt& stmt, const Value& iterable, int64_t depth0) {
  const Runtime::Level level(rt_);
  Value items = iterable;
  if (stmt.test) {
    // The test is asked as the loop goes, in a scope with nothing but the target.
    Value test_scope = NewScope();
    auto source = std::make_shared<Iterator>(rt_, iterable);
    items = rt_.Generator([this, &stmt, test_scope, source](Value& out) {
      while (source->Next(out)) {
        const InScope in(*this, test_scope);
        scope().vars.clear();
        Assign(stmt.target, out);
        if (Test(*stmt.test)) return true;
      }
      return false;
    });
  }
  Value loop = rt_.heap().MakeCyclic<LoopObj>(rt_, items);
  LoopObj& state = loop.As<LoopObj>();
  state.depth0 = depth0;
  if (stmt.recursive) {
    state.recursive = &stmt;
    state.scope = scope_;
  }
  Value inner = NewScope();
  Value item;
  bool any = false;
  while (state.Next(item)) {
    any = true;
    rt_.Charge();
    // A macro made in the last round may still hold its scope.
    if (inner.object()->refs > 1) inner = NewScope();
    const InScope in(*this, inner);
    scope().vars.clear();
    if (program_.uses_loop) scope().vars.emplace_back(program_.loop_id, loop);
    Assign(stmt.target, item);
    const Flow flow = Exec(stmt.body);
    if (flow == Flow::kBreak) break;
  }
  if (!any) {
    const InScope in(*this, NewScope());
    return Exec(stmt.otherwise);  // a break in here belongs to the loop around
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecSetBlock(const SetBlockStmt& stmt) {
  const Runtime::Level level(rt_);
  Value result;
  {
    const InScope in(*this, NewScope());
    Capture capture(*this);
    if (const Flow flow = Exec(stmt.body); flow != Flow::kNext) return flow;
    if (stmt.filter) {
      const std::string* const saved = std::exchange(filter_input_, &capture.text);
      result = Eval(*stmt.filter);
      filter_input_ = saved;
    } else {
      result = rt_.Str(capture.Take());
    }
  }
  Assign(stmt.target, result);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecFilterBlock(const FilterBlockStmt& stmt) {
  const Runtime::Level level(rt_);
  Value result;
  {
    const InScope in(*this, NewScope());
    Capture capture(*this);
    if (const Flow flow = Exec(stmt.body); flow != Flow::kNext) return flow;
    const std::string* const saved = std::exchange(filter_input_, &capture.text);
    result = Eval(*stmt.filter);
    filter_input_ = saved;
  }
  Print(result);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecWith(const WithStmt& stmt) {
  const Runtime::Level level(rt_);
  Value inner = NewScope();
  for (const auto& [target, expr] : stmt.bindings) {
    const Value value = Eval(*expr);  // in the outer scope
    const InScope in(*this, inner);
    Assign(target, value);
  }
  const InScope in(*this, inner);
  return Exec(stmt.body);
}

void Interpreter::ExecCallBlock(const CallBlockStmt& stmt) {
  const Runtime::Level level(rt_);
  const Value caller = rt_.heap().Make<MacroObj>(0, &stmt.caller, scope_);
  Print(EvalCall(static_cast<const CallExpr&>(*stmt.call), &caller));
}

// ---------------------------------------------------------------- calls

Value Interpreter::CallMacro(const MacroObj& macro, Args& args) {
  const Runtime::Level level(rt_);
  const MacroDef& def = *macro.def;
  const Value keep_scope = macro.scope;
  Value inner;
  {
    const InScope in(*this, macro.scope);
    inner = NewScope();
  }
  const InScope in(*this, inner);
  std::vector<bool> used(args.kw.size());
  const auto take_keyword = [&](std::string_view name) -> const Value* {
    for (size_t i = 0; i < args.kw.size(); ++i) {
      if (used[i] || args.kw[i].first != name) continue;
      used[i] = true;
      return &args.kw[i].second;
    }
    return nullptr;
  };
  const size_t num_params = def.params.size();
  for (size_t i = 0; i < num_params; ++i) {
    const auto& [name, id] = def.params[i];
    const Value* given = i < args.pos.size() ? &args.pos[i] : take_keyword(name);
    if (given != nullptr) {
      Store(id, *given);
    } else if (i + def.defaults.size() >= num_params) {
      Store(id, Eval(*def.defaults[i + def.defaults.size() - num_params]));
    } else {
      Store(id, rt_.UndefinedHint(Format("parameter '{}' was not provided", name)));
    }
  }
  if (def.uses_caller) {
    const Value* caller = take_keyword("caller");
    Store(program_.caller_id, caller != nullptr ? *caller : rt_.UndefinedHint("No caller defined"));
  }
  if (def.uses_kwargs) {
    DictObj::Items rest;
    for (size_t i = 0; i < args.kw.size(); ++i) {
      if (!used[i]) rest.emplace_back(rt_.Str(std::string(args.kw[i].first)), args.kw[i].second);
    }
    Store(program_.kwargs_id, rt_.Dict(std::move(rest)));
  } else {
    for (size_t i = 0; i < args.kw.size(); ++i) {
      if (!used[i]) RaiseType("macro '{}' takes no keyword argument '{}'", def.name, args.kw[i].first);
    }
  }
  if (def.uses_varargs) {
    ValueVec rest;
    for (size_t i = num_params; i < args.pos.size(); ++i) rest.push_back(args.pos[i]);
    Store(program_.varargs_id, rt_.Tuple(std::move(rest)));
  } else if (args.pos.size() > num_params) {
    RaiseType("macro '{}' takes not more than {} argument(s)", def.name, num_params);
  }
  Capture capture(*this);
  Exec(def.body);
  return rt_.Str(capture.Take());
}

Value Interpreter::CallLoop(LoopObj& loop, Args& args) {
  if (loop.recursive == nullptr) {
    RaiseType("The loop must have the 'recursive' marker to be called recursively.");
  }
  if (args.pos.size() != 1 || !args.kw.empty()) RaiseType("loop() takes one argument, the iterable");
  const InScope in(*this, Value(loop.scope));
  Capture capture(*this);
  RunLoop(*loop.recursive, args.pos[0], loop.depth0 + 1);
  return rt_.Str(capture.Take());
}

Value Interpreter::Call(const Value& callee, Args& args) {
  rt_.Charge();
  switch (callee.kind()) {
    case Kind::kUndefined:
      rt_.FailUndefined(callee);
    case Kind::kBuiltin:
      return callee.As<BuiltinObj>().function(rt_, Value(), args);
    case Kind::kMethod: {
      const MethodObj& method = callee.As<MethodObj>();
      return method.method->function(rt_, method.self, args);
    }
    case Kind::kMacro: {
      const Value keep = callee;
      return CallMacro(keep.As<MacroObj>(), args);
    }
    case Kind::kLoop: {
      const Value keep = callee;
      return CallLoop(keep.As<LoopObj>(), args);
    }
    case Kind::kJoiner: {
      JoinerObj& joiner = callee.As<JoinerObj>();
      return std::exchange(joiner.used, true) ? joiner.separator : rt_.Str("");
    }
    default:
      RaiseType("'{}' object is not callable", TypeName(callee));
  }
}

// ---------------------------------------------------------------- loops

void LoopObj::Clear() {
  iterable = before = current = ahead = last_changed = scope = Value();
  iterator.Drop();
}

bool LoopObj::Next(Value& item) {
  if (!ahead.IsMissing()) {
    item = std::move(ahead);
    ahead = Value::Missing();
  } else if (!iterator.Next(item)) {
    return false;
  }
  ++index0;
  before = std::move(current);
  current = item;
  return true;
}

bool LoopObj::Peek() {
  if (!ahead.IsMissing()) return true;
  Value item;
  if (!iterator.Next(item)) return false;
  ahead = std::move(item);
  return true;
}

int64_t LoopObj::Length(Runtime& rt) {
  if (length >= 0) return length;
  if (!iterable.Is(Kind::kGenerator)) return length = rt.Length(iterable);
  // Read the generator to its end and go on from the list.
  ValueVec rest;
  Value item;
  while (iterator.Next(item)) rt.Push(rest, item);
  length = static_cast<int64_t>(rest.size()) + index0 + 1 + (ahead.IsMissing() ? 0 : 1);
  iterator.Restart(rt.List(std::move(rest)));
  return length;
}

}  // namespace cadre::jinja
