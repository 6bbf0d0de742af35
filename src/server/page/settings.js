// All settings, in one dialog, kept in this browser.
import {$, element} from './dom.js';

const KEY = 'kvcast.settings';
const FIELDS = ['race-left', 'race-right', 'race-tokens', 'chat-prefill', 'chat-tokens',
  'chat-temperature', 'chat-system', 'theme'];
const DEFAULTS = {'race-tokens': '48', 'chat-tokens': '256', 'chat-temperature': '0',
  'chat-system': '', theme: 'auto'};

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) || {};
  } catch {
    return {};
  }
}

export const setting = (id) => $(id).value;

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(FIELDS.map((id) => [id, setting(id)]))));
  } catch {
    // A browser that keeps nothing: settings last as long as the page.
  }
}

function applyTheme() {
  if (setting('theme') === 'auto') {
    delete document.documentElement.dataset.theme;
  } else {
    document.documentElement.dataset.theme = setting('theme');
  }
}

function summarise() {
  $('race-summary').textContent =
    `${setting('race-left')} against ${setting('race-right')}, ${setting('race-tokens')} tokens`;
  const temperature = Number(setting('chat-temperature'));
  $('chat-summary').textContent = `${setting('chat-prefill')}, up to ${setting('chat-tokens')} tokens` +
    (temperature ? `, temperature ${temperature}` : ', greedy');
}

/** The strategies that the server offers; what was chosen before stays if it is still there. */
export function offerStrategies({available, default: preferred}) {
  const all = available.includes(preferred) ? available : [preferred, ...available];
  const first = {
    'chat-prefill': preferred,
    'race-left': all.includes('exact') ? 'exact' : all[0],
    'race-right': preferred !== 'exact' ? preferred : all[Math.min(1, all.length - 1)],
  };
  const before = stored();
  for (const [id, value] of Object.entries(first)) {
    $(id).replaceChildren(...all.map((spec) => element('option', {textContent: spec})));
    $(id).value = all.includes(before[id]) ? before[id] : value;
  }
  summarise();
}

/** `changed` runs after any setting has changed. */
export function setUpSettings(changed) {
  const before = {...DEFAULTS, ...stored()};
  for (const id of FIELDS) {
    if (before[id] !== undefined) $(id).value = before[id];
    $(id).addEventListener('input', () => {
      if (!$(id).checkValidity()) return;
      keep();
      applyTheme();
      summarise();
      changed();
    });
  }
  applyTheme();
  const open = (id) => {
    $('settings').showModal();
    if (id) $(id).focus();
  };
  $('open-settings').addEventListener('click', () => open(''));
  for (const button of document.querySelectorAll('[data-settings]')) {
    button.addEventListener('click', () => open(button.dataset.settings));
  }
  // A click beside the dialog closes it too.
  $('settings').addEventListener('click', (event) => {
    if (event.target === $('settings')) $('settings').close();
  });
}
