// The shell: a page for the address after #, navigation, the guard of unsaved text, shortcuts.

import { get, OutcomeUnknown, Problem, Unreachable } from "./api.js";
import { watchConnection } from "./connection.js";
import { ask, showKeys, toast } from "./dialog.js";
import { h, icon } from "./dom.js";
import { listen, start } from "./live.js";

const PAGES = {
  files: ["Files", () => import("./files.js")],
  cluster: ["Cluster", () => import("./cluster.js")],
  requests: ["Requests", () => import("./requests.js")],
  log: ["Log", () => import("./log.js")],
  access: ["Access", () => import("./access.js")],
};

const GO = { f: "files", c: "cluster", r: "requests", l: "log", a: "access" };

const WRITES = { taken: "accepted", refused: "refused" };

const main = document.getElementById("main");
let current = null;
let lastNavigation = 0;
let shownAddress = null;
let position = 0;
let isAsking = false;

/** Show the page that the address names; `#/files/a/b` is the page `files` with the rest `a/b`. */
async function show() {
  if (current && location.hash === shownAddress) return;
  if (!(await confirmLeave())) return;
  shownAddress = location.hash;
  numberHistoryEntry();
  const [, name = "files", rest = ""] = location.hash.match(/^#\/(\w+)\/?(.*)$/) ?? [];
  const page = PAGES[name] ? name : "files";
  const navigation = ++lastNavigation;
  let module = null;
  try {
    module = await PAGES[page][1]();
  } catch { /* `notLoaded` shows it; the browser's message would not help a user. */ }
  if (navigation !== lastNavigation) return;
  if (module && current?.name === page && current.view.navigate) {
    current.view.navigate(rest);
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

/** Shown in place of a page whose modules could not be loaded. */
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
        "The gateway does not answer, or it now serves another version of this page. Nothing was " +
          "changed.",
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
 * Whether the page may be left. If it has unsaved text, the user is asked first, at the former
 * address. The history stays intact, whether the user followed a link or went back.
 */
async function confirmLeave() {
  if (!current?.view.unsavedName?.()) return true;
  const [target, targetPosition] = [location.hash, history.state?.position];
  history.go(targetPosition === undefined ? -1 : position - targetPosition);
  // If the positions were counted wrongly, the address is corrected at the cost of a history entry.
  setTimeout(() => {
    if (location.hash !== shownAddress && isAsking) {
      history.replaceState(history.state, "", shownAddress);
    }
  }, 300);
  if (isAsking) return false;
  isAsking = true;
  const discard = await ask({
    title: "Discard your changes?",
    danger: true,
    action: "Discard changes",
    cancel: "Keep editing",
    text: `${current.view.unsavedName()} has unsaved changes.`,
  });
  isAsking = false;
  if (!discard) return false;
  current.view.discard();
  if (targetPosition === undefined) location.hash = target;
  else history.go(targetPosition - position);
  return false;
}

/** Number the history's entries, to know in which direction the user went. */
function numberHistoryEntry() {
  const known = history.state?.position;
  position = known ?? position + 1;
  if (known === undefined) history.replaceState({ position }, "");
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
    h("button.bare.theme", { type: "button", onclick: toggleTheme }, icon("theme"), "Theme"),
    h("a", { href: "/docs" }, "API"),
  );
  listen("visible", () => current?.view.refresh?.());
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

function toggleTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  setTheme(shown === "dark" ? "light" : "dark");
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  dispatchEvent(new CustomEvent("theme"));
}

// -- keyboard shortcuts --------------------------------------------------------------------------

let goPressedAt = 0;

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (document.querySelector("dialog[open]") || event.altKey || event.metaKey) return;
  if (current?.view.key?.(event, Boolean(typing))) {
    event.preventDefault();
    return;
  }
  if (typing || event.ctrlKey) return;
  if (event.key === "g") goPressedAt = Date.now();
  else if (Date.now() - goPressedAt < 1_500) {
    const page = GO[event.key];
    goPressedAt = 0;
    if (page) location.hash = `#/${page}/`;
  } else if (event.key === "?") showKeys();
});

addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") return;
  event.preventDefault();
  const { reason } = event;
  // Errors of API calls are worded for users; anything else is a bug in this page.
  const isForUsers = [Problem, Unreachable, OutcomeUnknown].some((kind) => reason instanceof kind);
  toast(
    isForUsers
      ? reason.message
      : `An error in this page: ${
        reason?.message ?? reason
      }. Reload the page; unsaved text is kept.`,
    true,
  );
});

const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
drawNavigation();
watchConnection(() => current?.view.refresh?.());
addEventListener("hashchange", show);
addEventListener("beforeunload", (event) => {
  if (current?.view.unsavedName?.()) event.preventDefault();
});
// A cluster with a token asks for it before the streams start.
get("/v1/cluster", { attempts: 1 }).catch(() => null).finally(start);
show();
