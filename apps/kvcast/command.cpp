#include "command.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <ctime>

#include "base/macros.h"
#include "model/bundle.h"
#include "models_folder.h"
#include "prefill/strategy.h"

namespace kvcast {
namespace {

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

int report_error(const Error& error) {
  print_note("kvcast: {}\n", error.message);
  return kExitFailed;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

void show_progress(std::string line) {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0) return;  // no terminal
  if (size.ws_col > 0) line.resize(std::min<size_t>(line.size(), size.ws_col - 1U));
  print_note("\r\033[K{}", line);
}

CLI::Validator is_whole_number(int64_t least, int64_t most) {
  return checked_by([least, most](const std::string& text) -> Status {
    const char* const end = text.data() + text.size();
    int64_t value = 0;
    const auto [after, error] = std::from_chars(text.data(), end, value);
    if (error == std::errc{} && after == end && value >= least && value <= most) return {};
    const std::string upper = most == INT64_MAX ? "" : fmt::format(" and at most {}", most);
    return fail(
        fmt::format("expected a whole number of at least {}{}, found \"{}\"", least, upper, text));
  });
}
/// CLI11 would wrap negative numbers around.
CLI::Validator is_seed() {
  return checked_by([](const std::string& text) -> Status {
    uint64_t seed = 0;
    const char* const end = text.data() + text.size();
    const auto [after, error] = std::from_chars(text.data(), end, seed);
    if (error == std::errc{} && after == end) return {};
    return fail(fmt::format("expected a whole number from 0 to 2^64 - 1, found \"{}\"", text));
  });
}
std::vector<std::string> split_prefill_specs(std::span<const std::string> lists) {
  std::vector<std::string> specs;
  for (const std::string& list : lists) {
    bool continues = false;  // what follows may belong to the last
    for (size_t at = 0; at <= list.size();) {
      const size_t end = std::min(list.find(',', at), list.size());
      const std::string piece = list.substr(at, end - at);
      const bool is_option =
          piece.find('=') != std::string::npos && piece.find(':') == std::string::npos;
      if (continues && is_option) {
        specs.back() += "," + piece;
      } else {
        specs.push_back(piece);
      }
      continues = true;
      at = end + 1;
    }
  }
  return specs;
}

CLI::Validator is_prefill_spec() { return checked_by(PrefillStrategy::parse); }
CLI::Validator is_thread_count() { return is_whole_number(0, 1024); }

void add_sampling_options(CLI::App& command, SamplingOptions& sampling) {
  command.add_option("--temperature", sampling.temperature, "0: greedy")->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "0: off")
      ->check(is_whole_number(0))
      ->capture_default_str();
  command.add_option("--top-p", sampling.top_p, "1: off")->capture_default_str();
  command.add_option("--min-p", sampling.min_p, "0: off")->capture_default_str();
  command.add_option("--repetition-penalty", sampling.repetition_penalty, "1: off")
      ->capture_default_str();
  command.add_option("--seed", sampling.seed, "of the sampling")
      ->check(is_seed())
      ->capture_default_str();
}

void check_sampling_options(const SamplingOptions& sampling) {
  if (const Status valid = validate(sampling); !valid) {
    throw CLI::ValidationError(valid.error().message);
  }
}

void add_drafts_option(CLI::App& command, int64_t& drafts) {
  command
      .add_option_function<std::string>(
          "--drafts", [&drafts](const std::string& text) { drafts = *parse_drafts(text); },
          "tokens guessed from the text so far, or by the auxiliary, that one step checks: auto, "
          "off or how many")
      ->check(checked_by(parse_drafts))
      ->default_str(drafts == 0 ? "off" : "auto");
}

std::string drafts_text(int64_t drafted, int64_t accepted) {
  return drafted == 0 ? "none" : fmt::format("{} of {} came true", accepted, drafted);
}

std::string refinement_text(const Refinement& refinement) {
  const auto agreement = refinement.agreement();
  std::string text = refinement.exact_after_tokens < 0
                         ? fmt::format("{} rows", refinement.refined_rows)
                         : fmt::format("after {} tokens", refinement.exact_after_tokens);
  if (agreement) text += fmt::format(", {:.0f}% agree", 100 * *agreement);
  if (refinement.revised_tokens > 0) {
    text += fmt::format(", {} revised", refinement.revised_tokens);
  }
  return text;
}

void ModelOptions::add_to(CLI::App& command) {
  command.add_option("MODEL", directory, kModelHelp);
  command
      .add_option("--dtype", dtype, "weights in memory: auto, f32, bf16, int8, int4 or int8-blocks")
      ->check(checked_by(parse_dtype))
      ->capture_default_str();
  add_kv_dtype_to(command);
  command.add_option("--threads", threads, "threads; 0: one for each core it may use")
      ->check(is_thread_count())
      ->capture_default_str();
  command.add_option("--tokenizer", tokenizer,
                     "SentencePiece tokenizer.model for a directory that carries none");
}

void ModelOptions::add_kv_dtype_to(CLI::App& command) {
  command
      .add_option("--kv-dtype", kv_dtype,
                  "cached keys and values: f32, bf16, int8 (half of bf16's memory), or auto (f32 "
                  "beside f32 "
                  "weights, else bf16)")
      ->check(checked_by(parse_kv_dtype))
      ->capture_default_str();
}

Status ModelOptions::check_prefill(const std::string& spec) const {
  if (spec.empty()) return {};
  KVCAST_TRY(const auto strategy, PrefillStrategy::parse(spec));
  KVCAST_TRY(const auto path, find_model(directory));
  std::error_code ignored;
  if (!strategy->needs_bundle() || is_bundle(path) || !std::filesystem::exists(path, ignored)) {
    return {};
  }
  return fail(
      fmt::format("prefill strategy {} needs a KV-prediction bundle; {} is a plain model "
                  "(kvcast fit makes a bundle for it)",
                  strategy->spec(), path.string()));
}

Result<std::shared_ptr<const Model>> ModelOptions::load() const {
  KVCAST_TRY(const Dtype parsed, parse_dtype(dtype));
  KVCAST_TRY(const Dtype parsed_kv, parse_kv_dtype(kv_dtype));
  KVCAST_TRY(const auto path, find_model(directory));
  return Model::load(
      path, {.dtype = parsed, .kv_dtype = parsed_kv, .threads = threads, .tokenizer = tokenizer});
}

Result<std::vector<int32_t>> parse_token_ids(const std::string& text) {
  std::vector<int32_t> ids;
  const char* next = text.data();
  const char* const end = text.data() + text.size();
  while (true) {
    while (next != end && (*next == ' ' || *next == ',' || *next == '\n' || *next == '\t')) ++next;
    if (next == end) return ids;
    int32_t id = 0;
    const auto [after, error] = std::from_chars(next, end, id);
    if (error != std::errc{} ||
        (after != end && std::string_view(" ,\n\t").find(*after) == std::string_view::npos)) {
      return fail(fmt::format("\"{}\" is not a list of token ids such as \"5 17 3\"", text));
    }
    ids.push_back(id);
    next = after;
  }
}

InterruptScope::InterruptScope() {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  watcher_ = std::jthread([this, signals](const std::stop_token& done) {
    while (!done.stop_requested()) {
      const timespec poll_interval{.tv_sec = 0, .tv_nsec = 50'000'000};
      const int signal = sigtimedwait(&signals, nullptr, &poll_interval);
      if (signal < 0) continue;
      if (exit_at_once_ || source_.stop_requested()) _exit(128 + signal);
      source_.request_stop();
    }
  });
}

InterruptScope::~InterruptScope() {
  watcher_ = {};  // joins
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

}  // namespace kvcast
