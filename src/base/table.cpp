#include "base/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvcast {
namespace {

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

std::string markdown_cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2)
    text.insert(at, "\\");
  return text;
}

}  // namespace

std::string Table::to_markdown() const {
  std::vector<size_t> widths;
  for (size_t column = 0; column < headers.size(); ++column) {
    widths.push_back(std::max<size_t>(headers[column].size(), 3));
    for (const auto& row : rows) widths[column] = std::max(widths[column], row[column].size());
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text = "|";
    for (size_t column = 0; column < cells.size(); ++column) {
      text += column < text_columns
                  ? fmt::format(" {:<{}} |", markdown_cell(cells[column]), widths[column])
                  : fmt::format(" {:>{}} |", markdown_cell(cells[column]), widths[column]);
    }
    return text + "\n";
  };
  std::string text = line(headers) + "|";
  for (size_t column = 0; column < headers.size(); ++column) {
    const bool is_text = column < text_columns;
    const std::string dashes(widths[column] - (is_text ? 0 : 1), '-');
    text += fmt::format(" {}{} |", dashes, is_text ? "" : ":");
  }
  text += "\n";
  for (const auto& row : rows) text += line(row);
  return text;
}

std::string Table::to_csv() const {
  std::string text;
  const auto add_line = [&](const std::vector<std::string>& cells) {
    for (size_t column = 0; column < cells.size(); ++column) {
      text += (column > 0 ? "," : "") + csv_cell(cells[column]);
    }
    text += "\n";
  };
  add_line(headers);
  for (const auto& row : rows) add_line(row);
  return text;
}

std::string with_thousands(long long number) {
  std::string digits = std::to_string(number);
  const size_t first = number < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, ",");
  return digits;
}

}  // namespace kvcast
