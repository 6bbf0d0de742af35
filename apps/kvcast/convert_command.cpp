#include <fmt/format.h>

#include "base/macros.h"
#include "base/processors.h"
#include "base/table.h"
#include "command.h"
#include "kernels/isa.h"
#include "models_folder.h"
#include "runtime/convert.h"
#include "runtime/model_impl.h"

namespace kvcast {
namespace {

struct ConvertCommand {
  std::string source, output;
  std::string dtype = "auto";
  int64_t shard_bytes = 0;
  int threads = 0;
};

/// What lies below a directory.
int64_t directory_bytes(const std::filesystem::path& directory) {
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  }
  return bytes;
}

Result<int> run_convert(const ConvertCommand& command) {
  InterruptScope interrupt;
  KVCAST_CHECK(isa_from_environment());
  KVCAST_TRY(const Dtype dtype, parse_dtype(command.dtype));
  KVCAST_TRY(const auto source, find_model(command.source));
  const Status converted =
      convert({.source = source,
               .output = command.output,
               .type = weight_type(dtype),
               .shard_bytes = command.shard_bytes,
               .threads = command.threads > 0 ? command.threads : available_processors(),
               .stop = interrupt.token()});
  if (!converted && interrupt.token().stop_requested()) return kExitInterrupted;
  KVCAST_CHECK(converted);
  fmt::print("{}: {} bytes\n", command.output, with_thousands(directory_bytes(command.output)));
  return kExitOk;
}

}  // namespace

void register_convert(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ConvertCommand>();
  CLI::App* command = app.add_subcommand(
      "convert", "write a model or bundle with packed weights, which load at once");
  command
      ->add_option("MODEL", options->source, "model directory, GGUF file or KV-prediction bundle")
      ->required();
  command->add_option("OUT", options->output, "directory to write; must not exist")->required();
  command
      ->add_option("--dtype", options->dtype,
                   "weights: auto (as stored), f32, bf16, int8, int4 or int8-blocks")
      ->check(checked_by(parse_dtype))
      ->capture_default_str();
  command
      ->add_option("--shard-bytes", options->shard_bytes,
                   "largest weights file of a model; 0: one file")
      ->check(is_whole_number(0))
      ->capture_default_str();
  command->add_option("--threads", options->threads, "threads; 0: one for each core it may use")
      ->check(is_thread_count())
      ->capture_default_str();
  command->callback([options, &exit_code] {
    const auto result = run_convert(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast
