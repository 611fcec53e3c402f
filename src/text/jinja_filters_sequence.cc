#include <algorithm>
#include <memory>

#include "text/jinja_filters.h"
#include "text/jinja_sort.h"
#include "text/jinja_text.h"

namespace cadre::jinja {
namespace {

bool IsAllDigits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos && text.size() < 18;
}

// The items of (key, item) pairs, sorted by key, stable. Throws TypeError where two keys do not compare.
ValueVec SortedItems(Runtime& rt, const std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  // Python's reverse keeps equal elements in order, so the comparison turns round and not the result.
  const std::vector<uint32_t> order = StableOrder(keyed.size(), [&](uint32_t a, uint32_t b) {
    rt.Charge();
    return reverse ? rt.Less(keyed[b].first, keyed[a].first) : rt.Less(keyed[a].first, keyed[b].first);
  });
  ValueVec items;
  items.reserve(keyed.size());
  for (const uint32_t i : order) items.push_back(keyed[i].second);
  return items;
}

Value MinOrMax(Runtime& rt, const Value& v, Args& args, bool max) {
  const Params p(max ? "max" : "min", args, {"case_sensitive", "attribute"});
  Iterator it(rt, v);
  Value best;
  if (!it.Next(best)) return rt.UndefinedHint("No aggregated item, sequence was empty.");
  const AttributePath path(rt, p.OrNone(1));
  const auto key_of = [&](const Value& item) {
    const Value key = path.Get(rt, item);
    return p.Flag(0) ? key : IgnoreCase(rt, key);
  };
  Value best_key = key_of(best);
  Value item;
  while (it.Next(item)) {
    Value key = key_of(item);
    if (max ? rt.Compare(key, best_key, Runtime::Order::kGt) : rt.Less(key, best_key)) {
      best = item;
      best_key = std::move(key);
    }
  }
  return best;
}

// What select, reject, selectattr and rejectattr share: a generator over the items that pass.
Value SelectOrReject(Runtime& rt, const Value& v, Args& args, bool select, bool by_attribute) {
  if (!Truthy(v)) return rt.Generator([](Value&) { return false; });
  ValueVec rest = args.pos;
  std::shared_ptr<AttributePath> path;
  if (by_attribute) {
    if (rest.empty()) Raise(EvalError::Kind::kTemplate, "Missing parameter for attribute name");
    path = std::make_shared<AttributePath>(rt, rest[0]);
    rest.erase(rest.begin());
  }
  Value test;
  if (!rest.empty()) {
    test = rest[0];
    rest.erase(rest.begin());
  }
  auto call = std::make_shared<Args>();
  call->pos = std::move(rest);
  call->kw = args.kw;
  call->held = args.held;
  auto it = std::make_shared<Iterator>(rt, v);
  return rt.Generator([&rt, it, path, test, call, select](Value& out) {
    while (it->Next(out)) {
      const Value subject = path ? path->Get(rt, out) : out;
      Args copy = *call;
      const bool pass = test.IsNone() ? Truthy(subject) : CallTest(rt, test, subject, copy);
      if (pass == select) return true;
    }
    return false;
  });
}

}  // namespace

AttributePath::AttributePath(Runtime& rt, const Value& attribute) {
  if (attribute.IsNone()) return;
  if (!attribute.IsStr()) {
    parts_.push_back(attribute);
    return;
  }
  SplitOn(attribute.str(), ".", -1, false, [&](std::string_view part) {
    int64_t index = 0;
    if (IsAllDigits(part) && ParseInt(part, 10, index)) {
      rt.Push(parts_, Value::Int(index));
    } else {
      rt.Push(parts_, rt.Str(std::string(part)));
    }
  });
}

Value AttributePath::Get(Runtime& rt, const Value& item, const Value* fallback) const {
  Value found = item;
  for (const Value& part : parts_) {
    rt.Charge();
    found = rt.GetItem(found, part);
    if (fallback != nullptr && !fallback->IsNone() && found.IsUndefined()) found = *fallback;
  }
  return found;
}

Value IgnoreCase(Runtime& rt, const Value& v) {
  if (!v.IsStr()) return v;
  rt.ChargeBytes(v.str().size() * 4);
  return rt.Str(Lower(v.str()));
}

Value FilterBatch(Runtime& rt, const Value& v, Args& args) {
  const Params p("batch", args, {"linecount", "fill_with"}, 1);
  const int64_t count = rt.NeedInt(*p[0], "linecount");
  const Value fill = p.OrNone(1);
  auto it = std::make_shared<Iterator>(rt, v);
  auto ahead = std::make_shared<Value>(Value::Missing());
  return rt.Generator([&rt, it, ahead, count, fill](Value& out) {
    ValueVec row;
    Value item;
    if (!ahead->IsMissing()) row.push_back(std::exchange(*ahead, Value::Missing()));
    while (it->Next(item)) {
      if (static_cast<int64_t>(row.size()) == count) {
        *ahead = item;
        out = rt.List(std::move(row));
        return true;
      }
      rt.Push(row, item);
    }
    if (row.empty()) return false;
    if (!fill.IsNone()) {
      while (static_cast<int64_t>(row.size()) < count) rt.Push(row, fill);
    }
    out = rt.List(std::move(row));
    return true;
  });
}

Value FilterSlice(Runtime& rt, const Value& v, Args& args) {
  const Params p("slice", args, {"slices", "fill_with"}, 1);
  const int64_t slices = rt.NeedInt(*p[0], "slices");
  const Value fill = p.OrNone(1);
  auto items = std::make_shared<ValueVec>(ToVector(rt, v));
  if (slices == 0)
    throw EvalError{EvalError::Kind::kPython, "ZeroDivisionError: integer division or modulo by zero"};
  auto number = std::make_shared<int64_t>(0);
  return rt.Generator([&rt, items, number, slices, fill](Value& out) {
    if (*number >= slices) return false;
    const int64_t length = static_cast<int64_t>(items->size());
    const int64_t per_slice = length / slices;
    const int64_t with_extra = length % slices;
    const int64_t i = (*number)++;
    const int64_t begin = i * per_slice + std::min(i, with_extra);
    const int64_t end = begin + per_slice + (i < with_extra ? 1 : 0);
    ValueVec row;
    for (int64_t k = begin; k < end; ++k) rt.Push(row, (*items)[static_cast<size_t>(k)]);
    if (!fill.IsNone() && i >= with_extra) rt.Push(row, fill);
    out = rt.List(std::move(row));
    return true;
  });
}

Value FilterDictSort(Runtime& rt, const Value& v, Args& args) {
  const Params p("dictsort", args, {"case_sensitive", "by", "reverse"});
  const std::string_view by = p[1] != nullptr ? rt.NeedStr(*p[1], "by") : "key";
  if (by != "key" && by != "value") {
    Raise(EvalError::Kind::kTemplate, "You can only sort by either \"key\" or \"value\"");
  }
  rt.FailIfUndefined(v);
  if (!v.Is(Kind::kDict)) RaiseType("'{}' object has no attribute 'items'", TypeName(v));
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : v.As<DictObj>().items) {
    rt.Charge();
    const Value& sort_key = by == "key" ? key : value;
    keyed.emplace_back(p.Flag(0) ? sort_key : IgnoreCase(rt, sort_key), rt.Pair(key, value));
  }
  return rt.List(SortedItems(rt, keyed, p.Flag(2)));
}

Value FilterFirst(Runtime& rt, const Value& v, Args& args) {
  Params("first", args, {});
  Iterator it(rt, v);
  Value item;
  return it.Next(item) ? item : rt.UndefinedHint("No first item, sequence was empty.");
}

Value FilterLast(Runtime& rt, const Value& v, Args& args) {
  Params("last", args, {});
  if (v.Is(Kind::kGenerator) || !Iterator::IsIterable(v))
    RaiseType("'{}' object is not reversible", TypeName(v));
  if (rt.Length(v) == 0) return rt.UndefinedHint("No last item, sequence was empty.");
  if (v.Is(Kind::kDict)) return v.As<DictObj>().items.back().first;
  if (v.Is(Kind::kDictView)) return ToVector(rt, v).back();
  return rt.GetItem(v, Value::Int(-1));
}

Value FilterGroupBy(Runtime& rt, const Value& v, Args& args) {
  const Params p("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const AttributePath path(rt, *p[0]);
  const bool case_sensitive = p.Flag(2);
  const ValueVec items = ToVector(rt, v);
  ValueVec keys;
  for (const Value& item : items) {
    const Value key = path.Get(rt, item, p[1]);
    keys.push_back(case_sensitive ? key : IgnoreCase(rt, key));
  }
  const std::vector<uint32_t> order = StableOrder(items.size(), [&](uint32_t x, uint32_t y) {
    rt.Charge();
    return rt.Less(keys[x], keys[y]);
  });
  ValueVec groups;
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && rt.Equal(keys[order[begin]], keys[order[end]])) ++end;
    ValueVec members;
    for (size_t i = begin; i < end; ++i) rt.Push(members, items[order[i]]);
    // The group is named by the first member's own spelling.
    Value grouper = case_sensitive ? keys[order[begin]] : path.Get(rt, members[0], p[1]);
    rt.Push(groups, rt.Pair(std::move(grouper), rt.List(std::move(members))));
    begin = end;
  }
  return rt.List(std::move(groups));
}

Value FilterItems(Runtime& rt, const Value& v, Args& args) {
  Params("items", args, {});
  if (v.IsUndefined()) return rt.Generator([](Value&) { return false; });
  if (!v.Is(Kind::kDict)) RaiseType("Can only get item pairs from a mapping.");
  auto it = std::make_shared<Iterator>(rt, rt.heap().Make<DictViewObj>(0, v, DictViewObj::Part::kItems));
  return rt.Generator([it](Value& out) { return it->Next(out); });
}

Value FilterJoin(Runtime& rt, const Value& v, Args& args) {
  const Params p("join", args, {"d", "attribute"});
  const std::string separator = p[0] != nullptr ? rt.ToStr(*p[0]) : "";
  const AttributePath path(rt, p.OrNone(1));
  Iterator it(rt, v);
  Builder out(rt);
  Value item;
  for (bool first = true; it.Next(item); first = false) {
    if (!first) out.Append(separator);
    out.AppendValue(path.Get(rt, item));
  }
  return out.Take();
}

Value FilterList(Runtime& rt, const Value& v, Args& args) {
  Params("list", args, {});
  return rt.List(ToVector(rt, v));
}

Value FilterMap(Runtime& rt, const Value& v, Args& args) {
  if (!Truthy(v)) return rt.Generator([](Value&) { return false; });
  auto it = std::make_shared<Iterator>(rt, v);
  const auto keyword = [&](std::string_view name) {
    for (const auto& [key, value] : args.kw) {
      if (key == name) return &value;
    }
    return static_cast<const Value*>(nullptr);
  };
  if (const Value* attribute = keyword("attribute"); args.pos.empty() && attribute != nullptr) {
    for (const auto& [key, value] : args.kw) {
      if (key != "attribute" && key != "default") {
        Raise(EvalError::Kind::kTemplate, "Unexpected keyword argument '{}'", key);
      }
    }
    auto path = std::make_shared<AttributePath>(rt, *attribute);
    const Value fallback = keyword("default") != nullptr ? *keyword("default") : Value();
    return rt.Generator([&rt, it, path, fallback](Value& out) {
      Value item;
      if (!it->Next(item)) return false;
      out = path->Get(rt, item, &fallback);
      return true;
    });
  }
  if (args.pos.empty()) Raise(EvalError::Kind::kTemplate, "map requires a filter argument");
  auto call = std::make_shared<Args>(args);
  const Value name = call->pos[0];
  call->pos.erase(call->pos.begin());
  return rt.Generator([&rt, it, name, call](Value& out) {
    Value item;
    if (!it->Next(item)) return false;
    Args copy = *call;
    out = CallFilter(rt, name, item, copy);
    return true;
  });
}

Value FilterMax(Runtime& rt, const Value& v, Args& args) {
  return MinOrMax(rt, v, args, true);
}
Value FilterMin(Runtime& rt, const Value& v, Args& args) {
  return MinOrMax(rt, v, args, false);
}
Value FilterSelect(Runtime& rt, const Value& v, Args& args) {
  return SelectOrReject(rt, v, args, true, false);
}
Value FilterReject(Runtime& rt, const Value& v, Args& args) {
  return SelectOrReject(rt, v, args, false, false);
}
Value FilterSelectAttr(Runtime& rt, const Value& v, Args& args) {
  return SelectOrReject(rt, v, args, true, true);
}
Value FilterRejectAttr(Runtime& rt, const Value& v, Args& args) {
  return SelectOrReject(rt, v, args, false, true);
}

Value FilterReverse(Runtime& rt, const Value& v, Args& args) {
  Params("reverse", args, {});
  if (v.IsStr()) return rt.GetSlice(v, Value(), Value(), Value::Int(-1));
  if (!Iterator::IsIterable(v)) Raise(EvalError::Kind::kTemplate, "argument must be iterable");
  ValueVec items = ToVector(rt, v);
  std::reverse(items.begin(), items.end());
  Value list = rt.List(std::move(items));
  // Python's reversed() is an iterator; only what it cannot reverse becomes a list.
  if (v.Is(Kind::kGenerator)) return list;
  auto it = std::make_shared<Iterator>(rt, std::move(list));
  const char* type = v.Is(Kind::kTuple) || v.IsUndefined() ? "reversed"
                     : v.Is(Kind::kRange)                  ? "range_iterator"
                                                           : "list_reverseiterator";
  return rt.Generator([it](Value& out) { return it->Next(out); }, type);
}

Value FilterSort(Runtime& rt, const Value& v, Args& args) {
  const Params p("sort", args, {"reverse", "case_sensitive", "attribute"});
  std::vector<AttributePath> paths;
  if (p[2] != nullptr && p[2]->IsStr()) {
    SplitOn(p[2]->str(), ",", -1, false,
            [&](std::string_view part) { paths.emplace_back(rt, rt.Str(std::string(part))); });
  } else {
    paths.emplace_back(rt, p.OrNone(2));
  }
  const bool case_sensitive = p.Flag(1);
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : ToVector(rt, v)) {
    ValueVec keys;
    for (const AttributePath& path : paths) {
      const Value key = path.Get(rt, item);
      keys.push_back(case_sensitive ? key : IgnoreCase(rt, key));
    }
    keyed.emplace_back(rt.List(std::move(keys)), item);
  }
  return rt.List(SortedItems(rt, keyed, p.Flag(0)));
}

Value FilterSum(Runtime& rt, const Value& v, Args& args) {
  const Params p("sum", args, {"attribute", "start"});
  const AttributePath path(rt, p.OrNone(0));
  Value total = p[1] != nullptr ? *p[1] : Value::Int(0);
  if (total.IsStr()) RaiseType("sum() can't sum strings [use ''.join(seq) instead]");
  Iterator it(rt, v);
  Value item;
  while (it.Next(item)) total = rt.Add(total, path.Get(rt, item));
  return total;
}

Value FilterUnique(Runtime& rt, const Value& v, Args& args) {
  const Params p("unique", args, {"case_sensitive", "attribute"});
  const AttributePath path(rt, p.OrNone(1));
  // Found through a sorted index of all keys, so that many items cost no more than n log n.
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : ToVector(rt, v)) {
    const Value key = path.Get(rt, item);
    rt.NeedHashable(key);
    keyed.emplace_back(p.Flag(0) ? key : IgnoreCase(rt, key), item);
  }
  const std::vector<uint32_t> order = StableOrder(keyed.size(), [&](uint32_t a, uint32_t b) {
    rt.Charge();
    return CompareKeys(keyed[a].first, keyed[b].first) < 0;
  });
  std::vector<bool> repeated(keyed.size());
  for (size_t i = 1; i < order.size(); ++i) {
    repeated[order[i]] = CompareKeys(keyed[order[i - 1]].first, keyed[order[i]].first) == 0;
  }
  ValueVec kept;
  for (size_t i = 0; i < keyed.size(); ++i) {
    if (!repeated[i]) kept.push_back(keyed[i].second);
  }
  auto it = std::make_shared<Iterator>(rt, rt.List(std::move(kept)));
  return rt.Generator([it](Value& out) { return it->Next(out); });
}

}  // namespace cadre::jinja
