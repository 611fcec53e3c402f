#include "http/tls.h"

#include <openssl/ssl.h>

namespace cadre::http {
namespace {

namespace ssl = boost::asio::ssl;
using ErrorCode = boost::system::error_code;

}  // namespace

Result<std::unique_ptr<ssl::context>> MakeServerTls(const TlsOptions& options) {
  const auto bad = [](const char* flag, const std::string& file, const ErrorCode& ec) {
    return FailParam(Code::kInvalidArgument, flag, "cannot use '{}' as {}: {}", file, flag, ec.message());
  };
  if (options.key_file.empty() || options.cert_file.empty()) {
    return FailParam(Code::kInvalidArgument, options.key_file.empty() ? "--ssl-keyfile" : "--ssl-certfile",
                     "TLS needs both --ssl-keyfile and --ssl-certfile; only one is given");
  }
  if (options.cert_reqs < 0 || options.cert_reqs > 2) {
    return FailParam(Code::kInvalidArgument, "--ssl-cert-reqs",
                     "--ssl-cert-reqs must be 0 (none), 1 (optional) or 2 (required), got {}",
                     options.cert_reqs);
  }
  if (options.cert_reqs > 0 && options.ca_file.empty()) {
    return FailParam(Code::kInvalidArgument, "--ssl-ca-certs",
                     "--ssl-cert-reqs {} needs --ssl-ca-certs: whose client certificates are trusted",
                     options.cert_reqs);
  }
  auto context = std::make_unique<ssl::context>(ssl::context::tls_server);
  ErrorCode ec;
  context->set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 | ssl::context::no_sslv3 |
                           ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1 | ssl::context::no_compression,
                       ec);
  if (context->use_certificate_chain_file(options.cert_file, ec); ec)
    return bad("--ssl-certfile", options.cert_file, ec);
  if (context->use_private_key_file(options.key_file, ssl::context::pem, ec); ec) {
    return bad("--ssl-keyfile", options.key_file, ec);
  }
  if (!options.ca_file.empty()) {
    if (context->load_verify_file(options.ca_file, ec); ec) return bad("--ssl-ca-certs", options.ca_file, ec);
  }
  int mode = ssl::verify_none;
  if (options.cert_reqs >= 1) mode = ssl::verify_peer;
  if (options.cert_reqs == 2) mode |= ssl::verify_fail_if_no_peer_cert;
  context->set_verify_mode(mode, ec);
  // OpenSSL refuses to resume sessions of verified clients without a context id.
  static constexpr unsigned char kSessionId[] = "cadre";
  SSL_CTX_set_session_id_context(context->native_handle(), kSessionId, sizeof kSessionId - 1);
  if (!options.ciphers.empty() &&
      SSL_CTX_set_cipher_list(context->native_handle(), options.ciphers.c_str()) != 1) {
    return FailParam(Code::kInvalidArgument, "--ssl-ciphers",
                     "--ssl-ciphers '{}' names no cipher that OpenSSL knows", options.ciphers);
  }
  return context;
}

Result<std::unique_ptr<ssl::context>> MakeClientTls(bool verify, const std::string& ca_file) {
  auto context = std::make_unique<ssl::context>(ssl::context::tls_client);
  ErrorCode ec;
  if (!verify) {
    context->set_verify_mode(ssl::verify_none, ec);
    return context;
  }
  context->set_verify_mode(ssl::verify_peer, ec);
  if (ca_file.empty()) {
    context->set_default_verify_paths(ec);
  } else {
    context->load_verify_file(ca_file, ec);
  }
  if (ec)
    return Fail(Code::kInvalidArgument, "cannot load trusted certificates from '{}': {}", ca_file,
                ec.message());
  return context;
}

}  // namespace cadre::http
