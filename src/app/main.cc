// The program. All input of the process (words, environment) is read here and handed down.
#include <string>
#include <vector>

#include "app/commands.h"
#include "app/out_of_memory.h"

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + (argc > 0), argv + argc);
  cadre::app::EndByNameWhenOutOfMemory();
  const int code = cadre::app::RunCommand(args, cadre::config::ReadEnvironment());
  const int flushed = cadre::app::FlushOutput();
  return code != 0 ? code : flushed;
}
