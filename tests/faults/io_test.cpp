// Reads and writes that go wrong at every n-th call of a program (preload/io_faults.cpp): short and
// interrupted ones change nothing; where there is no room, or a device fails, it ends with one line
// and leaves what was there before.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "server/http_client.h"
#include "server/tiny_bundle.h"
#include "support/run_program.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

using Files = std::map<std::string, std::string>;

Files files_below(const fs::path& folder) {
  Files found;
  std::error_code ignored;
  for (const auto& entry : fs::recursive_directory_iterator(folder, ignored)) {
    if (!entry.is_regular_file()) continue;
    found[entry.path().lexically_relative(folder)] = read_text_file(entry.path()).value_or("?");
  }
  return found;
}

class IoFaults : public testing::Test {
 protected:
  static const TinyBundle& bundle() {
    static const TinyBundle made;
    return made;
  }
  static std::string program() { return std::string(KVCAST_BINARY_DIR) + "/kvcast"; }

  /// The command with a fault.
  [[nodiscard]] std::vector<std::string> faulty(const std::string& fault,
                                                std::vector<std::string> command) const {
    fs::create_directories(store());
    fs::remove(mark());
    command.insert(
        command.begin(),
        {"/usr/bin/env", "LD_PRELOAD=" + std::string(KVCAST_BINARY_DIR) + "/libkvcast_io_faults.so",
         "KVCAST_IO_FAULT=" + fault, "KVCAST_IO_FAULT_MARK=" + mark().string()});
    return command;
  }
  /// In the only folder that a server may write to.
  [[nodiscard]] fs::path store() const { return files_.path() / "store"; }
  [[nodiscard]] fs::path mark() const { return store() / "mark"; }
  [[nodiscard]] bool happened() const { return fs::exists(mark()); }

  /// Runs the command with each n until it makes fewer calls. `check` is told how it ended.
  template <typename Check>
  void for_each_call(const std::string& kind, const std::vector<std::string>& command,
                     const Check& check) {
    const bool every = std::getenv("KVCAST_EVERY_CALL") != nullptr;
    int64_t tried = 0;
    for (int64_t n = 1; !HasFailure(); n += every || n < 12 ? 1 : 1 + n / 6, ++tried) {
      const std::string number = std::to_string(n);
      const std::string fault = kind.ends_with('+')
                                    ? kind.substr(0, kind.size() - 1) + ":" + number + "+"
                                    : kind + ":" + number;
      SCOPED_TRACE(fault);
      Program running(faulty(fault, command));
      const int status = running.wait();
      if (!happened()) break;
      EXPECT_TRUE(status == 0 || status == 1) << "status " << status << ": " << running.err();
      if (status != 0) {
        EXPECT_EQ(running.err().find('\n'), running.err().size() - 1) << running.err();
      }
      check(status, running);
    }
    EXPECT_GT(tried, 3);
    std::cout << kind << ": " << tried << " calls went wrong\n";
  }

  /// What the command makes in out() is there as if nothing had been, or not at all.
  void expect_whole_or_nothing(const std::vector<std::string>& command) {
    fs::create_directories(out().parent_path());
    Program undisturbed(command);
    ASSERT_EQ(undisturbed.wait(), 0) << undisturbed.err();
    const Files whole = files_below(out());
    ASSERT_FALSE(whole.empty());
    for (const char* kind : {"short", "EINTR", "ENOSPC", "ENOSPC+", "EIO", "EIO+"}) {
      fs::remove_all(out());
      for_each_call(kind, command, [&](int status, const Program& running) {
        const bool harmless =
            std::string_view(kind) == "short" || std::string_view(kind) == "EINTR";
        if (harmless) {
          EXPECT_EQ(status, 0) << running.err();
        }
        const Files made = files_below(out());
        EXPECT_TRUE(made == whole || (status != 0 && made.empty()));
        // `fit` keeps what it has gathered; what is kept is whole too.
        if (made.empty() && !files_below(out().parent_path()).empty()) {
          Program again(command);
          EXPECT_EQ(again.wait(), 0) << again.err();
          EXPECT_EQ(files_below(out()), whole);
        }
        fs::remove_all(out().parent_path());
        fs::create_directories(out().parent_path());
      });
    }
  }
  [[nodiscard]] fs::path out() const { return files_.path() / "out/bundle"; }

  TemporaryDirectory files_;
};

TEST_F(IoFaults, OfConvertLeaveNothingHalfWritten) {
  expect_whole_or_nothing({program(), "convert", bundle().path(), out(), "--dtype", "int8"});
}

TEST_F(IoFaults, OfFitLeaveNothingHalfWritten) {
  std::string text;
  for (int i = 0; i < 900; ++i) {
    text += "line " + std::to_string(i * i % 997) + " of a text about rivers, " +
            std::to_string(i) + "\n";
  }
  files_.write("text.txt", text);
  expect_whole_or_nothing({program(), "fit", bundle().path() / "base", "self:2", "--window", "32",
                           "--tokens", "3840", "--sink-tokens", "2", "--threads", "1", "--data",
                           files_.path() / "text.txt", "--out", out()});
}

TEST_F(IoFaults, OfAnAnswerEndInOneLine) {
  const std::vector<std::string> command = {
      program(), "run", bundle().path(), "-p", "The cat", "-n", "4", "--prefill", "kv-prediction"};
  Program undisturbed(command);
  ASSERT_EQ(undisturbed.wait(), 0) << undisturbed.err();
  for (const char* kind : {"short", "EINTR", "EIO", "EIO+"}) {
    for_each_call(kind, command, [&](int status, const Program& running) {
      if (status == 0) {
        EXPECT_EQ(running.out(), undisturbed.out());
      }
    });
  }
}

/// The port that a server says it listens on; 0: it ended before that.
uint16_t port_of(Program& server) {
  constexpr std::string_view kBegin = "http://127.0.0.1:";
  while (true) {
    const std::string said = server.err();
    const size_t at = said.find(kBegin);
    if (at != std::string::npos && said.find('\n', at) != std::string::npos) {
      return static_cast<uint16_t>(std::stoi(said.substr(at + kBegin.size())));
    }
    if (server.wait(std::chrono::milliseconds(2)) >= 0) return 0;
  }
}

/// False: it ended before that.
bool becomes_ready(Program& server, uint16_t port) {
  while (HttpClient(port).get("/health").status != 200) {
    if (server.wait(std::chrono::milliseconds(5)) >= 0) return false;
  }
  return true;
}

TEST_F(IoFaults, OfAServerCostTheRequestAtMost) {
  const nlohmann::json body = {
      {"prompt", std::string(120, 'a')}, {"max_tokens", 4}, {"stream", true}, {"prefill", "exact"}};
  int64_t begun = 0, refused = 0;
  for (const std::string kind : {"short", "EINTR", "ENOSPC", "EIO"}) {
    for (int64_t n = 1; !HasFailure(); n += n < 20 ? 1 : 1 + n / 4) {
      const std::string fault = kind + ":" + std::to_string(n);
      SCOPED_TRACE(fault);
      Program server(faulty(
          fault, {program(), "serve", bundle().path(), "--port", "0", "--prefix-store", store()}));
      const uint16_t port = port_of(server);
      const bool answers = port != 0 && becomes_ready(server, port);
      for (int i = 0; i < 3 && answers; ++i) {
        constexpr int kPatience = 30;
        const auto start = std::chrono::steady_clock::now();
        const int status = HttpClient(port, kPatience).post("/v1/completions", body).status;
        EXPECT_TRUE(status == 200 || status == 500 || status == 0) << status;
        EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(kPatience))
            << "nobody answered, nobody hung up";
      }
      if (!answers) {  // it could not begin
        EXPECT_EQ(server.wait(), 1) << server.err();
        EXPECT_TRUE(happened());
        EXPECT_THAT(server.err(), testing::HasSubstr("kvcast: "));
        ++refused;
        continue;
      }
      const bool was_wrong = happened();
      if (was_wrong) {
        const ClientResponse after = HttpClient(port).post("/v1/completions", body);
        EXPECT_EQ(after.status, 200);
        EXPECT_THAT(after.body, testing::HasSubstr("[DONE]"));
      }
      server.send(SIGTERM);
      EXPECT_EQ(server.wait(), 0) << server.err();
      if (!was_wrong) break;
      ++begun;
    }
  }
  EXPECT_GT(begun, 20);
  std::cout << begun << " calls went wrong in a server that went on, " << refused
            << " in one that could not begin\n";
}

}  // namespace
}  // namespace kvcast
