// An answer that may be revised: what exact would not have said is struck out, and what it says
// instead is marked.
import {element} from './dom.js';

/** Follows the events of one choice of a stream and shows its text in `node`. */
export class Answer {
  constructor(node) {
    this.node = node;
    this.text = '';
    this.removed = '';  // taken back; what stands there now begins at `from`
    this.from = 0;
  }

  add(json) {
    if (json.object === 'kvcast.revision') return this.revise(json.from_character);
    for (const choice of json.choices) this.text += choice.text ?? choice.delta.content ?? '';
    this.show();
  }

  /** `kept` counts characters, not JavaScript's halves of them. */
  revise(kept) {
    const before = [...this.text].slice(0, kept).join('');
    this.removed = this.text.slice(before.length);
    this.from = before.length;
    this.text = before;
    this.show();
  }

  show() {
    if (!this.removed) {
      this.node.textContent = this.text.trimStart();
      return;
    }
    const kept = this.text.slice(0, this.from).trimStart();
    const now = this.text.slice(this.from);
    this.node.replaceChildren(kept,
      element('del', {title: 'the forecast had said this'},
        element('span', {className: 'unseen', textContent: 'taken back: '}),
        kept ? this.removed : this.removed.trimStart()),
      element('ins', {title: 'what exact says', textContent: kept ? now : now.trimStart()}));
  }
}
