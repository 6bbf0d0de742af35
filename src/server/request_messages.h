// The messages and tools of a request for a chat. Only for the server's JSON edge.
#pragma once

#include <string_view>
#include <vector>

#include "server/json_object.h"
#include "server/requests.h"

namespace kvcast {

/// `field`: "messages", or "input" of a Responses request.
void read_messages(JsonObject& object, std::string_view field, const RequestLimits& limits,
                   std::vector<ChatMessage>& messages);

/// "tools", "tool_choice" and "parallel_tool_calls"; `body` is what `object` was parsed from.
void read_tools(JsonObject& object, std::string_view body, const RequestLimits& limits,
                ToolFields& tools);

}  // namespace kvcast
