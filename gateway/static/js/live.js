// What the gateway tells by itself: figures each second, changes of the cluster, changes of files.

const listeners = { figures: new Set(), change: new Set(), files: new Set(), alive: new Set() };
export const recent = { figures: [], changes: [], alive: null };
const FIGURES_KEPT = 600;
const CHANGES_KEPT = 200;
let send = () => {};

/** Listen to "figures", "change", "files" or "alive"; gives a function that ends it. */
export function listen(kind, listener) {
  listeners[kind].add(listener);
  if (kind === "files") send({ kind: "watch", on: true });
  return () => {
    listeners[kind].delete(listener);
    if (kind === "files" && listeners.files.size === 0) send({ kind: "watch", on: false });
  };
}

/** Try again now, for instance after a login. */
export const again = () => send({ kind: "again" });

function take(message) {
  if (message.kind === "state") {
    Object.assign(recent, { figures: message.figures, changes: message.changes, alive: message.alive });
    if (message.alive !== null) emit("alive", message.alive);
    if (message.figures.length) emit("figures", message.figures.at(-1));
    return;
  }
  if (message.kind === "figures") keep(recent.figures, message.figures, FIGURES_KEPT);
  if (message.kind === "change") keep(recent.changes, message.change, CHANGES_KEPT);
  if (message.kind === "alive") recent.alive = message.alive;
  const value = { figures: message.figures, change: message.change, files: message.changes, alive: message.alive };
  emit(message.kind, value[message.kind]);
}

function keep(list, item, most) {
  list.push(item);
  if (list.length > most) list.shift();
}

function emit(kind, value) {
  for (const listener of listeners[kind]) listener(value);
}

/** Begin, through the worker that all windows share where there is one. */
export function start() {
  if (typeof SharedWorker === "function") {
    const worker = new SharedWorker("/static/js/stream.js", { name: "synod-stream" });
    worker.port.onmessage = ({ data }) => take(data);
    send = (message) => worker.port.postMessage(message);
    addEventListener("pagehide", () => send({ kind: "bye" }));
    addEventListener("pageshow", (event) => event.persisted && send({ kind: "hello" }));
    if (listeners.files.size) send({ kind: "watch", on: true });
    return;
  }
  alone();
}

// Without shared workers each window has streams of its own.
function alone() {
  let events;
  let watch = null;
  const open = () => {
    events = new EventSource("/v1/events");
    events.onopen = () => take({ kind: "alive", alive: true });
    events.onerror = () => {
      take({ kind: "alive", alive: false });
      if (events.readyState === EventSource.CLOSED) setTimeout(open, 2_000);
    };
    events.addEventListener("figures", (event) => take({ kind: "figures", figures: JSON.parse(event.data) }));
    events.addEventListener("change", (event) => take({ kind: "change", change: JSON.parse(event.data) }));
  };
  send = ({ kind, on }) => {
    if (kind === "watch" && on && watch === null) {
      watch = new EventSource("/v1/watch");
      watch.addEventListener("change", (event) => take({ kind: "files", changes: [JSON.parse(event.data)] }));
      watch.addEventListener("reset", () => take({ kind: "files", changes: [{ kind: "reset" }] }));
    } else if (kind === "watch" && !on && watch !== null) {
      watch.close();
      watch = null;
    }
  };
  open();
  if (listeners.files.size) send({ kind: "watch", on: true });
}
