// What the gateway tells by itself: figures each second, changes of the cluster and of files, and what
// the pages show. A hidden window is told nothing, and looks anew when it is shown again.

import { Streams, Wishes } from "./streams.js";

const TOPICS = ["cluster", "requests", "log"];
const KINDS = ["figures", "change", "files", "alive", "login", "watching", "shown", ...TOPICS];
const listeners = Object.fromEntries(KINDS.map((kind) => [kind, new Set()]));
const FIGURES_KEPT = 600;
const CHANGES_KEPT = 200;
const WORKER_AGAIN_MS = 1_000;
/** `heardMs`: when figures came last, on this window's clock. */
export const recent = { figures: [], changes: [], alive: null, heardMs: 0 };
let folder = null;
let turn = 0;
let send = () => {};

/**
 * Listen to "figures", "change", "alive" (whether the stream stands), "login" (it was refused for want
 * of one), "watching" (whether changes of files come), "shown", or a topic: "cluster", "requests",
 * "log", of which `{ problem }` may come. Gives a function that ends it.
 */
export function listen(kind, listener) {
  listeners[kind].add(listener);
  wish();
  return () => {
    listeners[kind].delete(listener);
    wish();
  };
}

/** Listen to changes of files below `prefix` that came after the slot `after`; one folder at a time. */
export function listenToFiles(prefix, after, listener) {
  const mine = (folder = { prefix, after, turn: turn += 1 });
  const end = listen("files", listener);
  return () => {
    if (folder === mine) folder = null;
    end();
  };
}

/** Try again now, for instance after a login. */
export const again = () => send({ kind: "again" });

function wish() {
  send({
    kind: "wish",
    wish: {
      shown: !document.hidden,
      topics: TOPICS.filter((topic) => listeners[topic].size),
      files: folder,
    },
  });
}

function take(message) {
  const { kind, value } = message;
  if (kind === "state") {
    Object.assign(recent, {
      figures: message.figures,
      changes: message.changes,
      alive: message.alive,
    });
    if (message.alive !== null) emit("alive", message.alive);
    if (message.changes.length) emit("change", message.changes.at(-1));
    if (message.figures.length) emit("figures", message.figures.at(-1));
    return;
  }
  if (kind === "figures") {
    recent.figures = [...recent.figures, ...value].slice(-FIGURES_KEPT);
    recent.heardMs = Date.now();
    emit(kind, value.at(-1));
    return;
  }
  if (kind === "change") recent.changes = [...recent.changes, value].slice(-CHANGES_KEPT);
  if (kind === "alive") recent.alive = value;
  emit(kind, value);
}

function emit(kind, value) {
  for (const listener of listeners[kind]) listener(value);
}

/** Begin, through the worker that all windows share where there is one. */
export function start() {
  if (typeof SharedWorker === "function") {
    startWorker();
    addEventListener("pagehide", () => send({ kind: "bye" }));
    addEventListener("pageshow", (event) => event.persisted && wish());
  } else {
    const streams = new Streams(take);
    const wishes = new Wishes(streams);
    send = (
      { kind, wish: wanted },
    ) => (kind === "again" ? streams.again() : wishes.set(window, wanted));
    wish();
  }
  document.addEventListener("visibilitychange", () => {
    wish();
    if (!document.hidden) emit("shown");
  });
}

function startWorker() {
  const worker = new SharedWorker("/static/js/stream.js", { name: "synod-stream", type: "module" });
  worker.port.onmessage = ({ data }) => take(data);
  worker.onerror = () => {
    // The gateway went away before the worker's script came: a worker that never began is no stream.
    take({ kind: "alive", value: false });
    setTimeout(startWorker, WORKER_AGAIN_MS);
  };
  send = (message) => worker.port.postMessage(message);
  wish();
}
