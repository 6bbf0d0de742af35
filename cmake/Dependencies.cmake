# What kvcast is built on, and why: docs/ARCHITECTURE.md, "Dependencies".
find_package(tl-expected REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Threads REQUIRED)
if(KVCAST_BUILD_PROGRAM)
  find_package(Boost 1.81 REQUIRED)  # Beast and Asio, headers only
  find_package(ZLIB REQUIRED)
  find_package(Eigen3 REQUIRED)  # a Cholesky factorisation; headers only
  find_library(LIBMD_LIBRARY md REQUIRED)  # SHA-256
  find_library(LIBEDIT_LIBRARY edit REQUIRED)
endif()

# Debian's sentencepiece brings pkg-config data, not a CMake package.
find_library(SENTENCEPIECE_LIBRARY sentencepiece REQUIRED)
find_library(SENTENCEPIECE_TRAIN_LIBRARY sentencepiece_train)
find_path(SENTENCEPIECE_INCLUDE_DIR sentencepiece_processor.h REQUIRED)
add_library(sentencepiece INTERFACE IMPORTED)
set_target_properties(sentencepiece PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES ${SENTENCEPIECE_INCLUDE_DIR}
  INTERFACE_LINK_LIBRARIES ${SENTENCEPIECE_LIBRARY})

# Pre-tokenizers' regular expressions, and Unicode's canonical forms: pkg-config data too.
find_library(PCRE2_LIBRARY pcre2-8 REQUIRED)
find_library(UTF8PROC_LIBRARY utf8proc REQUIRED)

if(KVCAST_BUILD_TRAINER)
  # PyTorch's CMake files warn about its own optional parts; only found or not matters here.
  find_package(Torch QUIET)
endif()
if(KVCAST_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(KVCAST_BUILD_BENCHMARKS)
  find_package(benchmark QUIET)
endif()
