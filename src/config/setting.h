#pragma once
// One row of the settings table. Everything that knows a flag reads it from here: the parser, --help,
// docs/reference.md and the refusals; so a flag is added by adding a row (and a field, if it works).
//
// A row is of one of three kinds, and none is ignored in silence:
//   works      its value reaches a field of an options struct
//   no effect  accepted; said once with the reason
//   not built  refused by name with one sentence, unless the value given is the default
// A working row may still know values that are not built (`Only`).
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/json.h"
#include "config/command_options.h"
#include "config/serve_options.h"

namespace cadre::config {

enum class Kind { kWorks, kNoEffect, kNotBuilt };

enum class Type {
  kTrue,            ///< --x
  kBool,            ///< --x, --no-x
  kInt,             ///< 12
  kFloat,           ///< 1.5, inf
  kHumanInt,        ///< 12, 4k = 4000, 4K = 4096, 1.5m
  kHumanIntOrAuto,  ///< the same, or auto (-1)
  kString,          ///< text
  kStrings,         ///< one or more words; the flag given again replaces them
  kAppended,        ///< one word; the flag given again adds to them
  kJson,            ///< an object; or member by member, --x.key value
  kJsonOrString,    ///< an object if it looks like one, else text
  kJsonList,        ///< a JSON list
};

/// The structs that rows write to. A null pointer means that the command has no such part.
using Targets = std::tuple<ModelOptions*, CacheOptions*, SchedulerOptions*, ParallelOptions*, EplbOptions*,
                           KvTransferOptions*, LoraOptions*, CpuOptions*, EngineOptions*, HttpOptions*,
                           ApiOptions*, ServeOptions*, SamplingOptions*, GenerateOptions*, InspectOptions*,
                           BenchLatencyOptions*, BenchThroughputOptions*, RandomDatasetOptions*,
                           BenchServeOptions*, BenchA2aOptions*, BenchEplbOptions*, BenchStepOptions*,
                           DemoOptions*, DoctorOptions*, RouterOptions*, PlanOptions*>;

/// Puts a checked value (null: unset) into its field.
using Setter = void (*)(const Targets&, const Json&);

struct Setting {
  std::string_view name = {};  ///< without dashes in front: "data-parallel-size"
  Type type = Type::kString;
  std::string_view fallback = {};  ///< the default as it would be typed; "" means unset
  Kind kind = Kind::kWorks;
  std::string_view text = {};         ///< works: the help; else the reason, a whole sentence
  Setter set = nullptr;               ///< works: required
  std::string_view short_name = {};   ///< "dp" for -dp
  std::string_view alias = {};        ///< another long name
  std::string_view choices = {};      ///< comma list; "" means any
  std::string_view only = {};         ///< of the choices, those that are built; "" means all
  std::string_view only_reason = {};  ///< why the others are not
  std::string_view forward = {};      ///< an older spelling: the flag (perhaps dotted) that takes the value
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();

  template <typename T, typename V>
  constexpr Setting With(T Setting::*member, V value) const {
    Setting copy = *this;
    copy.*member = value;
    return copy;
  }
  constexpr Setting Short(std::string_view s) const { return With(&Setting::short_name, s); }
  constexpr Setting Alias(std::string_view s) const { return With(&Setting::alias, s); }
  constexpr Setting Choices(std::string_view s) const { return With(&Setting::choices, s); }
  constexpr Setting Only(std::string_view built, std::string_view reason) const {
    return With(&Setting::only, built).With(&Setting::only_reason, reason);
  }
  constexpr Setting Range(double lo, double hi = std::numeric_limits<double>::infinity()) const {
    return With(&Setting::min, lo).With(&Setting::max, hi);
  }
  /// Also fills a field, so that rules between settings can be checked before the refusal.
  constexpr Setting To(Setter s) const { return With(&Setting::set, s); }
};

constexpr Setting Works(std::string_view name, Type type, std::string_view fallback, Setter set,
                        std::string_view help) {
  return Setting{.name = name, .type = type, .fallback = fallback, .text = help, .set = set};
}
constexpr Setting NoEffect(std::string_view name, Type type, std::string_view fallback,
                           std::string_view reason) {
  return Setting{.name = name, .type = type, .fallback = fallback, .kind = Kind::kNoEffect, .text = reason};
}
constexpr Setting NotBuilt(std::string_view name, Type type, std::string_view fallback,
                           std::string_view reason) {
  return Setting{.name = name, .type = type, .fallback = fallback, .kind = Kind::kNotBuilt, .text = reason};
}
constexpr Setting Forward(std::string_view name, Type type, std::string_view flag) {
  return Setting{.name = name, .type = type, .text = "Older spelling.", .forward = flag};
}

/// A member of a JSON option whose members are known: eplb-config.window_size.
struct JsonKey {
  std::string_view option;
  std::string_view key;
  Type type;
  std::string_view fallback;  ///< as for Setting
  std::string_view help;
  Setter set = nullptr;
  std::string_view choices = "";
  double min = -std::numeric_limits<double>::infinity();
};

/// Rows under one heading; `name` is what --help=<name> takes.
struct Group {
  std::string_view name;
  std::string_view title;
  std::span<const Setting> settings;
};

template <typename Class, typename Field>
Class* ClassOf(Field Class::*);

void Read(const Json& value, bool& field);
void Read(const Json& value, int& field);
void Read(const Json& value, int64_t& field);
void Read(const Json& value, double& field);
void Read(const Json& value, std::string& field);
void Read(const Json& value, std::vector<std::string>& field);
void Read(const Json& value, std::vector<int64_t>& field);
inline void Read(const Json& value, Json& field) {
  field = value;
}
template <typename T>
void Read(const Json& value, std::optional<T>& field) {
  field.reset();
  if (!value.is_null()) Read(value, field.emplace());
}

/// The setter of a field: Into<&HttpOptions::port>. Unset leaves a plain field at its default and empties an
/// optional.
template <auto Member>
void Into(const Targets& targets, const Json& value) {
  if (auto* object = std::get<decltype(ClassOf(Member))>(targets)) Read(value, object->*Member);
}

}  // namespace cadre::config
