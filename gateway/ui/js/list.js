// A list of any length; only its visible rows are in the document.

import { h } from "./dom.js";

/**
 * `row(item, index)` makes an element of `rowHeight` pixels. Call `draw()` after `items` changed:
 * it rebuilds a visible row if its object is another one. Several calls within a frame draw once.
 * Screen readers know the selected row.
 */
export class VirtualList {
  constructor({ label, rowHeight, row, open, choose, nearEnd }) {
    this.items = [];
    this.chosen = -1;
    this.rowHeight = rowHeight;
    this._row = row;
    this._open = open;
    this._choose = choose ?? (() => {});
    this._nearEnd = nearEnd ?? (() => {});
    this._shown = new Map();
    this._due = 0;
    this._space = h("div.rows", { role: "rowgroup" });
    this.element = h("div.list", {
      role: "grid",
      tabindex: "0",
      "aria-label": label,
      onscroll: () => this.draw(),
    }, this._space);
    this.element.addEventListener("click", (event) => this._clicked(event, false));
    this.element.addEventListener("dblclick", (event) => this._clicked(event, true));
    this._watch = new ResizeObserver(() => this.draw());
    this._watch.observe(this.element);
  }

  close() {
    this._watch.disconnect();
    cancelAnimationFrame(this._due);
  }

  /** Draw with the next frame. `rebuild`: also replace visible rows whose items are unchanged. */
  draw(rebuild = false) {
    this._rebuild ||= rebuild;
    if (!this._due) this._due = requestAnimationFrame(() => this._drawNow());
  }

  _drawNow() {
    this._due = 0;
    const { items, rowHeight, element } = this;
    if (this._rebuild) {
      for (const shown of this._shown.values()) shown.remove();
      this._shown.clear();
      this._rebuild = false;
    }
    element.setAttribute("aria-rowcount", items.length);
    this._space.style.height = `${items.length * rowHeight}px`;
    const first = Math.max(0, Math.floor(element.scrollTop / rowHeight) - 6);
    const last = Math.min(
      items.length,
      Math.ceil((element.scrollTop + element.clientHeight) / rowHeight) + 6,
    );
    for (const [index, shown] of this._shown) {
      if (index < first || index >= last || shown.item !== items[index]) {
        shown.remove();
        this._shown.delete(index);
      }
    }
    for (let index = first; index < last; index += 1) {
      if (this._shown.has(index)) continue;
      const made = this._row(items[index], index);
      made.item = items[index];
      made.classList.add("row");
      made.dataset.index = index;
      made.id = `row-${index}`;
      made.setAttribute("role", "row");
      made.setAttribute("aria-rowindex", index + 1);
      for (const part of [...made.children]) {
        // Links and buttons keep their own role, inside a cell.
        if (part.matches("a, button")) {
          // If a phone hides the content, hide its cell too: the grid would keep its place.
          const cell = h(`span.cell${part.matches(".hide-small") ? ".hide-small" : ""}`, {
            role: "gridcell",
          });
          part.replaceWith(cell);
          cell.append(part);
        } else part.setAttribute("role", "gridcell");
      }
      made.style.transform = `translateY(${index * rowHeight}px)`;
      this._shown.set(index, made);
      this._space.append(made);
    }
    this._mark();
    if (last >= items.length - 60) this._nearEnd();
  }

  _mark() {
    for (const [index, shown] of this._shown) {
      shown.setAttribute("aria-selected", index === this.chosen);
    }
    if (this._shown.has(this.chosen)) {
      this.element.setAttribute("aria-activedescendant", `row-${this.chosen}`);
    } else this.element.removeAttribute("aria-activedescendant");
  }

  /** Select a row and scroll it into view. */
  choose(index) {
    if (!this.items.length) return;
    this.chosen = Math.max(0, Math.min(this.items.length - 1, index));
    const top = this.chosen * this.rowHeight;
    const { element } = this;
    if (top < element.scrollTop) element.scrollTop = top;
    const below = top + this.rowHeight - element.clientHeight;
    if (below > element.scrollTop) element.scrollTop = below;
    this.draw();
    this._choose(this.items[this.chosen]);
  }

  /** Handle a key that moves the selection; returns whether it did. */
  key(event) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.rowHeight) - 1);
    const step =
      { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 }[event.key];
    if (step !== undefined) this.choose(this.chosen + step);
    else if (event.key === "Enter" && this.items[this.chosen]) this._open(this.items[this.chosen]);
    else return false;
    return true;
  }

  _clicked(event, twice) {
    const index = Number(event.target.closest(".row")?.dataset.index ?? -1);
    if (index < 0 || event.target.closest("button, a")) return;
    this.chosen = index;
    this._mark();
    this._choose(this.items[index]);
    if (twice || matchMedia("(max-width: 760px), (pointer: coarse)").matches) {
      this._open(this.items[index]);
    }
  }
}
