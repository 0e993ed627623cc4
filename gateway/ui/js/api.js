// Calls of the API: errors as exceptions, one login prompt for all calls, and idempotency keys that
// make writes safe to retry. A write ends in one of three ways: an answer (written), a `Problem`
// (certainly not written), or `OutcomeUnknown` (a retry with the same key finds out).

import { encoded } from "./dom.js";

/** An answer that is no success; `kind` is the last part of the problem's type. */
export class Problem extends Error {
  constructor(status, body) {
    super(messageOf(status, body));
    this.status = status;
    this.body = body;
    this.kind = String(body.type || "").split(":").pop();
  }
}

/** A read got no answer. */
export class Unreachable extends Error {}

/** It is not known whether a write was applied; a retry with the same `key` finds out. */
export class OutcomeUnknown extends Error {
  constructor(key, why) {
    super(`It is not known whether this was done: ${why} Retry: it is applied at most once.`);
    this.key = key;
  }
}

function messageOf(status, body) {
  if (status === 401) return "you are not logged in. Log in, then try again.";
  return body.detail || body.title ||
    `The gateway, or a proxy in front of it, answered with status ${status}.`;
}

/** Whether an answer leaves open if the write was applied; a final one has one of these kinds. */
export function isOutcomeUnknown(problem) {
  if (problem.kind === "running" || problem.kind === "unknown") return true;
  const isFinal = ["aborted", "unavailable", "busy", "disk-full", "over-quota"].includes(
    problem.kind,
  );
  return problem.status >= 500 && !isFinal;
}

function whyUnknown(problem) {
  if (problem.kind === "unknown") return "the cluster has not answered yet.";
  return problem.kind === "running" ? "it is still running." : problem.message;
}

const READ_ATTEMPTS = 3;
const WRITE_ATTEMPTS = 5;

const listeners = new Set();

/** The listener is called with `true` after each answer and with `false` if none arrived. */
export const onReachable = (listener) => listeners.add(listener);
export const reportReachable = (yes) => listeners.forEach((listener) => listener(yes));

let loginPending = null;
let promptLogin = async () => false;

/** Set the function that asks for the token; it resolves to whether the login succeeded. */
export const setLoginPrompt = (login) => {
  promptLogin = login;
};

/** A random idempotency key, so that the same write sent twice is applied once. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Call the API and return the answer, whose status is a success or 304. Texts and blobs are sent as
 * they are, other objects as JSON. Throws `Problem`, `Unreachable` or (writes) `OutcomeUnknown`.
 */
export async function call(method, url, { body, headers = {}, signal, attempts } = {}) {
  const write = method !== "GET" && method !== "HEAD";
  const sent = { ...headers };
  if (write) sent["idempotency-key"] ??= newKey();
  if (body !== undefined && typeof body === "object" && !(body instanceof Blob)) {
    sent["content-type"] = "application/json";
    body = JSON.stringify(body);
  }
  const attemptsMax = attempts ?? (write ? WRITE_ATTEMPTS : READ_ATTEMPTS);
  let why = "";
  for (let tried = 1;; tried += 1) {
    let answer;
    try {
      answer = await fetch(url, { method, body, headers: sent, signal, cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw error;
      reportReachable(false);
      why = "the gateway does not answer.";
      if (tried < attemptsMax) {
        await pause(400 * Math.min(tried, 3));
        continue;
      }
      if (write) throw new OutcomeUnknown(sent["idempotency-key"], why);
      throw new Unreachable("The gateway does not answer.");
    }
    reportReachable(true);
    if (answer.ok || answer.status === 304) return answer;
    const problem = await problemOf(answer);
    if (answer.status === 401 && (await login())) continue;
    // An earlier copy may still be applied, whatever the answer to this one.
    const earlierMayApply = why && (problem.status >= 500 || problem.status === 401);
    const isUnknown = write && (isOutcomeUnknown(problem) || earlierMayApply);
    if (isUnknown) why = whyUnknown(problem);
    const mayRetry = isUnknown
      ? problem.status !== 401
      : problem.status === 503 && tried < READ_ATTEMPTS;
    if (mayRetry && tried < attemptsMax) {
      await pause(700);
      continue;
    }
    if (isUnknown) throw new OutcomeUnknown(sent["idempotency-key"], why);
    throw problem;
  }
}

/**
 * One write that a user wants, over all retries: while its outcome is unknown, the same request is
 * sent with the same key.
 */
export class Attempt {
  constructor() {
    this.pending = null;
  }

  async call(method, url, { body, headers = {}, ...more } = {}) {
    const request = JSON.stringify([method, url, headers, body]);
    if (this.pending?.request !== request) this.pending = { request, key: newKey() };
    const { pending } = this;
    try {
      const answer = await call(method, url, {
        body,
        headers: { ...headers, "idempotency-key": pending.key },
        ...more,
      });
      this.pending = null;
      return answer;
    } catch (error) {
      if (!(error instanceof OutcomeUnknown)) this.pending = null;
      throw error;
    }
  }
}

/**
 * Prevent the write with this key, unless it was decided already: a check that changes nothing uses
 * the key up, so the cluster refuses a copy that is still on its way. Resolves to "prevented" or
 * "decided". Throws `OutcomeUnknown` or `Problem`.
 */
export async function cancelWrite(key) {
  const body = { steps: [{ op: "check", path: "", if_match: "*" }] };
  try {
    await call("POST", "/v1/transactions", {
      body,
      headers: { "idempotency-key": key },
      attempts: 12,
    });
    return "prevented";
  } catch (error) {
    if (error.kind === "key-reused") return "decided";
    throw error;
  }
}

export const get = async (url, options) => (await call("GET", url, options)).json();
export const fileUrl = (path) => `/v1/files/${encoded(path)}`;
export const directoryUrl = (path) => `/v1/directories/${encoded(path)}`;
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** The problem in an answer, whatever its body is. */
export async function problemOf(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch { /* Not from a gateway: only the status is known. */ }
  return new Problem(answer.status, body);
}

/** Ask for the token, once for all calls that need it. */
export async function login() {
  loginPending ??= promptLogin().finally(() => {
    loginPending = null;
  });
  return loginPending;
}
