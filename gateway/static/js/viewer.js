// One file: what it is, a look at it, editing it as text, and the choice when somebody else was faster.

import { Problem, call, fileUrl } from "./api.js";
import { ask, moreButton, toast } from "./dialog.js";
import { h, icon, moment, put, size } from "./dom.js";
import { compare } from "./compare.js";

const TEXT_BYTES_MAX = 1024 * 1024;
const IMAGES = /^image\/(png|jpeg|gif|webp|avif|svg\+xml|bmp|x-icon)/;
const TEXTS = /^(text\/|application\/(json|xml|javascript|toml|yaml|x-sh|x-yaml|sql)|.*\+(json|xml))/;
const TEXT_NAMES = /\.(md|txt|json|ya?ml|toml|ini|cfg|conf|py|js|ts|css|html?|sh|rs|go|c|h|cpp|java|sql|csv|log|xml|env|lock|gitignore)$|(^|\/)(Makefile|Dockerfile|LICENSE|README)$/i;

export const isImage = (entry) => IMAGES.test(entry.content_type ?? "");

/** Show the file at `path` in `place`. */
export function openViewer(place, path, { leave, actions }) {
  const viewer = new Viewer(place, path, leave, actions);
  viewer.load();
  return viewer;
}

class Viewer {
  constructor(place, path, leave, actions) {
    Object.assign(this, { place, path, leave, actions, etag: "", text: null, area: null, closed: false });
  }

  close() {
    this.closed = true;
    this.place.replaceChildren();
  }

  async load() {
    let head;
    try {
      head = await call("HEAD", fileUrl(this.path));
    } catch (error) {
      if (this.closed) return;
      if (error.status === 409) { location.replace(`${location.hash}/`); return; }
      this.frame(h("div.empty", {}, icon("file"), h("h2", {}, error.status === 404 ? "There is no file here" : "It can't be shown"),
        h("p.quiet", {}, error.status === 404 ? "It may have been moved or deleted." : error.message)));
      return;
    }
    if (this.closed) return;
    const get = (name) => head.headers.get(name);
    this.entry = { kind: "file", path: this.path, name: this.path.split("/").pop(), size: Number(get("content-length")), etag: get("etag").replaceAll('"', ""),
      content_type: get("content-type"), modified_ms: Number(get("synod-modified")), version: Number(get("synod-version")),
      digest: get("repr-digest"), store: get("synod-store") };
    this.etag = this.entry.etag;
    const { entry } = this;
    if (isImage(entry)) this.frame(h("div.picture", {}, h("img", { src: `${fileUrl(this.path)}?v=${this.etag}`, alt: `Preview of ${entry.name}` })));
    else if ((TEXTS.test(entry.content_type) || TEXT_NAMES.test(entry.name)) && entry.size <= TEXT_BYTES_MAX) await this.showText();
    else this.frame(h("div.empty", {}, icon("file"), h("h2", {}, entry.size > TEXT_BYTES_MAX ? "Too large for a preview" : "No preview for this kind"), h("p.quiet", {}, entry.content_type)));
  }

  frame(body, ...buttons) {
    const { entry } = this;
    this.notice = h("div.notice", { role: "status", hidden: true });
    put(this.place,
      h("header", {}, h("button.bare.icon", { type: "button", "aria-label": "Close the file", title: "Close", onclick: () => this.mayLeave() && this.leave() }, icon("back")),
        h("h2.grow", { title: this.path }, this.path.split("/").pop()), ...buttons,
        entry && h("a.button", { href: fileUrl(this.path), download: entry.name, "aria-label": `Download ${entry.name}` }, icon("download")),
        entry && moreButton("Actions for this file", (at) => this.actions(entry, at))),
      this.notice, body, entry && this.facts());
  }

  facts() {
    const { entry } = this;
    const rows = [["Size", size(entry.size)], ["Changed", moment(entry.modified_ms)], ["Version", `${entry.version}`], ["Written by", h("a", { href: `#/log/${entry.etag.split("-")[0]}` }, `slot ${entry.etag.split("-")[0]}`)], ["Kind", entry.content_type]];
    return h("dl.facts", {}, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }

  async showText() {
    const answer = await call("GET", fileUrl(this.path), { headers: { "if-match": `"${this.etag}"` } });
    this.text = await answer.text();
    if (this.closed) return;
    this.area = h("textarea.editor", { spellcheck: "false", "aria-label": `Text of ${this.entry.name}`, wrap: "off", oninput: () => this.dirty() });
    this.area.value = this.text;
    this.save = h("button.primary", { type: "button", disabled: true, onclick: () => this.store() }, "Save");
    this.frame(this.area, this.save);
  }

  get changedHere() {
    return this.area !== null && this.area.value !== this.text;
  }

  dirty() {
    this.save.disabled = !this.changedHere;
  }

  mayLeave() {
    return !this.changedHere || confirm("What you changed is not saved. Leave it?");
  }

  /** Save under the condition that nobody else has saved since; else both are shown. */
  async store(etag = this.etag) {
    const mine = this.area.value;
    this.save.disabled = true;
    try {
      const answer = await call("PUT", fileUrl(this.path), { body: new Blob([mine]), headers: {
        "content-type": this.entry.content_type, "if-match": etag === null ? "" : `"${etag}"` } });
      const written = await answer.json();
      this.text = mine;
      this.etag = this.entry.etag = written.etag;
      this.entry.version += 1;
      this.entry.size = new Blob([mine]).size;
      this.entry.modified_ms = Date.now();
      this.notice.hidden = true;
      this.place.querySelector(".facts")?.replaceWith(this.facts());
      toast(`Saved at slot ${written.slot}.`);
    } catch (error) {
      if (error instanceof Problem && error.status === 412) await this.conflict(mine);
      else throw error;
    } finally {
      this.dirty();
    }
  }

  async conflict(mine) {
    let theirs = null;
    let etag = null;
    try {
      const answer = await call("GET", fileUrl(this.path));
      theirs = await answer.text();
      etag = answer.headers.get("etag").replaceAll('"', "");
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    const title = theirs === null ? "Somebody deleted this file meanwhile" : "Somebody saved this file meanwhile";
    let choice = null;
    const choose = (value) => () => { choice = value; document.querySelector("dialog[open]").close(); };
    await ask({ title, wide: true, action: "Keep editing", cancel: "",
      text: "Nothing is lost yet. Choose which version stays; the other is not kept.",
      fields: [compare(theirs ?? "", mine), h("div.choices", {},
        h("button", { type: "button", onclick: choose("theirs") }, theirs === null ? "Let it stay deleted" : "Take theirs"),
        h("button.danger", { type: "button", onclick: choose("mine") }, "Replace with mine"))] });
    if (choice === "theirs") {
      this.area.value = this.text;
      if (theirs === null) this.leave();
      else this.load();
    } else if (choice === "mine") {
      if (theirs === null) await this.recreate(mine);
      else await this.store(etag);
    }
  }

  async recreate(mine) {
    await call("PUT", fileUrl(this.path), { body: new Blob([mine]), headers: { "content-type": this.entry.content_type, "if-none-match": "*" } });
    this.text = mine;
    this.load();
  }

  /** The log tells that something changed; of this file a note is shown, or the new version. */
  changed(change) {
    if (change.path !== this.path || !this.entry || change.etag === this.etag) return;
    if (change.kind === "put" && !this.changedHere && change.etag !== this.etag) {
      clearTimeout(this.due);
      this.due = setTimeout(() => this.closed || this.changedHere || change.etag === this.etag || this.load(), 500);
      return;
    }
    this.notice.hidden = false;
    this.notice.textContent = change.kind === "put" ? "Somebody saved another version. When you save, you can compare and choose." : "Somebody moved or deleted this file.";
  }

  /** Keys of an open file. */
  key(event, typing) {
    if (event.key === "s" && event.ctrlKey) {
      if (this.changedHere) this.store();
      return true;
    }
    if (event.key === "Escape" && (!typing || event.target === this.area)) {
      if (this.mayLeave()) this.leave();
      return true;
    }
    return false;
  }
}
