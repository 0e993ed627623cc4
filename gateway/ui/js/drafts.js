// Unsaved texts, kept in the tab's sessionStorage: a reload, a crash or a login loses nothing.

const NAME = (path) => `draft:${path}`;

/**
 * The draft for `path` or `null`: its `text`, the `etag` of the version it started from, and
 * `at_ms`, when it was kept.
 */
export function draftOf(path) {
  try {
    return JSON.parse(sessionStorage.getItem(NAME(path)));
  } catch {
    return null;
  }
}

/** Keep a draft. Returns `false` if the browser has no room for it. */
export function keepDraft(path, text, etag) {
  try {
    sessionStorage.setItem(NAME(path), JSON.stringify({ text, etag, at_ms: Date.now() }));
    return true;
  } catch {
    return false;
  }
}

export function dropDraft(path) {
  try {
    sessionStorage.removeItem(NAME(path));
  } catch { /* Without storage there is no draft either. */ }
}
