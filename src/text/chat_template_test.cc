#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

namespace cadre {
namespace {

Json Context(const std::string& text = R"({"messages": [{"role": "user", "content": "hi"}], "n": 3})") {
  return Json::Parse(text, 1000).value();
}

Result<std::string> Render(const std::string& source, const Json& context = Context(),
                           const RenderLimits& limits = {}) {
  CADRE_ASSIGN(const ChatTemplate compiled, ChatTemplate::Compile(source));
  return compiled.Render(context, limits);
}

TEST(ChatTemplate, RaisedMessageIsExactAndNamesMessages) {
  const auto got = Render("\n\n{{ raise_exception('Only \"user\" <roles> are\nsupported: ' ~ n) }}");
  ASSERT_FALSE(got.has_value());
  EXPECT_EQ(got.error().code, Code::kInvalidArgument);
  EXPECT_EQ(got.error().param, "messages");
  EXPECT_EQ(got.error().message, "Only \"user\" <roles> are\nsupported: 3");
}

TEST(ChatTemplate, EvaluationErrorNamesTheLine) {
  const auto got = Render("a\nb\n{{ zz.x }}");
  ASSERT_FALSE(got.has_value());
  EXPECT_EQ(got.error().code, Code::kInvalidArgument);
  EXPECT_EQ(got.error().param, "chat_template");
  EXPECT_EQ(got.error().message, "chat template, line 3: 'zz' is undefined");
}

TEST(ChatTemplate, SyntaxErrorNamesTheLine) {
  const auto got = ChatTemplate::Compile("a\n{% if x %}\nb\n{% endfor %}");
  ASSERT_FALSE(got.has_value());
  EXPECT_EQ(got.error().code, Code::kInvalidArgument);
  EXPECT_TRUE(got.error().message.starts_with("chat template, line 4: ")) << got.error().message;
}

TEST(ChatTemplate, OtherFilesAreRefusedByName) {
  for (const char* tag : {"include", "extends", "import", "from"}) {
    const auto got = ChatTemplate::Compile(std::string("{% ") + tag + " 'x' %}");
    ASSERT_FALSE(got.has_value());
    EXPECT_EQ(got.error().code, Code::kUnsupported);
    EXPECT_NE(got.error().message.find(tag), std::string::npos);
  }
}

TEST(ChatTemplate, ContextMustBeAnObject) {
  EXPECT_FALSE(Render("x", Json(1)).has_value());
}

TEST(ChatTemplate, MentionsSaysWhichVariablesAreRead) {
  const ChatTemplate compiled = ChatTemplate::Compile("{% if tools is defined %}{% endif %}").value();
  EXPECT_TRUE(compiled.Mentions("tools"));
  EXPECT_FALSE(compiled.Mentions("documents"));
}

TEST(ChatTemplate, RendersDoNotSeeEachOther) {
  const ChatTemplate compiled =
      ChatTemplate::Compile(
          "{% set ns = namespace(n=n) %}{% for i in range(200) %}{% set ns.n = ns.n + i %}{% endfor %}"
          "{{ ns.n }} {{ 'a' ~ n ~ messages|tojson }}")
          .value();
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Json context = Context();
      context.Set("n", t);
      const std::string want =
          std::to_string(19900 + t) + " a" + std::to_string(t) + R"([{"role": "user", "content": "hi"}])";
      for (int i = 0; i < 50; ++i)
        wrong[static_cast<size_t>(t)] += compiled.Render(context).value_or("") != want;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(ChatTemplate, ClockMayBeTheSystems) {
  const std::string year = Render("{{ strftime_now('%Y') }}").value();
  EXPECT_GE(std::stoi(year), 2025);
  EXPECT_FALSE(Render("{{ strftime_now('%999999999d') }}").has_value());
}

// ---------------------------------------------------------------- limits

class Hostile : public testing::TestWithParam<const char*> {};

TEST_P(Hostile, EndsSoonWithAnError) {
  const auto start = std::chrono::steady_clock::now();
  const auto got = Render(GetParam());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_FALSE(got.has_value()) << got->size();
  EXPECT_LT(seconds,
            20);  // a second or less as a release build; sanitizers and a busy machine take their share
}

INSTANTIATE_TEST_SUITE_P(
    Templates, Hostile,
    testing::Values(
        "{{ 'x' * 1000000000 }}", "{{ [0] * 1000000000 }}", "{{ (1,) * 9223372036854775807 }}",
        "{{ range(1000000000) }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s]|tojson %}{% "
        "endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s]|string %}{% "
        "endfor %}",
        "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + ['y' * 1000000 ~ i] "
        "%}{% endfor %}",
        "{% set ns = namespace(s=[]) %}{% for i in range(10000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s "
        "}}",
        "{% set ns = namespace(s=[]) %}{% for i in range(10000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ "
        "ns.s|tojson }}",
        "{% set ns = namespace(a=[], b=[]) %}{% for i in range(10000) %}{% set ns.a = [ns.a] %}{% set ns.b = "
        "[ns.b] %}"
        "{% endfor %}{{ ns.a == ns.b }}",
        "{% set ns = namespace(g=[1]) %}{% for i in range(10000) %}{% set ns.g = ns.g|map('string') %}{% "
        "endfor %}{{ ns.g|list }}",
        "{% set ns = namespace(t=()) %}{% for i in range(10000) %}{% set ns.t = (ns.t,) %}{% endfor %}{{ "
        "{ns.t: 1} }}",
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% macro m(n) %}{% call m(n) %}{% endcall %}{% endmacro %}{{ m(1) }}",
        "{{ 'a'|center(2000000000) }}", "{{ 'a'.ljust(1000000000) }}", "{{ 'a'.zfill(1000000000) }}",
        "{{ '%1000000000d' % 1 }}", "{{ '%.1000000000f' % 1 }}", "{{ '{:1000000000}'.format(1) }}",
        "{{ '%*d' % (1000000000, 1) }}", "{{ 'a\\nb'|indent(1000000000) }}",
        "{{ [1]|tojson(indent=1000000000) }}", "{{ 10 ** 1000000 }}", "{{ 9223372036854775807 * 2 }}",
        "{{ -9223372036854775807 - 2 }}", "{{ '\\t'.expandtabs(1000000000) }}",
        "{{ [1]|batch(1000000000, 'x')|list }}", "{{ 'ab'.replace('', 'x' * 60000000) }}",
        "{{ ('x' * 60000000).join(['a', 'b', 'c']) }}", "{{ range(90000)|join('y' * 10000) }}",
        "{{ [1]|slice(1000000000)|list }}", "{% for i in range(90000) %}{{ 'z' * 100000 }}{% endfor %}",
        "{% macro m() %}{{ 'z' * 50000000 }}{{ caller() }}{% endmacro %}"
        "{% call m() %}{% call m() %}{% call m() %}{% endcall %}{% endcall %}{% endcall %}",
        "{% set l = 'x' * 10000000 %}{% for i in range(99999) %}{% if l ~ 'a' in l ~ 'b' %}{% endif %}{% "
        "endfor %}",
        "{% set l = range(90000)|list %}{% for i in l %}{% if -1 in l %}{% endif %}{% endfor %}",
        "{% set l = ('a' * 30000000)|list %}", "{% set l = ('a,' * 30000000).split(',') %}",
        "{% set l = ('a\n' * 30000000).splitlines() %}", "{{ ('<' * 60000000)|e }}",
        "{{ ('\\x01' * 60000000)|tojson }}"));

TEST(ChatTemplateLimits, DeepStructuresThatAreNeverWalkedAreFreed) {
  // A hundred thousand lists inside each other, namespaces in a chain and in a circle, a macro that holds
  // itself.
  EXPECT_EQ(
      Render("{% set ns = namespace(s=[]) %}{% for i in range(99999) %}{% set ns.s = [ns.s] %}{% endfor %}ok")
          .value(),
      "ok");
  EXPECT_EQ(Render("{% set ns = namespace() %}{% for i in range(99999) %}{% set ns.n = namespace(n=ns.n) "
                   "%}{% endfor %}ok")
                .value(),
            "ok");
  EXPECT_EQ(
      Render("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{% set a.l = [a, b] %}"
             "{% for i in [1] %}{% macro m() %}{{ m }}{% endmacro %}{% endfor %}ok")
          .value(),
      "ok");
  EXPECT_FALSE(Render("{% set a = namespace() %}{% set a.a = a %}{{ a }}").has_value());
}

TEST(ChatTemplateLimits, NestingOfTheSource) {
  const auto repeat = [](const char* part, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += part;
    return out;
  };
  for (const char* open : {"(", "[", "{1:", "not ", "-", "x[", "x(", "x is y(", "1 if 1 else ", "x|f("}) {
    EXPECT_FALSE(ChatTemplate::Compile("{{ " + repeat(open, 100000) + " }}").has_value()) << open;
  }
  EXPECT_FALSE(ChatTemplate::Compile("{{ x" + repeat(".y", 100000) + " }}").has_value());
  EXPECT_FALSE(ChatTemplate::Compile("{{ x" + repeat("|e", 100000) + " }}").has_value());
  EXPECT_FALSE(ChatTemplate::Compile("{{ x" + repeat("+1", 100000) + " }}").has_value());
  EXPECT_FALSE(ChatTemplate::Compile("{{ x" + repeat(" if 1", 100000) + " }}").has_value());
  EXPECT_FALSE(ChatTemplate::Compile(repeat("{% if 1 %}", 100000)).has_value());
  EXPECT_FALSE(ChatTemplate::Compile(repeat("{% for x in y %}", 100000)).has_value());
  EXPECT_FALSE(ChatTemplate::Compile("{% set " + repeat("(", 100000)).has_value());
  // What is merely long is fine.
  EXPECT_EQ(Render("{{ ''" + repeat(" ~ 1", 5000) + " }}").value().size(), 5000u);
  EXPECT_EQ(Render("{% if 0 %}" + repeat("{% elif 0 %}", 5000) + "{% else %}x{% endif %}").value(), "x");
  EXPECT_EQ(Render("{{ 0" + repeat("+1", 200) + " }}").value(), "200");
}

TEST(ChatTemplateLimits, EachLimitIsNamed) {
  RenderLimits limits;
  limits.max_steps = 1000;
  EXPECT_NE(
      Render("{% for i in range(9999) %}{% endfor %}", Context(), limits).error().message.find("max_steps"),
      std::string::npos);
  limits = {};
  limits.max_output_bytes = 10;
  const auto got = Render("0123456789a", Context(), limits);
  EXPECT_EQ(got.error().code, Code::kInvalidArgument);
  EXPECT_NE(got.error().message.find("max_output_bytes"), std::string::npos);
  EXPECT_EQ(Render("0123456789", Context(), limits).value(), "0123456789");
  limits = {};
  limits.max_value_bytes = 10;
  EXPECT_NE(Render("{{ 'a' * 11 }}", Context(), limits).error().message.find("max_value_bytes"),
            std::string::npos);
  limits = {};
  limits.max_live_bytes = 100000;
  EXPECT_NE(Render("{{ range(9999)|list }}", Context(), limits).error().message.find("max_live_bytes"),
            std::string::npos);
  limits = {};
  limits.max_depth = 20;
  EXPECT_NE(Render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", Context(), limits)
                .error()
                .message.find("max_depth"),
            std::string::npos);
}

TEST(ChatTemplateLimits, DeepContext) {
  std::string text;
  for (int i = 0; i < 900; ++i) text += "[";
  for (int i = 0; i < 900; ++i) text += "]";
  EXPECT_FALSE(Render("{{ messages }}", Context("{\"messages\": " + text + "}")).has_value());
}

TEST(ChatTemplateLimits, LongChatsPass) {
  Json context((Json::Object()));
  context.Set("messages", Json::Array());
  for (int i = 0; i < 200; ++i) {
    Json message((Json::Object()));
    message.Set("role", i % 2 == 0 ? "user" : "assistant");
    message.Set("content", std::string(50'000, static_cast<char>('a' + i % 26)) + "é");
    context.Find("messages")->Push(std::move(message));
  }
  const auto got = Render(
      "{% for m in messages %}{{ m.content.split('x')[-1]|trim }}{{ m.content[::-1] }}{% endfor %}", context);
  ASSERT_TRUE(got.has_value()) << got.error().message;
  EXPECT_GT(got->size(), 10'000'000u);
}

// ---------------------------------------------------------------- finding it

class FindTemplate : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("cadre_chat_template_" + std::to_string(::getpid()) + "_" +
               testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  Result<ChatTemplateSource> Find() { return FindChatTemplate(folder_.string()); }
  std::filesystem::path folder_;
};

TEST_F(FindTemplate, OfAFolderWithoutOne) {
  EXPECT_EQ(Find().value().text, "");
  EXPECT_EQ(FindChatTemplate((folder_ / "nope").string()).error().code, Code::kNotFound);
}

TEST_F(FindTemplate, InTokenizerConfig) {
  Write("tokenizer_config.json", R"({"chat_template": "T", "bos_token": "<s>", "pad_token": null,
      "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": false},
      "additional_special_tokens": ["<a>", {"content": "<b>"}], "extra_special_tokens": {"image_token": "<i>"}})");
  Write("special_tokens_map.json", R"({"bos_token": "<other>", "unk_token": {"content": "<unk>"}})");
  Write("chat_template.json", R"({"chat_template": "legacy"})");
  const ChatTemplateSource found = Find().value();
  EXPECT_EQ(found.text, "T");
  EXPECT_EQ(found.For(true), "T");
  EXPECT_TRUE(found.origin.ends_with("tokenizer_config.json"));
  Json context = Json::Parse(R"({"eos_token": "mine"})").value();
  found.AddSpecialTokens(context);
  EXPECT_EQ(context, Json::Parse(R"({"eos_token": "mine", "bos_token": "<s>", "image_token": "<i>",
      "additional_special_tokens": ["<a>", "<b>"], "unk_token": "<unk>"})")
                         .value());
}

TEST_F(FindTemplate, ByName) {
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "D"},
      {"name": "rag", "template": "R"}, {"name": "tool_use", "template": "U"}]})");
  EXPECT_EQ(Find().value().For(false), "D");
  EXPECT_EQ(Find().value().For(true), "U");
}

TEST_F(FindTemplate, FilesComeFirst) {
  Write("tokenizer_config.json", R"({"chat_template": "T", "bos_token": "<s>"})");
  Write("chat_template.jinja", "J\n");
  Write("additional_chat_templates/tool_use.jinja", "U");
  const ChatTemplateSource found = Find().value();
  EXPECT_EQ(found.For(false), "J\n");
  EXPECT_EQ(found.For(true), "U");
  EXPECT_EQ(found.special_tokens.Find("bos_token")->AsString(), "<s>");
}

TEST_F(FindTemplate, LegacyFile) {
  Write("chat_template.json", R"({"chat_template": "legacy"})");
  EXPECT_EQ(Find().value().text, "legacy");
}

TEST_F(FindTemplate, DamagedFilesAreNamed) {
  for (const char* text : {"{", "[]", R"({"chat_template": 5})", R"({"chat_template": [{"name": "x"}]})"}) {
    Write("tokenizer_config.json", text);
    const auto got = Find();
    ASSERT_FALSE(got.has_value()) << text;
    EXPECT_EQ(got.error().code, Code::kDataLoss);
    EXPECT_NE(got.error().message.find("tokenizer_config.json"), std::string::npos);
  }
}

}  // namespace
}  // namespace cadre
