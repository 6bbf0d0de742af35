// Where two answers differ, word by word.
import {element} from './dom.js';

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

/** Underlines what only one of two {text node, answer} pairs has; says it in a sentence. */
export function markDifferences(left, right) {
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
