// kvcast serve: the OpenAI-compatible server.
#include <fmt/format.h>
#include <malloc.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "base/confine.h"
#include "base/macros.h"
#include "base/mapped_file.h"
#include "command.h"
#include "models_folder.h"
#include "server/access_log.h"
#include "server/server.h"

namespace kvcast {
namespace {

struct ServeOptions {
  ModelOptions model;
  ServerOptions server;
  std::string api_key_file, warm;
  std::string log_format = "none";
  int64_t cache_mib = 2048, prefix_store_mib = 4096;
};

/// One key a line; empty lines and lines that begin with # are left out.
Result<std::vector<std::string>> read_api_keys(const std::string& file) {
  std::vector<std::string> keys;
  if (const char* key = std::getenv("KVCAST_API_KEY"); key && *key) keys.emplace_back(key);
  if (file.empty()) return keys;
  KVCAST_TRY(const std::string text, read_text_file(file));
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && line.front() != '#') keys.push_back(std::move(line));
  }
  if (keys.empty()) return fail(fmt::format("{}: no API key in it; expected one a line", file));
  return keys;
}

/// Caches of all sizes come and go. In the heap they leave holes between them, and memory creeps up
/// for as long as the server runs; on pages of their own they go back to the system.
void give_caches_pages_of_their_own() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 8 << 10);
#endif
}

/// Prints a line for each request on stdout, where a service manager or a container collects it.
std::function<void(const HttpAccess&)> access_printer(const std::string& format) {
  if (format == "none") return {};
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads the log may go; the server stays
  return [print = format == "json" ? access_json : access_text](const HttpAccess& access) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const std::string line = print(access, std::chrono::duration<double>(now).count()) + "\n";
    std::fwrite(line.data(), 1, line.size(), stdout);
    std::fflush(stdout);
  };
}

/// A server has nothing to write but its prefix store, and nothing to execute.
Status confine(const std::filesystem::path& prefix_store) {
  std::vector<std::filesystem::path> writable;
  if (!prefix_store.empty()) {
    std::error_code ignored;  // what is wrong with the folder is said below, or when it is opened
    std::filesystem::create_directories(prefix_store, ignored);
    writable.push_back(prefix_store);
  }
  KVCAST_CHECK(confine_files(writable));
  return {};
}

Result<int> serve(const ServeOptions& chosen) {
  give_caches_pages_of_their_own();
  KVCAST_CHECK(confine(chosen.server.scheduler.prefix_store));  // before there are threads
  const InterruptScope interrupt;
  ServerOptions options = chosen.server;
  KVCAST_TRY(options.model_directory, find_model(chosen.model.directory));
  KVCAST_CHECK(chosen.model.check_prefill(options.scheduler.default_prefill));
  KVCAST_TRY(options.load.dtype, parse_dtype(chosen.model.dtype));
  KVCAST_TRY(options.load.kv_dtype, parse_kv_dtype(chosen.model.kv_dtype));
  options.load.threads = chosen.model.threads;
  options.load.tokenizer = chosen.model.tokenizer;
  options.scheduler.max_cache_bytes = chosen.cache_mib << 20;
  options.scheduler.max_store_bytes = chosen.prefix_store_mib << 20;
  if (!chosen.warm.empty()) {
    KVCAST_TRY(options.system_prompt, read_text_file(chosen.warm));
  }
  KVCAST_TRY(options.api_keys, read_api_keys(chosen.api_key_file));
  options.on_access = access_printer(chosen.log_format);
  const std::string host = options.host;
  const bool loopback = host == "localhost" || host == "::1" || host.starts_with("127.");
  if (!loopback && options.api_keys.empty()) {
    print_note(
        "kvcast: anybody who reaches {} may use this server: no API key is set "
        "(--api-key-file, KVCAST_API_KEY)\n",
        host);
  }
  KVCAST_TRY(const auto server, Server::listen(std::move(options)));
  const bool is_ipv6 = host.find(':') != std::string::npos;
  const std::string url =
      fmt::format("http://{}:{}", is_ipv6 ? "[" + host + "]" : host, server->port());
  print_note("kvcast: loading; {}/health says when it is done\n", url);
  KVCAST_CHECK(server->run(interrupt.token(), [&url](const std::string& note) {
    if (!note.empty()) print_note("kvcast: {}\n", note);
    print_note("kvcast: ready at {}/\n", url);
  }));
  return kExitOk;
}

void add_limits(CLI::App& command, ServeOptions& options) {
  ServerOptions& server = options.server;
  SchedulerOptions& scheduler = server.scheduler;
  const CLI::Validator positive = is_whole_number(1, int64_t{1} << 40);
  const CLI::Range seconds(0.0, 1e9);
  command
      .add_option("--chunk-tokens", scheduler.chunk_tokens,
                  "prompt tokens read between two tokens of running answers")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--max-batch", scheduler.max_batch, "answers decoded together")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--max-queue", scheduler.max_queue, "requests waiting; more get 429")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--cache-mib", options.cache_mib, "memory for KV caches, in MiB")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--prefix-store", scheduler.prefix_store,
                     "folder that keeps exact prompt beginnings between runs");
  command.add_option("--prefix-store-mib", options.prefix_store_mib, "its limit, in MiB (4096)")
      ->check(positive);
  command.add_option(
      "--warm", options.warm,
      "file with a system prompt that is read, and kept, before the server is ready");
  command.add_option("--max-body-bytes", server.http.max_body_bytes, "largest request body")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--max-connections", server.http.max_connections, "open connections")
      ->check(positive)
      ->capture_default_str();
  command
      .add_option("--request-seconds", server.request_seconds,
                  "longest a request may take; 0: no limit")
      ->check(seconds)
      ->capture_default_str();
  command
      .add_option("--drain-seconds", server.drain_seconds,
                  "how long running answers may go on after SIGTERM")
      ->check(seconds)
      ->capture_default_str();
}

}  // namespace

void register_serve(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App& command = *app.add_subcommand("serve", "an OpenAI-compatible server, and a page at /");
  options->model.add_to(command);
  ServerOptions& server = options->server;
  command.add_option("--host", server.host, "address to listen on")->capture_default_str();
  command.add_option("--port", server.port, "0: a free one")
      ->check(is_whole_number(0, 65535))
      ->capture_default_str();
  command
      .add_option("--prefill", server.scheduler.default_prefill,
                  "strategy of requests that name none (default: the model's)")
      ->check(is_prefill_spec());
  add_drafts_option(command, server.scheduler.default_drafts);
  command.add_option("--alias,--model-name", server.model_name,
                     "name for clients (default: the model's own)");
  command.add_flag("--strict-model-name", server.strict_model_name,
                   "refuse requests that name another model; else every name is this one's");
  command.add_option("--api-key-file", options->api_key_file,
                     "API keys, one a line; KVCAST_API_KEY in the environment is one more");
  command
      .add_option("--cors-origin", server.cors_origins,
                  "origin whose pages may call the API; may be repeated")
      ->take_all();
  command
      .add_option("--log-format", options->log_format,
                  "a line on stdout for each request, never with its text: none, text or json")
      ->check(CLI::IsMember({"none", "text", "json"}))
      ->capture_default_str();
  add_limits(command, *options);
  command.callback([options, &exit_code] {
    const auto result = serve(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast
