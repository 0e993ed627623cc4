// Uploads with progress and cancel: a few at a time, each a row of a small panel.

import {
  Attempt,
  cancelWrite,
  directoryUrl,
  fileUrl,
  get,
  isOutcomeUnknown,
  login,
  newKey,
  OutcomeUnknown,
  pause,
  Problem,
} from "./api.js";
import { ask } from "./dialog.js";
import { h, icon, plural, size } from "./dom.js";

const PARALLEL = 3;
const ATTEMPTS = 5;
const RETRY_MS = 1_500;
const ABORT_POLL_MS = 250;
const ABORT_POLLS = 20;
const DECIDED_FIRST = "finished before it could be cancelled: check the file";
const RESEND_BYTES_MAX = 4 * 1024 * 1024;
const panel = document.getElementById("uploads");
const waiting = [];
let running = 0;
let done = 0;
let total = 0;
let replaceAll = null;
let uploads = [];
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
    replaceAll = null;
    uploads = [];
  }
  for (const item of items) waiting.push(item);
  total += items.length;
  if (!shell.isConnected) panel.append(shell);
  startNext();
}

function clear() {
  for (const row of [...list.children]) if (!row.dataset.busy) row.remove();
  if (!list.children.length) shell.remove();
}

function startNext() {
  title.textContent = running + waiting.length ? `Uploading ${done + 1} of ${total}` : summary();
  while (running < PARALLEL && waiting.length) {
    running += 1;
    uploadOne(waiting.shift()).finally(() => {
      running -= 1;
      done += 1;
      startNext();
    });
  }
  // Remove finished rows but the last few, so that many small files do not fill the panel.
  const finished = [...list.children].filter((row) => row.dataset.ok);
  for (const row of finished.slice(0, Math.max(0, finished.length - 4))) row.remove();
}

/** The outcome of all uploads; only files that are known to be written count as uploaded. */
function summary() {
  const count = (outcome) => uploads.filter((item) => item.outcome === outcome).length;
  const [failed, unknown] = [count("failed"), count("unknown")];
  return [
    `${plural(total - failed - unknown, "file")} uploaded`,
    failed && `${failed} failed`,
    unknown && `${unknown} with unknown outcome`,
  ].filter(Boolean).join(", ");
}

addEventListener("beforeunload", (event) => {
  if (running + waiting.length) event.preventDefault();
});

/** Upload one item. It ends as written, certainly not written, or unknown, which can be retried. */
async function uploadOne({ file, path }) {
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
    key: newKey(),
    conditions: { "if-none-match": "*" },
    folder: new Attempt(),
    outcome: "",
  };
  uploads.push(item);
  cancel.onclick = () => {
    item.isCancelled = true;
    item.request?.abort();
  };
  await run(item, () => send(item));
  delete row.dataset.busy;
  cancel.remove();
}

/** Run `work`, which resolves to why nothing was written or to "", and show what is certain. */
async function run(item, work) {
  const { file, bar, state, row } = item;
  row.classList.remove("failed");
  try {
    const whyNotWritten = await work();
    item.outcome = whyNotWritten ? "failed" : "written";
    if (whyNotWritten) {
      row.classList.add("failed");
      state.textContent = whyNotWritten;
      return;
    }
    row.dataset.ok = "1";
    state.textContent = item.written || (file ? size(file.size) : "folder");
    bar.value = 1;
  } catch (error) {
    row.classList.add("failed");
    item.outcome = "unknown";
    if (error.name === "AbortError") return run(item, () => afterCancel(item));
    if (error instanceof OutcomeUnknown || item.isCancelled) return offerRetry(item, work);
    item.outcome = "failed";
    state.textContent = `not written: ${error.message}`;
  }
}

function offerRetry(item, work) {
  const retry = h("button", {
    type: "button",
    onclick: async () => {
      item.state.textContent = "retrying…";
      await run(item, work);
      if (!running) title.textContent = summary();
    },
  }, "Retry");
  item.state.replaceChildren(
    item.isCancelled
      ? "cancelled; not known whether it was written first "
      : "not known whether it was written ",
    retry,
  );
}

/** An aborted request may have arrived whole. Its key finds out, and prevents it from now on. */
async function afterCancel(item) {
  item.state.textContent = "cancelled; checking whether it was written first…";
  await waitForAbort(item.path);
  const fate = await cancelWrite(item.key);
  if (fate === "prevented") return "cancelled; nothing was written";
  if (item.file.size > RESEND_BYTES_MAX) return DECIDED_FIRST;
  // A decided write is not applied again: the gateway only repeats its answer.
  try {
    await put(item);
  } catch (error) {
    if (!(error instanceof Problem) || isOutcomeUnknown(error) || error.status === 503) throw error;
    if (error.kind === "key-reused") return DECIDED_FIRST;
    return `not written: ${error.message}`;
  }
  item.written = "written before it could be cancelled";
  return "";
}

/** Wait a limited time until the gateway has noticed that the request was aborted. */
async function waitForAbort(path) {
  for (let left = ABORT_POLLS; left > 0; left -= 1) {
    await pause(ABORT_POLL_MS);
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
    await putUntilKnown(item);
    return "";
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 412 || !item.conditions["if-none-match"]) {
      throw error;
    }
    if (!(await mayReplace(item.path))) return "kept as it was";
    // Another request needs another key.
    item.conditions = { "if-match": "*" };
    item.key = newKey();
    return send(item);
  }
}

/** Send an item until its outcome is known; the same key makes all copies one write. */
async function putUntilKnown(item) {
  let why = "";
  for (let tried = 1;; tried += 1) {
    try {
      return await put(item);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (error.status === 401 && (await login())) continue;
      const isUnknown = !(error instanceof Problem) || isOutcomeUnknown(error) ||
        (why && (error.status >= 500 || error.status === 401));
      if (!isUnknown) throw error;
      why = error.message;
      if (tried >= ATTEMPTS || error.status === 401) throw new OutcomeUnknown(item.key, why);
      item.state.textContent = "no answer yet; retrying…";
      await pause(RETRY_MS);
      if (item.isCancelled) throw new DOMException("cancelled", "AbortError");
    }
  }
}

async function mayReplace(path) {
  if (replaceAll !== null) return replaceAll;
  const every = h("input", { type: "checkbox", name: "all" });
  const answer = await ask({
    title: `Replace “${path.split("/").pop()}”?`,
    text: `The file ${path} already exists.`,
    fields: total > 1 ? [h("label.check", {}, every, " Do the same for all others")] : [],
    action: "Replace",
    cancel: "Keep the existing file",
  });
  if (every.checked) replaceAll = answer === true;
  return answer === true;
}

function put(item) {
  const { file, path, bar, state, conditions, key: name } = item;
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not report an upload's progress.
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
      } catch { /* Not from a gateway: only the status is known. */ }
      reject(new Problem(request.status, body));
    };
    request.onerror = () => reject(new Error("the connection was lost"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    item.request = request;
    request.send(file);
  });
}

/** The dropped files and folders, with everything in them, as items of `upload`. */
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
