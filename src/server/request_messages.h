// The messages and tools of a request for a chat. Only for the server's JSON edge.
#pragma once

#include <string_view>
#include <vector>

#include "server/json_object.h"
#include "server/requests.h"

namespace kvcast {

/// "messages" of a chat.
void read_messages(JsonObject& object, const RequestLimits& limits,
                   std::vector<ChatMessage>& messages);

/// "input" of a Responses request: a list of messages, calls and their results. Calls become part
/// of the assistant's message before them, results messages of the role "tool".
void read_input_items(JsonObject& object, const RequestLimits& limits,
                      std::vector<ChatMessage>& messages);

/// Where a tool has its name: in "function" (chats), or beside "type" (Responses).
enum class ToolShape { kNested, kFlat };

/// "tools", "tool_choice" and "parallel_tool_calls"; `body` is what `object` was parsed from.
void read_tools(JsonObject& object, std::string_view body, ToolShape shape,
                const RequestLimits& limits, ToolFields& tools);

}  // namespace kvcast
