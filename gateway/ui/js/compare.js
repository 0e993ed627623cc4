// Two texts side by side; lines that only one of them has are marked.

import { h } from "./dom.js";

const LINES_MAX = 1_500;

/** An element that shows the current version of a file beside the unsaved one. */
export function compare(theirs, mine) {
  const [left, right] = [theirs.split("\n"), mine.split("\n")];
  const small = left.length <= LINES_MAX && right.length <= LINES_MAX;
  const [onlyLeft, onlyRight] = small ? different(left, right) : [new Set(), new Set()];
  const side = (title, lines, only, kind) =>
    h(
      "section",
      { "aria-label": title },
      h("h3", {}, title),
      h(
        "pre",
        { tabindex: "0" },
        lines.map((line, number) =>
          h(only.has(number) ? `span.line.${kind}` : "span.line", {}, `${line}\n`)
        ),
      ),
    );
  return h(
    "div.compare",
    {},
    side("Current version", left, onlyLeft, "theirs"),
    side("Your unsaved version", right, onlyRight, "mine"),
  );
}

// The lines outside the longest common subsequence; equal lines at both ends are skipped first.
function different(left, right) {
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start += 1;
  let end = 0;
  while (
    end < left.length - start && end < right.length - start &&
    left.at(-1 - end) === right.at(-1 - end)
  ) end += 1;
  const rows = left.length - start - end;
  const columns = right.length - start - end;
  const table = Array.from({ length: rows + 1 }, () => new Uint16Array(columns + 1));
  for (let i = rows - 1; i >= 0; i -= 1) {
    for (let j = columns - 1; j >= 0; j -= 1) {
      table[i][j] = left[start + i] === right[start + j]
        ? table[i + 1][j + 1] + 1
        : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  const [onlyLeft, onlyRight] = [new Set(), new Set()];
  let [i, j] = [0, 0];
  while (i < rows || j < columns) {
    if (i < rows && j < columns && left[start + i] === right[start + j]) {
      i += 1;
      j += 1;
    } else if (j >= columns || (i < rows && table[i + 1][j] >= table[i][j + 1])) {
      onlyLeft.add(start + i);
      i += 1;
    } else {
      onlyRight.add(start + j);
      j += 1;
    }
  }
  return [onlyLeft, onlyRight];
}
