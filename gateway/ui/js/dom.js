// Elements, icons, and sizes, times and names as text. No framework: a page is a few elements.

/** An element: h("div.card", {title: "…"}, child, "text", …). Listeners are given as onclick. */
export function h(spec, attributes = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  return fill(element, attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of a drawing. */
export function s(spec, attributes = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElementNS(SVG, tag);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  return fill(element, attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") {
      for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    } else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat().filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Replace an element's children; false, missing and empty ones are left out. */
export const setChildren = (element, ...children) =>
  element.replaceChildren(
    ...children.flat().filter((child) =>
      child !== null && child !== undefined && child !== false && child !== ""
    ),
  );

const PATHS = {
  files: "M3 6.5a2 2 0 0 1 2-2h4l2 2.5h8a2 2 0 0 1 2 2v8.500a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2Z",
  cluster:
    "M12 3v5m0 8v5M4.200 7.500l4.300 2.500m7 4 4.300 2.500m0-9-4.300 2.500m-7 4-4.300 2.500" +
    "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Z",
  requests: "M4 5v14M12 5v14M20 5v14M4 8h7m-2-2 2 2-2 2m4 3h6m-2-2 2 2-2 2",
  log: "M5 4h14v16H5zM8.500 9h7M8.500 12.500h7M8.500 16h4",
  access: "M8 11a4 4 0 1 1 3.500-2L20 17.500V20h-3v-2h-2v-2l-3.500-5A4 4 0 0 1 8 11ZM7.500 7h.01",
  folder: "M3 6.500a2 2 0 0 1 2-2h4l2 2.500h8a2 2 0 0 1 2 2v8.500a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2Z",
  file: "M6 3.500h8l4 4V20.500H6ZM14 3.500v4h4",
  image: "M4 5h16v14H4ZM4 16l5-5 4 4 2.500-2.500L20 17M15.500 9.500h.01",
  upload: "M12 16V5m-4.500 4L12 4.500 16.500 9M4.500 15v4h15v-4",
  download: "M12 4.500V16m-4.500-4.500L12 16l4.500-4.500M4.500 16v3.500h15V16",
  plus: "M12 5v14M5 12h14",
  more: "M5.500 12h.5M11.750 12h.5M18 12h.5",
  close: "M6 6l12 12M18 6 6 18",
  up: "M12 19V5m-6 6 6-6 6 6",
  edit: "M4 20h4L19.500 8.500l-4-4L4 16ZM13.500 6.500l4 4",
  crown: "M4 17.500h16M4.500 15 3.500 7.500 8.500 11 12 5l3.500 6 5-3.500-1 7.500Z",
  play: "M8 5.500v13l10-6.500Z",
  back: "M15 5.500 8.500 12l6.500 6.500",
  next: "M9 5.500l6.500 6.500L9 18.500",
  theme: "M12 4a8 8 0 1 0 0 16ZM12 4a8 8 0 0 1 0 16",
};

/** A line icon. It is decoration, hidden from screen readers: also give its meaning in words. */
export function icon(name) {
  return s("svg", {
    viewBox: "0 0 24 24",
    fill: "none",
    stroke: "currentColor",
    "stroke-width": "1.8",
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
    "aria-hidden": "true",
  }, s("path", { d: PATHS[name] }));
}

/** A size in bytes as text, in a readable unit. */
export function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return unit === "B" ? `${bytes} B` : `${value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const MINUTE = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const SECOND = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** A date as text: the time if it is today, else the day. */
export function moment(ms) {
  const date = new Date(ms);
  const today = new Date().toDateString() === date.toDateString();
  return today ? `today, ${MINUTE.format(date)}` : DAY.format(date);
}

/** The time of day to the second. */
export const clock = (ms) => SECOND.format(new Date(ms));

/** A duration in microseconds as text. */
export function duration(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1_000) return `${Math.round(us)} µs`;
  if (us < 100_000) return `${(us / 1_000).toFixed(us < 10_000 ? 2 : 1)} ms`;
  if (us < 1_000_000) return `${Math.round(us / 1_000)} ms`;
  return `${(us / 1_000_000).toFixed(2)} s`;
}

/** "1 file", "2 files". */
export const plural = (count, one) => `${count.toLocaleString()} ${one}${count === 1 ? "" : "s"}`;

/** A path, encoded for a URL of the API or of this page. */
export const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");

/** The role that a node's name starts with. */
export const role = (node) => node.replace(/-\d+$/, "");

/** Compare nodes by role, in the order in which a request passes them, then by number. */
export function byRequestOrder(one, other) {
  const roles = ["gateway", "proposer", "acceptor", "learner", "store"];
  const place = (node) => roles.indexOf(role(node)) * 1000 + Number(node.match(/\d+$/)?.[0] ?? 0);
  return place(one) - place(other);
}
