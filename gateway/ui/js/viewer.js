// One file: its metadata, a preview, the text editor, and the dialog that resolves a conflict.

import { Attempt, call, fileUrl, OutcomeUnknown, Problem } from "./api.js";
import { compare } from "./compare.js";
import { ask, moreButton, toast } from "./dialog.js";
import { clock, h, icon, moment, setChildren, size } from "./dom.js";
import { draftOf, dropDraft, keepDraft } from "./drafts.js";

const TEXT_BYTES_MAX = 1024 * 1024;
const IMAGES = /^image\/(png|jpeg|gif|webp|avif|svg\+xml|bmp|x-icon)/;
const TEXTS =
  /^(text\/|application\/(json|xml|javascript|toml|yaml|x-sh|x-yaml|sql)|.*\+(json|xml))/;
const TEXT_EXTENSIONS = new Set(
  ("c cfg conf cpp css csv env gitignore go h htm html ini java js json lock log md py rs sh sql " +
    "toml ts txt xml yaml yml").split(" "),
);
const TEXT_NAMES = new Set(["dockerfile", "license", "makefile", "readme"]);

export const isImage = (entry) => IMAGES.test(entry.content_type ?? "");

/** Whether an entry's content type or name is one of a text. */
function isText(entry) {
  if (TEXTS.test(entry.content_type)) return true;
  const name = entry.name.toLowerCase();
  const dot = name.lastIndexOf(".");
  return dot < 0 ? TEXT_NAMES.has(name) : TEXT_EXTENSIONS.has(name.slice(dot + 1));
}

/** Show the file at `path` in the element `place`. */
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
      isClosed: false,
      isSaving: false,
      hasFailed: false,
    });
    this.attempt = new Attempt();
    /** The text of a save whose outcome is not known; `null` if there is none. */
    this.maybeSaved = null;
    this.onPageHide = () => this.saveDraft();
    addEventListener("pagehide", this.onPageHide);
  }

  close() {
    this.isClosed = true;
    this.saveDraft();
    removeEventListener("pagehide", this.onPageHide);
    clearTimeout(this.reloadTimer);
    clearTimeout(this.draftTimer);
    this.place.replaceChildren();
  }

  /** Load the file again if it could not be loaded. */
  refresh() {
    if (this.hasFailed) this.load();
  }

  // -- unsaved text ------------------------------------------------------------------------------

  saveDraft() {
    if (this.isDirty) keepDraft(this.path, this.area.value, this.etag);
  }

  discard() {
    dropDraft(this.path);
    if (this.area) this.area.value = this.text;
  }

  async load() {
    this.hasFailed = false;
    if (!this.entry) setChildren(this.place, h("p.loading", { role: "status" }, "Loading…"));
    let head;
    try {
      head = await call("HEAD", fileUrl(this.path));
    } catch (error) {
      if (this.isClosed || this.isDirty) return;
      if (error.status === 409) {
        location.replace(`${location.hash}/`);
        return;
      }
      this.showFailure(error);
      return;
    }
    // Text that was typed meanwhile stays; `showRemoteChange` reports the other version.
    if (this.isClosed || this.isDirty) return;
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
              this.showFailure(
                new Error("The gateway did not send the image, or it is not a valid one."),
              ),
          }),
        ),
      );
    } else if (
      isText(entry) &&
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
            entry.size > TEXT_BYTES_MAX ? "Too large for a preview" : "No preview for this type",
          ),
          h("p.quiet", {}, entry.content_type),
        ),
      );}
  }

  /** Show why the file can't be shown, and the unsaved draft if there is one. */
  showFailure(error) {
    const isGone = error.status === 404;
    this.hasFailed = !isGone;
    this.entry = this.area = null;
    const draft = draftOf(this.path);
    this.frame(
      h(
        "div.empty",
        {},
        icon("file"),
        h("h2", {}, isGone ? "This file does not exist" : "This file could not be loaded"),
        h("p.quiet", {}, isGone ? "It may have been moved or deleted." : error.message),
        !isGone && h("button", { type: "button", onclick: () => this.load() }, "Try again"),
        draft && h("p.quiet", {}, `Your unsaved text from ${clock(draft.at_ms)}:`),
        draft &&
          h(
            "textarea.editor",
            { readonly: true, "aria-label": "Unsaved text" },
            draft.text,
          ),
      ),
    );
  }

  frame(body, ...buttons) {
    const { entry } = this;
    this.notice = h("div.notice", { role: "status", hidden: true });
    setChildren(
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
      entry && this.metadata(),
    );
  }

  metadata() {
    const { entry } = this;
    const rows = [["Size", size(entry.size)], ["Changed", moment(entry.modified_ms)], [
      "Version",
      `${entry.version}`,
    ], [
      "Written by",
      h("a", { href: `#/log/${entry.etag.split("-")[0]}` }, `slot ${entry.etag.split("-")[0]}`),
    ], ["Type", entry.content_type]];
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
      if (this.isClosed || this.isDirty) return;
      // Another version was saved between the two requests.
      if (error.status === 412) {
        this.reloadTimer = setTimeout(() => this.load(), 200);
        return;
      }
      this.showFailure(error);
      return;
    }
    if (this.isClosed || this.isDirty) return;
    this.text = text;
    this.area = h("textarea.editor", {
      spellcheck: "false",
      "aria-label": `Text of ${this.entry.name}`,
      wrap: "off",
      oninput: () => this.onEdit(),
    });
    this.area.value = text;
    this.saveButton = h(
      "button.primary",
      { type: "button", disabled: true, onclick: () => this.saveFile() },
      "Save",
    );
    this.frame(this.area, this.saveButton);
    this.restoreDraft();
  }

  /** Put an unsaved draft back into the editor. */
  restoreDraft() {
    const draft = draftOf(this.path);
    if (!draft || draft.text === this.text) {
      dropDraft(this.path);
      return;
    }
    const isOlder = draft.etag !== this.etag;
    this.area.value = draft.text;
    this.etag = draft.etag;
    this.onEdit();
    const drop = () => {
      this.discard();
      this.load();
    };
    this.showNotice(
      `Your unsaved text from ${clock(draft.at_ms)} was restored.${
        isOlder ? " The file was changed since: when you save, you can compare both versions." : ""
      }`,
      h("button", { type: "button", onclick: drop }, "Discard"),
    );
  }

  showNotice(text, ...more) {
    this.notice.hidden = false;
    this.notice.replaceChildren(h("span", {}, text, " "), ...more);
  }

  get isDirty() {
    return this.area !== null && this.area.value !== this.text;
  }

  onEdit() {
    this.saveButton.disabled = this.isSaving || !this.isDirty;
    clearTimeout(this.draftTimer);
    this.draftTimer = setTimeout(
      () => (this.isDirty ? this.saveDraft() : dropDraft(this.path)),
      300,
    );
  }

  /** Save, on the condition that the file is still the version `etag`; else show both versions. */
  async saveFile(etag = this.etag) {
    if (this.isSaving) return;
    const mine = this.area.value;
    this.isSaving = true;
    this.saveButton.disabled = true;
    this.saveDraft();
    try {
      const answer = await this.attempt.call("PUT", fileUrl(this.path), {
        body: mine,
        headers: {
          "content-type": this.entry.content_type,
          "if-match": `"${etag}"`,
        },
      });
      this.onSaved(mine, await answer.json());
    } catch (error) {
      if (error instanceof OutcomeUnknown) {
        this.maybeSaved = mine;
        this.showNotice(
          error.message,
          h("button", { type: "button", onclick: () => this.saveFile(etag) }, "Retry"),
        );
      } else if (error instanceof Problem && error.status === 412) {
        this.isSaving = false;
        await this.resolveConflict(mine);
      } else {
        this.maybeSaved = null;
        this.showNotice(
          `Not saved: ${error.message} Your text is kept here.`,
          h("button", { type: "button", onclick: () => this.saveFile(etag) }, "Try again"),
        );
      }
    } finally {
      this.isSaving = false;
      this.onEdit();
      this.showRemoteChange();
    }
  }

  onSaved(mine, written) {
    this.text = mine;
    this.maybeSaved = null;
    this.etag = this.entry.etag = written.etag;
    this.entry.version += 1;
    this.entry.size = new Blob([mine]).size;
    this.entry.modified_ms = Date.now();
    this.notice.hidden = true;
    if (!this.isDirty) dropDraft(this.path);
    this.place.querySelector(".facts")?.replaceWith(this.metadata());
    toast(`Saved at slot ${written.slot}.`);
  }

  async resolveConflict(mine) {
    let theirs = null;
    let etag = null;
    try {
      const answer = await call("GET", fileUrl(this.path));
      theirs = await answer.text();
      etag = answer.headers.get("etag").replaceAll('"', "");
    } catch (error) {
      if (error.status !== 404) {
        this.showNotice(
          "Not saved: the file was changed meanwhile, and its current version could not be " +
            `loaded: ${error.message} Your text is kept here.`,
        );
        return;
      }
    }
    if (theirs !== null && theirs === this.maybeSaved) {
      // The current version is this page's own save, whose answer did not arrive.
      this.maybeSaved = null;
      this.text = theirs;
      this.etag = this.entry.etag = etag;
      if (mine === theirs) {
        dropDraft(this.path);
        this.load();
      } else await this.saveFile(etag);
      return;
    }
    this.maybeSaved = null;
    const title = theirs === null
      ? "This file was deleted by another client"
      : "This file was saved by another client";
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
      text: "Your text is not saved yet. Choose the version to keep; the other one is discarded.",
      fields: [
        compare(theirs ?? "", mine),
        h(
          "div.choices",
          {},
          h(
            "button",
            { type: "button", onclick: choose("theirs") },
            theirs === null ? "Keep it deleted" : "Use the current version",
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
      else await this.saveFile(etag);
    }
  }

  async recreate(mine) {
    try {
      await this.attempt.call("PUT", fileUrl(this.path), {
        body: mine,
        headers: { "content-type": this.entry.content_type, "if-none-match": "*" },
      });
    } catch (error) {
      this.showNotice(
        `${
          error instanceof OutcomeUnknown ? "" : "Not saved: "
        }${error.message} Your text is kept here.`,
        h("button", { type: "button", onclick: () => this.recreate(mine) }, "Try again"),
      );
      return;
    }
    this.text = mine;
    dropDraft(this.path);
    this.load();
  }

  /** Show a change of this file by another client: the new version, or a notice. */
  applyChange(change) {
    if ((change.path !== this.path && change.source !== this.path) || !this.entry) return;
    this.remoteChange = change;
    this.showRemoteChange();
  }

  showRemoteChange() {
    const change = this.remoteChange;
    // While a save is running, or its outcome is unknown, the change may be this page's own: only
    // the answer to the save carries its ETag.
    if (!change || this.isSaving || this.maybeSaved !== null || this.isClosed || !this.entry) {
      return;
    }
    this.remoteChange = null;
    if (
      change.etag === this.etag || change.etag === this.entry.etag ||
      Number(change.slot) < Number(this.entry.etag.split("-")[0])
    ) return;
    if (change.kind === "put" && !this.isDirty) {
      clearTimeout(this.reloadTimer);
      this.reloadTimer = setTimeout(
        () => this.isClosed || this.isDirty || change.etag === this.etag || this.load(),
        500,
      );
      return;
    }
    this.showNotice(
      change.kind === "put"
        ? "Another client saved this file. When you save, you can compare both versions."
        : "Another client moved or deleted this file.",
    );
  }

  /** Handle a key; returns whether the viewer uses it. */
  key(event, typing) {
    if (event.key === "s" && event.ctrlKey) {
      if (this.isDirty) this.saveFile();
      return true;
    }
    if (event.key === "Escape" && (!typing || event.target === this.area)) {
      this.leave();
      return true;
    }
    return false;
  }
}
