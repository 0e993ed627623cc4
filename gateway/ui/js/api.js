// Calls of the API: errors as exceptions, a token asked for once, and keys that make writes safe to
// repeat. A write ends in one of three ways: an answer (written), a `Problem` (certainly not written),
// or `Unsettled` (not known, and the same key can ask).

import { encoded } from "./dom.js";

/** What the server answered that is no success; `kind` is the last part of the problem's type. */
export class Problem extends Error {
  constructor(status, body) {
    super(saidOf(status, body));
    this.status = status;
    this.body = body;
    this.kind = String(body.type || "").split(":").pop();
  }
}

/** No answer came to what only asks. */
export class Unreachable extends Error {}

/** A write of which it is not known whether it was done; asking with the same `key` tells. */
export class Unsettled extends Error {
  constructor(key, why) {
    super(`It is not known whether this was done: ${why} Ask again: it is done once at most.`);
    this.key = key;
  }
}

function saidOf(status, body) {
  if (status === 401) return "you are not logged in. Log in, then do it again.";
  return body.detail || body.title || `The gateway, or a proxy before it, answered ${status}.`;
}

/** Whether the answer to a write leaves open if it was done: what is final names its type. */
export function leavesOpen(problem) {
  if (problem.kind === "running" || problem.kind === "unknown") return true;
  const isFinal = ["aborted", "unavailable", "busy", "disk-full", "over-quota"].includes(
    problem.kind,
  );
  return problem.status >= 500 && !isFinal;
}

function whyOpen(problem) {
  if (problem.kind === "unknown") return "the cluster has not answered yet.";
  return problem.kind === "running" ? "it is still under way." : problem.message;
}

const READS_TRIED = 3;
const WRITES_TRIED = 5;

const listeners = new Set();

/** Told `true` when an answer came and `false` when none did. */
export const onReach = (listener) => listeners.add(listener);
export const reached = (yes) => listeners.forEach((listener) => listener(yes));

let asking = null;
let ask = async () => false;

/** Who asks for the token; resolves to whether a login succeeded. */
export const setLogin = (login) => {
  ask = login;
};

/** A random name for a write, so that the same write sent twice is applied once. */
export function key() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * An answer with a good status. Throws `Problem`, `Unreachable` or, of a write, `Unsettled`. A text
 * is sent as it is, any other object as JSON.
 */
export async function call(method, url, { body, headers = {}, signal, attempts } = {}) {
  const write = method !== "GET" && method !== "HEAD";
  const sent = { ...headers };
  if (write) sent["idempotency-key"] ??= key();
  if (body !== undefined && typeof body === "object" && !(body instanceof Blob)) {
    sent["content-type"] = "application/json";
    body = JSON.stringify(body);
  }
  const most = attempts ?? (write ? WRITES_TRIED : READS_TRIED);
  let open = "";
  for (let tried = 1;; tried += 1) {
    let answer;
    try {
      answer = await fetch(url, { method, body, headers: sent, signal, cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw error;
      reached(false);
      open = "the gateway does not answer.";
      if (tried < most) {
        await pause(400 * Math.min(tried, 3));
        continue;
      }
      if (write) throw new Unsettled(sent["idempotency-key"], open);
      throw new Unreachable("The gateway does not answer.");
    }
    reached(true);
    if (answer.ok || answer.status === 304) return answer;
    const problem = await problemOf(answer);
    if (answer.status === 401 && (await login())) continue;
    // A copy that was sent before may still be done, whatever became of this one.
    const earlier = open && (problem.status >= 500 || problem.status === 401);
    const isOpen = write && (leavesOpen(problem) || earlier);
    if (isOpen) open = whyOpen(problem);
    const isLater = isOpen ? problem.status !== 401 : problem.status === 503 && tried < READS_TRIED;
    if (isLater && tried < most) {
      await pause(700);
      continue;
    }
    if (isOpen) throw new Unsettled(sent["idempotency-key"], open);
    throw problem;
  }
}

/**
 * One thing that a person wants done, however often it takes to ask: as long as it is not known
 * whether it was done, the same request is sent under the same key.
 */
export class Attempt {
  constructor() {
    this.open = null;
  }

  async call(method, url, { body, headers = {}, ...more } = {}) {
    const said = JSON.stringify([method, url, headers, body]);
    if (this.open?.said !== said) this.open = { said, key: key() };
    const { open } = this;
    try {
      const answer = await call(method, url, {
        body,
        headers: { ...headers, "idempotency-key": open.key },
        ...more,
      });
      this.open = null;
      return answer;
    } catch (error) {
      if (!(error instanceof Unsettled)) this.open = null;
      throw error;
    }
  }
}

/**
 * Have the write with this key never happen, unless it was decided already: the key is spent on a
 * check that changes nothing, so that a copy which is still under way is refused. Resolves to
 * "never" or "decided". Throws `Unsettled` or `Problem`.
 */
export async function cancelled(name) {
  const body = { steps: [{ op: "check", path: "", if_match: "*" }] };
  try {
    await call("POST", "/v1/transactions", {
      body,
      headers: { "idempotency-key": name },
      attempts: 12,
    });
    return "never";
  } catch (error) {
    if (error.kind === "key-reused") return "decided";
    throw error;
  }
}

export const get = async (url, options) => (await call("GET", url, options)).json();
export const fileUrl = (path) => `/v1/files/${encoded(path)}`;
export const directoryUrl = (path) => `/v1/directories/${encoded(path)}`;
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** The problem in an answer, whatever it holds. */
export async function problemOf(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch { /* Not from a gateway: the status says enough. */ }
  return new Problem(answer.status, body);
}

/** Ask for the token, once however many calls need it. */
export async function login() {
  asking ??= ask().finally(() => {
    asking = null;
  });
  return asking;
}
