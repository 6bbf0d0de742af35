// One prompt under two strategies. The lanes' lengths are times on one scale.
import {stream, explain} from './api.js';
import {markDifferences} from './differences.js';
import {$, element, errorBox, ms} from './dom.js';
import {setting} from './settings.js';

const STAGES = ['queue', 'tokenize', 'auxiliary', 'predictor', 'base', 'other'];
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

let modelName = '', abort = null, result = '';
let showError = () => {};

function openLane(side) {
  const prefill = setting('race-' + side);
  const lane = {
    prefill, answer: '', timings: null, elapsed: 0,
    bar: element('div', {className: 'bar'}),
    clock: element('span', {className: 'clock', textContent: 'waiting'}),
    text: element('p', {className: 'text'}),
  };
  $('lane-' + side).replaceChildren(element('span', {className: 'name', textContent: prefill}),
    element('div', {className: 'track'}, lane.bar, lane.clock));
  $('answer-' + side).replaceChildren(element('h2', {textContent: prefill}), lane.text);
  return lane;
}

/** Draws every lane's time on the scale of the longest so far. */
function draw(lanes) {
  const longest = Math.max(...lanes.map((lane) => lane.elapsed), 1e-3);
  for (const lane of lanes) lane.bar.style.setProperty('--share', lane.elapsed / longest);
}

/** Milliseconds of each stage; what is left of the time to the first token is "other". */
function stageTimes(timings) {
  const times = STAGES.map((stage) => timings[stage + '_ms'] ?? 0);
  const known = times.reduce((sum, time) => sum + time, 0);
  times[STAGES.indexOf('other')] = Math.max(0, timings.ttft_ms - known);
  return times;
}

function showStages(lane) {
  lane.stages = stageTimes(lane.timings);
  lane.bar.replaceChildren(...STAGES.map((stage, k) => {
    const span = element('span', {className: stage, title: `${stage} ${ms(lane.stages[k])}`});
    span.style.width = 100 * lane.stages[k] / lane.timings.ttft_ms + '%';
    return span;
  }));
}

async function runLane(lane, lanes, prompt, signal) {
  const start = performance.now();
  let over = false;
  const tick = () => {
    if (over || signal.aborted) return;
    lane.elapsed = performance.now() - start;
    lane.clock.textContent = ms(lane.elapsed);
    draw(lanes);
    requestAnimationFrame(tick);
  };
  tick();
  try {
    await stream('/v1/completions', {
      model: modelName, prompt, prefill: lane.prefill, max_tokens: Number(setting('race-tokens')),
      temperature: 0, cache_prompt: false, ignore_eos: true,
    }, signal, (json) => {
      for (const choice of json.choices) {
        over = true;
        lane.answer = (lane.answer + choice.text).trimStart();
        lane.text.textContent = lane.answer;
      }
      if (json.timings) lane.timings = json.timings;
    });
  } finally {
    over = true;
  }
  lane.elapsed = lane.timings.ttft_ms;  // as the server saw it, without the browser
  lane.clock.textContent = ms(lane.elapsed);
  showStages(lane);
  draw(lanes);
}

function showTable(lanes) {
  const row = (label, values) => element('tr', {}, element('th', {scope: 'row', textContent: label}),
    ...values.map((value) => element('td', {textContent: value})));
  $('race-table').replaceChildren(
    element('tr', {}, element('th', {textContent: 'stage', scope: 'col'}),
      ...lanes.map((lane) => element('th', {textContent: lane.prefill, scope: 'col'}))),
    ...STAGES.map((stage, k) => row(stage, lanes.map((lane) => ms(lane.stages[k])))),
    row('time to first token', lanes.map((lane) => ms(lane.timings.ttft_ms))),
    row('prompt tokens', lanes.map((lane) => lane.timings.prompt_tokens)),
    row('of them forecast', lanes.map((lane) => lane.timings.predicted_tokens)),
    ...(lanes.some((lane) => lane.timings.exact_after_tokens != null) ? [
      row('cache exact after tokens', lanes.map((lane) => lane.timings.exact_after_tokens ?? '–'))] : []),
    row('then tokens/s', lanes.map((lane) => lane.timings.decode_tokens_per_s.toFixed(0))));
}

function announce(lanes) {
  const [left, right] = lanes;
  const ratio = left.timings.ttft_ms / right.timings.ttft_ms;
  const [ahead, behind] = ratio >= 1 ? [right, left] : [left, right];
  const times = Math.max(ratio, 1 / ratio);
  const same = times < 1.05;
  const sentence = same ? 'no difference: ' +
      `${ms(ahead.timings.ttft_ms)} and ${ms(behind.timings.ttft_ms)}`
    : `sooner with ${ahead.prefill}: the first token after ${ms(ahead.timings.ttft_ms)} instead of ` +
      `${ms(behind.timings.ttft_ms)} with ${behind.prefill}`;
  $('race-ratio').textContent = same ? '1×' : times.toFixed(times < 10 ? 1 : 0) + '×';
  $('race-verdict').textContent = `${sentence}. ${markDifferences(left, right)}`;
  $('race-headline').hidden = false;
  const stages = (lane) => STAGES.map((stage, k) => [stage, lane.stages[k]])
    .filter(([, time]) => time >= 0.05).map(([stage, time]) => `${stage} ${ms(time)}`).join(', ');
  result = [`kvcast, ${modelName}: time to first token, ${left.timings.prompt_tokens} prompt tokens`,
    ...lanes.map((lane) => `${lane.prefill}: ${ms(lane.timings.ttft_ms)} (${stages(lane)})`),
    same ? 'no difference' : `${$('race-ratio').textContent} sooner with ${ahead.prefill}`].join('\n');
  showTable(lanes);
  for (const id of ['race-details', 'race-share']) $(id).hidden = false;
}

async function start(event) {
  event.preventDefault();
  if (abort) return;
  showError('');
  for (const id of ['race-headline', 'race-details', 'race-share']) $(id).hidden = true;
  const prompt = $('race-input').value;
  const lanes = [openLane('left'), openLane('right')];
  draw(lanes);
  for (const id of ['race-track', 'race-answers', 'race-stop']) $(id).hidden = false;
  abort = new AbortController();
  $('race-start').hidden = true;
  try {
    for (const lane of lanes) await runLane(lane, lanes, prompt, abort.signal);
    announce(lanes);
  } catch (error) {
    showError(explain(error));
    if (!lanes[0].timings) {  // nothing to look at
      for (const id of ['race-track', 'race-answers']) $(id).hidden = true;
    }
    for (const lane of lanes.filter((each) => !each.timings)) {
      lane.clock.textContent = error.name === 'AbortError' ? 'stopped' : 'not run';
      lane.elapsed = 0;
    }
    draw(lanes);
  }
  abort = null;
  const stopHadFocus = document.activeElement === $('race-stop');
  $('race-start').hidden = false;
  $('race-stop').hidden = true;
  if (stopHadFocus) $('race-start').focus();
}

/** Also where the page is no secure context and has no clipboard of its own. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = element('textarea', {value: text});
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

async function share() {
  const button = $('race-share');
  try {
    await copy(result);
    button.textContent = 'Copied';
  } catch {
    showError('The browser does not let this page copy. The result:\n' + result);
  }
  setTimeout(() => { button.textContent = 'Copy the result'; }, 2000);
}

export function setRaceModel(name) { modelName = name; }
export function stopRace() { if (abort) abort.abort(); }
export function clearRaceError() { showError(''); }

export function setUpRace() {
  showError = errorBox($('race-error'), $('race-form'));
  $('race-input').value = SAMPLE;
  $('race-legend').replaceChildren(...STAGES.map((stage) =>
    element('li', {}, element('span', {className: 'swatch ' + stage}), stage)));
  $('race-form').addEventListener('submit', start);
  $('race-stop').addEventListener('click', stopRace);
  $('race-share').addEventListener('click', share);
}
