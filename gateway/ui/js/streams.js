// The two event streams of a gateway: changes of the cluster and changes of files. They carry only
// what a visible window shows, and are closed while no window is visible.

const QUIET_MS = 6_000;
const RETRY_MS = 1_000;
const COMBINE_MS = 20;
const FLUSH_MS = 250;

/** Opens the streams and keeps them open; calls `receive({ kind, … })` with each message. */
export class Streams {
  constructor(receive) {
    this.receive = receive;
    this.topics = null;
    this.events = null;
    this.lastChange = "";
    this.lastFigures = 0;
    this.files = null;
    this.watch = null;
    this.lastFile = "";
    this.pending = [];
  }

  /** Subscribe to `topics` (`null`: nothing) and to `files`: `{ prefix, after }` or `null`. */
  subscribe(topics, files) {
    const names = topics && [...topics].sort().join(",");
    if (names !== this.topics) {
      this.topics = names;
      this.openEvents();
    }
    this.subscribeToFiles(files);
  }

  /** Reconnect now, unless the stream is open. */
  retryNow() {
    if (this.topics !== null && this.events?.readyState !== EventSource.OPEN) this.openEvents();
  }

  // -- the cluster -------------------------------------------------------------------------------

  openEvents() {
    clearTimeout(this.eventsTimer);
    clearTimeout(this.quietTimer);
    this.events?.close();
    this.events = null;
    if (this.topics === null) return;
    // Without a last change the gateway also sends those from before this window opened.
    const query = new URLSearchParams({
      topics: this.topics,
      figures_after: this.lastFigures,
      after: this.lastChange || 0,
    });
    const events = (this.events = new EventSource(`/v1/events?${query}`));
    // An attempt that is never answered, as by a suspended gateway, reports no error either.
    this.restartQuietTimer();
    events.onopen = () => {
      this.restartQuietTimer();
      this.receive({ kind: "alive", value: true });
    };
    events.onerror = () => {
      if (this.events !== events) return;
      clearTimeout(this.quietTimer);
      this.receive({ kind: "alive", value: false });
      // A refusal closes the source for good; the browser retries a broken connection itself.
      if (events.readyState !== EventSource.CLOSED) return;
      this.eventsTimer = setTimeout(() => this.openEvents(), RETRY_MS);
      this.checkLogin();
    };
    const on = (kind, handle) =>
      events.addEventListener(kind, (event) => {
        this.restartQuietTimer();
        handle(JSON.parse(event.data), event.lastEventId);
      });
    on("change", (value, id) => {
      this.lastChange = id;
      this.receive({ kind: "change", value });
    });
    on("figures", (value) => this.receiveFigures([value]));
    on("history", (value) => this.receiveFigures(value.figures));
    for (const topic of this.topics.split(",").filter(Boolean)) {
      on(topic, (value) => this.receive({ kind: topic, value }));
    }
  }

  /** Figures come each second, so a silent stream is lost even if no connection broke. */
  restartQuietTimer() {
    clearTimeout(this.quietTimer);
    this.quietTimer = setTimeout(() => {
      this.receive({ kind: "alive", value: false });
      this.openEvents();
    }, QUIET_MS);
  }

  /** An event source does not report why it was refused: the login may have ended. */
  async checkLogin() {
    try {
      const answer = await fetch("/v1/requests?limit=1", { cache: "no-store" });
      if (answer.status === 401) this.receive({ kind: "login", value: true });
    } catch { /* The connection is lost, which was reported already. */ }
  }

  receiveFigures(values) {
    // The browser reconnects with the original address, so some figures may be known already.
    const fresh = values.filter((one) => one.time_us > this.lastFigures);
    if (!fresh.length) return;
    this.lastFigures = fresh.at(-1).time_us;
    this.receive({ kind: "figures", value: fresh });
  }

  // -- files -------------------------------------------------------------------------------------

  /**
   * `after` is the slot that the newest window has seen, so that it misses nothing; `hasOthers`:
   * other windows watch already.
   */
  subscribeToFiles(files) {
    const received = Number.parseInt(this.lastFile, 10) || 0;
    if (files && this.files?.prefix === files.prefix && !(files.after < received)) return;
    const { after, hasOthers } = files ?? {};
    const from = Math.min(after ?? Infinity, hasOthers && received ? received : Infinity);
    this.lastFile = Number.isFinite(from) ? `${from}` : "";
    this.files = files;
    this.openWatch();
  }

  openWatch() {
    clearTimeout(this.watchTimer);
    this.watch?.close();
    this.watch = null;
    if (this.files === null) return;
    const query = new URLSearchParams({ prefix: this.files.prefix });
    if (this.lastFile) query.set("after", this.lastFile);
    const watch = (this.watch = new EventSource(`/v1/watch?${query}`));
    const remember = (event) => {
      this.lastFile = event.lastEventId || this.lastFile;
    };
    watch.addEventListener("ready", (event) => {
      remember(event);
      this.receive({ kind: "watching", value: true });
    });
    watch.addEventListener("change", (event) => {
      remember(event);
      this.queue(JSON.parse(event.data));
    });
    watch.addEventListener("reset", (event) => {
      remember(event);
      this.queue({ kind: "reset" });
    });
    watch.onerror = () => {
      if (this.watch !== watch) return;
      this.receive({ kind: "watching", value: false });
      if (watch.readyState === EventSource.CLOSED) {
        this.watchTimer = setTimeout(() => this.openWatch(), RETRY_MS);
      }
    };
  }

  // Windows receive changes a few times a second, however many there are.
  queue(change) {
    this.pending.push(change);
    this.flushTimer ??= setTimeout(() => {
      const value = this.pending;
      this.pending = [];
      this.flushTimer = null;
      this.receive({ kind: "files", value });
    }, FLUSH_MS);
  }
}

/**
 * Combines what several windows subscribe to: all their topics, and the files below the folder that
 * their folders have in common.
 */
export class Subscriptions {
  constructor(streams) {
    this.streams = streams;
    this.byWindow = new Map();
    this.servedGenerations = new Map();
  }

  /** `subscription`: `{ isVisible, topics, files: { prefix, after, generation } or null }`. */
  set(window, subscription) {
    this.byWindow.set(window, subscription);
    this.combineSoon();
  }

  remove(window) {
    this.byWindow.delete(window);
    this.combineSoon();
  }

  // Several subscriptions change together when the page changes: one new stream is enough.
  combineSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.combine(), COMBINE_MS);
  }

  combine() {
    const visible = [...this.byWindow].filter(([, one]) => one.isVisible);
    const watching = visible.filter(([, one]) => one.files);
    const fresh = watching.filter(([window, one]) =>
      this.servedGenerations.get(window) !== one.files.generation
    );
    this.servedGenerations = new Map(
      watching.map(([window, one]) => [window, one.files.generation]),
    );
    const files = watching.length
      ? {
        prefix: watching.map(([, one]) => one.files.prefix).reduce(commonFolder),
        after: Math.min(...fresh.map(([, one]) => one.files.after ?? Infinity)),
        hasOthers: fresh.length < watching.length,
      }
      : null;
    const topics = visible.length ? new Set(visible.flatMap(([, one]) => one.topics)) : null;
    this.streams.subscribe(topics, files);
  }
}

function commonFolder(one, other) {
  let prefix = one;
  while (!other.startsWith(prefix)) prefix = prefix.replace(/[^/]*\/?$/, "");
  return prefix;
}
