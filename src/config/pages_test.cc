#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/completion.h"
#include "config/man_page.h"
#include "config/settings.h"

namespace cadre::config {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Completion, OffersEveryFlagThatWorksAndNoneThatIsRefused) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string text = CompletionText(shell).value();
    for (Command command : kAllCommands) {
      for (const Group& group : GroupsOf(command)) {
        for (const Setting& setting : group.settings) {
          const std::string name = shell == std::string("fish")  ? Format(" -l {} ", setting.name)
                                   : shell == std::string("zsh") ? Format("'--{}[", setting.name)
                                                                 : Format(" --{}", setting.name);
          if (setting.kind == Kind::kWorks && setting.forward.empty()) {
            EXPECT_THAT(text, HasSubstr(name)) << shell;
          }
        }
      }
    }
    EXPECT_THAT(text, Not(HasSubstr("speculative-config"))) << shell;
    EXPECT_THAT(text, HasSubstr("allgather_reducescatter")) << shell;
  }
}

TEST(Completion, AnotherShellIsRefusedByName) {
  const auto text = CompletionText("tcsh");
  ASSERT_FALSE(text);
  EXPECT_THAT(text.error().message, HasSubstr("bash, zsh or fish, not 'tcsh'"));
}

TEST(ManPage, HoldsEveryFlagAndNoLineThatTroffWouldTakeForARequest) {
  const std::string page = ManPageText("1.2.3");
  EXPECT_THAT(page, HasSubstr("cadre 1.2.3"));
  for (const Group& group : GroupsOf(Command::kServe)) {
    for (const Setting& setting : group.settings) {
      std::string name;
      for (const char c : setting.name) name += c == '-' ? std::string("\\-") : std::string(1, c);
      EXPECT_THAT(page, HasSubstr("\\fB\\-\\-" + name + "\\fR"));
    }
  }
  size_t begin = 0;
  while (begin < page.size()) {
    const size_t end = page.find('\n', begin);
    const std::string line = page.substr(begin, end - begin);
    EXPECT_FALSE(line.starts_with("'")) << line;
    if (line.starts_with(".")) {
      EXPECT_TRUE(line.starts_with(".T") || line.starts_with(".S") || line.starts_with(".B ") ||
                  line.starts_with(".I ") || line == ".br")
          << line;
    }
    begin = end + 1;
  }
}

}  // namespace
}  // namespace cadre::config
