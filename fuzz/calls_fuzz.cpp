// The C API as a program calls it: any calls in any order with any arguments that keep the rules of
// kvcast.h. Errors are lines, texts are whole UTF-8, tokens are the model's, a failed call leaves
// the conversation as it was, and a batch answers as sessions do.
#include <string>
#include <vector>

#include "base/utf8.h"
#include "call_arguments.h"
#include "fuzz.h"
#include "kvcast.h"
#include "server/tiny_bundle.h"

namespace kvcast {
namespace {

constexpr const char* kTemplate =
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% if "
    "message.tool_calls "
    "%}{{ message.tool_calls | tojson }}{% endif %}\n{% endfor %}{% if tools %}{{ tools | tojson }}"
    "{% endif %}{% if add_generation_prompt %}<assistant>{% endif %}";

const std::filesystem::path& bundle() {
  static const TinyBundle made;
  static const bool written = [] {
    std::ofstream(made.path() / "base/chat_template.jinja") << kTemplate;
    return true;
  }();
  FUZZ_CHECK(written);
  return made.path();
}

class Caller {
 public:
  explicit Caller(Input& input) : input_(input) {}
  ~Caller() {
    for (kvcast_answer* answer : answers_) kvcast_answer_free(answer);
    for (kvcast_session* session : sessions_) kvcast_session_free(session);
    kvcast_chat_free(chat_);
    kvcast_batch_free(batch_);
  }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  void call() {
    switch (input_.byte() % 18) {
      case 0:
        return tokenize();
      case 1:
        return detokenize(arguments_.tokens());
      case 2:
        return load();
      case 3:
        return describe();
      case 4:
        return render();
      case 5:
        return read();
      case 6:
        return generate();
      case 7:
        return score();
      case 8:
        return more_sessions();
      case 9:
        return with_session();
      case 10:
      case 11:
        return begin();
      case 12:
      case 13:
        return next();
      case 14:
        return run();
      case 15:
        return stop();
      case 16:
        return completion();
      default:
        return free_answer();
    }
  }

 private:
  static kvcast_model* model() {
    static kvcast_model* const loaded = [] {
      const kvcast_load_options options = {sizeof options, "f32", nullptr, 1, nullptr};
      char* error = nullptr;
      kvcast_model* made = kvcast_model_load(bundle().c_str(), &options, &error);
      if (made == nullptr) std::fprintf(stderr, "%s\n", error);
      FUZZ_CHECK(made != nullptr);
      return made;
    }();
    return loaded;
  }

  /// Where a call may put its error.
  char** error() {
    error_ = nullptr;
    return input_.byte() < 16 ? nullptr : &error_;
  }
  /// That it failed or succeeded, and said so as the header promises.
  void done(bool succeeded, char** error) {
    if (error == nullptr) return;
    FUZZ_CHECK(succeeded == (error_ == nullptr));
    if (error_ != nullptr) check_message(error_);
    kvcast_free(error_);
    error_ = nullptr;
  }
  static void check_tokens(const int32_t* ids, size_t count) {
    for (size_t i = 0; i < count; ++i) FUZZ_CHECK(ids[i] >= 0 && ids[i] < kVocab);
  }
  size_t length(const kvcast_session* session) {
    size_t count = 0;
    check_tokens(kvcast_session_tokens(session, &count), count);
    return count;
  }
  template <typename T>
  T* any(const std::vector<T*>& handles) {
    const size_t choice = input_.byte();
    return handles.empty() ? nullptr : handles[choice % handles.size()];
  }

  // ---- calls ----

  void tokenize() {
    const std::string given = arguments_.text();
    size_t count = 0;
    char** const wrong = error();
    int32_t* const ids =
        kvcast_tokenize(model(), given.data(), given.size(), input_.byte() % 2, &count, wrong);
    done(ids != nullptr, wrong);
    check_tokens(ids, ids == nullptr ? 0 : count);
    if (ids != nullptr) detokenize(std::vector<int32_t>(ids, ids + count));
    kvcast_free(ids);
  }
  void detokenize(const std::vector<int32_t>& ids) {
    size_t bytes = 0;
    char** const wrong = error();
    char* const found = kvcast_detokenize(model(), ids.data(), ids.size(), &bytes, wrong);
    done(found != nullptr, wrong);
    if (found != nullptr) {
      FUZZ_CHECK(found[bytes] == '\0' && is_valid_utf8({found, bytes}));
    }
    kvcast_free(found);
  }
  void load() {
    if (input_.byte() < 192) return;  // takes long
    const kvcast_load_options options = {
        sizeof options, arguments_.c_text({"auto", "f32", "bf16", "int8", "int4", "int3"}),
        arguments_.c_text({"auto", "f32", "bf16", "int8"}),
        static_cast<int32_t>(arguments_.integer()), arguments_.c_text({"", "/"})};
    const auto given = cut(options, input_);
    const std::string path = input_.byte() % 4 == 0 ? arguments_.text() : bundle().string();
    char** const wrong = error();
    kvcast_model* const loaded = kvcast_model_load(
        path.c_str(), reinterpret_cast<const kvcast_load_options*>(given.get()), wrong);
    done(loaded != nullptr, wrong);
    kvcast_model_free(loaded);
  }
  void describe() {
    const auto given = cut(kvcast_model_info{}, input_);
    kvcast_model_describe(model(), reinterpret_cast<kvcast_model_info*>(given.get()));
  }
  bool have_chat() {
    if (chat_ == nullptr) chat_ = kvcast_chat_new(model(), nullptr);
    return chat_ != nullptr;
  }
  void render() {
    FUZZ_CHECK(have_chat());
    std::vector<kvcast_message> messages(input_.byte() % 4);
    for (kvcast_message& message : messages) {
      const char* const role = arguments_.c_text({"system", "user", "assistant", "tool"});
      const char* const content = arguments_.c_text({"Hello", "<s> <assistant>", ""});
      message = {role == nullptr ? "user" : role, content == nullptr ? "" : content,
                 arguments_.c_text({R"({"tool_call_id":"x"})", R"({"tool_calls":[]})", "{}", "["})};
    }
    const auto options = cut(arguments_.chat_options(), input_);
    size_t count = 0;
    char** const wrong = error();
    int32_t* const ids = kvcast_chat_render(
        chat_, messages.data(), messages.size(),
        reinterpret_cast<const kvcast_chat_options*>(options.get()), &count, wrong);
    done(ids != nullptr, wrong);
    check_tokens(ids, ids == nullptr ? 0 : count);
    kvcast_free(ids);
    for (size_t i = 0; kvcast_chat_stop(chat_, i) != nullptr; ++i) FUZZ_CHECK(i < 100);
  }
  void read() {
    FUZZ_CHECK(have_chat());
    std::string given = arguments_.text();
    if (input_.byte() % 2 == 0) {
      given +=
          R"(<tool_call>{"name":"look","arguments":{"a":)" + arguments_.text() + "}}</tool_call>";
    }
    const auto options = cut(arguments_.chat_options(), input_);
    char** const wrong = error();
    char* more = nullptr;
    char* const content =
        kvcast_chat_read(chat_, given.data(), given.size(),
                         reinterpret_cast<const kvcast_chat_options*>(options.get()), &more, wrong);
    done(content != nullptr, wrong);
    kvcast_free(content);
    if (content != nullptr) kvcast_free(more);
  }

  void more_sessions() {
    if (sessions_.size() < 3 && input_.byte() % 2 == 0) {
      return sessions_.push_back(kvcast_session_new(model()));
    }
    if (sessions_.empty()) return;
    kvcast_session_free(sessions_.back());  // its answers live on
    sessions_.pop_back();
  }
  void with_session() {
    kvcast_session* const session = any(sessions_);
    if (session == nullptr) return;
    FUZZ_CHECK(kvcast_session_cache_bytes(session) >= 0);
    if (input_.byte() % 4 == 0) {
      kvcast_session_reset(session);
      FUZZ_CHECK(length(session) == 0);
    }
  }
  void begin() {
    if (sessions_.empty()) sessions_.push_back(kvcast_session_new(model()));
    kvcast_session* const session = any(sessions_);
    if (answers_.size() >= 4) return;
    const auto given = cut(arguments_.asked(), input_);
    const auto* options = reinterpret_cast<const kvcast_generate_options*>(given.get());
    if (input_.byte() < 16) options = nullptr;
    const std::string prompt = arguments_.text();
    const std::vector<int32_t> ids = arguments_.tokens();
    const bool is_text = input_.byte() % 2 == 0;
    const size_t before = length(session);
    char** const wrong = error();
    kvcast_answer* const answer =
        is_text ? kvcast_answer_text(session, prompt.data(), prompt.size(), options, wrong)
                : kvcast_answer_tokens(session, ids.data(), ids.size(), options, wrong);
    done(answer != nullptr, wrong);
    if (answer != nullptr) return answers_.push_back(answer);
    FUZZ_CHECK(!answers_.empty() || length(session) == before);  // else an answer may have ended
  }
  void next() {
    kvcast_answer* const answer = any(answers_);
    if (answer == nullptr) return;
    const char* piece = nullptr;
    size_t bytes = 0;
    char** const wrong = error();
    const int more = kvcast_answer_next(answer, &piece, &bytes, wrong);
    FUZZ_CHECK(more >= -1 && more <= 1);
    done(more >= 0, wrong);
    if (more == 1) FUZZ_CHECK(piece[bytes] == '\0' && is_valid_utf8({piece, bytes}));
  }
  void run() {
    kvcast_answer* const answer = any(answers_);
    if (answer == nullptr) return;
    int pieces = input_.byte() % 16;
    const auto count_down = [](void* user, const char* piece, size_t bytes) {
      FUZZ_CHECK(bytes > 0 && is_valid_utf8({piece, bytes}));
      return --*static_cast<int*>(user) <= 0 ? 1 : 0;
    };
    char** const wrong = error();
    done(kvcast_answer_run(answer, input_.byte() < 32 ? nullptr : +count_down, &pieces, wrong) == 0,
         wrong);
  }
  void stop() {
    kvcast_answer* const answer = any(answers_);
    if (answer == nullptr) return;
    input_.byte() % 2 == 0 ? kvcast_answer_cancel(answer) : kvcast_answer_end(answer);
  }
  void completion() {
    const kvcast_answer* const answer = any(answers_);
    if (answer == nullptr) return;
    const auto given = cut(kvcast_completion{}, input_);
    auto* const partly = reinterpret_cast<kvcast_completion*>(given.get());
    const size_t size = partly->struct_size;
    kvcast_answer_completion(answer, partly);
    FUZZ_CHECK(size < sizeof(size_t) || partly->struct_size == size);
    kvcast_completion whole = {};
    whole.struct_size = sizeof whole;
    kvcast_answer_completion(answer, &whole);
    check(whole);
  }
  static void check(const kvcast_completion& found) {
    check_tokens(found.tokens, found.token_count);
    FUZZ_CHECK(found.text[found.text_bytes] == '\0');
    FUZZ_CHECK(is_valid_utf8({found.text, found.text_bytes}));
    FUZZ_CHECK(found.finish_reason[0] != '\0');
    FUZZ_CHECK(found.accepted_tokens >= 0 && found.accepted_tokens <= found.drafted_tokens);
  }
  void free_answer() {
    if (answers_.empty()) return kvcast_answer_free(nullptr);
    std::swap(answers_[input_.byte() % answers_.size()], answers_.back());
    kvcast_answer_free(answers_.back());
    answers_.pop_back();
  }

  bool have_batch() {
    if (batch_ != nullptr) return true;
    kvcast_batch_options options = {};
    options.max_batch = arguments_.integer();
    options.max_cache_bytes = input_.byte() < 200 ? 0 : arguments_.integer();
    options.struct_size = sizeof options;
    const auto given = cut(options, input_);
    char** const wrong = error();
    batch_ = kvcast_batch_new(model(), reinterpret_cast<const kvcast_batch_options*>(given.get()),
                              wrong);
    done(batch_ != nullptr, wrong);
    return batch_ != nullptr;
  }
  kvcast_progress_callback progress(int& patience) {
    patience = input_.byte() % 4;
    if (input_.byte() < 128) return nullptr;
    return [](void* user, size_t) { return --*static_cast<int*>(user) < 0 ? 1 : 0; };
  }
  void generate() {
    if (!have_batch()) return;
    const auto given = arguments_.prompts(input_.byte() % 4);
    kvcast_generate_options options = arguments_.asked();
    const bool same_anywhere = options.prefill != nullptr && input_.byte() % 2 == 0 &&
                               (std::string_view(options.prefill) == "exact" ||
                                std::string_view(options.prefill) == "kv-prediction:tail=3");
    int patience = 0;
    const auto callback = progress(patience);
    std::vector<kvcast_answer*> found(given.size());
    char** const wrong = error();
    const int failed = kvcast_batch_generate(batch_, given.data(), given.size(), &options, callback,
                                             &patience, found.data(), wrong);
    done(failed == 0, wrong);
    for (size_t i = 0; failed == 0 && i < found.size(); ++i) {
      kvcast_completion whole = {};
      whole.struct_size = sizeof whole;
      kvcast_answer_completion(found[i], &whole);
      check(whole);
      if (same_anywhere && callback == nullptr) expect_session(given[i], options, whole);
      options.seed += 1;
      kvcast_answer_free(found[i]);
    }
  }
  /// That a session of its own answers the same.
  static void expect_session(const kvcast_tokens& prompt, const kvcast_generate_options& options,
                             const kvcast_completion& expected) {
    kvcast_session* const session = kvcast_session_new(model());
    kvcast_answer* const answer =
        kvcast_answer_tokens(session, prompt.data, prompt.count, &options, nullptr);
    FUZZ_CHECK(answer != nullptr);
    FUZZ_CHECK(kvcast_answer_run(answer, nullptr, nullptr, nullptr) == 0);
    kvcast_completion found = {};
    found.struct_size = sizeof found;
    kvcast_answer_completion(answer, &found);
    FUZZ_CHECK(std::equal(found.tokens, found.tokens + found.token_count, expected.tokens,
                          expected.tokens + expected.token_count));
    FUZZ_CHECK(std::string_view(found.text, found.text_bytes) ==
               std::string_view(expected.text, expected.text_bytes));
    FUZZ_CHECK(std::strcmp(found.finish_reason, expected.finish_reason) == 0);
    kvcast_answer_free(answer);
    kvcast_session_free(session);
  }
  void score() {
    if (!have_batch()) return;
    const size_t count = input_.byte() % 4;
    const auto contexts = arguments_.prompts(count), continuations = arguments_.prompts(count);
    size_t total = 0;
    for (const kvcast_tokens& each : continuations) total += each.count;
    std::vector<float> logprobs(total, 1);
    std::vector<unsigned char> likeliest(total, 2);
    int patience = 0;
    const auto callback = progress(patience);
    const char* const prefill = arguments_.strategy();
    char** const wrong = error();
    const bool wants_likeliest = input_.byte() % 2 == 0;
    const int failed = kvcast_batch_score(batch_, contexts.data(), continuations.data(), count,
                                          prefill, callback, &patience, logprobs.data(),
                                          wants_likeliest ? likeliest.data() : nullptr, wrong);
    done(failed == 0, wrong);
    for (size_t i = 0; failed == 0 && i < total; ++i) {
      FUZZ_CHECK(logprobs[i] <= 1e-4F && likeliest[i] == (wants_likeliest ? likeliest[i] & 1 : 2));
    }
  }

  Input& input_;
  CallArguments arguments_{input_};
  std::vector<kvcast_session*> sessions_;
  std::vector<kvcast_answer*> answers_;
  kvcast_chat* chat_ = nullptr;
  kvcast_batch* batch_ = nullptr;
  char* error_ = nullptr;
};

}  // namespace
}  // namespace kvcast

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  Input input(data, size);
  Caller caller(input);
  for (int calls = 0; calls < 24 && !input.empty(); ++calls) caller.call();
  return 0;
}
