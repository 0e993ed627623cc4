// The shell: pages by the address after #, navigation, the banner of a lost connection, the keys.

import { call, get, login, onReach, setLogin } from "./api.js";
import { ask, showKeys, toast } from "./dialog.js";
import { h, icon } from "./dom.js";
import { again, listen, start } from "./live.js";

const PAGES = {
  files: ["Files", () => import("./files.js")],
  cluster: ["Cluster", () => import("./cluster.js")],
  requests: ["Requests", () => import("./requests.js")],
  log: ["Log", () => import("./log.js")],
};

const main = document.getElementById("main");
let current = null;
let showing = 0;

/** Show the page that the address names; `#/files/a/b` is the page `files` with the rest `a/b`. */
async function show() {
  const [, name = "files", rest = ""] = location.hash.match(/^#\/(\w+)\/?(.*)$/) ?? [];
  const page = PAGES[name] ? name : "files";
  const turn = ++showing;
  const module = await PAGES[page][1]();
  if (turn !== showing) return;
  if (current?.name === page && current.view.move) {
    current.view.move(rest);
  } else {
    current?.view.close?.();
    main.replaceChildren();
    current = { name: page, view: module.open(main, rest) };
    main.scrollTop = 0;
  }
  document.title = `${PAGES[page][0]} – Synod`;
  for (const link of document.querySelectorAll("#nav-pages a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function drawNavigation() {
  document.getElementById("nav-pages").append(...Object.entries(PAGES).map(([name, [title]]) =>
    h("a", { href: `#/${name}/`, "data-page": name }, icon(name), h("span", {}, title))));
  const leader = h("dd", {}, "…");
  const rate = h("dd", {}, "…");
  const epoch = h("dd", {}, "…");
  document.getElementById("nav-foot").append(
    h("dl", {}, h("dt", {}, "leader"), leader, h("dt", {}, "view"), epoch, h("dt", {}, "writes/s"), rate),
    h("button.bare.theme", { type: "button", onclick: turnTheme }, icon("theme"), "Theme"));
  listen("shown", () => current?.view.refresh?.());
  listen("figures", (figures) => {
    leader.textContent = figures.leader ?? "none";
    epoch.textContent = figures.epoch ?? "–";
    rate.textContent = Math.round(figures.writes_per_s).toLocaleString();
  });
}

function turnTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  setTheme(shown === "dark" ? "light" : "dark");
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  dispatchEvent(new CustomEvent("theme"));
}

// -- the connection ------------------------------------------------------------------------------

const lost = document.getElementById("lost");
let streamLost = false;
let callLost = false;
let since = 0;

function drawLost() {
  const now = streamLost || callLost;
  if (now && lost.hidden) since = Date.now();
  lost.hidden = !now;
  if (now) {
    const seconds = Math.round((Date.now() - since) / 1000);
    lost.textContent = `The connection to the gateway is lost${seconds > 2 ? ` (for ${seconds} s)` : ""}. What you see may be old; it is tried again by itself.`;
  }
}

async function tryAgain() {
  if (!streamLost && !callLost) return;
  drawLost();
  again();
  try {
    const answer = await fetch("/healthz", { cache: "no-store" });
    if (answer.status === 401) await login();
    callLost = false;
  } catch {
    callLost = true;
  }
  drawLost();
}

function mindConnection() {
  listen("alive", (alive) => {
    const back = streamLost && alive;
    streamLost = !alive;
    drawLost();
    if (back) {
      toast("The connection is back.");
      current?.view.refresh?.();
    }
  });
  onReach((reached) => {
    callLost = !reached;
    drawLost();
  });
  setInterval(tryAgain, 1_500);
}

setLogin(async () => {
  const input = h("input", { name: "token", type: "password", required: true, autocomplete: "current-password" });
  const done = await ask({
    title: "This cluster asks for its token",
    text: "Whoever runs it has the token in its settings.",
    fields: [h("label", {}, "Token", input)],
    action: "Log in",
    submit: async (data) => {
      const answer = await fetch("/v1/login", {
        method: "POST", headers: { "content-type": "application/json" },
        body: JSON.stringify({ token: data.get("token") }),
      });
      if (!answer.ok) throw new Error(answer.status === 401 ? "That is not the token." : `The gateway answered ${answer.status}.`);
      return true;
    },
  });
  if (done) again();
  return done === true;
});

// -- the keys ------------------------------------------------------------------------------------

let going = 0;

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (document.querySelector("dialog[open]") || event.altKey || event.metaKey) return;
  if (current?.view.key?.(event, Boolean(typing))) {
    event.preventDefault();
    return;
  }
  if (typing || event.ctrlKey) return;
  if (event.key === "g") going = Date.now();
  else if (Date.now() - going < 1_500) {
    const page = { f: "files", c: "cluster", r: "requests", l: "log" }[event.key];
    going = 0;
    if (page) location.hash = `#/${page}/`;
  } else if (event.key === "?") showKeys();
});

addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") return;
  event.preventDefault();
  toast(event.reason?.message ?? String(event.reason), true);
});

const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
drawNavigation();
mindConnection();
addEventListener("hashchange", show);
// The token is asked for before anything else, if there is one.
get("/v1/cluster", { attempts: 1 }).catch(() => null).finally(start);
show();
export { call };
