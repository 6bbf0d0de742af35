#pragma once

#include <span>
#include <string_view>

namespace kvcast {

/// A file of the page at "/", embedded at build time from src/server/page/.
struct PageFile {
  std::string_view path;
  std::string_view content_type;
  std::string_view body;
};

/// "/", the style sheet and the scripts.
std::span<const PageFile> page_files();

}  // namespace kvcast
