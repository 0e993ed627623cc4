// The two event streams of a gateway: what happens to the cluster, and what happens to files. Only what
// somebody looks at is asked for, and nothing at all while nobody looks.

const QUIET_MS = 6_000;
const RETRY_MS = 1_000;

/** `tell(message)` is called with what comes: `{ kind, … }`. */
export class Streams {
  constructor(tell) {
    this.tell = tell;
    this.topics = null;
    this.events = null;
    this.lastChange = "";
    this.lastFigures = 0;
    this.files = null;
    this.watch = null;
    this.lastFile = "";
    this.pending = [];
  }

  /** Have what is wanted: `topics` (`null`: nothing), and `files` as `{ prefix, after }` or `null`. */
  want(topics, files) {
    const wanted = topics && [...topics].sort().join(",");
    if (wanted !== this.topics) {
      this.topics = wanted;
      this.openEvents();
    }
    this.wantFiles(files);
  }

  /** Try again now, unless all is well. */
  again() {
    if (this.topics !== null && this.events?.readyState !== EventSource.OPEN) this.openEvents();
  }

  // -- the cluster -------------------------------------------------------------------------------

  openEvents() {
    clearTimeout(this.retry);
    clearTimeout(this.quiet);
    this.events?.close();
    this.events = null;
    if (this.topics === null) return;
    // Nothing known yet: then what changed before this window came is told, too.
    const query = new URLSearchParams({
      topics: this.topics,
      figures_after: this.lastFigures,
      after: this.lastChange || 0,
    });
    const events = (this.events = new EventSource(`/v1/events?${query}`));
    events.onopen = () => {
      this.heard();
      this.tell({ kind: "alive", value: true });
    };
    events.onerror = () => {
      if (this.events !== events) return;
      clearTimeout(this.quiet);
      this.tell({ kind: "alive", value: false });
      // A refusal closes the source for good; a broken connection is tried again by the browser.
      if (events.readyState !== EventSource.CLOSED) return;
      this.retry = setTimeout(() => this.openEvents(), RETRY_MS);
      this.askWhy();
    };
    const take = (kind, use) =>
      events.addEventListener(kind, (event) => {
        this.heard();
        use(JSON.parse(event.data), event.lastEventId);
      });
    take("change", (value, id) => {
      this.lastChange = id;
      this.tell({ kind: "change", value });
    });
    take("figures", (value) => this.figures([value]));
    take("history", (value) => this.figures(value.figures));
    for (const topic of this.topics.split(",").filter(Boolean)) {
      take(topic, (value) => this.tell({ kind: topic, value }));
    }
  }

  /** Figures come each second: a stream on which nothing comes is lost, though nothing broke. */
  heard() {
    clearTimeout(this.quiet);
    this.quiet = setTimeout(() => {
      this.tell({ kind: "alive", value: false });
      this.openEvents();
    }, QUIET_MS);
  }

  /** An event source does not tell why it was refused: perhaps the login has ended. */
  async askWhy() {
    try {
      const answer = await fetch("/v1/requests?limit=1", { cache: "no-store" });
      if (answer.status === 401) this.tell({ kind: "login", value: true });
    } catch { /* The connection is lost, as was told already. */ }
  }

  figures(values) {
    // After a broken connection the browser asks with the address of before: some are known already.
    const fresh = values.filter((one) => one.time_us > this.lastFigures);
    if (!fresh.length) return;
    this.lastFigures = fresh.at(-1).time_us;
    this.tell({ kind: "figures", value: fresh });
  }

  // -- files -------------------------------------------------------------------------------------

  /** `after`: the slot that the newest window has seen, so that it misses nothing; `old`: others watch already. */
  wantFiles(files) {
    const told = Number.parseInt(this.lastFile, 10) || 0;
    if (files && this.files?.prefix === files.prefix && !(files.after < told)) return;
    const { after, old } = files ?? {};
    const from = Math.min(after ?? Infinity, old && told ? told : Infinity);
    this.lastFile = Number.isFinite(from) ? `${from}` : "";
    this.files = files;
    this.openWatch();
  }

  openWatch() {
    clearTimeout(this.retryWatch);
    this.watch?.close();
    this.watch = null;
    if (this.files === null) return;
    const query = new URLSearchParams({ prefix: this.files.prefix });
    if (this.lastFile) query.set("after", this.lastFile);
    const watch = (this.watch = new EventSource(`/v1/watch?${query}`));
    const note = (event) => {
      this.lastFile = event.lastEventId || this.lastFile;
    };
    watch.addEventListener("ready", (event) => {
      note(event);
      this.tell({ kind: "watching", value: true });
    });
    watch.addEventListener("change", (event) => {
      note(event);
      this.queue(JSON.parse(event.data));
    });
    watch.addEventListener("reset", (event) => {
      note(event);
      this.queue({ kind: "reset" });
    });
    watch.onerror = () => {
      if (this.watch !== watch) return;
      this.tell({ kind: "watching", value: false });
      if (watch.readyState === EventSource.CLOSED) {
        this.retryWatch = setTimeout(() => this.openWatch(), RETRY_MS);
      }
    };
  }

  // Changes travel to the windows a few times a second, however many there are.
  queue(change) {
    this.pending.push(change);
    this.flushing ??= setTimeout(() => {
      const value = this.pending;
      this.pending = [];
      this.flushing = null;
      this.tell({ kind: "files", value });
    }, 250);
  }
}

/** What several windows wish, put together: all their topics, and the files below what their folders share. */
export class Wishes {
  constructor(streams) {
    this.streams = streams;
    this.wishes = new Map();
    this.granted = new Map();
  }

  /** `wish`: `{ shown, topics, files: { prefix, after, turn } or null }`; `undefined`: the window is gone. */
  set(window, wish) {
    if (wish) this.wishes.set(window, wish);
    else this.wishes.delete(window);
    // Many wishes come together when a page is turned: one new stream is enough.
    clearTimeout(this.due);
    this.due = setTimeout(() => this.weigh(), 20);
  }

  weigh() {
    const shown = [...this.wishes].filter(([, wish]) => wish.shown);
    const looking = shown.filter(([, wish]) => wish.files);
    const fresh = looking.filter(([window, wish]) => this.granted.get(window) !== wish.files.turn);
    this.granted = new Map(looking.map(([window, wish]) => [window, wish.files.turn]));
    const files = looking.length
      ? {
        prefix: looking.map(([, wish]) => wish.files.prefix).reduce(shared),
        after: Math.min(...fresh.map(([, wish]) => wish.files.after ?? Infinity)),
        old: fresh.length < looking.length,
      }
      : null;
    this.streams.want(
      shown.length ? new Set(shown.flatMap(([, wish]) => wish.topics)) : null,
      files,
    );
  }
}

function shared(one, other) {
  let prefix = one;
  while (!other.startsWith(prefix)) prefix = prefix.replace(/[^/]*\/?$/, "");
  return prefix;
}
