// A shared worker: one pair of event streams for all windows, because a browser opens six connections
// to one host at most, and each stream holds one. It also keeps the last minutes for new windows.

import { Streams, Wishes } from "./streams.js";

const FIGURES_KEPT = 600;
const CHANGES_KEPT = 200;
const ALWAYS = ["figures", "change", "alive", "login"];
const state = { figures: [], changes: [], alive: null };

const streams = new Streams((message) => {
  const { kind, value } = message;
  if (kind === "figures") state.figures = [...state.figures, ...value].slice(-FIGURES_KEPT);
  if (kind === "change") state.changes = [...state.changes, value].slice(-CHANGES_KEPT);
  if (kind === "alive") {
    if (state.alive === value) return;
    state.alive = value;
  }
  for (const [port, wish] of wishes.wishes) {
    if (!wish.shown) continue;
    const isWished = kind === "files" || kind === "watching"
      ? wish.files
      : wish.topics.includes(kind);
    if (ALWAYS.includes(kind) || isWished) port.postMessage(message);
  }
});

const wishes = new Wishes(streams);

onconnect = (event) => {
  const port = event.ports[0];
  port.onmessage = ({ data }) => {
    if (data.kind === "again") streams.again();
    if (data.kind === "bye") wishes.set(port);
    if (data.kind === "wish") {
      // Whoever is new, or was hidden, gets what it has not been told.
      if (data.wish.shown && !wishes.wishes.get(port)?.shown) {
        port.postMessage({ kind: "state", ...state });
      }
      wishes.set(port, data.wish);
    }
  };
};
