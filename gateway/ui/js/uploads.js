// Uploads with progress and cancel: a few at a time, each told of in a small panel.

import {
  Attempt,
  cancelled,
  directoryUrl,
  fileUrl,
  get,
  key,
  leavesOpen,
  login,
  pause,
  Problem,
  Unsettled,
} from "./api.js";
import { ask } from "./dialog.js";
import { h, icon, plural, size } from "./dom.js";

const PARALLEL = 3;
const TRIED = 5;
const AGAIN_MS = 1_500;
const BREAK_OFF_MS = 250;
const BREAK_OFFS = 20;
const DECIDED = "decided before it could be cancelled: look at the file";
const ASKED_BYTES_MAX = 4 * 1024 * 1024;
const panel = document.getElementById("uploads");
const waiting = [];
let running = 0;
let done = 0;
let total = 0;
let forAll = null;
let batch = [];
const title = h("h3", {});
const list = h("ul", {});
const shell = h(
  "section.card",
  { "aria-label": "Uploads" },
  h(
    "header",
    {},
    title,
    h("button.bare.icon", {
      type: "button",
      "aria-label": "Close the list of uploads",
      onclick: clear,
    }, icon("close")),
  ),
  list,
);

/** Upload `{file, path}` items; folders that are empty have no `file`. */
export function upload(items) {
  if (running + waiting.length === 0) {
    done = 0;
    total = 0;
    forAll = null;
    batch = [];
  }
  for (const item of items) waiting.push(item);
  total += items.length;
  if (!shell.isConnected) panel.append(shell);
  pump();
}

function clear() {
  for (const row of [...list.children]) if (!row.dataset.busy) row.remove();
  if (!list.children.length) shell.remove();
}

function pump() {
  title.textContent = running + waiting.length ? `Uploading ${done + 1} of ${total}` : ended();
  while (running < PARALLEL && waiting.length) {
    running += 1;
    one(waiting.shift()).finally(() => {
      running -= 1;
      done += 1;
      pump();
    });
  }
  // Of many small files the finished ones give room.
  const finished = [...list.children].filter((row) => row.dataset.ok);
  for (const row of finished.slice(0, Math.max(0, finished.length - 4))) row.remove();
}

/** What became of all: only what is known to be written counts as uploaded. */
function ended() {
  const count = (outcome) => batch.filter((item) => item.outcome === outcome).length;
  const [not, open] = [count("not"), count("open")];
  return [
    `${plural(total - not - open, "file")} uploaded`,
    not && `${not} not`,
    open && `${open} not known`,
  ].filter(Boolean).join(", ");
}

addEventListener("beforeunload", (event) => {
  if (running + waiting.length) event.preventDefault();
});

/** One row. It ends as written, as certainly not written, or as not known: then it can be asked again. */
async function one({ file, path }) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": path });
  const state = h("span.quiet", {}, "");
  const cancel = h("button.bare.icon", {
    type: "button",
    "aria-label": `Cancel ${path}`,
    title: "Cancel",
  }, icon("close"));
  const row = h(
    "li",
    { "data-busy": "1" },
    h("span.name", { title: path }, path.split("/").pop()),
    file ? cancel : h("span"),
    bar,
    state,
  );
  list.prepend(row);
  const item = {
    file,
    path,
    bar,
    state,
    cancel,
    row,
    key: key(),
    conditions: { "if-none-match": "*" },
    folder: new Attempt(),
    outcome: "",
  };
  batch.push(item);
  cancel.onclick = () => {
    item.isCancelled = true;
    item.request?.abort();
  };
  await follow(item, () => send(item));
  delete row.dataset.busy;
  cancel.remove();
}

/** Do `work` and say in the row what is certain after it. */
async function follow(item, work) {
  const { file, bar, state, row } = item;
  row.classList.remove("failed");
  try {
    const said = await work();
    item.outcome = said ? "not" : "written";
    if (said) {
      row.classList.add("failed");
      state.textContent = said;
      return;
    }
    row.dataset.ok = "1";
    state.textContent = item.written || (file ? size(file.size) : "folder");
    bar.value = 1;
  } catch (error) {
    row.classList.add("failed");
    item.outcome = "open";
    if (error.name === "AbortError") return follow(item, () => afterCancel(item));
    if (error instanceof Unsettled || item.isCancelled) return undecided(item, work);
    item.outcome = "not";
    state.textContent = `not written: ${error.message}`;
  }
}

function undecided(item, work) {
  const ask = h("button", {
    type: "button",
    onclick: async () => {
      item.state.textContent = "asking…";
      await follow(item, work);
      if (!running) title.textContent = ended();
    },
  }, "Ask again");
  item.state.replaceChildren(
    item.isCancelled
      ? "cancelled; not known whether it was written before "
      : "not known whether it was written ",
    ask,
  );
}

/** A request that was broken off may have come in whole: its key tells, and keeps it from happening later. */
async function afterCancel(item) {
  item.state.textContent = "cancelled; asking whether it was written before…";
  await brokenOff(item.path);
  const fate = await cancelled(item.key);
  if (fate === "never") return "cancelled; nothing was written";
  if (item.file.size > ASKED_BYTES_MAX) return DECIDED;
  // What was decided once is only told again.
  try {
    await put(item);
  } catch (error) {
    if (!(error instanceof Problem) || leavesOpen(error) || error.status === 503) throw error;
    if (error.kind === "key-reused") return DECIDED;
    return `not written: ${error.message}`;
  }
  item.written = "written before it could be cancelled";
  return "";
}

/** Wait, but not for ever, until the gateway has seen that the rest of a body does not come. */
async function brokenOff(path) {
  for (let left = BREAK_OFFS; left > 0; left -= 1) {
    await pause(BREAK_OFF_MS);
    const { requests } = await get("/v1/requests?limit=1000");
    if (
      !requests.some((one) =>
        one.status === null && one.method === "PUT" && one.path === `/v1/files/${path}`
      )
    ) return;
  }
}

async function send(item) {
  if (!item.file) {
    await item.folder.call("PUT", directoryUrl(item.path));
    return "";
  }
  try {
    await settle(item);
    return "";
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 412 || !item.conditions["if-none-match"]) {
      throw error;
    }
    if (!(await mayReplace(item.path))) return "left as it was";
    // Another request, which has a key of its own.
    item.conditions = { "if-match": "*" };
    item.key = key();
    return send(item);
  }
}

/** Send it until it is known what became of it: the same key makes that one write. */
async function settle(item) {
  let open = "";
  for (let tried = 1;; tried += 1) {
    try {
      return await put(item);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (error.status === 401 && (await login())) continue;
      const isOpen = !(error instanceof Problem) || leavesOpen(error) ||
        (open && (error.status >= 500 || error.status === 401));
      if (!isOpen) throw error;
      open = error.message;
      if (tried >= TRIED || error.status === 401) throw new Unsettled(item.key, open);
      item.state.textContent = "no answer yet; asking again…";
      await pause(AGAIN_MS);
      if (item.isCancelled) throw new DOMException("cancelled", "AbortError");
    }
  }
}

async function mayReplace(path) {
  if (forAll !== null) return forAll;
  const every = h("input", { type: "checkbox", name: "all" });
  const answer = await ask({
    title: `Replace “${path.split("/").pop()}”?`,
    text: `There is a file of this name at ${path} already.`,
    fields: total > 1 ? [h("label.check", {}, every, " The same for all others")] : [],
    action: "Replace",
    cancel: "Leave it",
  });
  if (every.checked) forAll = answer === true;
  return answer === true;
}

function put(item) {
  const { file, path, bar, state, conditions, key: name } = item;
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch can't tell how far an upload is.
    request.open("PUT", fileUrl(path));
    request.setRequestHeader("content-type", file.type || "application/octet-stream");
    request.setRequestHeader("synod-modified", String(file.lastModified));
    request.setRequestHeader("idempotency-key", name);
    for (const [header, value] of Object.entries(conditions)) {
      request.setRequestHeader(header, value);
    }
    request.upload.onprogress = (event) => {
      bar.value = event.total ? event.loaded / event.total : 0;
      state.textContent = `${size(event.loaded)} of ${size(file.size)}`;
    };
    request.upload.onload = () => {
      state.textContent = "sent; waiting for the cluster…";
    };
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) return resolve();
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch { /* The status says enough. */ }
      reject(new Problem(request.status, body));
    };
    request.onerror = () => reject(new Error("the connection broke"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    item.request = request;
    request.send(file);
  });
}

/** What was dropped, folders with all in them, as items of `upload`. */
export async function dropped(transfer, above) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const loose = entries.length ? [] : [...transfer.files];
  const found = loose.map((file) => ({ file, path: above + file.name.normalize("NFC") }));
  for (const entry of entries) await walk(entry, above, found);
  return found;
}

async function walk(entry, above, found) {
  const path = above + entry.name.normalize("NFC");
  if (entry.isFile) {
    found.push({ file: await new Promise((done, fail) => entry.file(done, fail)), path });
    return;
  }
  const reader = entry.createReader();
  let any = false;
  for (;;) {
    const page = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!page.length) break;
    any = true;
    for (const child of page) await walk(child, `${path}/`, found);
  }
  if (!any) found.push({ path });
}
