#pragma once
// Private to the room: TLS contexts from options, with messages that name the file or option at fault.
#include <boost/asio/ssl/context.hpp>

#include "http/server.h"

namespace cadre::http {

Result<std::unique_ptr<boost::asio::ssl::context>> MakeServerTls(const TlsOptions& options);
/// `ca_file` empty: the system's store. `verify` false: any certificate will do.
Result<std::unique_ptr<boost::asio::ssl::context>> MakeClientTls(bool verify, const std::string& ca_file);

}  // namespace cadre::http
