// Uploads with progress and cancel: a few at a time, each told of in a small panel.

import { Problem, directoryUrl, fileUrl, key, call, login } from "./api.js";
import { ask } from "./dialog.js";
import { h, icon, plural, size } from "./dom.js";

const PARALLEL = 3;
const panel = document.getElementById("uploads");
const waiting = [];
let running = 0;
let done = 0;
let total = 0;
let forAll = null;
const title = h("h3", {});
const list = h("ul", {});
const shell = h("section.card", { "aria-label": "Uploads" }, h("header", {}, title,
  h("button.bare.icon", { type: "button", "aria-label": "Close the list of uploads", onclick: clear }, icon("close"))), list);

/** Upload `{file, path}` items; folders that are empty have no `file`. */
export function upload(items) {
  if (running + waiting.length === 0) { done = 0; total = 0; forAll = null; }
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
  title.textContent = running + waiting.length ? `Uploading ${done + 1} of ${total}` : `${plural(total, "file")} uploaded`;
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

async function one({ file, path }) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": path });
  const state = h("span.quiet", {}, "");
  const cancel = h("button.bare.icon", { type: "button", "aria-label": `Cancel ${path}`, title: "Cancel" }, icon("close"));
  const row = h("li", { "data-busy": "1" }, h("span.name", { title: path }, path.split("/").pop()), cancel, bar, state);
  list.prepend(row);
  try {
    if (!file) await call("PUT", directoryUrl(path));
    else await send(file, path, bar, state, cancel, { "if-none-match": "*" });
    row.dataset.ok = "1";
    state.textContent = file ? size(file.size) : "folder";
    bar.value = 1;
  } catch (error) {
    row.classList.add("failed");
    state.textContent = error.name === "AbortError" ? "cancelled; nothing was written" : error.message;
  } finally {
    delete row.dataset.busy;
    cancel.remove();
  }
}

async function send(file, path, bar, state, cancel, conditions) {
  try {
    await put(file, path, bar, state, cancel, conditions);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401 && (await login())) return send(file, path, bar, state, cancel, conditions);
    if (error.status !== 412 || !conditions["if-none-match"]) throw error;
    if (!(await mayReplace(path))) throw new Error("left as it was");
    return send(file, path, bar, state, cancel, { "if-match": "*" });
  }
}

async function mayReplace(path) {
  if (forAll !== null) return forAll;
  const every = h("input", { type: "checkbox", name: "all" });
  const answer = await ask({
    title: `Replace “${path.split("/").pop()}”?`, text: `There is a file of this name at ${path} already.`,
    fields: total > 1 ? [h("label.check", {}, every, " The same for all others")] : [], action: "Replace", cancel: "Leave it",
  });
  if (every.checked) forAll = answer === true;
  return answer === true;
}

function put(file, path, bar, state, cancel, conditions) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();  // fetch can't tell how far an upload is.
    request.open("PUT", fileUrl(path));
    request.setRequestHeader("content-type", file.type || "application/octet-stream");
    request.setRequestHeader("synod-modified", String(file.lastModified));
    request.setRequestHeader("idempotency-key", key());
    for (const [name, value] of Object.entries(conditions)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => {
      bar.value = event.total ? event.loaded / event.total : 0;
      state.textContent = `${size(event.loaded)} of ${size(file.size)}`;
    };
    request.onload = () => {
      if (request.status < 300) return resolve();
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { /* The status says enough. */ }
      reject(new Problem(request.status, body));
    };
    request.onerror = () => reject(new Error("the connection broke; nothing is certain: look at the file"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    cancel.onclick = () => request.abort();
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
