// Small helpers. Text from the model only ever becomes text nodes.

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

export const ms = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1)) + ' ms';

/** An error message that goes when `source` is used again. */
export function errorBox(box, source) {
  const show = (message) => {
    box.textContent = message;
    box.hidden = !message;
  };
  source.addEventListener('input', () => show(''));
  return show;
}
