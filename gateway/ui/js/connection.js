// What this page knows of its own connection, and the line above everything that says so when it is
// not well: logged out, lost, a cluster that takes no writes, a page of another version.

import { login, onReach, reached, setLogin } from "./api.js";
import { ask, toast } from "./dialog.js";
import { h } from "./dom.js";
import { again, listen, recent } from "./live.js";

const TRY_MS = 1_500;
const REFUSED_MS = 3_000;
const line = document.getElementById("lost");
const version = document.querySelector("meta[name=synod-ui]")?.content ?? "";
let streamLost = false;
let callLost = false;
let loggedOut = false;
let isOther = false;
let lostAt = 0;
let refusedAt = 0;

/** Whether what is shown may be old: the gateway can't be heard. */
export const isLost = () => streamLost || callLost || loggedOut;

/** Mind the connection from now on; `back` is called when it is there again. */
export function mindConnection(back) {
  listen("alive", (alive) => {
    const wasLost = streamLost;
    streamLost = !alive;
    if (alive) loggedOut = false;
    draw();
    if (!wasLost || !alive) return;
    toast("The connection is back.");
    compareVersions();
    back();
  });
  listen("login", () => {
    if (loggedOut) return;
    loggedOut = true;
    draw();
    logIn();
  });
  listen("figures", draw);
  onReach((yes) => {
    callLost = !yes;
    draw();
  });
  setInterval(tryAgain, TRY_MS);
}

async function tryAgain() {
  if (!streamLost && !callLost) return;
  draw();
  again();
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
    again();
    draw();
  }
}

/** A gateway that was started again may serve another page, whose parts don't fit to this one. */
async function compareVersions() {
  try {
    const answer = await fetch("/", { method: "HEAD", cache: "no-store" });
    const served = answer.headers.get("synod-ui");
    isOther = Boolean(version && served && served !== version);
    draw();
  } catch { /* It will be asked when the connection is back. */ }
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
  const said = says(lost, refused && Date.now() - refusedAt >= REFUSED_MS && figures);
  const shown = said.map((part) => part.textContent ?? part).join("");
  line.hidden = !said.length;
  // Drawn anew only if it says something else, so that a button in it can be pressed.
  if (line.dataset.said !== shown) {
    line.dataset.said = shown;
    line.replaceChildren(...said);
  }
}

function says(lost, refused) {
  if (loggedOut) {
    return [
      h(
        "span",
        {},
        "You are not logged in any more. What you see may be old; what you edit is kept.",
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
        `The connection to the gateway is lost${since}. What you see may be old; it is tried again by itself.`,
      ),
    ];
  }
  if (isOther) {
    return [
      h("span", {}, "The gateway serves another version of this page now."),
      h("button", { type: "button", onclick: () => location.reload() }, "Reload"),
    ];
  }
  if (!refused) return [];
  const head = refused.writes === "refused"
    ? "The cluster takes no writes at the moment"
    : "It is not known whether the cluster takes writes";
  return [h("span", {}, `${head}: ${refused.why || "the gateway does not say why"}.`)];
}

setLogin(async () => {
  const input = h("input", {
    name: "token",
    type: "password",
    required: true,
    autocomplete: "current-password",
  });
  const done = await ask({
    title: "This cluster asks for its token",
    text:
      "It stands in the settings of the cluster (SYNOD_TOKEN). What you edit is kept meanwhile.",
    fields: [h("label", {}, "Token", input)],
    action: "Log in",
    submit: async (data) => {
      const answer = await tryToken(data.get("token"));
      if (!answer.ok) {
        throw new Error(
          answer.status === 401
            ? "That is not the token."
            : `Not logged in: the gateway answered ${answer.status}.`,
        );
      }
      return true;
    },
  });
  loggedOut = done !== true;
  if (done) again();
  draw();
  return done === true;
});

async function tryToken(token) {
  try {
    return await fetch("/v1/login", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ token }),
    });
  } catch {
    reached(false);
    throw new Error("Not logged in: the gateway does not answer. Try again.");
  }
}
