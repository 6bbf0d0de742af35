// The page talks to the same API as everybody else.

async function errorOf(response) {
  const body = await response.text();
  try {
    return JSON.parse(body).error.message;
  } catch {
    return 'HTTP ' + response.status;
  }
}

/** What GET answers, or an error in the server's words. */
export async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(await errorOf(response));
  return response.json();
}

/** Posts a streaming request; calls onEvent for each event. Throws what the server complains of. */
export async function stream(path, body, signal, onEvent) {
  const response = await fetch(path, {
    method: 'POST', signal,
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({stream: true, ...body}),
  });
  if (!response.ok) throw new Error(await errorOf(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) break;
    held += value;
    const events = held.split('\n\n');
    held = events.pop();
    for (const event of events) {
      const data = event.replace(/^(event: .*\n)?data: /, '');
      if (data === '[DONE]') return;
      const json = JSON.parse(data);
      if (json.error) throw new Error(json.error.message);
      onEvent(json);
    }
  }
  throw new Error('the connection ended before the answer did');
}

/** An error in words; nothing for what somebody stopped. */
export function explain(error) {
  if (error.name === 'AbortError') return '';
  return error instanceof TypeError ? 'The server cannot be reached.' : error.message;
}
