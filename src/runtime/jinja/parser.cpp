#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <span>
#include <utility>

#include "runtime/jinja/syntax.h"

namespace kvcast::jinja {
namespace {

using Kind = Expression::Kind;

/// One tag's code. Precedence from loose to tight: ternary, or, and, not, comparison, ~, + -, * /
/// %, unary, filters and tests, postfix.
class ExpressionParser {
 public:
  ExpressionParser(std::string_view code, int line) : tokens_(tokenize(code, line)), line_(line) {}

  bool accept(std::string_view text, Token::Kind kind = Token::Kind::kSymbol) {
    if (peek().kind != kind || peek().text != text) return false;
    ++at_;
    return true;
  }
  bool accept_name(std::string_view name) { return accept(name, Token::Kind::kName); }
  void expect(std::string_view symbol) {
    if (!accept(symbol)) refuse(line_, fmt::format("expected \"{}\"", symbol));
  }
  std::string name() {
    if (peek().kind != Token::Kind::kName) refuse(line_, "expected a name");
    return tokens_[at_++].text;
  }
  void expect_end() {
    if (peek().kind != Token::Kind::kEnd)
      refuse(line_, fmt::format("unexpected \"{}\"", peek().text));
  }

  ExpressionPtr ternary() {
    const Deeper deeper(*this);
    ExpressionPtr value = disjunction();
    if (!accept_name("if")) return value;
    ExpressionPtr condition = disjunction();
    ExpressionPtr otherwise = accept_name("else") ? ternary() : nullptr;
    return make(Kind::kTernary, "", std::move(condition), std::move(value), std::move(otherwise));
  }
  ExpressionPtr disjunction() {
    ExpressionPtr left = conjunction();
    while (accept_name("or")) left = make(Kind::kBinary, "or", std::move(left), conjunction());
    return left;
  }

 private:
  /// Counts nesting, so that hostile templates cannot exhaust the stack.
  struct Deeper {
    explicit Deeper(ExpressionParser& parser) : owner(parser) {
      if (++owner.depth_ > kMaxDepth) refuse(owner.line_, "nested too deeply");
    }
    ~Deeper() { --owner.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    ExpressionParser& owner;
  };

  [[nodiscard]] const Token& peek() const { return tokens_[at_]; }

  template <typename... Parts>
  ExpressionPtr make(Kind kind, std::string name, Parts... parts) {
    // Chains such as a + a + a nest to the left without recursion here, but are walked recursively.
    if (++nodes_ > kMaxNodes) refuse(line_, "an expression is too long");
    auto expression = std::make_unique<Expression>();
    expression->kind = kind;
    expression->line = line_;
    expression->name = std::move(name);
    (expression->parts.push_back(std::move(parts)), ...);
    return expression;
  }

  ExpressionPtr conjunction() {
    ExpressionPtr left = negation();
    while (accept_name("and")) left = make(Kind::kBinary, "and", std::move(left), negation());
    return left;
  }
  ExpressionPtr negation() {
    const Deeper deeper(*this);
    if (accept_name("not")) return make(Kind::kUnary, "not", negation());
    return comparison();
  }
  /// "==", "not in", ...; empty if none comes.
  std::string comparator() {
    for (const auto* symbol : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (accept(symbol)) return symbol;
    }
    if (accept_name("in")) return "in";
    if (peek().text != "not" || tokens_[at_ + 1].text != "in") return {};
    at_ += 2;
    return "not in";
  }
  ExpressionPtr comparison() {
    ExpressionPtr left = concatenation();
    while (true) {
      const std::string symbol = comparator();
      if (symbol.empty()) return left;
      left =
          make(Kind::kBinary, symbol == "not in" ? "in" : symbol, std::move(left), concatenation());
      if (symbol == "not in") left = make(Kind::kUnary, "not", std::move(left));
    }
  }
  ExpressionPtr concatenation() {
    ExpressionPtr left = sum();
    while (accept("~")) left = make(Kind::kBinary, "~", std::move(left), sum());
    return left;
  }
  ExpressionPtr sum() {
    ExpressionPtr left = product();
    while (peek().text == "+" || peek().text == "-") {
      if (peek().kind != Token::Kind::kSymbol) break;
      const std::string symbol = tokens_[at_++].text;
      left = make(Kind::kBinary, symbol, std::move(left), product());
    }
    return left;
  }
  ExpressionPtr product() {
    ExpressionPtr left = power();
    while (peek().kind == Token::Kind::kSymbol && (peek().text == "*" || peek().text == "/" ||
                                                   peek().text == "//" || peek().text == "%")) {
      const std::string symbol = tokens_[at_++].text;
      left = make(Kind::kBinary, symbol, std::move(left), power());
    }
    return left;
  }
  ExpressionPtr power() {
    const Deeper deeper(*this);
    ExpressionPtr base = unary();
    return accept("**") ? make(Kind::kBinary, "**", std::move(base), power()) : std::move(base);
  }
  ExpressionPtr sign() {
    const Deeper deeper(*this);
    if (accept("-")) return make(Kind::kUnary, "-", sign());
    if (accept("+")) return sign();
    return postfix(primary());
  }
  /// "-3 | abs" is 3.
  ExpressionPtr unary() {
    ExpressionPtr value = sign();
    while (true) {
      if (accept("|")) {
        value = make(Kind::kFilter, name(), std::move(value));
        if (accept("(")) arguments(*value);
      } else if (accept_name("is")) {
        const bool negated = accept_name("not");
        value = make(Kind::kTest, name(), std::move(value));
        if (accept("(")) {
          arguments(*value);
        } else if (begins_argument()) {  // "x is divisibleby 3"
          value->parts.push_back(postfix(primary()));
        }
        if (negated) value = make(Kind::kUnary, "not", std::move(value));
      } else {
        return value;
      }
    }
  }
  [[nodiscard]] bool begins_argument() const {
    const auto& [kind, text] = peek();
    if (kind == Token::Kind::kSymbol) return text == "[" || text == "{";
    if (kind != Token::Kind::kName) return kind != Token::Kind::kEnd;
    static constexpr std::string_view kWords[] = {"and", "or", "not", "if", "else", "in", "is"};
    return std::ranges::find(kWords, text) == std::end(kWords);
  }
  ExpressionPtr postfix(ExpressionPtr value) {
    while (true) {
      if (accept(".")) {
        if (peek().kind == Token::Kind::kInteger) {  // "item.0" is item[0]
          value = make(Kind::kIndex, "", std::move(value), primary());
        } else {
          value = make(Kind::kAttribute, name(), std::move(value));
        }
      } else if (accept("(")) {
        value = make(Kind::kCall, "", std::move(value));
        arguments(*value);
      } else if (accept("[")) {
        value = subscript(std::move(value));
      } else {
        return value;
      }
    }
  }
  ExpressionPtr subscript(ExpressionPtr value) {
    ExpressionPtr bounds[3];
    size_t colons = 0;
    while (!accept("]")) {
      if (accept(":")) {
        if (++colons > 2) refuse(line_, "too many \":\" in a slice");
      } else {
        bounds[colons] = ternary();
      }
    }
    if (colons == 0) {
      if (!bounds[0]) refuse(line_, "expected an index");
      return make(Kind::kIndex, "", std::move(value), std::move(bounds[0]));
    }
    return make(Kind::kSlice, "", std::move(value), std::move(bounds[0]), std::move(bounds[1]),
                std::move(bounds[2]));
  }
  void arguments(Expression& call) {
    if (accept(")")) return;
    do {
      if (peek().kind == Token::Kind::kName && tokens_[at_ + 1].text == "=" &&
          tokens_[at_ + 1].kind == Token::Kind::kSymbol) {
        std::string argument = name();
        expect("=");
        call.named.emplace_back(std::move(argument), ternary());
      } else {
        call.parts.push_back(ternary());
      }
    } while (accept(","));
    expect(")");
  }
  ExpressionPtr literal(Value value) {
    ExpressionPtr expression = make(Kind::kLiteral, "");
    expression->value = std::move(value);
    return expression;
  }
  ExpressionPtr primary() {
    const Token token = peek();
    switch (token.kind) {
      case Token::Kind::kText: {
        ++at_;
        std::string text = token.text;  // adjacent strings join, as in Python
        while (peek().kind == Token::Kind::kText) text += tokens_[at_++].text;
        return literal(std::move(text));
      }
      case Token::Kind::kInteger: {
        ++at_;
        int64_t number = 0;
        std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
        return literal(number);
      }
      case Token::Kind::kFloat: {
        ++at_;
        double number = 0;
        std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
        return literal(number);
      }
      case Token::Kind::kName:
        ++at_;
        if (token.text == "true" || token.text == "True") return literal(true);
        if (token.text == "false" || token.text == "False") return literal(false);
        if (token.text == "none" || token.text == "None") return literal(None{});
        return make(Kind::kName, token.text);
      case Token::Kind::kSymbol:
        if (accept("(")) {
          if (accept(")")) return make(Kind::kList, "");
          ExpressionPtr inner = ternary();
          if (peek().text == "," && peek().kind == Token::Kind::kSymbol)
            return tuple(std::move(inner));
          expect(")");
          return inner;
        }
        if (accept("[")) return sequence(Kind::kList, "]");
        if (accept("{")) return sequence(Kind::kMap, "}");
        break;
      case Token::Kind::kEnd:
        break;
    }
    refuse(line_, token.text.empty() ? "an expression is missing"
                                     : fmt::format("unexpected \"{}\"", token.text));
  }
  /// "(a, b)": a list that is not changed.
  ExpressionPtr tuple(ExpressionPtr first) {
    ExpressionPtr all = make(Kind::kList, "", std::move(first));
    while (accept(",") && peek().text != ")") all->parts.push_back(ternary());
    expect(")");
    return all;
  }
  ExpressionPtr sequence(Kind kind, std::string_view close) {
    ExpressionPtr all = make(kind, "");
    while (!accept(close)) {
      all->parts.push_back(ternary());
      if (kind == Kind::kMap) {
        expect(":");
        all->parts.push_back(ternary());
      }
      if (!accept(",")) {
        expect(close);
        break;
      }
    }
    return all;
  }

  static constexpr int kMaxNodes = 500;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_;
  int depth_ = 0;
  int nodes_ = 0;
};

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
