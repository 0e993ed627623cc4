// What stands where a list is, or above it: that it is loading, that it could not be loaded, that it is
// empty. These are three things, and none is shown for another.

import { clock, h, icon } from "./dom.js";

/**
 * How far a list is: `{ kind: "loading" }`, `{ kind: "loaded" }`, `{ kind: "failed", why }` or
 * `{ kind: "missing" }`: there is nothing that could be listed. `atMs` is when it was loaded last.
 */
export class Standing {
  constructor({ list, sign, what, empty, missing = ["", ""], nothing = "No name matches", again }) {
    Object.assign(this, { list, sign, what, empty, missing, nothing, again });
    this.state = { kind: "loading" };
    this.atMs = null;
    this.doubt = "";
    this.place = h("div.empty", { hidden: true });
    this.strip = h("div.strip", { role: "status", hidden: true });
  }

  loading() {
    this.state = { kind: "loading" };
    this.atMs = null;
  }

  loaded() {
    this.state = { kind: "loaded" };
    this.atMs = Date.now();
  }

  failed(why) {
    this.state = { kind: "failed", why };
  }

  gone() {
    this.state = { kind: "missing" };
  }

  get isLoaded() {
    return this.state.kind === "loaded";
  }

  /** Draw for so many rows; `filter` tells that others are hidden by one. */
  draw(rows, filter = "") {
    const shown = rows > 0 && this.state.kind !== "missing";
    this.list.element.hidden = !shown;
    this.place.hidden = shown;
    if (!shown) this.place.replaceChildren(...this.inPlace(filter));
    const said = shown ? this.above() : "";
    this.strip.hidden = !said;
    if (said && said !== this.strip.dataset.said) {
      this.strip.replaceChildren(
        h("span", {}, said, " "),
        ...(this.state.kind === "failed" ? [this.button()] : []),
      );
    }
    this.strip.dataset.said = said;
  }

  inPlace(filter) {
    const [title, text] = this.words(filter);
    const known = this.state.kind === "failed" && this.atMs
      ? `It was loaded last at ${clock(this.atMs)}.`
      : "";
    return [
      icon(this.sign),
      h("h2", {}, title),
      text && h("p.quiet", {}, text),
      known && h("p.quiet", {}, known),
      this.state.kind === "failed" && this.button(),
    ].filter(Boolean);
  }

  words(filter) {
    switch (this.state.kind) {
      case "loading":
        return ["Loading…", ""];
      case "failed":
        return [`${this.what} could not be loaded`, this.state.why];
      case "missing":
        return this.missing;
      default:
        return filter ? [this.nothing, ""] : this.empty;
    }
  }

  above() {
    const { state, atMs } = this;
    if (state.kind === "failed") {
      return atMs
        ? `As of ${clock(atMs)}; it could not be loaded anew: ${state.why}`
        : `Not all is shown, the rest could not be loaded: ${state.why}`;
    }
    return this.doubt;
  }

  button() {
    return h("button", { type: "button", onclick: () => this.again() }, "Try again");
  }
}
