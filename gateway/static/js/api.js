// Calls of the API: errors as exceptions, a token asked for once, and keys that make writes safe to repeat.

import { encoded } from "./dom.js";

/** What the server answered that is no success; `kind` is the last part of the problem's type. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the gateway answered ${status}`);
    this.status = status;
    this.body = body;
    this.kind = String(body.type || "").split(":").pop();
  }
}

/** No answer came. */
export class Unreachable extends Error {}

const listeners = new Set();

/** Told `true` when an answer came and `false` when none did. */
export const onReach = (listener) => listeners.add(listener);
const reached = (yes) => listeners.forEach((listener) => listener(yes));

let asking = null;
let ask = async () => false;

/** Who asks for the token; resolves to whether a login succeeded. */
export const setLogin = (login) => { ask = login; };

/** A random name for a write, so that the same write sent twice is applied once. */
export function key() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An answer with a good status. Throws `Problem` or `Unreachable`. */
export async function call(method, url, { body, headers = {}, signal, attempts } = {}) {
  const write = method !== "GET" && method !== "HEAD";
  const sent = { ...headers };
  if (write) sent["idempotency-key"] ??= key();
  if (body !== undefined && typeof body === "object" && !(body instanceof Blob)) {
    sent["content-type"] = "application/json";
    body = JSON.stringify(body);
  }
  for (let left = attempts ?? 3; ; left -= 1) {
    let answer;
    try {
      answer = await fetch(url, { method, body, headers: sent, signal, cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw error;
      reached(false);
      if (left <= 1) throw new Unreachable("The gateway does not answer.");
      await pause(400 * (4 - left));
      continue;
    }
    reached(true);
    if (answer.ok || answer.status === 304) return answer;
    const problem = await problemOf(answer);
    if (answer.status === 401 && (await login())) continue;
    if (answer.status === 503 && left > 1) {
      await pause(700);
      continue;
    }
    throw problem;
  }
}

export const get = async (url, options) => (await call("GET", url, options)).json();
export const post = async (url, body, options) => (await call("POST", url, { ...options, body })).json();
export const fileUrl = (path) => `/v1/files/${encoded(path)}`;
export const directoryUrl = (path) => `/v1/directories/${encoded(path)}`;
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** The problem in an answer, whatever it holds. */
export async function problemOf(answer) {
  let body = {};
  try { body = await answer.json(); } catch { /* Not from a gateway: the status says enough. */ }
  return new Problem(answer.status, body);
}

/** Ask for the token, once however many calls need it. */
export async function login() {
  asking ??= ask().finally(() => { asking = null; });
  return asking;
}
