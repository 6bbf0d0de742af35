// What code from a model may try, and must not get.
#include "eval/sandbox.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "support/temporary_directory.h"

namespace kvcast {
namespace {

class SandboxedCode : public testing::Test {
 protected:
  void SetUp() override {
    auto sandbox = Sandbox::create({.seconds = 3});
    if (!sandbox) GTEST_SKIP() << sandbox.error().message;
    sandbox_.emplace(*sandbox);
  }
  Sandbox::Outcome run(const std::string& source) { return sandbox_->run_python(source); }

  std::optional<Sandbox> sandbox_;
};

using Outcome = Sandbox::Outcome;

TEST_F(SandboxedCode, PassesIfItRunsToItsEnd) {
  EXPECT_EQ(run("import math, typing, re, collections\nassert math.sqrt(4) == 2\n"),
            Outcome::kPassed);
  EXPECT_EQ(run("open('/tmp/x', 'w').write('1')\nassert open('/tmp/x').read() == '1'"),
            Outcome::kPassed);
  EXPECT_EQ(run("print('x' * 10_000_000)"), Outcome::kPassed);
}

TEST_F(SandboxedCode, FailsIfItDoesNot) {
  for (const char* source :
       {"assert 1 == 2", "raise SystemExit(0)", "def f(:", "import os; os._exit(0)",
        "import sys; sys.exit(0)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "print('passed'); import os; os.write(1, b'passed'); os._exit(0)"}) {
    EXPECT_EQ(run(source), Outcome::kFailed) << source;
  }
}

TEST_F(SandboxedCode, EndlessLoopsAndSleepsAreCutOff) {
  for (const char* source : {"while True: pass", "import time; time.sleep(1000)",
                             "import signal\nfor s in range(1, 32):\n  try: signal.signal(s, "
                             "signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
                             "while True: pass"}) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_NE(run(source), Outcome::kPassed) << source;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << source;
  }
}

TEST_F(SandboxedCode, CannotForkOrStartThreadsOrPrograms) {
  EXPECT_EQ(run("import os\ntry: os.fork()\nexcept OSError: pass\nelse: os._exit(1)\n"
                "import threading\n"
                "try: threading.Thread(target=print).start()\nexcept RuntimeError: pass\n"
                "else: os._exit(1)\n"
                "import subprocess\ntry: subprocess.run(['/usr/bin/true'])\n"
                "except OSError: pass\nelse: os._exit(1)\n"),
            Outcome::kPassed);
  EXPECT_NE(run("import os\nwhile True: os.fork()"), Outcome::kPassed);
}

TEST_F(SandboxedCode, CannotRaiseItsLimits) {
  EXPECT_EQ(run("import resource\n"
                "for what in (resource.RLIMIT_NPROC, resource.RLIMIT_AS, resource.RLIMIT_CPU):\n"
                "  try: resource.setrlimit(what, (-1, -1))\n"
                "  except (ValueError, OSError): continue\n"
                "  raise AssertionError(what)\n"),
            Outcome::kPassed);
}

TEST_F(SandboxedCode, CannotWriteOrReadOutsideItsOwnFolder) {
  const TemporaryDirectory directory;
  directory.write("secret", "s");
  const std::string inside = directory.path().string();
  EXPECT_EQ(run(fmt::format("import os\nassert not os.path.exists('{0}')\n"
                            "for path in ('{0}/made', '/usr/made', '/made', '/etc/made', "
                            "'/dev/made', '/usr/bin/python3'):\n"
                            "  try: open(path, 'w')\n  except OSError: continue\n"
                            "  raise AssertionError(path)\n"
                            "for path in ('{0}/secret', '/etc/passwd', '/proc/1/cmdline', "
                            "'/sys/kernel', '/root', '/home'):\n"
                            "  assert not os.path.exists(path), path\n",
                            inside)),
            Outcome::kPassed);
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "made"));
  EXPECT_FALSE(std::filesystem::exists("/usr/made"));
}

TEST_F(SandboxedCode, LeavesNothingForTheNextRun) {
  ASSERT_EQ(run("open('/tmp/left', 'w').write('1')"), Outcome::kPassed);
  EXPECT_EQ(run("import os\nassert os.listdir('/tmp') == []"), Outcome::kPassed);
  EXPECT_FALSE(std::filesystem::exists("/tmp/left"));
}

TEST_F(SandboxedCode, HasNoNetworkNotEvenThisMachines) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  EXPECT_EQ(run(fmt::format("import socket\n"
                            "for host, port in (('127.0.0.1', {}), ('1.1.1.1', 53)):\n"
                            "  try: socket.create_connection((host, port), 1)\n"
                            "  except OSError: continue\n"
                            "  raise AssertionError(host)\n",
                            ntohs(address.sin_port))),
            Outcome::kPassed);
  close(listener);
}

TEST_F(SandboxedCode, CannotTakeAllMemoryOrFillTheDisk) {
  EXPECT_NE(run("x = []\nwhile True: x.append(bytearray(1 << 24))"), Outcome::kPassed);
  EXPECT_NE(run("x = bytearray(1 << 34)"), Outcome::kPassed);
  EXPECT_NE(run("open('/tmp/big', 'wb').write(bytes(1 << 26))"), Outcome::kPassed);
  EXPECT_NE(run("for i in range(100000):\n  open(f'/tmp/{i}', 'wb').write(bytes(1 << 19))"),
            Outcome::kPassed);
}

TEST_F(SandboxedCode, IsNotRootAndHasNoOtherProcessToSee) {
  EXPECT_EQ(run("import os\nassert os.getuid() != 0\nassert os.getppid() <= 1\n"
                "try: os.setuid(0)\nexcept OSError: pass\nelse: raise AssertionError\n"
                "try: os.kill(-1, 9)\nexcept OSError: pass\n"),
            Outcome::kPassed);
}

}  // namespace
}  // namespace kvcast
