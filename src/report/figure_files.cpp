#include "report/figure_files.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/macros.h"
#include "base/mapped_file.h"

extern char** environ;

namespace kvcast::report {
namespace {

constexpr const char* kConverter = "rsvg-convert";

Status run_converter(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  if (const int error = posix_spawnp(&child, kConverter, nullptr, nullptr, argv.data(), environ)) {
    return fail(fmt::format("{}: {}; PNG files need it (Debian: librsvg2-bin)", kConverter,
                            std::strerror(error)));
  }
  int state = 0;
  while (waitpid(child, &state, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return {};
  return fail(fmt::format("{} failed on {}", kConverter, arguments.back()));
}

}  // namespace

Status make_directory(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (std::filesystem::is_directory(directory)) return {};
  return fail(fmt::format("{}: cannot make the directory: {}", directory.string(),
                          error ? error.message() : "it is a file"));
}

Status write_svg_files(const std::vector<Figure>& figures, const std::filesystem::path& directory) {
  KVCAST_CHECK(make_directory(directory));
  for (const Figure& figure : figures) {
    KVCAST_CHECK(write_file_atomically(directory / (figure.id + ".svg"), to_svg(figure)));
  }
  return {};
}

Status write_png_files(const std::vector<Figure>& figures, const std::filesystem::path& directory) {
  for (const Figure& figure : figures) {
    const std::filesystem::path file = directory / figure.id;
    KVCAST_CHECK(run_converter(
        {kConverter, "--zoom=2", "--output=" + file.string() + ".png", file.string() + ".svg"}));
  }
  return {};
}

}  // namespace kvcast::report
