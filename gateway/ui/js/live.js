// What the gateway sends by itself: figures each second, changes of the cluster and of files, and
// the pages' data. A hidden window receives nothing and reloads when it is visible again.

import { Streams, Subscriptions } from "./streams.js";

const TOPICS = ["cluster", "requests", "log"];
const KINDS = ["figures", "change", "files", "alive", "login", "watching", "visible", ...TOPICS];
const listeners = Object.fromEntries(KINDS.map((kind) => [kind, new Set()]));
const FIGURES_KEPT = 600;
const CHANGES_KEPT = 200;
const WORKER_RETRY_MS = 1_000;
/** The last figures and changes; `alive` is whether the stream is connected (`null`: not known). */
export const recent = { figures: [], changes: [], alive: null };
let watchedFiles = null;
let generation = 0;
let send = () => {};

/**
 * Listen to "figures", "change", "alive" (whether the stream is connected), "login" (the gateway
 * requires one), "watching" (whether changes of files arrive), "visible", or a topic: "cluster",
 * "requests", "log"; a topic may send `{ problem }`. Returns a function that stops listening.
 */
export function listen(kind, listener) {
  listeners[kind].add(listener);
  subscribe();
  return () => {
    listeners[kind].delete(listener);
    subscribe();
  };
}

/** Listen to changes of files below `prefix` after the slot `after`; one folder at a time. */
export function listenToFiles(prefix, after, listener) {
  const files = (watchedFiles = { prefix, after, generation: generation += 1 });
  const stop = listen("files", listener);
  return () => {
    if (watchedFiles === files) watchedFiles = null;
    stop();
  };
}

/** Reconnect now, for instance after a login. */
export const retryNow = () => send({ kind: "retry" });

function subscribe() {
  send({
    kind: "subscribe",
    subscription: {
      isVisible: !document.hidden,
      topics: TOPICS.filter((topic) => listeners[topic].size),
      files: watchedFiles,
    },
  });
}

function receive(message) {
  const { kind, value } = message;
  if (kind === "state") {
    Object.assign(recent, {
      figures: message.figures,
      changes: message.changes,
      alive: message.alive,
    });
    if (message.alive !== null) notify("alive", message.alive);
    if (message.changes.length) notify("change", message.changes.at(-1));
    if (message.figures.length) notify("figures", message.figures.at(-1));
    return;
  }
  if (kind === "figures") {
    recent.figures = [...recent.figures, ...value].slice(-FIGURES_KEPT);
    notify(kind, value.at(-1));
    return;
  }
  if (kind === "change") recent.changes = [...recent.changes, value].slice(-CHANGES_KEPT);
  if (kind === "alive") recent.alive = value;
  notify(kind, value);
}

function notify(kind, value) {
  for (const listener of listeners[kind]) listener(value);
}

/** Connect, through the worker that all windows share if the browser has shared workers. */
export function start() {
  if (typeof SharedWorker === "function") {
    startWorker();
    addEventListener("pagehide", () => send({ kind: "close" }));
    addEventListener("pageshow", (event) => event.persisted && subscribe());
  } else {
    const streams = new Streams(receive);
    const subscriptions = new Subscriptions(streams);
    send = ({ kind, subscription }) => {
      if (kind === "retry") streams.retryNow();
      else subscriptions.set(window, subscription);
    };
    subscribe();
  }
  document.addEventListener("visibilitychange", () => {
    subscribe();
    if (!document.hidden) notify("visible");
  });
}

function startWorker() {
  const worker = new SharedWorker("/static/js/worker.js", {
    name: "synod-streams",
    type: "module",
  });
  worker.port.onmessage = ({ data }) => receive(data);
  worker.onerror = () => {
    // The gateway went away before the worker's script arrived, so the worker never started.
    receive({ kind: "alive", value: false });
    setTimeout(startWorker, WORKER_RETRY_MS);
  };
  send = (message) => worker.port.postMessage(message);
  subscribe();
}
