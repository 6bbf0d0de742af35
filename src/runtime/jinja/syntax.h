// The syntax tree of a template.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/jinja/value.h"

namespace kvcast::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    kLiteral,    ///< value
    kName,       ///< name
    kAttribute,  ///< parts[0].name
    kIndex,      ///< parts[0][parts[1]]
    kSlice,      ///< parts[0][parts[1]:parts[2]:parts[3]]; null: left out
    kCall,       ///< parts[0](parts[1..], named)
    kFilter,     ///< parts[0] | name(parts[1..])
    kTest,       ///< parts[0] is name(parts[1..])
    kUnary,      ///< name parts[0]; "not", "-", "+"
    kBinary,     ///< parts[0] name parts[1]
    kTernary,    ///< parts[1] if parts[0] else parts[2]; parts[2] may be null
    kList,       ///< [parts]
    kMap,        ///< {parts[0]: parts[1], ...}
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  std::string name;
  Value value;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
};

struct Statement;
using Block = std::vector<Statement>;

struct Statement {
  enum class Kind { kText, kOutput, kIf, kFor, kSet, kSetBlock, kMacro, kBreak, kContinue };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;                ///< kText
  std::vector<std::string> names;  ///< kFor, kSet, kSetBlock: variables; kMacro: name, parameters
  std::string attribute;           ///< kSet: of the namespace names[0]
  std::vector<ExpressionPtr> defaults;  ///< kMacro: of the parameters; may be null
  ExpressionPtr value;                  ///< kOutput, kSet; kFor: what is iterated
  ExpressionPtr condition;              ///< kIf; kFor: its filter, may be null
  Block body, otherwise;                ///< kIf, kFor; kSetBlock and kMacro have a body
};

/// A piece of the source: text, the inside of {{ }}, or the inside of {% %}.
struct Segment {
  enum class Kind { kText, kExpression, kStatement } kind = Kind::kText;
  std::string_view text;
  int line = 0;
};

struct Token {
  enum class Kind { kName, kText, kInteger, kFloat, kSymbol, kEnd } kind = Kind::kEnd;
  std::string text;
};

/// Splits the source. Whitespace as Hugging Face's chat templates have it: `-` trims, the newline
/// after a statement and the indentation before it go (trim_blocks, lstrip_blocks).
std::vector<Segment> split(std::string_view source);
std::vector<Token> tokenize(std::string_view code, int line);
/// Throws TemplateError with the line.
Block parse(std::string_view source);
[[noreturn]] void refuse(int line, const std::string& message);

}  // namespace kvcast::jinja
