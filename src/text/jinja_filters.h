#pragma once
// The filters, in three files by what they work on. Each is a Function; jinja_filters.cc has the table.
#include "text/jinja_runtime.h"

namespace cadre::jinja {

/// What `attribute=` names: a path of keys, "a.b.0"; several separated by commas for sort.
class AttributePath {
 public:
  AttributePath(Runtime& rt, const Value& attribute);  ///< None: the item itself
  Value Get(Runtime& rt, const Value& item, const Value* fallback = nullptr) const;

 private:
  ValueVec parts_;
};

/// A string in lower case; anything else as it is.
Value IgnoreCase(Runtime& rt, const Value& v);

// Text: jinja_filters_text.cc.
Value FilterCapitalize(Runtime&, const Value&, Args&);
Value FilterCenter(Runtime&, const Value&, Args&);
Value FilterEscape(Runtime&, const Value&, Args&);
Value FilterForceEscape(Runtime&, const Value&, Args&);
Value FilterFormat(Runtime&, const Value&, Args&);
Value FilterIndent(Runtime&, const Value&, Args&);
Value FilterLower(Runtime&, const Value&, Args&);
Value FilterReplace(Runtime&, const Value&, Args&);
Value FilterSafe(Runtime&, const Value&, Args&);
Value FilterString(Runtime&, const Value&, Args&);
Value FilterStripTags(Runtime&, const Value&, Args&);
Value FilterTitle(Runtime&, const Value&, Args&);
Value FilterTrim(Runtime&, const Value&, Args&);
Value FilterTruncate(Runtime&, const Value&, Args&);
Value FilterUpper(Runtime&, const Value&, Args&);
Value FilterUrlEncode(Runtime&, const Value&, Args&);
Value FilterWordCount(Runtime&, const Value&, Args&);
Value FilterXmlAttr(Runtime&, const Value&, Args&);

// Sequences: jinja_filters_sequence.cc.
Value FilterBatch(Runtime&, const Value&, Args&);
Value FilterDictSort(Runtime&, const Value&, Args&);
Value FilterFirst(Runtime&, const Value&, Args&);
Value FilterGroupBy(Runtime&, const Value&, Args&);
Value FilterItems(Runtime&, const Value&, Args&);
Value FilterJoin(Runtime&, const Value&, Args&);
Value FilterLast(Runtime&, const Value&, Args&);
Value FilterList(Runtime&, const Value&, Args&);
Value FilterMap(Runtime&, const Value&, Args&);
Value FilterMax(Runtime&, const Value&, Args&);
Value FilterMin(Runtime&, const Value&, Args&);
Value FilterReject(Runtime&, const Value&, Args&);
Value FilterRejectAttr(Runtime&, const Value&, Args&);
Value FilterReverse(Runtime&, const Value&, Args&);
Value FilterSelect(Runtime&, const Value&, Args&);
Value FilterSelectAttr(Runtime&, const Value&, Args&);
Value FilterSlice(Runtime&, const Value&, Args&);
Value FilterSort(Runtime&, const Value&, Args&);
Value FilterSum(Runtime&, const Value&, Args&);
Value FilterUnique(Runtime&, const Value&, Args&);

/// Text as Python's int() and float() read it; false if they would raise ValueError.
bool ParseInt(std::string_view text, int64_t base, int64_t& out);
bool ParseFloat(std::string_view text, double& out);

}  // namespace cadre::jinja
