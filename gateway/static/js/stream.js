// A shared worker: one pair of event streams for all windows, because a browser opens six connections
// to one host at most, and each stream holds one. It also keeps the last minutes for new windows.

const FIGURES_KEPT = 600;
const CHANGES_KEPT = 200;
const ports = new Set();
const state = { figures: [], changes: [], alive: null };
let events = null;
let watch = null;
let pending = [];
let flushing = null;

function tell(message, only = () => true) {
  for (const port of ports) if (only(port)) port.postMessage(message);
}

function alive(yes) {
  if (state.alive !== yes) {
    state.alive = yes;
    tell({ kind: "alive", alive: yes });
  }
}

function openEvents() {
  events = new EventSource("/v1/events");
  events.onopen = () => alive(true);
  events.onerror = () => {
    alive(false);
    // A refusal closes the source for good; a broken connection is tried again by the browser.
    if (events.readyState === EventSource.CLOSED) setTimeout(openEvents, 1_000);
  };
  events.addEventListener("figures", (event) => {
    const figures = JSON.parse(event.data);
    state.figures.push(figures);
    if (state.figures.length > FIGURES_KEPT) state.figures.shift();
    tell({ kind: "figures", figures });
  });
  events.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    state.changes.push(change);
    if (state.changes.length > CHANGES_KEPT) state.changes.shift();
    tell({ kind: "change", change });
  });
}

// Where the watch stands: a source that was refused is made anew and goes on there, missing nothing.
let lastId = "";

function openWatch() {
  watch = new EventSource(`/v1/watch${lastId ? `?after=${lastId}` : ""}`);
  const note = (event) => { lastId = event.lastEventId || lastId; };
  watch.addEventListener("ready", note);
  watch.onerror = () => {
    if (watch && watch.readyState === EventSource.CLOSED) {
      watch = null;
      setTimeout(mindWatch, 1_000);
    }
  };
  watch.addEventListener("change", (event) => { note(event); queue(JSON.parse(event.data)); });
  watch.addEventListener("reset", (event) => { note(event); queue({ kind: "reset" }); });
}

// Changes travel to the windows a few times a second, however many there are.
function queue(change) {
  pending.push(change);
  flushing ??= setTimeout(() => {
    const changes = pending;
    pending = [];
    flushing = null;
    tell({ kind: "files", changes }, (port) => port.watches);
  }, 250);
}

function mindWatch() {
  const wanted = [...ports].some((port) => port.watches);
  if (wanted && watch === null) openWatch();
  if (!wanted && watch !== null) {
    watch.close();
    watch = null;
    lastId = "";  // Whoever watches again looks at the files first.
  }
}

onconnect = (event) => {
  const port = event.ports[0];
  port.watches = false;
  ports.add(port);
  port.onmessage = ({ data }) => {
    if (data.kind === "bye") ports.delete(port);
    if (data.kind === "hello") ports.add(port);
    if (data.kind === "watch") port.watches = data.on;
    if (data.kind === "again" && events.readyState !== EventSource.OPEN) {
      events.close();
      openEvents();
    }
    mindWatch();
  };
  port.postMessage({ kind: "state", ...state });
  if (events === null) openEvents();
};
