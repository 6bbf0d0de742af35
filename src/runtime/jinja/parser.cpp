#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/jinja/expression_parser.h"

namespace kvcast::jinja {
namespace {

/// Statements: text and tags.
class BlockParser {
 public:
  explicit BlockParser(std::string_view source) : segments_(split(source)) {}

  Block all() {
    Block block = until({});
    return block;
  }

 private:
  /// The first word of a statement's tag.
  static std::string_view keyword_of(std::string_view code) {
    const size_t start = std::min(code.find_first_not_of(" \t\r\n"), code.size());
    const size_t end = std::min(code.find_first_of(" \t\r\n", start), code.size());
    return code.substr(start, end - start);
  }

  /// Statements up to a tag with one of `ends`, which stays unread. None: up to the end.
  Block until(std::vector<std::string_view> ends) {
    if (++depth_ > kMaxDepth) refuse(line(), "blocks are nested too deeply");
    Block block;
    while (at_ < segments_.size()) {
      const Segment segment = segments_[at_];
      if (segment.kind == Segment::Kind::kText) {
        Statement& text = add(block, Statement::Kind::kText);
        text.text = segment.text;
        ++at_;
      } else if (segment.kind == Segment::Kind::kExpression) {
        ExpressionParser parser(segment.text, segment.line);
        Statement& output = add(block, Statement::Kind::kOutput);
        output.value = parser.ternary();
        parser.expect_end();
        ++at_;
      } else {
        const std::string_view keyword = keyword_of(segment.text);
        if (std::ranges::find(ends, keyword) != ends.end()) break;
        statement(block, segment, keyword);
      }
    }
    if (at_ == segments_.size() && !ends.empty())
      refuse(line(), fmt::format("{} is missing", ends.back()));
    --depth_;
    return block;
  }

  void statement(Block& block, const Segment& segment, std::string_view keyword) {
    ExpressionParser parser(segment.text, segment.line);
    parser.name();
    if (keyword == "generation" || keyword == "endgeneration") {  // marks for training only
      ++at_;
      return;
    }
    if (keyword == "if") return condition(block, parser);
    if (keyword == "for") return loop(block, parser);
    if (keyword == "macro") return macro(block, parser);
    if (keyword == "set") return assignment(block, parser);
    if (keyword == "break" || keyword == "continue") {
      if (loops_ == 0) refuse(segment.line, fmt::format("{} outside a loop", keyword));
      add(block, keyword == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue);
    } else {
      refuse(segment.line, fmt::format("\"{}\" is not supported; known are if, for, set, macro, "
                                       "break and continue",
                                       keyword));
    }
    parser.expect_end();
    ++at_;
  }

  void condition(Block& block, ExpressionParser& parser) {
    Statement& branch = add(block, Statement::Kind::kIf);
    branch.condition = parser.ternary();
    parser.expect_end();
    ++at_;
    branch.body = until({"elif", "else", "endif"});
    const Segment next = segments_[at_];
    const std::string_view keyword = keyword_of(next.text);
    if (keyword == "elif") {
      ExpressionParser again(next.text, next.line);
      again.name();
      if (++branches_ > kMaxBranches) refuse(next.line, "too many branches");
      return condition(branch.otherwise, again);
    }
    ++at_;
    if (keyword == "else") {
      branch.otherwise = until({"endif"});
      ++at_;
    }
  }

  /// Up to the tag `end`, which is read.
  Block body_until(std::string_view end) {
    ++at_;
    Block body = until({end});
    ++at_;
    return body;
  }

  void assignment(Block& block, ExpressionParser& parser) {
    Statement& set = add(block, Statement::Kind::kSet);
    do {
      set.names.push_back(parser.name());
    } while (parser.accept(","));
    if (set.names.size() == 1 && parser.accept(".")) set.attribute = parser.name();
    if (parser.accept("=")) {
      set.value = parser.ternary();
      parser.expect_end();
      ++at_;
      return;
    }
    if (set.names.size() > 1 || !set.attribute.empty()) parser.expect("=");
    set.kind = Statement::Kind::kSetBlock;
    parser.expect_end();
    set.body = body_until("endset");
  }

  void macro(Block& block, ExpressionParser& parser) {
    Statement& made = add(block, Statement::Kind::kMacro);
    made.names.push_back(parser.name());
    parser.expect("(");
    while (!parser.accept(")")) {
      made.names.push_back(parser.name());
      made.defaults.push_back(parser.accept("=") ? parser.ternary() : nullptr);
      if (parser.accept(",")) continue;
      parser.expect(")");
      break;
    }
    parser.expect_end();
    const int loops = std::exchange(loops_, 0);
    made.body = body_until("endmacro");
    loops_ = loops;
  }

  void loop(Block& block, ExpressionParser& parser) {
    Statement& loop = add(block, Statement::Kind::kFor);
    do {
      loop.names.push_back(parser.name());
    } while (parser.accept(","));
    if (!parser.accept_name("in")) refuse(line(), "expected \"in\"");
    loop.value = parser.disjunction();
    if (parser.accept_name("if")) loop.condition = parser.disjunction();
    parser.expect_end();
    ++at_;
    ++loops_;
    loop.body = until({"else", "endfor"});
    --loops_;
    const bool has_else = keyword_of(segments_[at_++].text) == "else";
    if (has_else) {
      loop.otherwise = until({"endfor"});
      ++at_;
    }
  }

  [[nodiscard]] int line() const {
    return segments_.empty() ? 1 : segments_[std::min(at_, segments_.size() - 1)].line;
  }
  Statement& add(Block& block, Statement::Kind kind) {
    Statement& statement = block.emplace_back();
    statement.kind = kind;
    statement.line = line();
    return statement;
  }

  std::vector<Segment> segments_;
  size_t at_ = 0;
  static constexpr int kMaxBranches = 256;  // elif, in the whole template
  int depth_ = 0;
  int loops_ = 0;
  int branches_ = 0;
};

}  // namespace

Block parse(std::string_view source) { return BlockParser(source).all(); }

}  // namespace kvcast::jinja
