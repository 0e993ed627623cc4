// The status of a list: loading, loaded, failed or not found. It is shown in place of the list or
// in a strip above it; an empty list, one that is loading and one that failed never look alike.

import { clock, h, icon } from "./dom.js";

/**
 * `state` is `{ kind: "loading" }`, `{ kind: "loaded" }`, `{ kind: "failed", why }` or
 * `{ kind: "notFound" }`: what should be listed does not exist. `loadedAtMs` is when the list was
 * last loaded; `warning` is shown above a loaded list.
 */
export class ListStatus {
  constructor(
    { list, iconName, subject, empty, notFound = ["", ""], noMatch = "No name matches", retry },
  ) {
    Object.assign(this, { list, iconName, subject, empty, notFound, noMatch, retry });
    this.state = { kind: "loading" };
    this.loadedAtMs = null;
    this.warning = "";
    this.placeholder = h("div.empty", { hidden: true });
    this.strip = h("div.strip", { role: "status", hidden: true });
  }

  setLoading() {
    this.state = { kind: "loading" };
    this.loadedAtMs = null;
  }

  setLoaded() {
    this.state = { kind: "loaded" };
    this.loadedAtMs = Date.now();
  }

  setFailed(why) {
    this.state = { kind: "failed", why };
  }

  setNotFound() {
    this.state = { kind: "notFound" };
  }

  get isLoaded() {
    return this.state.kind === "loaded";
  }

  /** Show the status of a list with `rows` rows; `filter` is set if a filter hides others. */
  draw(rows, filter = "") {
    const hasRows = rows > 0 && this.state.kind !== "notFound";
    this.list.element.hidden = !hasRows;
    this.placeholder.hidden = hasRows;
    if (!hasRows) this.placeholder.replaceChildren(...this.placeholderContent(filter));
    const text = hasRows ? this.stripText() : "";
    this.strip.hidden = !text;
    if (text && text !== this.strip.dataset.text) {
      this.strip.replaceChildren(
        h("span", {}, text, " "),
        ...(this.state.kind === "failed" ? [this.retryButton()] : []),
      );
    }
    this.strip.dataset.text = text;
  }

  placeholderContent(filter) {
    const [title, text] = this.message(filter);
    const hasFailed = this.state.kind === "failed";
    const lastLoaded = hasFailed && this.loadedAtMs
      ? `It was last loaded at ${clock(this.loadedAtMs)}.`
      : "";
    return [
      icon(this.iconName),
      h("h2", {}, title),
      text && h("p.quiet", {}, text),
      lastLoaded && h("p.quiet", {}, lastLoaded),
      hasFailed && this.retryButton(),
    ].filter(Boolean);
  }

  message(filter) {
    switch (this.state.kind) {
      case "loading":
        return ["Loading…", ""];
      case "failed":
        return [`${this.subject} could not be loaded`, this.state.why];
      case "notFound":
        return this.notFound;
      default:
        return filter ? [this.noMatch, ""] : this.empty;
    }
  }

  stripText() {
    const { state, loadedAtMs } = this;
    if (state.kind === "failed") {
      return loadedAtMs
        ? `Shown as of ${clock(loadedAtMs)}; reloading failed: ${state.why}`
        : `Only a part is shown; loading the rest failed: ${state.why}`;
    }
    return this.warning;
  }

  retryButton() {
    return h("button", { type: "button", onclick: () => this.retry() }, "Try again");
  }
}
