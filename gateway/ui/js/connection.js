// The state of this page's connection, and the banner at the top that shows trouble: logged out,
// connection lost, a cluster that accepts no writes, a newer version of the page.

import { login, onReachable, reportReachable, setLoginPrompt } from "./api.js";
import { ask, toast } from "./dialog.js";
import { h } from "./dom.js";
import { listen, recent, retryNow } from "./live.js";

const RETRY_MS = 1_500;
const REFUSED_SHOWN_AFTER_MS = 3_000;
const banner = document.getElementById("banner");
const version = document.querySelector("meta[name=synod-ui]")?.content ?? "";
let streamLost = false;
let callLost = false;
let loggedOut = false;
let isOtherVersion = false;
let lostAt = 0;
let refusedAt = 0;

/** Whether the page may be outdated because nothing arrives from the gateway. */
export const isLost = () => streamLost || callLost || loggedOut;

/** Watch the connection; `onReconnect` is called each time it is back. */
export function watchConnection(onReconnect) {
  listen("alive", (alive) => {
    const wasLost = streamLost;
    streamLost = !alive;
    if (alive) loggedOut = false;
    draw();
    if (!wasLost || !alive) return;
    toast("The connection is back.");
    compareVersions();
    onReconnect();
  });
  listen("login", () => {
    if (loggedOut) return;
    loggedOut = true;
    draw();
    logIn();
  });
  listen("figures", draw);
  onReachable((yes) => {
    callLost = !yes;
    draw();
  });
  setInterval(retry, RETRY_MS);
}

async function retry() {
  if (!streamLost && !callLost) return;
  draw();
  retryNow();
  try {
    await fetch("/healthz", { cache: "no-store" });
    callLost = false;
  } catch {
    callLost = true;
  }
  draw();
}

async function logIn() {
  if (await login()) {
    loggedOut = false;
    retryNow();
    draw();
  }
}

/** A restarted gateway may serve another version of the page, whose modules don't fit this one. */
async function compareVersions() {
  try {
    const answer = await fetch("/", { method: "HEAD", cache: "no-store" });
    const served = answer.headers.get("synod-ui");
    isOtherVersion = Boolean(version && served && served !== version);
    draw();
  } catch { /* The versions are compared when the connection is back. */ }
}

function draw() {
  const lost = streamLost || callLost;
  if (!lost) lostAt = 0;
  else if (!lostAt) lostAt = Date.now();
  const figures = recent.figures.at(-1);
  const refused = !lost && figures && figures.writes !== undefined && figures.writes !== "taken";
  if (!refused) refusedAt = 0;
  else if (!refusedAt) refusedAt = Date.now();
  document.documentElement.toggleAttribute("data-lost", isLost());
  const content = bannerContent(
    lost,
    refused && Date.now() - refusedAt >= REFUSED_SHOWN_AFTER_MS && figures,
  );
  const text = content.map((part) => part.textContent ?? part).join("");
  banner.hidden = !content.length;
  // Redrawn only when the text changes, so that a button in it can be pressed.
  if (banner.dataset.content !== text) {
    banner.dataset.content = text;
    banner.replaceChildren(...content);
  }
}

function bannerContent(lost, refused) {
  if (loggedOut) {
    return [
      h(
        "span",
        {},
        "You are no longer logged in. This page may be outdated; unsaved text is kept.",
      ),
      h("button", { type: "button", onclick: logIn }, "Log in"),
    ];
  }
  if (lost) {
    const seconds = Math.round((Date.now() - lostAt) / 1000);
    const since = seconds > 2 ? ` (for ${seconds} s)` : "";
    return [
      h(
        "span",
        {},
        `The connection to the gateway is lost${since}. This page may be outdated; it reconnects ` +
          "by itself.",
      ),
    ];
  }
  if (isOtherVersion) {
    return [
      h("span", {}, "The gateway now serves another version of this page."),
      h("button", { type: "button", onclick: () => location.reload() }, "Reload"),
    ];
  }
  if (!refused) return [];
  const head = refused.writes === "refused"
    ? "The cluster accepts no writes at present"
    : "It is not known whether the cluster accepts writes";
  return [h("span", {}, `${head}: ${refused.why || "the gateway gives no reason"}.`)];
}

setLoginPrompt(async () => {
  const user = h("input", { name: "user", autocomplete: "username", spellcheck: "false" });
  const secret = h("input", {
    name: "secret",
    type: "password",
    required: true,
    autocomplete: "current-password",
  });
  const done = await ask({
    title: "This cluster requires a token or a password",
    text: "Without a user, log in with a token: that of the cluster's settings (SYNOD_TOKEN), or " +
      "an API token. Unsaved text is kept.",
    fields: [h("label", {}, "User", user), h("label", {}, "Password or token", secret)],
    action: "Log in",
    submit: async (data) => {
      const answer = await postLogin(data.get("user").trim(), data.get("secret"));
      if (!answer.ok) {
        throw new Error(
          answer.status === 401
            ? "Not logged in: the user, the password or the token is wrong."
            : `Not logged in: the gateway answered with status ${answer.status}.`,
        );
      }
      return true;
    },
  });
  loggedOut = done !== true;
  if (done) retryNow();
  draw();
  return done === true;
});

async function postLogin(user, secret) {
  try {
    return await fetch("/v1/login", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(user ? { user, password: secret } : { token: secret }),
    });
  } catch {
    reportReachable(false);
    throw new Error("Not logged in: the gateway does not answer. Try again.");
  }
}
