'use strict';
// The page talks to the same API as everybody else. Text from the model only ever becomes text
// nodes.

const $ = (id) => document.getElementById(id);
let modelName = '';

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function showError(message) {
  $('error').textContent = message;
  $('error').hidden = !message;
}

const ms = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1)) + ' ms';

// ---- the API ----

async function errorOf(response) {
  const body = await response.text();
  try {
    return JSON.parse(body).error.message;
  } catch {
    return 'HTTP ' + response.status;
  }
}

/** Posts a streaming request; calls onEvent for each event. Throws what the server complains of. */
async function stream(path, body, signal, onEvent) {
  const response = await fetch(path, {
    method: 'POST', signal,
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({model: modelName, stream: true, ...body}),
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
      const data = event.replace(/^data: /, '');
      if (data === '[DONE]') return;
      const json = JSON.parse(data);
      if (json.error) throw new Error(json.error.message);
      onEvent(json);
    }
  }
  throw new Error('the connection ended before the answer did');
}

function explain(error) {
  if (error.name === 'AbortError') return '';
  return error instanceof TypeError ? 'The server cannot be reached.' : error.message;
}

function details(t) {
  const parts = [`${t.prompt_tokens} prompt tokens`];
  if (t.predicted_tokens) parts.push(`${t.predicted_tokens} forecast`);
  if (t.cached_tokens) parts.push(`${t.cached_tokens} from earlier`);
  if (t.decode_tokens_per_s) parts.push(`then ${t.decode_tokens_per_s.toFixed(0)} tokens/s`);
  return parts.join(', ');
}

// ---- chat ----

const chat = {messages: [], abort: null};

/** Follows what is written unless somebody has scrolled up to read. */
function follow(change) {
  const log = $('log');
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  change();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function addTurn(role) {
  const text = element('p', {className: 'text'});
  const stats = element('p', {className: 'stats'});
  const turn = element('article', {className: 'turn ' + role},
    element('h2', {textContent: role === 'user' ? 'You' : 'Model'}), text, stats);
  $('log').append(turn);
  $('log').scrollTop = $('log').scrollHeight;
  return {turn, text, stats};
}

async function sendChat(event) {
  event.preventDefault();
  const input = $('chat-input');
  const content = input.value.trim();
  if (!content || chat.abort) return;
  showError('');
  const question = {role: 'user', content};
  const asked = addTurn('user');
  asked.text.textContent = content;
  input.value = '';
  const turn = addTurn('assistant');
  turn.stats.textContent = 'reading the prompt…';
  chat.abort = new AbortController();
  $('chat-stop').disabled = false;
  $('chat-send').disabled = true;
  $('log').setAttribute('aria-busy', 'true');  // screen readers wait for the whole answer
  let answer = '', complete = true;
  const abort = chat.abort;
  try {
    await stream('/v1/chat/completions', {
      messages: [...chat.messages, question],
      prefill: $('chat-prefill').value,
      max_tokens: Number($('chat-tokens').value),
      temperature: Number($('chat-temperature').value),
      return_progress: true,
    }, abort.signal, (json) => follow(() => {
      const p = json.prompt_progress;
      if (p) turn.stats.textContent = `reading the prompt: ${p.processed} of ${p.total} tokens`;
      for (const choice of json.choices) answer += choice.delta.content || '';
      turn.text.textContent = answer.trimStart();
      const t = json.timings;
      if (t) {
        turn.stats.textContent = `${t.prefill}: first token after ${ms(t.ttft_ms)}, ${details(t)}`;
      }
    }));
  } catch (error) {
    showError(explain(error));
    complete = false;
    turn.stats.textContent = error.name === 'AbortError' ? 'stopped' : 'failed';
  }
  if (chat.abort !== abort) return;  // the conversation has been cleared meanwhile
  if (!complete && !answer) {  // nothing came: the question may be sent again
    asked.turn.remove();
    turn.turn.remove();
    input.value ||= content;
  } else {
    chat.messages.push(question, {role: 'assistant', content: answer});
  }
  endAnswer();
}

function endAnswer() {
  chat.abort = null;
  $('chat-stop').disabled = true;
  $('chat-send').disabled = false;
  $('log').setAttribute('aria-busy', 'false');
  $('chat-input').focus();
}

function clearChat() {
  const running = chat.abort;
  endAnswer();
  if (running) running.abort();
  chat.messages = [];
  $('log').replaceChildren();
  showError('');
}

// ---- the race ----

const STAGES = ['queue', 'tokenize', 'auxiliary', 'predictor', 'base'];
let raceAbort = null;

function openLane(id, prefill) {
  const lane = {
    prefill, answer: '', timings: null,
    clock: element('p', {className: 'clock', textContent: '0.0 ms'}),
    note: element('p', {className: 'stats', textContent: 'waiting'}),
    progress: element('progress', {max: 1, value: 0, ariaLabel: 'prompt read'}),
    text: element('p', {className: 'text'}),
  };
  $(id).replaceChildren(element('h2', {textContent: prefill}), lane.clock, lane.progress,
    lane.note, lane.text);
  return lane;
}

async function runLane(lane, prompt, signal) {
  const start = performance.now();
  let first = null;
  const tick = () => {
    if (first !== null || signal.aborted || lane.over) return;
    lane.clock.textContent = ms(performance.now() - start);
    requestAnimationFrame(tick);
  };
  tick();
  lane.note.textContent = 'reading the prompt';
  try {
    await stream('/v1/completions', {
      prompt, prefill: lane.prefill, max_tokens: Number($('race-tokens').value), temperature: 0,
      return_progress: true, cache_prompt: false, ignore_eos: true,
    }, signal, (json) => {
      const p = json.prompt_progress;
      if (p) lane.progress.value = p.processed / p.total;
      for (const choice of json.choices) {
        if (first === null) {
          first = performance.now() - start;
          lane.clock.textContent = ms(first);
          lane.progress.value = 1;
          lane.note.textContent = 'first token';
        }
        lane.answer += choice.text;
        lane.text.textContent = lane.answer;
      }
      if (json.timings) lane.timings = json.timings;
    });
  } finally {
    lane.over = true;
  }
  lane.clock.textContent = ms(lane.timings.ttft_ms);
  lane.note.textContent = details(lane.timings);
}

/** Longest common subsequence of two word lists: for each word whether it is common. */
function commonWords(a, b) {
  const rows = Array.from({length: a.length + 1}, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      rows[i][j] = a[i] === b[j] ? rows[i + 1][j + 1] + 1 : Math.max(rows[i + 1][j], rows[i][j + 1]);
    }
  }
  const inA = [], inB = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      inA.push(true); inB.push(true); i++; j++;
    } else if (j >= b.length || (i < a.length && rows[i + 1][j] >= rows[i][j + 1])) {
      inA.push(false); i++;
    } else {
      inB.push(false); j++;
    }
  }
  return [inA, inB];
}

function markDifferences(left, right) {
  const words = [left, right].map((lane) => lane.answer.match(/\s*\S+|\s+$/g) || []);
  const common = commonWords(words[0], words[1]);
  [left, right].forEach((lane, k) => {
    lane.text.replaceChildren();
    let mark = null;
    words[k].forEach((word, i) => {
      if (common[k][i]) {
        mark = null;
        lane.text.append(word);
      } else if (mark) {
        mark.append(word);
      } else {
        const text = word.trimStart();
        mark = element('mark', {}, text);
        lane.text.append(word.slice(0, word.length - text.length), mark);
      }
    });
  });
  const same = words[0].findIndex((word, i) => word !== words[1][i]);
  if (left.answer === right.answer) return 'The answers are the same.';
  return same <= 0 ? 'The answers differ from the first word.'
    : `The answers agree for the first ${same > 1 ? same + ' words' : 'word'}; what differs is underlined.`;
}

function plot(lanes) {
  const longest = Math.max(...lanes.map((lane) => lane.timings.ttft_ms));
  $('plot-bars').replaceChildren(...lanes.map((lane) => {
    const bar = element('div', {className: 'bar'});
    let known = 0;
    for (const stage of STAGES) {
      const value = lane.timings[stage + '_ms'];
      known += value;
      const part = element('span', {className: stage, title: `${stage} ${ms(value)}`});
      part.style.width = 100 * value / longest + '%';
      bar.append(part);
    }
    const rest = element('span', {className: 'rest', title: 'the rest'});
    rest.style.width = 100 * Math.max(0, lane.timings.ttft_ms - known) / longest + '%';
    bar.append(rest);
    return element('div', {className: 'bar-row'}, element('div', {textContent: lane.prefill}), bar);
  }));
  const row = (label, swatch, values) => {
    const head = element('th', {scope: 'row'});
    if (swatch) head.append(element('span', {className: 'swatch ' + swatch}));
    head.append(label);
    return element('tr', {}, head, ...values.map((value) => element('td', {textContent: value})));
  };
  $('plot-table').replaceChildren(
    element('tr', {}, element('th', {textContent: 'stage', scope: 'col'}),
      ...lanes.map((lane) => element('th', {textContent: lane.prefill, scope: 'col'}))),
    ...STAGES.map((stage) => row(stage, stage, lanes.map((lane) => ms(lane.timings[stage + '_ms'])))),
    row('time to first token', '', lanes.map((lane) => ms(lane.timings.ttft_ms))));
  $('plot').hidden = false;
}

async function startRace(event) {
  event.preventDefault();
  if (raceAbort) return;
  showError('');
  $('plot').hidden = true;
  $('race-verdict').textContent = '';
  const prompt = $('race-input').value;
  const left = openLane('lane-left', $('race-left').value);
  const right = openLane('lane-right', $('race-right').value);
  raceAbort = new AbortController();
  $('race-start').disabled = true;
  $('race-stop').disabled = false;
  try {
    await runLane(left, prompt, raceAbort.signal);
    await runLane(right, prompt, raceAbort.signal);
    const ratio = left.timings.ttft_ms / right.timings.ttft_ms;
    const [ahead, behind] = ratio >= 1 ? [right, left] : [left, right];
    $('race-verdict').textContent = `With ${ahead.prefill} the first token comes ` +
      `${Math.max(ratio, 1 / ratio).toFixed(2)} times sooner than with ${behind.prefill}. ` +
      markDifferences(left, right);
    plot([left, right]);
  } catch (error) {
    showError(explain(error));
    for (const lane of [left, right].filter((each) => !each.timings)) {
      lane.clock.textContent = '–';
      lane.note.textContent = error.name === 'AbortError' ? 'stopped' : 'not run';
    }
  }
  raceAbort = null;
  $('race-start').disabled = false;
  $('race-stop').disabled = true;
}

// ---- set-up ----

const SAMPLE = 'The lighthouse stood at the end of the long stone pier, and every evening the old ' +
  'keeper climbed its narrow stairs to light the lamp. One night the fog came in so thick that he ' +
  'could not see the water. He heard a bell, then a voice, and then the sound of oars. He took the ' +
  'brass horn from its hook, opened the narrow window, and called into the dark. Nobody answered. ' +
  'The bell rang again, nearer this time, and a small boat came out of the fog with a woman in it, ' +
  'who held up her hand against the light. She had come from the island, she said, where the ' +
  'winter stores had burned, and there were eleven people who had not eaten for two days. The ' +
  'keeper looked at the sea, then at the lamp, which must not go out before morning. He thought of ' +
  'his brother, who had been lost on such a night, and of the rule that hung on the wall above his ' +
  'bed. Then he put on his coat, filled the lamp to the brim, and said';

function choose(tab) {
  for (const name of ['chat', 'race']) {
    const on = name === tab;
    $(name).hidden = !on;
    $('tab-' + name).setAttribute('aria-selected', on);
    $('tab-' + name).tabIndex = on ? 0 : -1;
  }
  showError('');
  if (location.hash !== '#' + tab) history.replaceState(null, '', '#' + tab);
}

function fillStrategies(model) {
  const {available, default: preferred} = model.prefill;
  const all = available.includes(preferred) ? available : [preferred, ...available];
  const selected = {
    'chat-prefill': preferred, 'race-left': 'exact',
    'race-right': preferred !== 'exact' ? preferred : all[all.length > 1 ? 1 : 0],
  };
  for (const [id, value] of Object.entries(selected)) {
    $(id).replaceChildren(...all.map((spec) => element('option', {textContent: spec})));
    $(id).value = value;
  }
}

async function connect() {
  for (;;) {
    try {
      const response = await fetch('/v1/models');
      if (response.ok) {
        const model = (await response.json()).data[0];
        modelName = model.id;
        $('model').textContent = `${model.id}, ${model.max_model_len} tokens of context`;
        fillStrategies(model);
        return;
      }
      $('model').textContent = await errorOf(response);
    } catch {
      $('model').textContent = 'the server cannot be reached';
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

$('chat-form').addEventListener('submit', sendChat);
$('chat-stop').addEventListener('click', () => chat.abort && chat.abort.abort());
$('chat-clear').addEventListener('click', clearChat);
$('chat-input').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $('chat-form').requestSubmit();
  }
});
$('race-form').addEventListener('submit', startRace);
$('race-stop').addEventListener('click', () => raceAbort && raceAbort.abort());
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape') return;
  if (chat.abort) chat.abort.abort();
  if (raceAbort) raceAbort.abort();
});
for (const name of ['chat', 'race']) {
  $('tab-' + name).addEventListener('click', () => choose(name));
  $('tab-' + name).addEventListener('keydown', (event) => {
    if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
    const other = name === 'chat' ? 'race' : 'chat';
    choose(other);
    $('tab-' + other).focus();
  });
}
$('race-input').value = SAMPLE;
choose(location.hash === '#race' ? 'race' : 'chat');
connect();
