// The page Files: one folder at a time, updated by the changes that the gateway sends.

import { Attempt, directoryUrl, get } from "./api.js";
import { ask, askText, menu, moreButton, toast } from "./dialog.js";
import { clock, encoded, h, icon, moment, plural, size } from "./dom.js";
import { VirtualList } from "./list.js";
import { listen, listenToFiles } from "./live.js";
import { ListStatus } from "./list-status.js";
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
  view.navigate(rest);
  return view;
}

class Files {
  constructor(main) {
    this.folder = null;
    this.entries = [];
    this.filter = "";
    this.loadController = null;
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
        this.uploadAll(
          [...this.picker.files].map((file) => ({ file, path: join(this.folder, file.name) })),
        );
        this.picker.value = "";
      },
    });
    this.list = new VirtualList({
      label: "Files",
      rowHeight: 44,
      row: (entry) => this.row(entry),
      open: (entry) => this.openEntry(entry),
    });
    this.status = new ListStatus({
      list: this.list,
      iconName: "folder",
      subject: "This folder",
      empty: ["This folder is empty", "Drop files here or choose Upload."],
      notFound: ["This folder does not exist", "It may have been moved or deleted."],
      retry: () => this.refresh(),
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
          this.status.strip,
          this.list.element,
          this.status.placeholder,
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
      this.uploadAll(await dropped(event.dataTransfer, this.folder ? `${this.folder}/` : ""));
    });
    this.list.element.addEventListener("contextmenu", (event) => {
      const entry = this.list.items[Number(event.target.closest(".row")?.dataset.index ?? -1)];
      if (!entry) return;
      event.preventDefault();
      this.actions(entry, {
        getBoundingClientRect: () => new DOMRect(event.clientX, event.clientY, 0, 0),
      });
    });
    this.stopListening = () => {};
    this.stopWatching = listen("watching", (watching) => {
      const since = `No changes by others received since ${clock(Date.now())}; reconnecting.`;
      this.status.warning = watching ? "" : this.status.warning || since;
      this.show();
    });
  }

  close() {
    this.stopListening();
    this.stopWatching();
    clearTimeout(this.reloadTimer);
    this.loadController?.abort();
    this.viewer?.close();
    this.list.close();
  }

  refresh() {
    this.load(this.folder, this.status.loadedAtMs !== null);
    this.viewer?.refresh();
  }

  /** The quoted name of the file with unsaved changes; empty if there is none. */
  unsavedName() {
    return this.viewer?.isDirty ? `“${nameOf(this.viewer.path)}”` : "";
  }

  discard() {
    this.viewer?.discard();
  }

  /** Show another address of this page. */
  async navigate(rest) {
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

  async load(folder, isReload = false) {
    this.loadController?.abort();
    const controller = (this.loadController = new AbortController());
    this.folder = folder;
    this.drawCrumbs();
    if (!isReload) {
      this.status.setLoading();
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
          { signal: controller.signal },
        );
        found.push(...page.entries);
        slot ??= page.slot;
        after = page.next;
        if (after === null) this.status.setLoaded();
        if (!isReload || after === null) {
          this.entries = found.slice();
          this.show();
        }
        // Let the browser draw and handle input between two pages.
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      } while (after !== null && !controller.signal.aborted);
      if (controller.signal.aborted) return;
      this.listenAfter(slot);
    } catch (error) {
      if (controller.signal.aborted) return;
      if (error.body?.found === "file") {
        location.replace(link(folder, false));
        return;
      }
      if (error.status === 404) {
        this.entries = [];
        this.status.setNotFound();
      } else this.status.setFailed(error.message);
      this.show();
      this.listenAfter();
    }
  }

  /** Listen to changes after `slot`, where the listing began; it may contain some already. */
  listenAfter(slot) {
    this.stopListening();
    this.stopListening = listenToFiles(
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
    const { state, isLoaded } = this.status;
    this.count.textContent = isLoaded ? shown : this.entries.length ? `${shown}…` : "";
    // The folder exists again.
    if (state.kind === "notFound" && this.entries.length) this.status.setLoaded();
    this.status.draw(this.list.items.length, filter && this.entries.length ? filter : "");
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

  openEntry(entry) {
    location.hash = link(entry.path, entry.kind === "directory");
  }

  uploadAll(items) {
    if (items.length) upload(items);
  }

  // -- changes by others -------------------------------------------------------------------------

  /** Apply changes to the entries; reload only if a change does not carry enough. */
  changed(changes) {
    let isChanged = false;
    let mustReload = false;
    for (const change of changes) {
      if (change.kind === "reset") mustReload = true;
      else if (change.kind === "move" || change.kind === "copy") {
        if (change.kind === "move") {
          isChanged = this.applyRemoval(change.source, change.slot) || isChanged;
        }
        // The change does not carry the target's size, or whether it is a folder.
        mustReload ||= this.childName(change.path) !== null;
      } else if (change.kind === "delete" || change.kind === "remove_directory") {
        isChanged = this.applyRemoval(change.path, change.slot) || isChanged;
      } else isChanged = this.applyWrite(change) || isChanged;
      this.viewer?.applyChange(change);
    }
    if (mustReload) {
      clearTimeout(this.reloadTimer);
      this.reloadTimer = setTimeout(() => this.load(this.folder, true), 400);
    } else if (isChanged) this.show();
  }

  /** The entry of this folder that contains `path` or is `path`; `null` if it lies elsewhere. */
  childName(path) {
    const prefix = this.folder ? `${this.folder}/` : "";
    return path.startsWith(prefix) && path !== prefix
      ? path.slice(prefix.length).split("/")[0]
      : null;
  }

  applyRemoval(path, slot) {
    const name = this.childName(path);
    if (name === null || join(this.folder, name) !== path) return false;
    const place = this.indexOf(name);
    const known = this.entries[place];
    if (known?.name !== name || known.slot > slot) return false;
    this.entries.splice(place, 1);
    return true;
  }

  applyWrite(change) {
    const name = this.childName(change.path);
    if (name === null) return false;
    const direct = join(this.folder, name) === change.path;
    const place = this.indexOf(name);
    const known = this.entries[place]?.name === name ? this.entries[place] : null;
    if (!direct || change.kind === "make_directory") {
      if (known) return false;
      this.entries.splice(place, 0, {
        kind: "directory",
        name,
        path: join(this.folder, name),
        slot: change.slot,
        fresh: Date.now(),
      });
      return true;
    }
    if (known && known.slot >= change.slot) return false;
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
    this.entries.splice(place, known ? 1 : 0, entry);
    // A change carries neither version nor time: reload, unless the list is long.
    if (this.entries.length < PAGE) {
      clearTimeout(this.reloadTimer);
      this.reloadTimer = setTimeout(() => this.load(this.folder, true), 1_000);
    }
    return true;
  }

  indexOf(name) {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].name < name) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // -- actions -----------------------------------------------------------------------------------

  actions(entry, at) {
    const isFolder = entry.kind === "directory";
    menu(at, [
      ["Open", () => this.openEntry(entry)],
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
        ? "With everything in it, as one change."
        : verb === "copy"
        ? "No contents are copied: both files share them."
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
    // No condition on the contents: the name is moved, whatever it holds now.
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
    const isConfirmed = await ask({
      title: `Delete “${entry.name}”?`,
      danger: true,
      action: "Delete",
      text: isFolder
        ? "With everything in it, as one change. This can't be undone."
        : "This can't be undone.",
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
    if (isConfirmed && this.viewer && !isFolder) location.hash = link(this.folder, true);
  }

  /** Handle a key; returns whether this page uses it. */
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
    const action = {
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
    if (action) {
      action();
      return true;
    }
    if (event.target.closest("button, a") && event.key === "Enter") return false;
    return this.list.key(event);
  }
}

/** Let the browser download a file, so that it need not fit into memory. */
export function download(entry) {
  const anchor = h("a", { href: `/v1/files/${encoded(entry.path)}`, download: nameOf(entry.path) });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
}
