// kvcast chat: a conversation in the terminal.
#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/atomic_file.h"
#include "base/macros.h"
#include "base/text_input.h"
#include "command.h"
#include "line_input.h"
#include "models_folder.h"
#include "runtime/chat_template.h"
#include "runtime/model_impl.h"
#include "runtime/scheduler.h"

namespace kvcast {
namespace {

constexpr const char* kHelp =
    "/prefill SPEC  change the prefill strategy     /stats    times of the last answer\n"
    "/history       the conversation so far         /save FILE  write it as JSON\n"
    "/system TEXT   set the system message          /reset    forget the conversation\n"
    "/help          this                            /quit     end (also Ctrl-D)\n"
    "Ctrl-C stops the answer that is being written. Pasted lines are one message.\n";

constexpr const char* kNoTemplate =
    "This model has no chat template: it was not trained to converse. It goes on from what you "
    "write, each time anew.\n";

volatile std::sig_atomic_t interrupted = 0;

/// Prints an answer as it comes, on the scheduler's thread; where it may be revised and nobody
/// watches, once it is certain.
class TerminalAnswer final : public RequestObserver {
 public:
  explicit TerminalAnswer(bool waits) : waits_(waits) {}
  void on_token(const TokenEvent& event) override {
    if (event.kept) revise(*event.kept);
    print(event.text);
  }
  void on_choice_finished(int64_t, std::string_view rest, FinishReason) override { print(rest); }
  void on_finished(const EngineTimings& done) override {
    timings = done;
    if (waits_) fmt::print("{}", text);
    end();
  }
  void on_error(const EngineError& failure) override {
    error = failure;
    end();
  }

  /// Waits for the end; Ctrl-C cancels.
  void wait(Ticket& ticket) {
    std::unique_lock lock(mutex_);
    while (!ended_) {
      changed_.wait_for(lock, std::chrono::milliseconds(20));
      if (interrupted) ticket.cancel();
    }
  }

  std::string text;
  EngineTimings timings;
  std::optional<EngineError> error;

 private:
  void print(std::string_view piece) {
    if (text.empty()) {
      const size_t spaces = std::min(piece.find_first_not_of(' '), piece.size());
      piece.remove_prefix(spaces);
      left_out_ += spaces;
    }
    text += piece;
    if (waits_) return;
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  }
  /// What was written stays on the screen; what replaces it begins on a line of its own.
  void revise(const KeptAnswer& kept) {
    const auto bytes = static_cast<size_t>(kept.bytes);
    text.resize(bytes - std::min(bytes, left_out_));
    if (text.empty()) left_out_ = bytes;
    if (!waits_) fmt::print("\n--- revised\n{}", text);
  }
  void end() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  const bool waits_;
  size_t left_out_ = 0;  // spaces that the answer began with
};

struct ChatOptions {
  ModelOptions model;
  std::string prefill, system;
  int64_t max_tokens = 512;
  SamplingOptions sampling;
  bool revise = false;
  int64_t drafts = kDraftsAuto;
};

class Chat {
 public:
  Chat(ChatOptions options, Scheduler& scheduler, const ChatTemplate& chat_template)
      : options_(std::move(options)),
        scheduler_(scheduler),
        template_(chat_template),
        is_instructed_(!chat_template.source().empty()) {}

  /// Reads messages until the end of the input or /quit. At a terminal an error is said and the
  /// conversation goes on; from a pipe the first one ends it.
  Status run(LineInput& input) {
    if (input.is_terminal()) {
      if (!is_instructed_) fmt::print("{}", kNoTemplate);
      fmt::print("/help lists the commands.\n");
    }
    while (true) {
      interrupted = 0;
      if (input.is_terminal()) fmt::print("\n");
      std::fflush(stdout);
      const std::optional<std::string> line = input.read();
      if (!line || *line == "/quit" || *line == "/exit") return {};
      if (line->empty()) continue;
      const Status status = line->front() == '/' ? command(*line) : answer(*line);
      if (status) continue;
      if (!input.is_terminal()) return status;
      fmt::print("{}\n", status.error().message);
    }
  }

 private:
  /// The conversation with the question, or, without a template, the text alone.
  Result<std::vector<int32_t>> prompt_of(const std::string& question) const {
    KVCAST_TRY(const std::string text, check_text_input(question, "the message"));
    if (!is_instructed_) return scheduler_.model().tokenize(text);
    std::vector<ChatMessage> all = conversation();
    all.push_back({"user", text});
    KVCAST_TRY(ChatPrompt prompt, template_.render(all));
    return std::move(prompt.tokens);
  }

  [[nodiscard]] std::vector<ChatMessage> conversation() const {
    std::vector<ChatMessage> all;
    if (!options_.system.empty()) all.push_back({"system", options_.system});
    all.insert(all.end(), messages_.begin(), messages_.end());
    return all;
  }

  Status answer(const std::string& question) {
    const auto arrival = SteadyClock::now();
    EngineRequest request;
    KVCAST_TRY(request.prompt, prompt_of(question));
    request.prefill = options_.prefill;
    request.max_tokens = options_.max_tokens;
    request.sampling = options_.sampling;
    request.sampling.seed += messages_.size();
    if (is_instructed_) request.stop = template_.stop_strings();
    request.revise = options_.revise;
    request.drafts = options_.drafts;
    request.arrival = arrival;
    request.tokenize_ms =
        std::chrono::duration<double, std::milli>(SteadyClock::now() - arrival).count();
    const auto observer =
        std::make_shared<TerminalAnswer>(options_.revise && isatty(STDOUT_FILENO) == 0);
    auto ticket = scheduler_.submit(std::move(request), observer);
    if (!ticket) return fail(ticket.error().message);
    observer->wait(**ticket);
    fmt::print("\n");
    if (observer->error && observer->error->kind != EngineError::Kind::kCancelled) {
      return fail(observer->error->message);
    }
    // A stopped answer counts as far as it came.
    messages_.push_back({"user", question});
    messages_.push_back({"assistant", observer->text});
    timings_.reset();
    if (!observer->error) timings_ = observer->timings;
    return {};
  }

  Status command(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string name = line.substr(0, space);
    const std::string argument = space < line.size() ? line.substr(space + 1) : "";
    if (name == "/help") {
      fmt::print("{}", kHelp);
    } else if (name == "/prefill") {
      if (!argument.empty()) {
        KVCAST_TRY(options_.prefill, scheduler_.check_strategy(argument));
      }
      fmt::print("prefill: {}\n", options_.prefill);
    } else if (name == "/stats") {
      print_stats();
    } else if (name == "/history") {
      for (const ChatMessage& message : conversation()) {
        fmt::print("{}: {}\n", message.role, message.content);
      }
    } else if (name == "/system") {
      options_.system = argument;
    } else if (name == "/reset") {
      messages_.clear();
    } else if (name == "/save") {
      return save(argument);
    } else {
      return fail(fmt::format("{}: unknown command; /help lists them", name));
    }
    return {};
  }

  void print_stats() const {
    if (!timings_) {
      fmt::print("no times: nothing has been answered yet, or the last answer was stopped\n");
      return;
    }
    const EngineTimings& t = *timings_;
    const double per_second =
        t.decode_ms > 0 ? 1e3 * static_cast<double>(t.decode_tokens) / t.decode_ms : 0;
    fmt::print(
        "{}: first token after {:.2f} ms (tokenize {:.2f}, auxiliary {:.2f}, predictor {:.2f}, "
        "base {:.2f}); {} prompt tokens, {} from earlier turns, {} forecast; {} tokens at "
        "{:.1f}/s\n",
        t.prefill, t.ttft_ms, t.tokenize_ms, t.auxiliary_ms, t.predictor_ms, t.base_ms,
        t.prompt_tokens, t.cached_tokens, t.predicted_tokens, t.generated_tokens, per_second);
    if (t.drafted_tokens > 0) {
      fmt::print("drafts: {}\n", drafts_text(t.drafted_tokens, t.accepted_tokens));
    }
    if (t.refinement) fmt::print("the cache was made exact: {}\n", refinement_text(*t.refinement));
  }

  Status save(const std::string& file) const {
    if (file.empty()) return fail("/save needs a file name");
    nlohmann::ordered_json json = {{"messages", nlohmann::json::array()}};
    for (const ChatMessage& message : conversation()) {
      json["messages"].push_back({{"role", message.role}, {"content", message.content}});
    }
    KVCAST_TRY(const auto out, AtomicFile::create(file));
    const std::string text =
        json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    KVCAST_CHECK(out->write(std::as_bytes(std::span(text))));
    KVCAST_CHECK(out->commit());
    fmt::print("saved {} messages to {}\n", json["messages"].size(), file);
    return {};
  }

  ChatOptions options_;
  Scheduler& scheduler_;
  const ChatTemplate& template_;
  const bool is_instructed_;  // it has a chat template; else it goes on from each text by itself
  std::vector<ChatMessage> messages_;
  std::optional<EngineTimings> timings_;  // of the last answer, if it was complete
};

Status chat(ChatOptions options) {
  // Ctrl-C has to reach this thread, not one of the model's: those inherit a mask that blocks it.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  KVCAST_CHECK(options.model.check_prefill(options.prefill));
  KVCAST_TRY(const auto model, options.model.load());
  SchedulerOptions scheduling;
  scheduling.default_prefill = options.prefill;
  KVCAST_TRY(const auto scheduler, Scheduler::start(model, scheduling));
  if (!model->has_tokenizer()) return fail(model->impl().tokenizer_hint);
  KVCAST_TRY(const std::filesystem::path directory, find_model(options.model.directory));
  KVCAST_TRY(const auto chat_template, ChatTemplate::load(directory, *model->impl().tokenizer));
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = 1; };
  sigaction(SIGINT, &action, nullptr);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  options.prefill = scheduler->default_prefill();
  return Chat(std::move(options), *scheduler, *chat_template).run(*LineInput::open());
}

}  // namespace

void register_chat(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App& command = *app.add_subcommand("chat", "a conversation in the terminal");
  options->model.add_to(command);
  command.add_option("--prefill", options->prefill, "prefill strategy (default: the model's)")
      ->check(is_prefill_spec());
  command.add_option("--system", options->system, "the system message");
  command.add_option("-n,--max-tokens", options->max_tokens, "longest answer, in tokens")
      ->check(is_whole_number(1))
      ->capture_default_str();
  add_sampling_options(command, options->sampling);
  add_drafts_option(command, options->drafts);
  command.add_flag("--revise", options->revise,
                   "take back what exact would not have chosen, once refinement knows");
  command.callback([options, &exit_code] {
    check_sampling_options(options->sampling);
    const Status status = chat(*options);
    exit_code = status ? kExitOk : report_error(status.error());
  });
}

}  // namespace kvcast
