// One file: what it is, a look at it, editing it as text, and the choice when somebody else was faster.

import { Attempt, call, fileUrl, Problem, Unsettled } from "./api.js";
import { compare } from "./compare.js";
import { ask, moreButton, toast } from "./dialog.js";
import { clock, h, icon, moment, put, size } from "./dom.js";
import { draftOf, dropDraft, keepDraft } from "./drafts.js";

const TEXT_BYTES_MAX = 1024 * 1024;
const IMAGES = /^image\/(png|jpeg|gif|webp|avif|svg\+xml|bmp|x-icon)/;
const TEXTS =
  /^(text\/|application\/(json|xml|javascript|toml|yaml|x-sh|x-yaml|sql)|.*\+(json|xml))/;
const TEXT_NAMES =
  /\.(md|txt|json|ya?ml|toml|ini|cfg|conf|py|js|ts|css|html?|sh|rs|go|c|h|cpp|java|sql|csv|log|xml|env|lock|gitignore)$|(^|\/)(Makefile|Dockerfile|LICENSE|README)$/i;

export const isImage = (entry) => IMAGES.test(entry.content_type ?? "");

/** Show the file at `path` in `place`. */
export function openViewer(place, path, { leave, actions }) {
  const viewer = new Viewer(place, path, leave, actions);
  viewer.load();
  return viewer;
}

class Viewer {
  constructor(place, path, leave, actions) {
    Object.assign(this, {
      place,
      path,
      leave,
      actions,
      etag: "",
      text: null,
      area: null,
      closed: false,
      saving: false,
      failed: false,
    });
    this.attempt = new Attempt();
    /** What was sent and may have been saved, as nothing said yet. */
    this.sent = null;
    this.hidden = () => this.keep();
    addEventListener("pagehide", this.hidden);
  }

  close() {
    this.closed = true;
    this.keep();
    removeEventListener("pagehide", this.hidden);
    clearTimeout(this.due);
    clearTimeout(this.keeping);
    this.place.replaceChildren();
  }

  /** Load again what could not be loaded. */
  refresh() {
    if (this.failed) this.load();
  }

  // -- what is not saved -------------------------------------------------------------------------

  keep() {
    if (this.changedHere) keepDraft(this.path, this.area.value, this.etag);
  }

  discard() {
    dropDraft(this.path);
    if (this.area) this.area.value = this.text;
  }

  async load() {
    this.failed = false;
    if (!this.entry) put(this.place, h("p.loading", { role: "status" }, "Loading…"));
    let head;
    try {
      head = await call("HEAD", fileUrl(this.path));
    } catch (error) {
      if (this.closed || this.changedHere) return;
      if (error.status === 409) {
        location.replace(`${location.hash}/`);
        return;
      }
      this.notShown(error);
      return;
    }
    // What was typed meanwhile stays; that there is another version is said.
    if (this.closed || this.changedHere) return;
    const get = (name) => head.headers.get(name);
    this.entry = {
      kind: "file",
      path: this.path,
      name: this.path.split("/").pop(),
      size: Number(get("content-length")),
      etag: get("etag").replaceAll('"', ""),
      content_type: get("content-type"),
      modified_ms: Number(get("synod-modified")),
      version: Number(get("synod-version")),
      digest: get("repr-digest"),
      store: get("synod-store"),
    };
    this.etag = this.entry.etag;
    const { entry } = this;
    if (isImage(entry)) {
      this.frame(
        h(
          "div.picture",
          {},
          h("img", {
            src: `${fileUrl(this.path)}?v=${this.etag}`,
            alt: `Preview of ${entry.name}`,
            onerror: () =>
              this.notShown(new Error("The picture did not come from the gateway, or is none.")),
          }),
        ),
      );
    } else if (
      (TEXTS.test(entry.content_type) || TEXT_NAMES.test(entry.name)) &&
      entry.size <= TEXT_BYTES_MAX
    ) await this.showText();
    else {this.frame(
        h(
          "div.empty",
          {},
          icon("file"),
          h(
            "h2",
            {},
            entry.size > TEXT_BYTES_MAX ? "Too large for a preview" : "No preview for this kind",
          ),
          h("p.quiet", {}, entry.content_type),
        ),
      );}
  }

  /** Why there is nothing to see, and what was typed before, if it was not saved. */
  notShown(error) {
    const isGone = error.status === 404;
    this.failed = !isGone;
    this.entry = this.area = null;
    const draft = draftOf(this.path);
    this.frame(
      h(
        "div.empty",
        {},
        icon("file"),
        h("h2", {}, isGone ? "There is no file here" : "It could not be loaded"),
        h("p.quiet", {}, isGone ? "It may have been moved or deleted." : error.message),
        !isGone && h("button", { type: "button", onclick: () => this.load() }, "Try again"),
        draft && h("p.quiet", {}, `What you typed at ${clock(draft.at_ms)} and did not save:`),
        draft &&
          h(
            "textarea.editor",
            { readonly: true, "aria-label": "Text that was not saved" },
            draft.text,
          ),
      ),
    );
  }

  frame(body, ...buttons) {
    const { entry } = this;
    this.notice = h("div.notice", { role: "status", hidden: true });
    put(
      this.place,
      h(
        "header",
        {},
        h("button.bare.icon", {
          type: "button",
          "aria-label": "Close the file",
          title: "Close",
          onclick: () => this.leave(),
        }, icon("back")),
        h("h2.grow", { title: this.path }, this.path.split("/").pop()),
        ...buttons,
        entry &&
          h("a.button", {
            href: fileUrl(this.path),
            download: entry.name,
            "aria-label": `Download ${entry.name}`,
          }, icon("download")),
        entry && moreButton("Actions for this file", (at) => this.actions(entry, at)),
      ),
      this.notice,
      body,
      entry && this.facts(),
    );
  }

  facts() {
    const { entry } = this;
    const rows = [["Size", size(entry.size)], ["Changed", moment(entry.modified_ms)], [
      "Version",
      `${entry.version}`,
    ], [
      "Written by",
      h("a", { href: `#/log/${entry.etag.split("-")[0]}` }, `slot ${entry.etag.split("-")[0]}`),
    ], ["Kind", entry.content_type]];
    return h(
      "dl.facts",
      {},
      rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
    );
  }

  async showText() {
    let text;
    try {
      const answer = await call("GET", fileUrl(this.path), {
        headers: { "if-match": `"${this.etag}"` },
      });
      text = await answer.text();
    } catch (error) {
      if (this.closed || this.changedHere) return;
      // It was saved anew between the two questions.
      if (error.status === 412) {
        this.due = setTimeout(() => this.load(), 200);
        return;
      }
      this.notShown(error);
      return;
    }
    if (this.closed || this.changedHere) return;
    this.text = text;
    this.area = h("textarea.editor", {
      spellcheck: "false",
      "aria-label": `Text of ${this.entry.name}`,
      wrap: "off",
      oninput: () => this.dirty(),
    });
    this.area.value = text;
    this.save = h(
      "button.primary",
      { type: "button", disabled: true, onclick: () => this.store() },
      "Save",
    );
    this.frame(this.area, this.save);
    this.bringBack();
  }

  /** Put a text that was typed before and not saved back in its place. */
  bringBack() {
    const draft = draftOf(this.path);
    if (!draft || draft.text === this.text) {
      dropDraft(this.path);
      return;
    }
    const isOlder = draft.etag !== this.etag;
    this.area.value = draft.text;
    this.etag = draft.etag;
    this.dirty();
    const drop = () => {
      this.discard();
      this.load();
    };
    this.note(
      `What you typed at ${clock(draft.at_ms)} and did not save is here again.${
        isOlder ? " The file was changed since: when you save, you can compare and choose." : ""
      }`,
      h("button", { type: "button", onclick: drop }, "Discard it"),
    );
  }

  note(text, ...more) {
    this.notice.hidden = false;
    this.notice.replaceChildren(h("span", {}, text, " "), ...more);
  }

  get changedHere() {
    return this.area !== null && this.area.value !== this.text;
  }

  dirty() {
    this.save.disabled = this.saving || !this.changedHere;
    clearTimeout(this.keeping);
    this.keeping = setTimeout(() => (this.changedHere ? this.keep() : dropDraft(this.path)), 300);
  }

  /** Save under the condition that nobody else has saved since; else both are shown. */
  async store(etag = this.etag) {
    if (this.saving) return;
    const mine = this.area.value;
    this.saving = true;
    this.save.disabled = true;
    this.keep();
    try {
      const answer = await this.attempt.call("PUT", fileUrl(this.path), {
        body: mine,
        headers: {
          "content-type": this.entry.content_type,
          "if-match": `"${etag}"`,
        },
      });
      this.saved(mine, await answer.json());
    } catch (error) {
      if (error instanceof Unsettled) {
        this.sent = mine;
        this.note(
          error.message,
          h("button", { type: "button", onclick: () => this.store(etag) }, "Ask again"),
        );
      } else if (error instanceof Problem && error.status === 412) {
        this.saving = false;
        await this.conflict(mine);
      } else {
        this.sent = null;
        this.note(
          `Not saved: ${error.message} Your text is kept here.`,
          h("button", { type: "button", onclick: () => this.store(etag) }, "Try again"),
        );
      }
    } finally {
      this.saving = false;
      this.dirty();
      this.tellOfOthers();
    }
  }

  saved(mine, written) {
    this.text = mine;
    this.sent = null;
    this.etag = this.entry.etag = written.etag;
    this.entry.version += 1;
    this.entry.size = new Blob([mine]).size;
    this.entry.modified_ms = Date.now();
    this.notice.hidden = true;
    if (!this.changedHere) dropDraft(this.path);
    this.place.querySelector(".facts")?.replaceWith(this.facts());
    toast(`Saved at slot ${written.slot}.`);
  }

  async conflict(mine) {
    let theirs = null;
    let etag = null;
    try {
      const answer = await call("GET", fileUrl(this.path));
      theirs = await answer.text();
      etag = answer.headers.get("etag").replaceAll('"', "");
    } catch (error) {
      if (error.status !== 404) {
        this.note(
          `Not saved: the file was changed meanwhile, and what it holds now could not be loaded: ${error.message} Your text is kept here.`,
        );
        return;
      }
    }
    if (theirs !== null && theirs === this.sent) {
      // It is what this page itself sent, whose answer had not come.
      this.sent = null;
      this.text = theirs;
      this.etag = this.entry.etag = etag;
      if (mine === theirs) {
        dropDraft(this.path);
        this.load();
      } else await this.store(etag);
      return;
    }
    this.sent = null;
    const title = theirs === null
      ? "Somebody deleted this file meanwhile"
      : "Somebody saved this file meanwhile";
    let choice = null;
    const choose = (value) => () => {
      choice = value;
      document.querySelector("dialog[open]").close();
    };
    await ask({
      title,
      wide: true,
      action: "Keep editing",
      cancel: "",
      text: "Nothing is lost yet. Choose which version stays; the other is not kept.",
      fields: [
        compare(theirs ?? "", mine),
        h(
          "div.choices",
          {},
          h(
            "button",
            { type: "button", onclick: choose("theirs") },
            theirs === null ? "Let it stay deleted" : "Take theirs",
          ),
          h("button.danger", { type: "button", onclick: choose("mine") }, "Replace with mine"),
        ),
      ],
    });
    if (choice === "theirs") {
      this.discard();
      if (theirs === null) this.leave();
      else this.load();
    } else if (choice === "mine") {
      if (theirs === null) await this.recreate(mine);
      else await this.store(etag);
    }
  }

  async recreate(mine) {
    try {
      await this.attempt.call("PUT", fileUrl(this.path), {
        body: mine,
        headers: { "content-type": this.entry.content_type, "if-none-match": "*" },
      });
    } catch (error) {
      this.note(
        `${
          error instanceof Unsettled ? "" : "Not saved: "
        }${error.message} Your text is kept here.`,
        h("button", { type: "button", onclick: () => this.recreate(mine) }, "Try again"),
      );
      return;
    }
    this.text = mine;
    dropDraft(this.path);
    this.load();
  }

  /** The log tells that something changed; of this file a note is shown, or the new version. */
  changed(change) {
    if ((change.path !== this.path && change.source !== this.path) || !this.entry) return;
    this.newest = change;
    this.tellOfOthers();
  }

  tellOfOthers() {
    const change = this.newest;
    // While a save is under way the change may be its own: its answer tells the tag.
    // So it is as long as it is not known whether it was done.
    if (!change || this.saving || this.sent !== null || this.closed || !this.entry) return;
    this.newest = null;
    if (
      change.etag === this.etag || change.etag === this.entry.etag ||
      Number(change.slot) < Number(this.entry.etag.split("-")[0])
    ) return;
    if (change.kind === "put" && !this.changedHere) {
      clearTimeout(this.due);
      this.due = setTimeout(
        () => this.closed || this.changedHere || change.etag === this.etag || this.load(),
        500,
      );
      return;
    }
    this.note(
      change.kind === "put"
        ? "Somebody saved another version. When you save, you can compare and choose."
        : "Somebody moved or deleted this file.",
    );
  }

  /** Keys of an open file. */
  key(event, typing) {
    if (event.key === "s" && event.ctrlKey) {
      if (this.changedHere) this.store();
      return true;
    }
    if (event.key === "Escape" && (!typing || event.target === this.area)) {
      this.leave();
      return true;
    }
    return false;
  }
}
