#include "config/router.h"

#include <algorithm>

#include "config/value.h"

namespace cadre::config {
namespace {

void Split(std::vector<std::string>& list) {
  std::vector<std::string> parts;
  for (const std::string& words : list) {
    for (const std::string_view part : SplitComma(words)) {
      if (!Trim(part).empty()) parts.emplace_back(Trim(part));
    }
  }
  list = std::move(parts);
}

bool IsBootstrapPort(const std::string& word) {
  return word == "none" ||
         (!word.empty() && std::ranges::all_of(word, [](char c) { return c >= '0' && c <= '9'; }));
}

// vLLM's router takes --prefill URL [BOOTSTRAP_PORT].
void DropBootstrapPorts(std::vector<std::string>& list, std::vector<Notice>& notices) {
  if (std::erase_if(list, IsBootstrapPort) > 0) {
    notices.push_back(
        {false,
         "--prefill: bootstrap ports have no effect here; prefill says in its answer where its KV "
         "is"});
  }
}

Status Join(const std::vector<std::string>& hosts, const std::vector<std::string>& ports, const char* who,
            std::vector<std::string>& urls) {
  if (hosts.empty() && ports.empty()) return {};
  const std::vector<std::string> one = {"localhost"};
  const auto& all = hosts.empty() && ports.size() == 1 ? one : hosts;
  if (all.size() != ports.size()) {
    return FailParam(Code::kInvalidArgument, Format("--{}-ports", who),
                     "--{}-hosts names {} hosts and --{}-ports {} ports; give as many of each", who,
                     all.size(), who, ports.size());
  }
  for (size_t i = 0; i < all.size(); ++i) urls.push_back(Format("http://{}:{}", all[i], ports[i]));
  return {};
}

Status CheckSources(const RouterOptions& o) {
  const bool plain = !o.worker_urls.empty() || !o.worker_dns.empty();
  const bool named = plain || !o.prefill.empty() || !o.decode.empty() || !o.worker_file.empty() ||
                     !o.prefill_dns.empty() || !o.decode_dns.empty();
  if (!named) {
    return FailParam(
        Code::kInvalidArgument, "--worker-urls",
        "no workers: give their URLs, as in cadre router http://127.0.0.1:8000, or --prefill and "
        "--decode, or --worker-file, or --worker-dns");
  }
  if (!o.pairs) return {};
  if (plain) {
    return FailParam(
        Code::kInvalidArgument, "--worker-urls",
        "'{}' is neither prefill nor decode; with pairs each worker comes from --prefill, --decode, "
        "--prefill-dns, --decode-dns or --worker-file",
        o.worker_urls.empty() ? o.worker_dns.front() : o.worker_urls.front());
  }
  if (!o.worker_file.empty()) return {};
  if ((o.prefill.empty() && o.prefill_dns.empty()) || (o.decode.empty() && o.decode_dns.empty())) {
    return FailParam(Code::kInvalidArgument, "--prefill",
                     "pairs want workers of both roles: --prefill URL and --decode URL (or their -dns, or "
                     "--worker-file)");
  }
  return {};
}

Status CheckKvAddresses(const RouterOptions& o) {
  if (o.prefill_kv_addrs.empty() && o.decode_kv_addrs.empty()) return {};
  if (o.prefill_kv_addrs.size() == o.prefill.size() && o.decode_kv_addrs.size() == o.decode.size()) return {};
  return FailParam(
      Code::kInvalidArgument, "--prefill-kv-addrs",
      "--prefill-kv-addrs has {} addresses for {} of --prefill, --decode-kv-addrs {} for {} of --decode; "
      "give one for each",
      o.prefill_kv_addrs.size(), o.prefill.size(), o.decode_kv_addrs.size(), o.decode.size());
}

}  // namespace

Status SettleRouter(RouterOptions& o, std::vector<Notice>& notices) {
  for (auto* list : {&o.worker_urls, &o.prefill, &o.decode, &o.prefiller_hosts, &o.prefiller_ports,
                     &o.decoder_hosts, &o.decoder_ports, &o.prefill_kv_addrs, &o.decode_kv_addrs,
                     &o.worker_dns, &o.prefill_dns, &o.decode_dns}) {
    Split(*list);
  }
  if (!o.prefill.empty()) {
    DropBootstrapPorts(o.prefill, notices);
    DropBootstrapPorts(o.worker_urls, notices);
  }
  CADRE_TRY(Join(o.prefiller_hosts, o.prefiller_ports, "prefiller", o.prefill));
  CADRE_TRY(Join(o.decoder_hosts, o.decoder_ports, "decoder", o.decode));
  o.pairs =
      o.pairs || !o.prefill.empty() || !o.decode.empty() || !o.prefill_dns.empty() || !o.decode_dns.empty();
  if (o.disable_retries) o.retry_max_retries = 1;
  if (!o.chat_template.empty() && !o.tokenizer) {
    return FailParam(Code::kInvalidArgument, "--chat-template",
                     "--chat-template is of use with --tokenizer alone: name the workers' model, too");
  }
  if (o.prefill_threshold > 0 && !o.pairs) {
    return FailParam(Code::kInvalidArgument, "--prefill-threshold",
                     "--prefill-threshold is for pairs: there are no --prefill and --decode workers");
  }
  CADRE_TRY(CheckSources(o));
  return CheckKvAddresses(o);
}

}  // namespace cadre::config
