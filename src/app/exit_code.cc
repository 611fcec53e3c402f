#include "app/exit_code.h"

#include "base/log.h"

namespace cadre::app {

int ExitCode(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return 2;
    case Code::kNotFound:
      return 3;
    case Code::kUnauthenticated:
      return 4;
    case Code::kUnsupported:
      return 5;
    case Code::kResourceExhausted:
      return 6;
    case Code::kUnavailable:
      return 7;
    case Code::kDeadlineExceeded:
      return 8;
    case Code::kDataLoss:
      return 9;
    case Code::kInternal:
      return 70;  // sysexits: EX_SOFTWARE
    case Code::kCancelled:
      return 130;  // as a shell names an end by Ctrl-C
  }
  return 70;
}

int Fail(const Error& error) {
  LogError("{}", error.message);
  return ExitCode(error.code);
}

}  // namespace cadre::app
