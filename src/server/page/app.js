// Tabs, keys, and what the server says about itself.
import {get} from './api.js';
import {clearChatError, setChatModel, setUpChat, stopChat} from './chat.js';
import {$} from './dom.js';
import {clearRaceError, setRaceModel, setUpRace, stopRace} from './race.js';
import {offerStrategies, setUpSettings} from './settings.js';

const TABS = ['race', 'chat'];

function clearErrors() {
  clearRaceError();
  clearChatError();
}

function choose(tab) {
  for (const name of TABS) {
    const on = name === tab;
    $(name).hidden = !on;
    $('tab-' + name).setAttribute('aria-selected', String(on));
    $('tab-' + name).tabIndex = on ? 0 : -1;
  }
  document.body.dataset.tab = tab;
  clearErrors();
  if (location.hash !== '#' + tab) history.replaceState(null, '', '#' + tab);
}

async function connect() {
  for (;;) {
    try {
      const props = await get('/props');
      const context = props.default_generation_settings.n_ctx;
      $('model').textContent = `${props.model_alias}, ${context} tokens of context`;
      setRaceModel(props.model_alias);
      setChatModel(props.model_alias, props.chat_template !== null);
      offerStrategies(props.prefill);
      return;
    } catch (error) {
      $('model').textContent =
        error instanceof TypeError ? 'the server cannot be reached' : error.message;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

setUpSettings(clearErrors);
setUpRace();
setUpChat();
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || $('settings').open) return;
  stopChat();
  stopRace();
});
for (const [i, name] of TABS.entries()) {
  $('tab-' + name).addEventListener('click', () => choose(name));
  $('tab-' + name).addEventListener('keydown', (event) => {
    if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
    const other = TABS[(i + 1) % TABS.length];
    choose(other);
    $('tab-' + other).focus();
  });
}
choose(location.hash === '#chat' ? 'chat' : 'race');
connect();
