#include "text/onig_properties.h"

#include <algorithm>
#include <iterator>

#include "text/unicode_additions.h"

namespace cadre::text {
namespace {

constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
// Outside a class Oniguruma's \\w and \\b count six more of Latin-1 as word: superscripts and fractions.
constexpr std::string_view kWordOutside =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

struct NamedSet {
  std::string_view name;  // lower case, without '_', '-' and ' '
  std::string_view set;   // what stands between [ and ]
};
// POSIX names and long category names; PCRE2 knows the short ones, the scripts and many binary properties.
constexpr NamedSet kNamedSets[] = {
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"alpha", "\\p{Alphabetic}"},
    {"ascii", "\\x{0}-\\x{7f}"},
    {"blank", "\\t\\p{Zs}"},
    {"cntrl", "\\p{Cc}"},
    {"digit", "\\p{Nd}"},
    {"lower", "\\p{Lowercase}"},
    {"punct", "\\p{P}"},
    {"space", kSpaceSet},
    {"upper", "\\p{Uppercase}"},
    {"word", kWord},
    {"xdigit", kHexSet},
    {"any", "\\x{0}-\\x{10ffff}"},
    {"letter", "\\p{L}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"casedletter", "\\p{Lu}\\p{Ll}\\p{Lt}"},
    {"lc", "\\p{Lu}\\p{Ll}\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"combiningmark", "\\p{M}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"other", "\\p{C}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"unassigned", "\\p{Cn}"},
    {"privateuse", "\\p{Co}"},
    {"surrogate", "\\p{Cs}"},
};

// Binary properties of PCRE2 10.42. A longer name that is neither one of these nor in kNamedSets is a script.
constexpr std::string_view kBinaryProperties[] = {"asciihexdigit",
                                                  "ahex",
                                                  "alphabetic",
                                                  "bidicontrol",
                                                  "bidic",
                                                  "bidimirrored",
                                                  "bidim",
                                                  "caseignorable",
                                                  "ci",
                                                  "cased",
                                                  "changeswhencasefolded",
                                                  "cwcf",
                                                  "changeswhencasemapped",
                                                  "cwcm",
                                                  "changeswhenlowercased",
                                                  "cwl",
                                                  "changeswhentitlecased",
                                                  "cwt",
                                                  "changeswhenuppercased",
                                                  "cwu",
                                                  "dash",
                                                  "defaultignorablecodepoint",
                                                  "di",
                                                  "deprecated",
                                                  "dep",
                                                  "diacritic",
                                                  "dia",
                                                  "emoji",
                                                  "emojicomponent",
                                                  "ecomp",
                                                  "emojimodifier",
                                                  "emod",
                                                  "emojimodifierbase",
                                                  "ebase",
                                                  "emojipresentation",
                                                  "epres",
                                                  "extendedpictographic",
                                                  "extpict",
                                                  "extender",
                                                  "ext",
                                                  "graphemebase",
                                                  "grbase",
                                                  "graphemeextend",
                                                  "grext",
                                                  "hexdigit",
                                                  "hex",
                                                  "idcontinue",
                                                  "idc",
                                                  "idstart",
                                                  "ids",
                                                  "ideographic",
                                                  "ideo",
                                                  "joincontrol",
                                                  "joinc",
                                                  "logicalorderexception",
                                                  "loe",
                                                  "lowercase",
                                                  "math",
                                                  "noncharactercodepoint",
                                                  "nchar",
                                                  "patternsyntax",
                                                  "patsyn",
                                                  "patternwhitespace",
                                                  "patws",
                                                  "quotationmark",
                                                  "qmark",
                                                  "radical",
                                                  "regionalindicator",
                                                  "ri",
                                                  "sentenceterminal",
                                                  "sterm",
                                                  "softdotted",
                                                  "sd",
                                                  "terminalpunctuation",
                                                  "term",
                                                  "unifiedideograph",
                                                  "uideo",
                                                  "uppercase",
                                                  "variationselector",
                                                  "vs",
                                                  "whitespace",
                                                  "xidcontinue",
                                                  "xidc",
                                                  "xidstart",
                                                  "xids"};

std::string PlainName(std::string_view name) {
  std::string plain;
  for (const char c : name) {
    if (c == '_' || c == '-' || c == ' ') continue;
    plain += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  }
  return plain;
}

// `set` and the code points that were added to its properties.
std::string Extended(std::string_view set, bool with_additions) {
  std::string all(set);
  if (!with_additions) return all;
  for (size_t at = set.find("\\p{"); at != set.npos; at = set.find("\\p{", at + 3)) {
    all += AddedRanges(set.substr(at + 3, set.find('}', at) - at - 3));
  }
  return all;
}

}  // namespace

std::string WordSet(bool in_class, bool with_additions) {
  return Extended(in_class ? kWord : kWordOutside, with_additions);
}

std::string PropertySet(std::string_view name, bool with_additions) {
  const std::string plain = PlainName(name);
  for (const NamedSet& known : kNamedSets) {
    if (known.name == plain) return Extended(known.set, with_additions);
  }
  const bool is_binary = std::find(std::begin(kBinaryProperties), std::end(kBinaryProperties), plain) !=
                         std::end(kBinaryProperties);
  if (name.size() <= 2 || is_binary) return Extended("\\p{" + std::string(name) + "}", with_additions);
  // A script. Without sc: PCRE2 would take the extensions too, such as punctuation that Han shares with
  // Hiragana.
  return Extended("\\p{sc:" + std::string(name) + "}", with_additions);
}

std::string PosixSet(std::string_view name, bool with_additions) {
  if (name == "punct") return Extended("\\p{P}\\p{S}", with_additions);
  for (const std::string_view posix :
       {"alnum", "alpha", "ascii", "blank", "cntrl", "digit", "lower", "space", "upper", "word", "xdigit"}) {
    if (posix == name) return PropertySet(name, with_additions);
  }
  return {};
}

}  // namespace cadre::text
