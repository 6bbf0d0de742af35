// A conversation. It is kept in this browser until a new one begins.
import {Answer} from './answer.js';
import {stream, explain} from './api.js';
import {$, element, errorBox, ms} from './dom.js';
import {setting} from './settings.js';

const KEY = 'kvcast.conversation';
const CHAT_EXAMPLES = ['Explain what a lighthouse keeper does at night.',
  'Write a short poem about fog over the sea.', 'What should I pack for a week on an island?'];
const TEXT_EXAMPLES = ['The old keeper climbed the stairs and',
  'The most important thing about the sea is', 'Once upon a time, in a small harbour town,'];

let model = {name: '', chats: true};
let messages = [];  // of the conversation: {role, content, stats?}
let abort = null;
let showError = () => {};

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify(messages));
  } catch {
    // A browser that keeps nothing: the conversation lasts as long as the page.
  }
}

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    messages = Array.isArray(kept) ? kept.filter((m) => m && typeof m.content === 'string') : [];
  } catch {
    messages = [];
  }
  for (const message of messages) {
    const turn = addTurn(message.role);
    turn.text.textContent = message.content.trimStart();
    turn.stats.textContent = message.stats || '';
  }
}

/** Follows what is written unless somebody has scrolled up to read. */
let following = true;
function toEnd() { if (following) $('log').scrollTop = $('log').scrollHeight; }

function addTurn(role) {
  $('chat-empty').hidden = true;
  const text = element('p', {className: 'text'});
  const stats = element('p', {className: 'stats'});
  const turn = element('article', {className: 'turn ' + role},
    element('h2', {textContent: role === 'user' ? 'You' : 'Model'}), text, stats);
  $('log').append(turn);
  following = true;
  toEnd();
  return {turn, text, stats};
}

/** What happened to the forecast afterwards, where the server says so. */
function refinement(t) {
  const parts = [];
  if (t.refined_rows) parts.push(`${t.refined_rows} rows made exact`);
  if (t.exact_after_tokens != null) parts.push(`exact after ${t.exact_after_tokens} tokens`);
  if (t.revised_tokens) parts.push(`${t.revised_tokens} tokens revised`);
  if (t.agreement != null) parts.push(`${(100 * t.agreement).toFixed(0)}% as exact`);
  return parts;
}

function statistics(t) {
  const parts = [`${t.prefill}: first token after ${ms(t.ttft_ms)}`, `${t.prompt_tokens} prompt tokens`];
  if (t.predicted_tokens) parts.push(`${t.predicted_tokens} forecast`);
  if (t.cached_tokens) parts.push(`${t.cached_tokens} from earlier`);
  if (t.decode_tokens_per_s) parts.push(`then ${t.decode_tokens_per_s.toFixed(0)} tokens/s`);
  if (t.accepted_tokens) parts.push(`${t.accepted_tokens} of ${t.drafted_tokens} drafts came true`);
  if (t.gate && !t.gate.trusted) parts.push('read exactly, since the forecast was not trusted');
  return [...parts, ...refinement(t)].join(', ');
}

/** The request for an answer: a chat, or, for a model that knows none, the text itself. */
function request(question) {
  const common = {
    model: model.name, prefill: setting('chat-prefill'), return_progress: true,
    // A forecast that heals is corrected on the page.
    revise: /refine=(?!off)/.test(setting('chat-prefill')),
    max_tokens: Number(setting('chat-tokens')), temperature: Number(setting('chat-temperature')),
  };
  if (!model.chats) return ['/v1/completions', {...common, prompt: question.content}];
  const system = setting('chat-system').trim();
  const all = [...messages, question].map(({role, content}) => ({role, content}));
  if (system) all.unshift({role: 'system', content: system});
  return ['/v1/chat/completions', {...common, messages: all}];
}

function setBusy(busy) {
  const hadFocus = document.activeElement === $('chat-stop');
  $('chat-stop').hidden = !busy;
  $('chat-send').hidden = busy;
  $('log').setAttribute('aria-busy', String(busy));  // screen readers wait for the whole answer
  if (!busy && hadFocus) $('chat-input').focus();
}

async function send(event) {
  event.preventDefault();
  const input = $('chat-input');
  const content = input.value.trim();
  if (!content || abort) return;
  showError('');
  const question = {role: 'user', content};
  const [path, body] = request(question);
  const asked = addTurn('user');
  asked.text.textContent = content;
  input.value = '';
  const turn = addTurn('assistant');
  turn.stats.textContent = 'reading the prompt…';
  const mine = abort = new AbortController();
  setBusy(true);
  const answer = new Answer(turn.text);
  let stats = '', failed = false;
  try {
    await stream(path, body, mine.signal, (json) => {
      const p = json.prompt_progress;
      if (p) turn.stats.textContent = `reading the prompt: ${p.processed} of ${p.total} tokens`;
      answer.add(json);
      if (json.timings) turn.stats.textContent = stats = statistics(json.timings);
      toEnd();
    });
  } catch (error) {
    failed = true;
    stats = error.name === 'AbortError' ? 'stopped' : 'failed';
    turn.stats.textContent = stats;
    if (abort === mine) showError(explain(error));
  }
  if (abort !== mine) return;  // a new conversation has begun meanwhile
  abort = null;
  if (failed && !answer.text) {  // nothing came: the question may be sent again
    asked.turn.remove();
    turn.turn.remove();
    input.value ||= content;
    $('chat-empty').hidden = messages.length > 0;
  } else {
    messages.push(question, {role: 'assistant', content: answer.text, stats});
    keep();
  }
  setBusy(false);
}

function startAnew() {
  const running = abort;
  abort = null;
  if (running) running.abort();
  setBusy(false);
  messages = [];
  keep();
  $('log').replaceChildren();
  $('chat-empty').hidden = false;
  showError('');
  $('chat-input').focus();
}

export function stopChat() { if (abort) abort.abort(); }
export function clearChatError() { showError(''); }

/** `chats`: it has a chat template. */
export function setChatModel(name, chats) {
  model = {name, chats};
  $('chat-hint').textContent = chats
    ? 'Ask something. The numbers under each answer say how long its first token took.'
    : 'This model has no chat template: it was not trained to converse. It goes on from what you ' +
      'write, each time anew.';
  $('chat-examples').replaceChildren(...(chats ? CHAT_EXAMPLES : TEXT_EXAMPLES).map((text) => {
    const button = element('button', {type: 'button', textContent: text});
    button.addEventListener('click', () => {
      $('chat-input').value = text;
      $('chat-form').requestSubmit();
    });
    return element('li', {}, button);
  }));
}

export function setUpChat() {
  showError = errorBox($('chat-error'), $('chat-form'));
  restore();
  const log = $('log');
  log.addEventListener('scroll', () => {
    following = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  });
  new ResizeObserver(toEnd).observe(log);  // also when the tab is opened
  $('chat-form').addEventListener('submit', send);
  $('chat-stop').addEventListener('click', stopChat);
  $('chat-clear').addEventListener('click', startAnew);
  $('chat-input').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $('chat-form').requestSubmit();
    }
  });
}
