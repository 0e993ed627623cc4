// The page Files: one folder at a time, kept up to date by what the log tells.

import { Attempt, directoryUrl, get } from "./api.js";
import { ask, askText, menu, moreButton, toast } from "./dialog.js";
import { clock, encoded, h, icon, moment, plural, size } from "./dom.js";
import { VirtualList } from "./list.js";
import { listen, listenToFiles } from "./live.js";
import { Standing } from "./standing.js";
import { dropped, upload } from "./uploads.js";
import { isImage, openViewer } from "./viewer.js";

const PAGE = 1000;
const join = (folder, name) => (folder ? `${folder}/${name}` : name);
const parent = (path) => path.split("/").slice(0, -1).join("/");
const nameOf = (path) => path.split("/").pop();
const link = (path, isFolder) => `#/files/${encoded(path)}${isFolder && path ? "/" : ""}`;

/** Open the page at a folder (ends in a slash, or is empty) or a file. */
export function open(main, rest) {
  const view = new Files(main);
  view.move(rest);
  return view;
}

class Files {
  constructor(main) {
    this.folder = null;
    this.entries = [];
    this.filter = "";
    this.loading = null;
    this.viewer = null;
    this.crumbs = h("nav.crumbs", { "aria-label": "Path" });
    this.count = h("span.quiet", { role: "status" });
    this.search = h("input", {
      type: "search",
      placeholder: "Filter",
      "aria-label": "Filter by name",
      oninput: () => {
        this.filter = this.search.value.toLowerCase();
        this.show();
      },
    });
    this.picker = h("input", {
      type: "file",
      multiple: true,
      hidden: true,
      "aria-label": "Files to upload",
      onchange: () => {
        this.take(
          [...this.picker.files].map((file) => ({ file, path: join(this.folder, file.name) })),
        );
        this.picker.value = "";
      },
    });
    this.list = new VirtualList({
      label: "Files",
      rowHeight: 44,
      row: (entry) => this.row(entry),
      open: (entry) => this.enter(entry),
    });
    this.standing = new Standing({
      list: this.list,
      sign: "folder",
      what: "This folder",
      empty: ["This folder is empty", "Drop files here, or choose Upload."],
      missing: ["There is no folder here", "It may have been moved or deleted."],
      again: () => this.refresh(),
    });
    this.side = h("aside.viewer.card", { hidden: true, "aria-label": "File" });
    this.page = h(
      "section.page.page-full.files",
      {},
      h(
        "header.head",
        {},
        h("h1.sr", {}, "Files"),
        this.crumbs,
        h("span.grow"),
        this.count,
        this.search,
        h(
          "button",
          { type: "button", onclick: (event) => this.create(event.currentTarget) },
          icon("plus"),
          "New",
        ),
        h(
          "button.primary",
          { type: "button", onclick: () => this.picker.click() },
          icon("upload"),
          "Upload",
        ),
        this.picker,
      ),
      h(
        "div.split",
        {},
        h(
          "div.card.listing",
          {},
          h(
            "div.columns",
            { "aria-hidden": "true" },
            h("span", {}, "Name"),
            h("span.hide-small", {}, "Size"),
            h("span.hide-small", {}, "Changed"),
            h("span.hide-small", {}, "Version"),
            h("span"),
          ),
          this.standing.strip,
          this.list.element,
          this.standing.place,
        ),
        this.side,
      ),
    );
    main.append(this.page);
    this.page.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.page.classList.add("dropping");
    });
    this.page.addEventListener(
      "dragleave",
      (event) => this.page.contains(event.relatedTarget) || this.page.classList.remove("dropping"),
    );
    this.page.addEventListener("drop", async (event) => {
      event.preventDefault();
      this.page.classList.remove("dropping");
      this.take(await dropped(event.dataTransfer, this.folder ? `${this.folder}/` : ""));
    });
    this.list.element.addEventListener("contextmenu", (event) => {
      const entry = this.list.items[Number(event.target.closest(".row")?.dataset.index ?? -1)];
      if (!entry) return;
      event.preventDefault();
      this.actions(entry, {
        getBoundingClientRect: () => new DOMRect(event.clientX, event.clientY, 0, 0),
      });
    });
    this.deaf = () => {};
    this.unheard = listen("watching", (watching) => {
      const since = `Changes by others have not come in since ${
        clock(Date.now())
      }; it is tried again by itself.`;
      this.standing.doubt = watching ? "" : this.standing.doubt || since;
      this.show();
    });
  }

  close() {
    this.deaf();
    this.unheard();
    clearTimeout(this.due);
    this.loading?.abort();
    this.viewer?.close();
    this.list.close();
  }

  refresh() {
    this.load(this.folder, this.standing.atMs !== null);
    this.viewer?.refresh();
  }

  /** The name of the file with changes that are not saved; empty if there are none. */
  unsaved() {
    return this.viewer?.changedHere ? `“${nameOf(this.viewer.path)}”` : "";
  }

  discard() {
    this.viewer?.discard();
  }

  /** The address changed within this page. */
  async move(rest) {
    const path = decodeURIComponent(rest);
    const isFolder = path === "" || path.endsWith("/");
    const folder = isFolder ? path.replace(/\/$/, "") : parent(path);
    if (folder !== this.folder) this.load(folder);
    this.viewer?.close();
    this.viewer = null;
    this.side.hidden = isFolder;
    this.page.classList.toggle("viewing", !isFolder);
    if (!isFolder) {
      this.viewer = openViewer(this.side, path, {
        leave: () => {
          location.hash = link(folder, true);
        },
        actions: (entry, at) => this.actions(entry, at),
      });
    }
    this.list.draw();
  }

  async load(folder, again = false) {
    this.loading?.abort();
    const turn = (this.loading = new AbortController());
    this.folder = folder;
    this.drawCrumbs();
    if (!again) {
      this.standing.loading();
      this.entries = [];
      this.search.value = this.filter = "";
      this.list.chosen = -1;
      this.list.element.scrollTop = 0;
      this.show();
    }
    const found = [];
    let after = "";
    let slot;
    try {
      do {
        const page = await get(
          `${directoryUrl(folder)}?limit=${PAGE}&after=${encodeURIComponent(after ?? "")}`,
          { signal: turn.signal },
        );
        found.push(...page.entries);
        slot ??= page.slot;
        after = page.next;
        if (after === null) this.standing.loaded();
        if (!again || after === null) {
          this.entries = found.slice();
          this.show();
        }
        // Between two pages the browser may draw and take input.
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      } while (after !== null && !turn.signal.aborted);
      if (turn.signal.aborted) return;
      this.listen(slot);
    } catch (error) {
      if (turn.signal.aborted) return;
      if (error.body?.found === "file") {
        location.replace(link(folder, false));
        return;
      }
      if (error.status === 404) {
        this.entries = [];
        this.standing.gone();
      } else this.standing.failed(error.message);
      this.show();
      this.listen();
    }
  }

  /** Hear of what comes after `slot`, at which the listing began: its later pages may know of it already. */
  listen(slot) {
    this.deaf();
    this.deaf = listenToFiles(
      this.folder ? `${this.folder}/` : "",
      slot,
      (changes) => this.changed(changes),
    );
  }

  show() {
    const { filter } = this;
    this.list.items = filter
      ? this.entries.filter((entry) => entry.name.toLowerCase().includes(filter))
      : this.entries;
    if (this.list.chosen >= this.list.items.length) this.list.chosen = this.list.items.length - 1;
    this.list.draw();
    const shown = plural(this.list.items.length, filter ? "match" : "entry").replace(
      "entrys",
      "entries",
    ).replace("matchs", "matches");
    const { state, isLoaded } = this.standing;
    this.count.textContent = isLoaded ? shown : this.entries.length ? `${shown}…` : "";
    if (state.kind === "missing" && this.entries.length) this.standing.loaded(); // It is there again.
    this.standing.draw(this.list.items.length, filter && this.entries.length ? filter : "");
  }

  drawCrumbs() {
    const parts = this.folder ? this.folder.split("/") : [];
    this.crumbs.replaceChildren(
      h("a", { href: link("", true) }, "Files"),
      ...parts.flatMap((
        part,
        index,
      ) => [
        h("span", { "aria-hidden": "true" }, "/"),
        h("a", {
          href: link(parts.slice(0, index + 1).join("/"), true),
          "aria-current": index === parts.length - 1 ? "location" : null,
        }, part),
      ]),
    );
  }

  row(entry) {
    const isFolder = entry.kind === "directory";
    const fresh = entry.fresh && Date.now() - entry.fresh < 2_500;
    return h(
      `div.entry${isFolder ? ".folder" : ""}${fresh ? ".fresh" : ""}`,
      {},
      h(
        "a.name",
        { href: link(entry.path, isFolder), tabindex: "-1" },
        icon(isFolder ? "folder" : isImage(entry) ? "image" : "file"),
        h("span", {}, entry.name),
      ),
      h("span.size.hide-small", {}, isFolder ? "" : size(entry.size)),
      h(
        "span.changed.hide-small",
        {},
        isFolder || !entry.modified_ms ? "" : moment(entry.modified_ms),
      ),
      h("span.version.hide-small", {}, isFolder || !entry.version ? "" : `v${entry.version}`),
      moreButton(`Actions for ${entry.name}`, (at) => this.actions(entry, at)),
    );
  }

  enter(entry) {
    location.hash = link(entry.path, entry.kind === "directory");
  }

  take(items) {
    if (items.length) upload(items);
  }

  // -- what others change ------------------------------------------------------------------------

  /** Apply what the log tells to what is shown; ask anew only for what it does not tell. */
  changed(changes) {
    let touched = false;
    let unknown = false;
    for (const change of changes) {
      if (change.kind === "reset") unknown = true;
      else if (change.kind === "move" || change.kind === "copy") {
        if (change.kind === "move") touched = this.gone(change.source, change.slot) || touched;
        // What came with it is not told: its size, or whether it is a folder.
        unknown ||= this.within(change.path) !== null;
      } else if (change.kind === "delete" || change.kind === "remove_directory") {
        touched = this.gone(change.path, change.slot) || touched;
      } else touched = this.came(change) || touched;
      this.viewer?.changed(change);
    }
    if (unknown) {
      clearTimeout(this.due);
      this.due = setTimeout(() => this.load(this.folder, true), 400);
    } else if (touched) this.show();
  }

  /** The name in this folder that `path` is or lies below; `null` if it lies elsewhere. */
  within(path) {
    const prefix = this.folder ? `${this.folder}/` : "";
    return path.startsWith(prefix) && path !== prefix
      ? path.slice(prefix.length).split("/")[0]
      : null;
  }

  gone(path, slot) {
    const name = this.within(path);
    if (name === null || join(this.folder, name) !== path) return false;
    const place = this.find(name);
    const former = this.entries[place];
    if (former?.name !== name || former.slot > slot) return false;
    this.entries.splice(place, 1);
    return true;
  }

  came(change) {
    const name = this.within(change.path);
    if (name === null) return false;
    const direct = join(this.folder, name) === change.path;
    const place = this.find(name);
    const former = this.entries[place]?.name === name ? this.entries[place] : null;
    if (!direct || change.kind === "make_directory") {
      if (former) return false;
      this.entries.splice(place, 0, {
        kind: "directory",
        name,
        path: join(this.folder, name),
        slot: change.slot,
        fresh: Date.now(),
      });
      return true;
    }
    if (former && former.slot >= change.slot) return false;
    const entry = {
      kind: "file",
      slot: change.slot,
      name,
      path: change.path,
      size: change.size,
      etag: change.etag,
      content_type: change.content_type,
      fresh: Date.now(),
    };
    this.entries.splice(place, former ? 1 : 0, entry);
    // Its version and its time are not told: they are asked for, unless that would be a long list.
    if (this.entries.length < PAGE) {
      clearTimeout(this.due);
      this.due = setTimeout(() => this.load(this.folder, true), 1_000);
    }
    return true;
  }

  find(name) {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].name < name) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // -- what one does -----------------------------------------------------------------------------

  actions(entry, at) {
    const isFolder = entry.kind === "directory";
    menu(at, [
      ["Open", () => this.enter(entry)],
      ...(isFolder ? [] : [["Download", () => download(entry)]]),
      ["Rename…", () => this.rename(entry)],
      ["Move to…", () => this.transfer(entry, "move")],
      ["Copy to…", () => this.transfer(entry, "copy")],
      ["Delete…", () => this.remove(entry), "wrong"],
    ]);
  }

  create(at) {
    menu(at, [["New folder", () => this.makeFolder()], ["New text file", () => this.makeFile()]]);
  }

  makeFolder() {
    const attempt = new Attempt();
    return askText({
      title: "New folder",
      label: "Name",
      action: "Make",
      submit: async (name) => {
        await attempt.call("PUT", directoryUrl(join(this.folder, name)));
        return true;
      },
    });
  }

  makeFile() {
    const attempt = new Attempt();
    return askText({
      title: "New text file",
      label: "Name",
      value: "notes.txt",
      select: 5,
      action: "Make",
      submit: async (name) => {
        const path = join(this.folder, name);
        await attempt.call("PUT", `/v1/files/${encoded(path)}`, {
          body: "",
          headers: { "content-type": "text/plain", "if-none-match": "*" },
        });
        location.hash = link(path, false);
        return true;
      },
    });
  }

  rename(entry) {
    const dot = entry.name.lastIndexOf(".");
    const attempt = new Attempt();
    return askText({
      title: `Rename “${entry.name}”`,
      label: "New name",
      value: entry.name,
      select: dot > 0 ? dot : entry.name.length,
      action: "Rename",
      submit: (name) => this.send(attempt, "move", entry, join(parent(entry.path), name)),
    });
  }

  transfer(entry, verb) {
    const attempt = new Attempt();
    const [title, action] = verb === "move" ? ["Move", "Move"] : ["Copy", "Copy"];
    const value = verb === "copy" ? entry.path.replace(/(\.[^./]+)?$/, "-copy$1") : entry.path;
    return askText({
      title: `${title} “${entry.name}”`,
      label: "To",
      value,
      action,
      text: entry.kind === "directory"
        ? "With all that is in it, as one change."
        : verb === "copy"
        ? "No bytes are moved: both share the contents."
        : "",
      submit: (target) =>
        this.send(
          attempt,
          verb,
          entry,
          target.replace(/^\/+/, "").replace(/\/$/, `/${entry.name}`),
        ),
    });
  }

  async send(attempt, verb, entry, target) {
    if (target === entry.path) return true;
    // Whatever its contents are by now: it is the name that is moved.
    const done =
      await (await attempt.call("POST", `/v1/${verb}`, { body: { source: entry.path, target } }))
        .json();
    toast(`${verb === "move" ? "Moved" : "Copied"} to ${target} (slot ${done.slot}).`);
    if (verb === "move" && this.viewer) location.hash = link(target, entry.kind === "directory");
    return true;
  }

  async remove(entry) {
    const isFolder = entry.kind === "directory";
    const attempt = new Attempt();
    const sure = await ask({
      title: `Delete “${entry.name}”?`,
      danger: true,
      action: "Delete",
      text: isFolder
        ? "With all that is in it, as one change. This can't be taken back."
        : "This can't be taken back.",
      submit: async () => {
        const url = isFolder
          ? `${directoryUrl(entry.path)}?recursive=true`
          : `/v1/files/${encoded(entry.path)}`;
        await attempt.call("DELETE", url, {
          headers: entry.etag ? { "if-match": `"${entry.etag}"` } : {},
        });
        return true;
      },
    });
    if (sure && this.viewer && !isFolder) location.hash = link(this.folder, true);
  }

  /** The page's keys; whether the key was one of them. */
  key(event, typing) {
    if (this.viewer?.key(event, typing)) return true;
    if (event.target === this.search && (event.key === "ArrowDown" || event.key === "Enter")) {
      this.list.element.focus();
      this.list.choose(0);
      return true;
    }
    if (event.target === this.search && event.key === "Escape") {
      this.search.value = this.filter = "";
      this.show();
      this.list.element.focus();
      return true;
    }
    if (typing || event.ctrlKey || event.target.closest(".menu, .viewer")) return false;
    const chosen = this.list.items[this.list.chosen];
    const press = {
      "/": () => this.search.focus(),
      u: () => this.picker.click(),
      n: () => this.makeFolder(),
      t: () => this.makeFile(),
      Backspace: () => {
        if (this.folder) location.hash = link(parent(this.folder), true);
      },
      F2: () => chosen && this.rename(chosen),
      Delete: () => chosen && this.remove(chosen),
    }[event.key];
    if (press) {
      press();
      return true;
    }
    if (event.target.closest("button, a") && event.key === "Enter") return false;
    return this.list.key(event);
  }
}

/** Save a file with the browser's own means, so that it need not fit into memory. */
export function download(entry) {
  const anchor = h("a", { href: `/v1/files/${encoded(entry.path)}`, download: nameOf(entry.path) });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
}
