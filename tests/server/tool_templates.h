// Chat templates with tools, as models have them.
#pragma once

#include <string>

namespace kvcast {

/// A template with tools in the manner of Hermes and Qwen, or of Llama 3.
inline std::string template_with_tools(bool tagged) {
  const std::string call =
      tagged ? "<tool_call>{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ "
               "c.function.arguments | tojson }}}</tool_call>"
             : "{\"name\": \"{{ c.function.name }}\", \"parameters\": {{ "
               "c.function.arguments | tojson }}}";
  return "{% if tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}"
         "{% for m in messages %}{{ m.role }}: {{ m.content }}"
         "{% if m.tool_calls %}{% for c in m.tool_calls %}" +
         call +
         "{% endfor %}{% endif %}\n"
         "{% endfor %}assistant: ";
}

}  // namespace kvcast
