// What was typed and is not saved, kept by the browser for this tab: a reload, a crash or a login in
// between loses nothing.

const NAME = (path) => `draft:${path}`;

/** The text for `path`, the tag of the version that it began from, and when it was typed; or `null`. */
export function draftOf(path) {
  try {
    return JSON.parse(sessionStorage.getItem(NAME(path)));
  } catch {
    return null;
  }
}

/** Keep a text; whether there was room for it. */
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
  } catch { /* There is none, then. */ }
}
