// A shared worker: one pair of event streams for all windows, because a browser opens at most six
// connections to a host and each stream holds one. It keeps the last minutes for new windows.

import { Streams, Subscriptions } from "./streams.js";

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
  for (const [port, subscription] of subscriptions.byWindow) {
    if (!subscription.isVisible) continue;
    const isSubscribed = kind === "files" || kind === "watching"
      ? subscription.files
      : subscription.topics.includes(kind);
    if (ALWAYS.includes(kind) || isSubscribed) port.postMessage(message);
  }
});

const subscriptions = new Subscriptions(streams);

onconnect = (event) => {
  const port = event.ports[0];
  port.onmessage = ({ data }) => {
    if (data.kind === "retry") streams.retryNow();
    if (data.kind === "close") subscriptions.remove(port);
    if (data.kind === "subscribe") {
      // A window that is new, or was hidden, first gets what it has not received.
      if (data.subscription.isVisible && !subscriptions.byWindow.get(port)?.isVisible) {
        port.postMessage({ kind: "state", ...state });
      }
      subscriptions.set(port, data.subscription);
    }
  };
};
