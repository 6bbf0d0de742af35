// Chat templates: any source parses or is refused, and rendering it ends within its limits.
#include "fuzz.h"
#include "runtime/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvcast;
  using jinja::List;
  using jinja::Map;
  using jinja::Value;
  if (size > 4096) return 0;
  const auto parsed =
      jinja::Template::parse(std::string(reinterpret_cast<const char*>(data), size));
  if (!parsed) {
    FUZZ_CHECK(parsed.error().message.starts_with("line "));
    return 0;
  }
  List messages;
  for (const char* role : {"system", "user", "assistant", "user"}) {
    messages.emplace_back(Map{{"role", Value(role)}, {"content", Value("Some text.\n")}});
  }
  const Value globals(Map{{"messages", Value(std::move(messages))},
                          {"add_generation_prompt", Value(true)},
                          {"bos_token", Value("<s>")},
                          {"eos_token", Value("</s>")}});
  const jinja::RenderLimits limits{
      .max_output_bytes = 64 << 10, .max_steps = 20'000, .max_work_bytes = 8 << 20};
  const auto text = parsed->render(globals, limits);
  if (text) {
    FUZZ_CHECK(text->size() <= limits.max_output_bytes);
  } else {
    FUZZ_CHECK(!text.error().message.empty());
  }
  return 0;
}
