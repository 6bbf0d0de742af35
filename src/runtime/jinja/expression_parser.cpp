#include "runtime/jinja/expression_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace kvcast::jinja {

bool ExpressionParser::accept(std::string_view text, Token::Kind kind) {
  if (peek().kind != kind || peek().text != text) return false;
  ++at_;
  return true;
}

void ExpressionParser::expect(std::string_view symbol) {
  if (!accept(symbol)) refuse(line_, fmt::format("expected \"{}\"", symbol));
}

std::string ExpressionParser::name() {
  if (peek().kind != Token::Kind::kName) refuse(line_, "expected a name");
  return tokens_[at_++].text;
}

void ExpressionParser::expect_end() {
  if (peek().kind != Token::Kind::kEnd)
    refuse(line_, fmt::format("unexpected \"{}\"", peek().text));
}

ExpressionPtr ExpressionParser::ternary() {
  const Deeper deeper(*this);
  ExpressionPtr value = disjunction();
  if (!accept_name("if")) return value;
  ExpressionPtr condition = disjunction();
  ExpressionPtr otherwise = accept_name("else") ? ternary() : nullptr;
  return make(Kind::kTernary, "", std::move(condition), std::move(value), std::move(otherwise));
}

ExpressionPtr ExpressionParser::disjunction() {
  ExpressionPtr left = conjunction();
  while (accept_name("or")) left = make(Kind::kBinary, "or", std::move(left), conjunction());
  return left;
}

template <typename... Parts>
ExpressionPtr ExpressionParser::make(Kind kind, std::string name, Parts... parts) {
  // Chains such as a + a + a nest to the left without recursion here, but are walked recursively.
  if (++nodes_ > kMaxNodes) refuse(line_, "an expression is too long");
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line_;
  expression->name = std::move(name);
  (expression->parts.push_back(std::move(parts)), ...);
  return expression;
}

ExpressionPtr ExpressionParser::conjunction() {
  ExpressionPtr left = negation();
  while (accept_name("and")) left = make(Kind::kBinary, "and", std::move(left), negation());
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  const Deeper deeper(*this);
  if (accept_name("not")) return make(Kind::kUnary, "not", negation());
  return comparison();
}

/// "==", "not in", ...; empty if none comes.
std::string ExpressionParser::comparator() {
  for (const auto* symbol : {"==", "!=", "<=", ">=", "<", ">"}) {
    if (accept(symbol)) return symbol;
  }
  if (accept_name("in")) return "in";
  if (peek().text != "not" || tokens_[at_ + 1].text != "in") return {};
  at_ += 2;
  return "not in";
}

ExpressionPtr ExpressionParser::comparison() {
  ExpressionPtr left = concatenation();
  while (true) {
    const std::string symbol = comparator();
    if (symbol.empty()) return left;
    left =
        make(Kind::kBinary, symbol == "not in" ? "in" : symbol, std::move(left), concatenation());
    if (symbol == "not in") left = make(Kind::kUnary, "not", std::move(left));
  }
}

ExpressionPtr ExpressionParser::concatenation() {
  ExpressionPtr left = sum();
  while (accept("~")) left = make(Kind::kBinary, "~", std::move(left), sum());
  return left;
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = product();
  while (peek().text == "+" || peek().text == "-") {
    if (peek().kind != Token::Kind::kSymbol) break;
    const std::string symbol = tokens_[at_++].text;
    left = make(Kind::kBinary, symbol, std::move(left), product());
  }
  return left;
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (peek().kind == Token::Kind::kSymbol &&
         (peek().text == "*" || peek().text == "/" || peek().text == "//" || peek().text == "%")) {
    const std::string symbol = tokens_[at_++].text;
    left = make(Kind::kBinary, symbol, std::move(left), power());
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  const Deeper deeper(*this);
  ExpressionPtr base = unary();
  return accept("**") ? make(Kind::kBinary, "**", std::move(base), power()) : std::move(base);
}

ExpressionPtr ExpressionParser::sign() {
  const Deeper deeper(*this);
  if (accept("-")) return make(Kind::kUnary, "-", sign());
  if (accept("+")) return sign();
  return postfix(primary());
}

/// "-3 | abs" is 3.
ExpressionPtr ExpressionParser::unary() {
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

bool ExpressionParser::begins_argument() const {
  const auto& [kind, text] = peek();
  if (kind == Token::Kind::kSymbol) return text == "[" || text == "{";
  if (kind != Token::Kind::kName) return kind != Token::Kind::kEnd;
  static constexpr std::string_view kWords[] = {"and", "or", "not", "if", "else", "in", "is"};
  return std::ranges::find(kWords, text) == std::end(kWords);
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr value) {
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

ExpressionPtr ExpressionParser::subscript(ExpressionPtr value) {
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

void ExpressionParser::arguments(Expression& call) {
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

ExpressionPtr ExpressionParser::literal(Value value) {
  ExpressionPtr expression = make(Kind::kLiteral, "");
  expression->value = std::move(value);
  return expression;
}

ExpressionPtr ExpressionParser::primary() {
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
ExpressionPtr ExpressionParser::tuple(ExpressionPtr first) {
  ExpressionPtr all = make(Kind::kList, "", std::move(first));
  while (accept(",") && peek().text != ")") all->parts.push_back(ternary());
  expect(")");
  return all;
}

ExpressionPtr ExpressionParser::sequence(Kind kind, std::string_view close) {
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

}  // namespace kvcast::jinja
