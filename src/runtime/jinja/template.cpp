#include "runtime/jinja/template.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/jinja/builtins.h"

namespace kvcast::jinja {
namespace {

/// Expressions and blocks within each other, those of called macros included.
constexpr int kMaxEvaluations = 1000;

/// Walks the tree once.
class Renderer {
 public:
  Renderer(const Value& globals, const RenderLimits& limits)
      : limits_(limits), scopes_{globals, Value(Map{})} {}

  std::string render(const Block& block) {
    run(block);
    return std::move(output_);
  }

 private:
  enum class Flow { kOn, kBreak, kContinue };

  /// Macros may call themselves: their calls are bounded here, all else by the parser.
  struct Deeper {
    Deeper(Renderer& renderer, int line) : owner(renderer) {
      if (++owner.depth_ > kMaxEvaluations) refuse(line, "calls are nested too deeply");
    }
    ~Deeper() { --owner.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    Renderer& owner;
  };

  void step(int line) {
    if (++steps_ > limits_.max_steps) refuse(line, "the template does not come to an end");
  }

  Flow run(const Block& block) {
    if (block.empty()) return Flow::kOn;
    const Deeper deeper(*this, block.front().line);
    for (const Statement& statement : block) {
      step(statement.line);
      const Flow flow = run(statement);
      if (flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

  Flow run(const Statement& statement) {
    switch (statement.kind) {
      case Statement::Kind::kText:
        write(statement.text, statement.line);
        return Flow::kOn;
      case Statement::Kind::kOutput:
        write(evaluate(*statement.value).to_text(), statement.line);
        return Flow::kOn;
      case Statement::Kind::kIf:
        return run(evaluate(*statement.condition).truthy() ? statement.body : statement.otherwise);
      case Statement::Kind::kFor:
        return loop(statement);
      case Statement::Kind::kSet:
        assign(statement);
        return Flow::kOn;
      case Statement::Kind::kSetBlock:
        scopes_.back().set(statement.names[0], captured(statement.body));
        return Flow::kOn;
      case Statement::Kind::kMacro:
        macros_[statement.names[0]] = &statement;
        return Flow::kOn;
      case Statement::Kind::kBreak:
        return Flow::kBreak;
      case Statement::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kOn;
  }

  void write(const std::string& text, int line) {
    if (output_.size() + text.size() > limits_.max_output_bytes)
      refuse(line, "the output is too long");
    output_ += text;
  }

  void assign(const Statement& statement) {
    Value value = evaluate(*statement.value);
    if (statement.attribute.empty()) return bind(statement, value);
    const Value object = look_up(statement.names[0]);
    if (!object.map()) refuse(statement.line, statement.names[0] + " is no namespace");
    // A value inside itself would never be freed.
    if (value.map() || value.list()) {
      if (contains(value, object.map(), 0)) refuse(statement.line, "a value cannot contain itself");
    }
    object.set(statement.attribute, std::move(value));
  }

  static bool contains(const Value& value, const Map* wanted, int depth) {
    if (depth > kMaxDepth || value.map() == wanted) return true;
    if (value.map()) {
      for (const auto& entry : *value.map()) {
        if (contains(entry.second, wanted, depth + 1)) return true;
      }
    }
    if (value.list()) {
      for (const Value& item : *value.list()) {
        if (contains(item, wanted, depth + 1)) return true;
      }
    }
    return false;
  }

  void bind(const Statement& statement, const Value& item) {
    if (statement.names.size() == 1) {
      scopes_.back().set(statement.names[0], item);
      return;
    }
    if (!item.list() || item.list()->size() != statement.names.size()) {
      refuse(statement.line, "a value does not fit the variables that it is for");
    }
    for (size_t i = 0; i < statement.names.size(); ++i) {
      scopes_.back().set(statement.names[i], (*item.list())[i]);
    }
  }

  Flow loop(const Statement& statement) {
    List items = iterate(evaluate(*statement.value));
    scopes_.emplace_back(Map{});
    if (statement.condition) {
      List kept;
      for (Value& item : items) {
        step(statement.line);
        bind(statement, item);
        if (evaluate(*statement.condition).truthy()) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    const auto size = static_cast<int64_t>(items.size());
    for (int64_t i = 0; i < size; ++i) {
      step(statement.line);
      scopes_.back() = Value(Map{});  // what a turn sets is gone in the next, as in Jinja
      bind(statement, items[static_cast<size_t>(i)]);
      Map state = {{"index", i + 1},           {"index0", i},    {"first", i == 0},
                   {"last", i + 1 == size},    {"length", size}, {"revindex", size - i},
                   {"revindex0", size - i - 1}};
      if (i > 0) state.emplace_back("previtem", items[static_cast<size_t>(i - 1)]);
      if (i + 1 < size) state.emplace_back("nextitem", items[static_cast<size_t>(i + 1)]);
      scopes_.back().set("loop", Value(std::move(state)));
      if (run(statement.body) == Flow::kBreak) break;
    }
    scopes_.pop_back();
    return items.empty() ? run(statement.otherwise) : Flow::kOn;
  }

  /// What a block writes.
  std::string captured(const Block& block) {
    std::string before = std::exchange(output_, {});
    run(block);
    return std::exchange(output_, std::move(before));
  }

  /// Macros see what the template itself has set, and their own parameters.
  Value call_macro(const Statement& macro, Arguments arguments, const Map& named) {
    const size_t parameters = macro.names.size() - 1;
    if (arguments.size() > parameters) refuse(macro.line, "a macro got too many arguments");
    const Value own((Map()));
    std::vector<Value> scopes = {scopes_[0], scopes_[1], own};
    scopes_.swap(scopes);
    for (size_t i = 0; i < parameters; ++i) {
      const std::string& name = macro.names[i + 1];
      const auto given = std::ranges::find(named, name, &std::pair<std::string, Value>::first);
      if (i < arguments.size()) {
        own.set(name, arguments[i]);
      } else if (given != named.end()) {
        own.set(name, given->second);
      } else {
        own.set(name, macro.defaults[i] ? evaluate(*macro.defaults[i]) : Value());
      }
    }
    std::string text = captured(macro.body);
    scopes_.swap(scopes);
    return text;
  }

  [[nodiscard]] Value look_up(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      Value found = scope->at(name);
      if (!found.is<Undefined>()) return found;
    }
    return {};
  }

  Value evaluate(const Expression& expression) {
    step(expression.line);
    const Deeper deeper(*this, expression.line);
    try {
      Value value = value_of(expression);
      if (value.text()) work_bytes_ += value.text()->size();
      if (value.list()) work_bytes_ += value.list()->size() * sizeof(Value);
      if (work_bytes_ > limits_.max_work_bytes) refuse(expression.line, "too much to work out");
      return value;
    } catch (TemplateError& error) {
      if (!error.message.starts_with("line ") && !error.message.starts_with(kRefusal)) {
        error.message = fmt::format("line {}: {}", expression.line, error.message);
      }
      throw;
    }
  }

  Value part(const Expression& expression, size_t i) {
    return i < expression.parts.size() && expression.parts[i] ? evaluate(*expression.parts[i])
                                                              : Value();
  }

  std::vector<Value> arguments(const Expression& expression) {
    std::vector<Value> values;
    for (size_t i = 1; i < expression.parts.size(); ++i) values.push_back(part(expression, i));
    return values;
  }

  /// Functions and macros can be called and asked for ("strftime_now is defined"), no more.
  [[nodiscard]] bool is_function(const Expression& expression) const {
    return expression.kind == Expression::Kind::kName && look_up(expression.name).is<Undefined>() &&
           (macros_.contains(expression.name) || has_function(expression.name));
  }

  Map named_arguments(const Expression& expression) {
    Map named;
    for (const auto& [name, value] : expression.named) named.emplace_back(name, evaluate(*value));
    return named;
  }

  Value value_of(const Expression& expression) {
    using Kind = Expression::Kind;
    switch (expression.kind) {
      case Kind::kLiteral:
        return expression.value;
      case Kind::kName:
        return look_up(expression.name);
      case Kind::kAttribute:
        return index(part(expression, 0), Value(expression.name));
      case Kind::kIndex:
        return index(part(expression, 0), part(expression, 1));
      case Kind::kSlice:
        return slice(part(expression, 0), part(expression, 1), part(expression, 2),
                     part(expression, 3));
      case Kind::kCall:
        return call(expression);
      case Kind::kFilter: {
        const std::vector<Value> values = arguments(expression);
        const Value filtered = part(expression, 0);
        return apply_filter(expression.name, filtered, values, named_arguments(expression));
      }
      case Kind::kTest:
        if (is_function(*expression.parts[0])) return expression.name == "defined";
        return apply_test(expression.name, part(expression, 0), arguments(expression));
      case Kind::kUnary:
        if (expression.name == "not") return !part(expression, 0).truthy();
        return binary("-", int64_t{0}, part(expression, 0));
      case Kind::kBinary:
        return binary_of(expression);
      case Kind::kTernary:
        return part(expression, part(expression, 0).truthy() ? 1 : 2);
      case Kind::kList: {
        List items;
        for (const auto& item : expression.parts) items.push_back(evaluate(*item));
        return items;
      }
      case Kind::kMap: {
        Value map((Map()));
        for (size_t i = 0; i + 1 < expression.parts.size(); i += 2) {
          map.set(part(expression, i).to_text(), part(expression, i + 1));
        }
        return map;
      }
    }
    return {};
  }

  Value binary_of(const Expression& expression) {
    const Value left = part(expression, 0);
    if (expression.name == "and") return left.truthy() ? part(expression, 1) : left;
    if (expression.name == "or") return left.truthy() ? left : part(expression, 1);
    return binary(expression.name, left, part(expression, 1));
  }

  Value call(const Expression& expression) {
    const Expression& callee = *expression.parts[0];
    const std::vector<Value> values = arguments(expression);
    const Map named = named_arguments(expression);
    if (callee.kind == Expression::Kind::kAttribute) {
      return call_method(part(callee, 0), callee.name, values);
    }
    if (callee.kind != Expression::Kind::kName)
      refuse(expression.line, "only functions can be called");
    if (const auto macro = macros_.find(callee.name); macro != macros_.end()) {
      return call_macro(*macro->second, values, named);
    }
    return call_function(callee.name, values, named);
  }

  const RenderLimits& limits_;
  std::vector<Value> scopes_;  // maps; the first are the globals, the second the template's own
  std::map<std::string, const Statement*> macros_;
  std::string output_;
  int depth_ = 0;
  int64_t steps_ = 0;
  size_t work_bytes_ = 0;
};

}  // namespace

Result<Template> Template::parse(std::string source) {
  try {
    Template parsed;
    parsed.source_ = std::make_unique<std::string>(std::move(source));
    parsed.block_ = jinja::parse(*parsed.source_);
    return parsed;
  } catch (const TemplateError& error) {
    return fail(error.message);
  }
}

Result<std::string> Template::render(const Value& globals, const RenderLimits& limits) const {
  try {
    return Renderer(globals, limits).render(block_);
  } catch (const TemplateError& error) {
    return fail(error.message);
  }
}

}  // namespace kvcast::jinja
