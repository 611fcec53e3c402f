#pragma once
// The syntax tree of a template. Built once by the parser, then only read: many threads may walk it.
// Every node knows how deep its subtree is; the parser refuses what the evaluator's recursion could not walk.
#include <array>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_runtime.h"
#include "text/jinja_value.h"

namespace cadre::jinja {

/// Variables are numbered; a scope looks them up by number.
using NameId = uint32_t;

enum class ExprKind : uint8_t {
  kConst,
  kName,
  kTuple,
  kList,
  kDict,
  kGetAttr,
  kGetItem,
  kSlice,
  kCall,
  kFilter,
  kTest,
  kNot,
  kNeg,
  kPos,
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kAnd,
  kOr,
  kCompare,
  kConcat,
  kCond,
};

struct Expr {
  Expr(ExprKind k, int l) : kind(k), line(l) {}
  virtual ~Expr() = default;
  const ExprKind kind;
  const int line;
  int depth = 1;
};
using ExprPtr = std::unique_ptr<Expr>;

struct ConstExpr : Expr {
  ConstExpr(int l, Value v) : Expr(ExprKind::kConst, l), value(std::move(v)) {}
  const Value value;  // strings belong to Program::constants
};

struct NameExpr : Expr {
  NameExpr(int l, NameId i, Value n) : Expr(ExprKind::kName, l), id(i), name(std::move(n)) {}
  const NameId id;
  const Value name;
};

struct SequenceExpr : Expr {  // kTuple, kList, kConcat; kDict: key, value, key, value, ...
  using Expr::Expr;
  std::vector<ExprPtr> items;
};

struct GetAttrExpr : Expr {
  GetAttrExpr(int l, ExprPtr o, Value n)
      : Expr(ExprKind::kGetAttr, l), object(std::move(o)), name(std::move(n)) {
    for (int k = 0; k < kNumMethodKinds; ++k) methods[static_cast<size_t>(k)] = FindMethod(k, name.str());
  }
  const ExprPtr object;
  const Value name;
  std::array<const Method*, kNumMethodKinds> methods;
};

struct GetItemExpr : Expr {
  GetItemExpr(int l, ExprPtr o, ExprPtr k)
      : Expr(ExprKind::kGetItem, l), object(std::move(o)), key(std::move(k)) {}
  const ExprPtr object, key;
};

struct SliceExpr : Expr {  // object[start:stop:step]; each may be nullptr
  SliceExpr(int l) : Expr(ExprKind::kSlice, l) {}
  ExprPtr object, start, stop, step;
};

struct ArgList {
  std::vector<ExprPtr> pos;
  std::vector<std::pair<std::string, ExprPtr>> kw;
  ExprPtr star, star_star;  // *args, **kwargs
};

struct CallExpr : Expr {
  CallExpr(int l, ExprPtr c) : Expr(ExprKind::kCall, l), callee(std::move(c)) {}
  ExprPtr callee;
  ArgList args;
};

struct FilterExpr : Expr {  // kFilter and kTest
  FilterExpr(ExprKind k, int l) : Expr(k, l) {}
  ExprPtr input;  // nullptr at the head of a filter block: its text
  std::string name;
  Function function = nullptr;  // nullptr: unknown, an error when it is called
  ArgList args;
};

struct UnaryExpr : Expr {
  UnaryExpr(ExprKind k, int l, ExprPtr o) : Expr(k, l), operand(std::move(o)) {}
  const ExprPtr operand;
};

struct BinaryExpr : Expr {
  BinaryExpr(ExprKind k, int l, ExprPtr a, ExprPtr b) : Expr(k, l), left(std::move(a)), right(std::move(b)) {}
  const ExprPtr left, right;
};

enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct CompareExpr : Expr {
  CompareExpr(int l, ExprPtr f) : Expr(ExprKind::kCompare, l), first(std::move(f)) {}
  const ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};

struct CondExpr : Expr {  // then if test else otherwise
  CondExpr(int l) : Expr(ExprKind::kCond, l) {}
  ExprPtr test, then, otherwise;  // otherwise may be nullptr
};

enum class StmtKind : uint8_t {
  kText,
  kPrint,
  kFor,
  kIf,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kBlock,  // block, generation: a body with a scope of its own
  kBreak,
  kContinue,
};

struct Stmt {
  Stmt(StmtKind k, int l) : kind(k), line(l) {}
  virtual ~Stmt() = default;
  const StmtKind kind;
  const int line;
};
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

struct TextStmt : Stmt {
  TextStmt(int l, std::string t) : Stmt(StmtKind::kText, l), text(std::move(t)) {}
  const std::string text;
};

struct PrintStmt : Stmt {
  PrintStmt(int l, ExprPtr e) : Stmt(StmtKind::kPrint, l), expr(std::move(e)) {}
  const ExprPtr expr;
};

/// What a set, for or with stores to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  enum class Kind : uint8_t { kName, kAttribute, kTuple } kind = Kind::kName;
  NameId id = 0;
  Value name;       // of the variable
  Value attribute;  // of kAttribute
  std::vector<Target> parts;
};

struct ForStmt : Stmt {
  explicit ForStmt(int l) : Stmt(StmtKind::kFor, l) {}
  Target target;
  ExprPtr iterable;
  ExprPtr test;  // may be nullptr
  bool recursive = false;
  Body body, otherwise;
};

struct IfStmt : Stmt {
  explicit IfStmt(int l) : Stmt(StmtKind::kIf, l) {}
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};

struct SetStmt : Stmt {
  explicit SetStmt(int l) : Stmt(StmtKind::kSet, l) {}
  Target target;
  ExprPtr value;
};

struct SetBlockStmt : Stmt {
  explicit SetBlockStmt(int l) : Stmt(StmtKind::kSetBlock, l) {}
  Target target;
  ExprPtr filter;  // a chain of FilterExpr ending in one without input, or nullptr
  Body body;
};

/// The parameters and body of a macro or a call block.
struct MacroDef {
  std::string name;
  NameId id = 0;
  std::vector<std::pair<std::string, NameId>> params;
  std::vector<ExprPtr> defaults;  // of the last parameters
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
  Body body;
};

struct MacroStmt : Stmt {
  explicit MacroStmt(int l) : Stmt(StmtKind::kMacro, l) {}
  MacroDef macro;
};

struct CallBlockStmt : Stmt {
  explicit CallBlockStmt(int l) : Stmt(StmtKind::kCallBlock, l) {}
  ExprPtr call;  // a CallExpr
  MacroDef caller;
};

struct FilterBlockStmt : Stmt {
  explicit FilterBlockStmt(int l) : Stmt(StmtKind::kFilterBlock, l) {}
  ExprPtr filter;
  Body body;
};

struct WithStmt : Stmt {
  explicit WithStmt(int l) : Stmt(StmtKind::kWith, l) {}
  std::vector<std::pair<Target, ExprPtr>> bindings;
  Body body;
};

struct BlockStmt : Stmt {
  explicit BlockStmt(int l) : Stmt(StmtKind::kBlock, l) {}
  Body body;
};

struct Program {
  std::string source;
  std::vector<std::unique_ptr<Obj>> constants;
  std::vector<std::unique_ptr<BuiltinObj>> builtins;
  std::map<std::string, NameId, std::less<>> names;
  std::vector<Value> globals;  // by NameId: a built-in function, or missing
  NameId loop_id = 0, caller_id = 0, kwargs_id = 0, varargs_id = 0;
  bool uses_loop = false;
  Body body;
};

/// Parses a template. Errors: see ChatTemplate::Compile.
Result<std::shared_ptr<const Program>> Parse(std::string source);

}  // namespace cadre::jinja
