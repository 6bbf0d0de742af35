// The expressions of the template language.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/jinja/syntax.h"

namespace kvcast::jinja {

/// One tag's code. Precedence from loose to tight: ternary, or, and, not, comparison, ~, + -, * /
/// %, unary, filters and tests, postfix.
class ExpressionParser {
 public:
  /// Errors name `line`.
  ExpressionParser(std::string_view code, int line) : tokens_(tokenize(code, line)), line_(line) {}

  /// Takes the next token if it is this one.
  bool accept(std::string_view text, Token::Kind kind = Token::Kind::kSymbol);
  bool accept_name(std::string_view name) { return accept(name, Token::Kind::kName); }
  void expect(std::string_view symbol);
  std::string name();
  void expect_end();

  /// An expression of any kind; below it one without an inline "if".
  ExpressionPtr ternary();
  ExpressionPtr disjunction();

 private:
  using Kind = Expression::Kind;
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
  ExpressionPtr make(Kind kind, std::string name, Parts... parts);

  ExpressionPtr conjunction();
  ExpressionPtr negation();
  std::string comparator();
  ExpressionPtr comparison();
  ExpressionPtr concatenation();
  ExpressionPtr sum();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr sign();
  ExpressionPtr unary();
  [[nodiscard]] bool begins_argument() const;
  ExpressionPtr postfix(ExpressionPtr value);
  ExpressionPtr subscript(ExpressionPtr value);
  void arguments(Expression& call);
  ExpressionPtr literal(Value value);
  ExpressionPtr primary();
  ExpressionPtr tuple(ExpressionPtr first);
  ExpressionPtr sequence(Kind kind, std::string_view close);

  static constexpr int kMaxNodes = 500;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_;
  int depth_ = 0;
  int nodes_ = 0;
};

}  // namespace kvcast::jinja
