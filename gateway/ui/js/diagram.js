// The sequence diagram: a lane for each node, time downwards, every message an arrow at its real times.

import { duration, h, icon, plural, put, role, s } from "./dom.js";
import { about, STAGES } from "./teaching.js";

// How much room the names of the steps and each lane take; on a phone all lanes are to be in sight.
const WIDE = { gutter: 146, lane: 42, chip: [10, 124] };
const NARROW = { gutter: 102, lane: 20, chip: [6, 97] };
const NARROW_BELOW = 560;
const TOP = 18;
const BOTTOM = 48;
const CHIP = 27;
const EVEN_STEP = 15;

/** A drawing of `model` (see trace.js) with its tools and the panel that explains what is chosen. */
export class Diagram {
  constructor(model) {
    this.model = model;
    this.zoom = 1;
    this.even = false;
    this.chosen = null;
    this.step = -1;
    this.stagesBar = this.drawStages();
    this.lanes = h("div.lanes", { "aria-hidden": "true" });
    this.canvas = h("div.canvas");
    this.scroll = h(
      "div.diagram-scroll",
      {
        tabindex: "0",
        role: "group",
        "aria-label": "Sequence diagram; left and right go from step to step",
      },
      this.lanes,
      this.canvas,
    );
    this.panel = h("aside.panel.card", { "aria-live": "polite", "aria-label": "What is chosen" });
    this.element = h(
      "div.diagram",
      {},
      this.stagesBar,
      this.drawTools(),
      h("div.diagram-body", {}, h("div.card.sheet", {}, this.scroll), this.panel),
    );
    this.scroll.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      this.setZoom(
        this.zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2),
        event.clientY - this.scroll.getBoundingClientRect().top,
      );
    }, { passive: false });
    this.watch = new ResizeObserver(() => {
      const width = this.scroll.clientWidth;
      if (width && width !== this.width) {
        this.width = width;
        this.draw();
      }
    });
    this.watch.observe(this.scroll);
    this.explain();
  }

  close() {
    this.watch.disconnect();
  }

  // -- tools -------------------------------------------------------------------------------------

  drawStages() {
    const { stages } = this.model;
    if (!stages.length) return h("div");
    const sum = stages.at(-1).to - stages[0].from;
    return h(
      "div.stages",
      { role: "group", "aria-label": "Where the time went" },
      h(
        "div.total",
        {},
        h("strong", {}, duration(sum)),
        h("span.quiet", {}, this.model.complete ? "in all" : "of what was seen"),
      ),
      h(
        "div.bars",
        {},
        stages.map((stage) => {
          const { kind, title, text } = STAGES[stage.name] ??
            { kind: "client", title: stage.name, text: "" };
          const share = (stage.to - stage.from) / sum;
          return h(
            `button.stage.${kind}`,
            {
              type: "button",
              title: text,
              style: { "flex-grow": Math.max(share, 0.02) },
              onclick: () => this.explainStage(stage),
            },
            h("span", {}, title),
            h("strong", {}, duration(stage.to - stage.from)),
          );
        }),
      ),
    );
  }

  drawTools() {
    this.where = h("span.quiet", {});
    const real = h("button", {
      type: "button",
      "aria-pressed": "true",
      title: "Distances are durations",
    }, "Real time");
    const even = h("button", {
      type: "button",
      "aria-pressed": "false",
      title: "Every moment takes the same room",
    }, "Step by step");
    const turn = (to) => () => {
      this.even = to;
      real.setAttribute("aria-pressed", !to);
      even.setAttribute("aria-pressed", to);
      this.draw();
    };
    real.onclick = turn(false);
    even.onclick = turn(true);
    this.range = h("input", {
      type: "range",
      min: "0",
      max: "100",
      value: "0",
      "aria-label": "Zoom",
      oninput: () => this.setZoom(64 ** (this.range.value / 100)),
    });
    return h(
      "div.tools",
      {},
      h(
        "div.group",
        {},
        h("button.icon", {
          type: "button",
          "aria-label": "Step before",
          title: "Step before (←)",
          onclick: () => this.go(-1),
        }, icon("back")),
        h("button.icon.primary", {
          type: "button",
          "aria-label": "Next step",
          title: "Next step (→)",
          onclick: () => this.go(1),
        }, icon("next")),
        this.where,
      ),
      h("span.grow"),
      h("div.group.joined", {}, real, even),
      h(
        "div.group",
        {},
        h("button.icon", {
          type: "button",
          "aria-label": "Zoom out",
          onclick: () => this.setZoom(this.zoom / 1.5),
        }, "−"),
        this.range,
        h("button.icon", {
          type: "button",
          "aria-label": "Zoom in",
          onclick: () => this.setZoom(this.zoom * 1.5),
        }, "+"),
      ),
    );
  }

  setZoom(zoom, anchor = this.scroll.clientHeight / 2) {
    const before = this.timeAt(this.scroll.scrollTop + anchor);
    this.zoom = Math.max(1, Math.min(64, zoom));
    this.range.value = (Math.log(this.zoom) / Math.log(64)) * 100;
    this.draw();
    this.scroll.scrollTop = this.y(before) - anchor;
  }

  /** Keys of a diagram; whether the key was one. */
  key(event) {
    const press = {
      ArrowRight: () => this.go(1),
      ArrowLeft: () => this.go(-1),
      "+": () => this.setZoom(this.zoom * 1.5),
      "-": () => this.setZoom(this.zoom / 1.5),
      Escape: () => this.choose(null, -1),
    }[event.key];
    press?.();
    return Boolean(press);
  }

  go(by) {
    const { steps } = this.model;
    const next = Math.max(0, Math.min(steps.length - 1, this.step + by));
    if (steps[next]) this.choose(null, next);
    const y = this.y(steps[next]?.at ?? 0);
    if (
      y < this.scroll.scrollTop + 40 || y > this.scroll.scrollTop + this.scroll.clientHeight - 120
    ) this.scroll.scrollTop = y - 90;
  }

  // -- drawing -----------------------------------------------------------------------------------

  /** Where a moment is, in pixels from the top. */
  y(time) {
    if (!this.even) return TOP + time * this.scale;
    const { moments } = this;
    let low = 0;
    let high = moments.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (moments[middle] < time) low = middle + 1;
      else high = middle;
    }
    return TOP + low * EVEN_STEP * this.zoom;
  }

  timeAt(y) {
    if (!this.even) return (y - TOP) / this.scale;
    return this
      .moments[
        Math.max(
          0,
          Math.min(this.moments.length - 1, Math.round((y - TOP) / EVEN_STEP / this.zoom)),
        )
      ];
  }

  x(node) {
    return this.gutter + (this.model.lanes.indexOf(node) + 0.5) * this.lane;
  }

  draw() {
    const { model } = this;
    if (!this.width || !model.lanes.length) return;
    this.moments ??= [
      ...new Set(
        model.messages.flatMap((one) => [one.sent, one.received]).concat(
          model.commits.flatMap((one) => [one.from, one.to]),
          0,
        )
          .filter((time) => time !== null),
      ),
    ].sort((one, other) => one - other);
    const room = Math.max(520, Math.min(900, innerHeight - 330));
    this.scale = (room / model.length) * this.zoom;
    const { gutter, lane, chip } = this.width < NARROW_BELOW ? NARROW : WIDE;
    Object.assign(this, { gutter, chip });
    this.lane = Math.max(lane, (this.width - gutter - 6) / model.lanes.length);
    this.element.classList.toggle("narrow", gutter === NARROW.gutter);
    const width = gutter + this.lane * model.lanes.length;
    const chips = this.placeChips();
    const height = Math.max(this.y(model.length), chips.at(-1)?.y ?? 0) + BOTTOM;
    const drawing = s(
      "svg",
      {
        width,
        height,
        viewBox: `0 0 ${width} ${height}`,
        role: "group",
        "aria-label": `Messages of ${model.title}`,
      },
      s(
        "defs",
        {},
        ["client", "paxos", "commit", "done", "wrong", "rule", "journal"].map((kind) =>
          s(`marker.${kind}`, {
            id: `head-${kind}`,
            viewBox: "0 0 8 8",
            refX: "7.2",
            refY: "4",
            markerWidth: "7",
            markerHeight: "7",
            orient: "auto-start-reverse",
          }, s("path", { d: "M0 .6 7.500 4 0 7.400Z" }))
        ),
      ),
      this.drawBands(width),
      this.drawScale(width),
      model.lanes.map((node) =>
        s(`line.life.${role(node)}`, { x1: this.x(node), x2: this.x(node), y1: 0, y2: height - 12 })
      ),
      model.commits.map((commit) => this.drawCommit(commit)),
      model.notes.map((note) => this.drawNote(note, width)),
      this.arrows = s("g", {}, model.messages.map((one) => this.drawMessage(one))),
      chips.map((chip) => this.drawChip(chip)),
    );
    this.canvas.replaceChildren(drawing);
    this.lanes.style.width = `${width}px`;
    this.lanes.replaceChildren(
      ...model.lanes.map((node) =>
        h(
          `span.lane.${role(node)}`,
          { style: { left: `${this.x(node)}px`, width: `${this.lane}px` } },
          this.lane < 86
            ? h(
              "abbr",
              { title: node },
              node.replace(/^(\w)\w*-/, (_, letter) => `${letter.toUpperCase()}`),
            )
            : node,
        )
      ),
    );
    this.mark();
  }

  drawBands(width) {
    return this.model.stages.map((stage) => {
      const { kind } = STAGES[stage.name] ?? { kind: "client" };
      const [top, bottom] = [this.y(stage.from), this.y(stage.to)];
      const says = this.model.says[stage.name];
      return s(
        `g.band.${kind}`,
        {},
        s("rect", { x: 0, y: top, width, height: Math.max(0.5, bottom - top) }),
        s("rect.edge", { x: 0, y: top, width: 4, height: Math.max(0.5, bottom - top) }),
        says && s("line.says", { x1: this.gutter, x2: width, y1: bottom, y2: bottom }),
        says && s("text.says", { x: width - 6, y: bottom - 4, "text-anchor": "end" }, says),
      );
    });
  }

  drawScale(width) {
    if (this.even) return [];
    const every = niceStep(110 / this.scale);
    const found = [];
    for (let time = every; time < this.model.length; time += every) {
      const y = this.y(time);
      found.push(
        s("line.tick", { x1: this.gutter, x2: width, y1: y, y2: y }),
        s("text.tick", { x: this.gutter - 8, y: y + 3.5, "text-anchor": "end" }, duration(time)),
      );
    }
    return found;
  }

  drawCommit(commit) {
    const [top, bottom] = [this.y(commit.from), this.y(commit.to)];
    return s(
      "rect.commit-bar",
      { x: this.x(commit.node) - 5, y: top, width: 10, height: Math.max(3, bottom - top), rx: 3 },
      s(
        "title",
        {},
        `${commit.node}: written to disk in ${
          duration(commit.to - commit.from)
        } (${commit.summary})`,
      ),
    );
  }

  drawNote(note, width) {
    const y = this.y(Math.max(0, note.at));
    return s(
      "g.note",
      {},
      s("line", { x1: this.gutter, x2: width, y1: y, y2: y }),
      s("text", { x: this.gutter + 8, y: y - 5 }, note.text),
    );
  }

  drawMessage(one) {
    const { kind } = about(one.type);
    const [x1, x2] = [this.x(one.from), this.x(one.to)];
    const away = Math.sign(x2 - x1) || 1;
    const unseen = one.received === null;
    const lost = unseen && Boolean(one.lost);
    const y1 = this.y(one.sent ?? one.received);
    const y2 = unseen ? y1 + 14 : this.y(one.received);
    const end = unseen ? x1 + (x2 - x1) * 0.6 : x2 - away * 2;
    const path = x1 === x2
      ? `M${x1} ${y1}c34 4 34 ${Math.max(10, y2 - y1)} 4 ${Math.max(10, y2 - y1)}`
      : `M${x1} ${y1}L${end} ${y2}`;
    const said = `${about(one.type).title}: ${one.from} to ${one.to}, ${one.type}${
      one.received !== null && one.sent !== null
        ? `, ${duration(one.received - one.sent)} on its way`
        : unseen
        ? `, ${arrival(one)}`
        : ""
    }`;
    const element = s(
      `g.message.${kind}${lost ? ".lost" : unseen ? ".unseen" : ""}`,
      {
        tabindex: "-1",
        "data-step": one.step.number,
        onclick: () => this.choose(one, one.step.number),
        onpointerenter: () => this.hover(one.step.number),
        onpointerleave: () => this.hover(null),
      },
      s("title", {}, `${said}\n${one.summary}`),
      s("path.hit", { d: path }),
      s("path.line", { d: path, "marker-end": `url(#head-${kind})` }),
      lost && s("path.cross", { d: `M${end - 4} ${y2 - 4}l8 8m0-8-8 8` }),
    );
    one.element = element;
    return element;
  }

  // Chips stand where their step begins, pushed down where they would touch.
  placeChips() {
    let free = 0;
    return this.model.steps.map((step) => {
      const y = Math.max(this.y(step.at), free);
      free = y + CHIP;
      return { step, y, from: this.y(step.at) };
    });
  }

  drawChip({ step, y, from }) {
    const { kind } = about(step.type);
    const one = step.messages[0];
    const many = step.messages.length;
    const [left, right] = this.chip;
    const element = s(
      `g.chip.${kind}`,
      {
        role: "button",
        tabindex: "0",
        "data-step": step.number,
        onclick: () => this.choose(null, step.number),
        onkeydown: (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            this.choose(null, step.number);
          }
        },
        onpointerenter: () => this.hover(step.number),
        onpointerleave: () => this.hover(null),
      },
      s("path.lead", {
        d: `M${right + 2} ${y + 1}L${this.gutter - 8} ${from}H${this.x(one.from)}`,
      }),
      s("rect", { x: left, y: y - 10, width: right - left, height: 22, rx: 11 }),
      s("circle", { cx: left + 11, cy: y + 1, r: 8 }),
      s("text.number", { x: left + 11, y: y + 4.5, "text-anchor": "middle" }, `${step.number + 1}`),
      s(
        "text",
        { x: left + 23, y: y + 4.5 },
        step.type.replace(/^\w+\./, "") + (many > 1 ? ` ×${many}` : ""),
      ),
    );
    step.element = element;
    return element;
  }

  hover(number) {
    this.arrows.classList.toggle("hovering", number !== null);
    for (const step of this.model.steps) {
      for (const one of step.messages) {
        one.element?.classList.toggle("near", step.number === number);
      }
    }
  }

  choose(one, number) {
    this.chosen = one;
    this.step = number;
    this.mark();
    this.explain();
  }

  mark() {
    const { steps } = this.model;
    this.arrows?.classList.toggle("choosing", this.step >= 0);
    for (const step of steps) {
      step.element?.classList.toggle("chosen", step.number === this.step);
      for (const one of step.messages) {
        one.element?.classList.toggle(
          "chosen",
          step.number === this.step && (!this.chosen || this.chosen === one),
        );
      }
    }
    this.where.textContent = this.step < 0
      ? `${plural(steps.length, "step")}, ${plural(this.model.messages.length, "message")}`
      : `step ${this.step + 1} of ${steps.length}`;
  }

  // -- words -------------------------------------------------------------------------------------

  explain() {
    const step = this.model.steps[this.step];
    if (!step) {
      put(
        this.panel,
        h("h2", {}, "Walk through it"),
        h(
          "p",
          {},
          "Each column is a node, time runs downwards. Every arrow is a message that was really sent, from the moment it left to the moment it was taken in. Amber bars are disks being written.",
        ),
        h("p.quiet", {}, "Choose → for the first step, or any arrow for its content."),
        this.legend(),
      );
      return;
    }
    const one = this.chosen ?? step.messages[0];
    const { title, text, kind } = about(step.type);
    const ends = (side) => {
      const names = [...new Set(step.messages.map((message) => message[side]))];
      return this.chosen
        ? one[side]
        : names.length > 2
        ? `${names.length} ${role(names[0])}s`
        : names.join(", ");
    };
    const took = step.messages.filter((message) =>
      message.sent !== null && message.received !== null
    ).map((message) => message.received - message.sent);
    const facts = [
      ["from", ends("from")],
      ["to", ends("to")],
      ["left", `+${duration(one.sent ?? one.received)}`],
      [
        "on its way",
        this.chosen
          ? (one.received === null
            ? arrival(one)
            : one.sent === null
            ? "not seen leaving"
            : duration(one.received - one.sent))
          : took.length > 1
          ? `${duration(Math.min(...took))} to ${duration(Math.max(...took))}`
          : took.length
          ? duration(took[0])
          : "–",
      ],
      ["slot", one.slot],
      ["ballot", one.ballot],
      ["epoch", one.epoch],
    ].filter(([, value]) => value !== null && value !== undefined && value !== "");
    put(
      this.panel,
      h(
        "header",
        {},
        h(`span.tag.${kind}`, {}, `${step.number + 1} · ${step.type}`),
        h("h2", {}, title),
      ),
      text && h("p", {}, text),
      one.summary && h("p.said", {}, `“${one.summary}”`),
      h(
        "dl.facts",
        {},
        facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, `${value}`)]),
      ),
      step.messages.length > 1 &&
        h(
          "div.siblings",
          {},
          h("h3", {}, plural(step.messages.length, "message")),
          step.messages.slice(0, 40).map((message) =>
            h("button.bare", {
              type: "button",
              "aria-pressed": `${this.chosen === message}`,
              onclick: () => this.choose(message, step.number),
            }, `${message.from} → ${message.to}`)
          ),
        ),
      h("h3", {}, "Content"),
      h("pre.content", { tabindex: "0" }, content(one)),
    );
  }

  explainStage(stage) {
    const { kind, title, text } = STAGES[stage.name] ??
      { kind: "client", title: stage.name, text: "" };
    this.choose(null, -1);
    put(
      this.panel,
      h(
        "header",
        {},
        h(`span.tag.${kind}`, {}, "stage"),
        h("h2", {}, `${title}: ${duration(stage.to - stage.from)}`),
      ),
      h("p", {}, text),
    );
    this.scroll.scrollTop = this.y(stage.from) - 60;
  }

  legend() {
    const rows = [
      ["client", "commands and answers"],
      ["paxos", "Paxos: the order is agreed"],
      ["journal", "written to disk"],
      ["commit", "two-phase commit: all stores"],
      ["done", "decided"],
      ["rule", "elections, leases, views"],
      ["wrong", "refused or lost"],
    ];
    return h("ul.legend", {}, rows.map(([kind, what]) => h("li", {}, h(`i.${kind}`), what)));
  }
}

/** What is known of a message whose arrival is in no record: only a simulation knows that it was lost. */
const arrival = (one) => (one.lost ? "never arrived" : "its arrival was not seen");

/** 1, 2 or 5 times a power of ten that is at least `least`. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

/** A message's content, as indented JSON, shortened where it is endless. */
function content(one) {
  const text = JSON.stringify(one.content ?? {}, null, 2);
  return text === "{}"
    ? "Nothing beyond what stands above."
    : text.length > 20_000
    ? `${text.slice(0, 20_000)}\n… ${text.length - 20_000} more characters`
    : text;
}
