#include <fmt/format.h>

#include <charconv>

#include "kvcast/session.h"

namespace kvcast {

Status check_drafts(int64_t drafts) {
  if (drafts >= kDraftsAuto && drafts <= kMostDrafts) return {};
  return fail(fmt::format("drafts: {}, expected a whole number from 0 to {}, or -1 for auto",
                          drafts, kMostDrafts));
}

Result<int64_t> parse_drafts(std::string_view text) {
  if (text == "auto") return kDraftsAuto;
  if (text == "off") return 0;
  int64_t drafts = 0;
  const char* const end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data(), end, drafts);
  if (error == std::errc{} && after == end && drafts >= 1 && drafts <= kMostDrafts) return drafts;
  return fail(fmt::format("drafts: \"{}\", expected auto, off or a whole number from 1 to {}", text,
                          kMostDrafts));
}

}  // namespace kvcast
