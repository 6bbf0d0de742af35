#include "base/confine.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <thread>

#include "support/temporary_directory.h"

namespace kvcast {
namespace {

/// Whether `holds` does in a process that is confined to `writable`; nullopt: the kernel cannot.
std::optional<bool> when_confined(const std::vector<std::filesystem::path>& writable,
                                  const std::function<bool()>& holds) {
  constexpr int kCannot = 77;
  const pid_t child = ::fork();
  if (child == 0) {
    const auto confined = confine_files(writable);
    if (!confined) ::_exit(1);
    if (!*confined) ::_exit(kCannot);
    bool result = false;
    std::thread([&] { result = holds(); }).join();  // threads that start later are confined too
    ::_exit(result ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFEXITED(status)) return false;
  if (WEXITSTATUS(status) == kCannot) return std::nullopt;
  return WEXITSTATUS(status) == 0;
}

bool can_write(const std::filesystem::path& file) { return std::ofstream(file).put('x').good(); }

class Confine : public testing::Test {
 protected:
  void SetUp() override {
    if (!when_confined({}, [] { return true; })) GTEST_SKIP() << "the kernel has no Landlock";
    directory_.write("kept", "text");
    std::filesystem::create_directory(path() / "store");
  }
  [[nodiscard]] const std::filesystem::path& path() const { return directory_.path(); }
  TemporaryDirectory directory_;
};

TEST_F(Confine, NothingIsWrittenButBelowTheFoldersNamed) {
  EXPECT_TRUE(can_write(path() / "before"));
  EXPECT_EQ(when_confined({path() / "store"},
                          [&] {
                            std::error_code error;
                            return can_write(path() / "store/new") && !can_write(path() / "new") &&
                                   !can_write(path() / "kept") &&
                                   !std::filesystem::remove(path() / "kept", error) &&
                                   !std::filesystem::create_directory(path() / "folder", error) &&
                                   std::ifstream(path() / "kept").get() == 't';
                          }),
            true);
  EXPECT_TRUE(std::filesystem::exists(path() / "store/new"));
  EXPECT_EQ(std::filesystem::file_size(path() / "kept"), 4U);
}

TEST_F(Confine, NothingIsExecuted) {
  EXPECT_EQ(when_confined({},
                          [] {
                            const pid_t child = ::fork();
                            if (child == 0) {
                              ::execl("/bin/true", "true", nullptr);
                              ::_exit(errno == EACCES ? 42 : 1);
                            }
                            int status = 0;
                            ::waitpid(child, &status, 0);
                            return WIFEXITED(status) && WEXITSTATUS(status) == 42;
                          }),
            true);
}

TEST_F(Confine, AFolderThatIsNotThereIsAnError) {
  const std::vector<std::filesystem::path> nowhere = {path() / "nowhere"};
  const auto confined = confine_files(nowhere);
  ASSERT_FALSE(confined);
  EXPECT_NE(confined.error().message.find("nowhere: cannot be allowed"), std::string::npos);
}

}  // namespace
}  // namespace kvcast
