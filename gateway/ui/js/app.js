// The shell: pages by the address after #, navigation, the guard of what is not saved, the keys.

import { get, Problem, Unreachable, Unsettled } from "./api.js";
import { mindConnection } from "./connection.js";
import { ask, showKeys, toast } from "./dialog.js";
import { h, icon } from "./dom.js";
import { listen, start } from "./live.js";

const PAGES = {
  files: ["Files", () => import("./files.js")],
  cluster: ["Cluster", () => import("./cluster.js")],
  requests: ["Requests", () => import("./requests.js")],
  log: ["Log", () => import("./log.js")],
};

const WRITES = { taken: "taken", refused: "not taken" };

const main = document.getElementById("main");
let current = null;
let showing = 0;
let shownAddress = null;
let here = 0;
let asking = false;

/** Show the page that the address names; `#/files/a/b` is the page `files` with the rest `a/b`. */
async function show() {
  if (current && location.hash === shownAddress) return;
  if (!(await mayLeave())) return;
  shownAddress = location.hash;
  note();
  const [, name = "files", rest = ""] = location.hash.match(/^#\/(\w+)\/?(.*)$/) ?? [];
  const page = PAGES[name] ? name : "files";
  const turn = ++showing;
  let module = null;
  try {
    module = await PAGES[page][1]();
  } catch { /* Said below: what the browser says of it is of no use to anybody. */ }
  if (turn !== showing) return;
  if (module && current?.name === page && current.view.move) {
    current.view.move(rest);
  } else {
    current?.view.close?.();
    main.replaceChildren();
    current = { name: page, view: module ? module.open(main, rest) : notLoaded(PAGES[page][0]) };
    main.scrollTop = 0;
  }
  document.title = `${PAGES[page][0]} – Synod`;
  for (const link of document.querySelectorAll("#nav-pages a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** In place of a page of which a part did not come from the gateway. */
function notLoaded(title) {
  main.append(
    h(
      "div.empty",
      { role: "alert" },
      icon("cluster"),
      h("h2", {}, `The page ${title} could not be loaded`),
      h(
        "p.quiet",
        {},
        "The gateway does not answer, or it serves another version of this page now. Nothing was changed.",
      ),
      h("button.primary", { type: "button", onclick: () => location.reload() }, "Reload"),
    ),
  );
  return {
    refresh: () => {
      shownAddress = null;
      show();
    },
  };
}

/**
 * Whether the page may turn to the address: what is not saved is asked about first, at the address of
 * before. The history stays as it is, whether the new address is a link's or one gone back to.
 */
async function mayLeave() {
  if (!current?.view.unsaved?.()) return true;
  const [target, place] = [location.hash, history.state?.place];
  history.go(place === undefined ? -1 : here - place);
  // Where places were counted wrongly the address is put right, at the cost of an entry.
  setTimeout(() => {
    if (location.hash !== shownAddress && asking) {
      history.replaceState(history.state, "", shownAddress);
    }
  }, 300);
  if (asking) return false;
  asking = true;
  const discard = await ask({
    title: "Discard what you changed?",
    danger: true,
    action: "Discard changes",
    cancel: "Keep editing",
    text: `${current.view.unsaved()} has changes that are not saved.`,
  });
  asking = false;
  if (!discard) return false;
  current.view.discard();
  if (place === undefined) location.hash = target;
  else history.go(place - here);
  return false;
}

/** Number the entries of the history, so that it is known which way one was gone to. */
function note() {
  const place = history.state?.place;
  here = place ?? here + 1;
  if (place === undefined) history.replaceState({ place: here }, "");
}

function drawNavigation() {
  document.getElementById("nav-pages").append(
    ...Object.entries(PAGES).map(([name, [title]]) =>
      h("a", { href: `#/${name}/`, "data-page": name }, icon(name), h("span", {}, title))
    ),
  );
  const leader = h("dd", {}, "…");
  const rate = h("dd", {}, "…");
  const epoch = h("dd", {}, "…");
  const writes = h("dd", {}, "…");
  document.getElementById("nav-foot").append(
    h(
      "dl",
      {},
      h("dt", {}, "leader"),
      leader,
      h("dt", {}, "view"),
      epoch,
      h("dt", {}, "writes"),
      writes,
      h("dt", {}, "writes/s"),
      rate,
    ),
    h("button.bare.theme", { type: "button", onclick: turnTheme }, icon("theme"), "Theme"),
    h("a", { href: "/docs" }, "API"),
  );
  listen("shown", () => current?.view.refresh?.());
  listen("figures", (figures) => {
    const isKnown = figures.writes !== "unknown";
    leader.textContent = figures.leader ?? (isKnown ? "none" : "unknown");
    writes.textContent = WRITES[figures.writes] ?? "unknown";
    writes.title = figures.why ?? "";
    writes.classList.toggle("wrong-text", figures.writes === "refused");
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
  const { reason } = event;
  // What calls of the API say is made for people; anything else is a mistake of this page.
  const isSaid = [Problem, Unreachable, Unsettled].some((kind) => reason instanceof kind);
  toast(
    isSaid
      ? reason.message
      : `This page made a mistake (${
        reason?.message ?? reason
      }). Reload it; text that you edit is kept.`,
    true,
  );
});

const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
drawNavigation();
mindConnection(() => current?.view.refresh?.());
addEventListener("hashchange", show);
addEventListener("beforeunload", (event) => {
  if (current?.view.unsaved?.()) event.preventDefault();
});
// The token is asked for before anything else, if there is one.
get("/v1/cluster", { attempts: 1 }).catch(() => null).finally(start);
show();
