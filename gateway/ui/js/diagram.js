// The sequence diagram: a lane for each node, time running down, an arrow for every message.

import { duration, h, icon, plural, role, s, setChildren } from "./dom.js";
import { explain, STAGES } from "./explanations.js";

// The widths of the step names and of each lane; on a phone all lanes must be visible.
const WIDE = { gutter: 146, lane: 42, chip: [10, 124] };
const NARROW = { gutter: 102, lane: 20, chip: [6, 97] };
const NARROW_BELOW = 560;
const TOP = 18;
const BOTTOM = 48;
const CHIP = 27;
const EVEN_STEP = 15;

/** A diagram of `model` (see trace.js), its tools, and the panel that explains the selection. */
export class Diagram {
  constructor(model) {
    this.model = model;
    this.zoom = 1;
    this.isEven = false;
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
        "aria-label": "Sequence diagram; the left and right keys go from step to step",
      },
      this.lanes,
      this.canvas,
    );
    this.panel = h("aside.panel.card", { "aria-live": "polite", "aria-label": "Selection" });
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
    this.drawPanel();
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
        h("span.quiet", {}, this.model.complete ? "in total" : "in the recorded stages"),
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
              onclick: () => this.drawStagePanel(stage),
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
    const realTime = h("button", {
      type: "button",
      "aria-pressed": "true",
      title: "Distances are durations",
    }, "Real time");
    const stepByStep = h("button", {
      type: "button",
      "aria-pressed": "false",
      title: "Every event takes the same height",
    }, "Step by step");
    const turn = (to) => () => {
      this.isEven = to;
      realTime.setAttribute("aria-pressed", !to);
      stepByStep.setAttribute("aria-pressed", to);
      this.draw();
    };
    realTime.onclick = turn(false);
    stepByStep.onclick = turn(true);
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
          "aria-label": "Previous step",
          title: "Previous step (←)",
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
      h("div.group.joined", {}, realTime, stepByStep),
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

  /** Handle a key; returns whether the diagram uses it. */
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

  /** The position of a time, in pixels from the top. */
  y(time) {
    if (!this.isEven) return TOP + time * this.scale;
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
    if (!this.isEven) return (y - TOP) / this.scale;
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
      const caption = this.model.captions[stage.name];
      return s(
        `g.band.${kind}`,
        {},
        s("rect", { x: 0, y: top, width, height: Math.max(0.5, bottom - top) }),
        s("rect.edge", { x: 0, y: top, width: 4, height: Math.max(0.5, bottom - top) }),
        caption && s("line.caption", { x1: this.gutter, x2: width, y1: bottom, y2: bottom }),
        caption &&
          s("text.caption", { x: width - 6, y: bottom - 4, "text-anchor": "end" }, caption),
      );
    });
  }

  drawScale(width) {
    if (this.isEven) return [];
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
    const { kind } = explain(one.type);
    const [x1, x2] = [this.x(one.from), this.x(one.to)];
    const away = Math.sign(x2 - x1) || 1;
    const isUnseen = one.received === null;
    const isLost = isUnseen && Boolean(one.lost);
    const y1 = this.y(one.sent ?? one.received);
    const y2 = isUnseen ? y1 + 14 : this.y(one.received);
    const end = isUnseen ? x1 + (x2 - x1) * 0.6 : x2 - away * 2;
    const path = x1 === x2
      ? `M${x1} ${y1}c34 4 34 ${Math.max(10, y2 - y1)} 4 ${Math.max(10, y2 - y1)}`
      : `M${x1} ${y1}L${end} ${y2}`;
    const label = `${explain(one.type).title}: ${one.from} to ${one.to}, ${one.type}${
      one.received !== null && one.sent !== null
        ? `, ${duration(one.received - one.sent)} on its way`
        : isUnseen
        ? `, ${arrival(one)}`
        : ""
    }`;
    const element = s(
      `g.message.${kind}${isLost ? ".lost" : isUnseen ? ".unseen" : ""}`,
      {
        tabindex: "-1",
        "data-step": one.step.number,
        onclick: () => this.choose(one, one.step.number),
        onpointerenter: () => this.hover(one.step.number),
        onpointerleave: () => this.hover(null),
      },
      s("title", {}, `${label}\n${one.summary}`),
      s("path.hit", { d: path }),
      s("path.line", { d: path, "marker-end": `url(#head-${kind})` }),
      isLost && s("path.cross", { d: `M${end - 4} ${y2 - 4}l8 8m0-8-8 8` }),
    );
    one.element = element;
    return element;
  }

  // A chip stands where its step begins, or lower if it would touch the chip above.
  placeChips() {
    let free = 0;
    return this.model.steps.map((step) => {
      const y = Math.max(this.y(step.at), free);
      free = y + CHIP;
      return { step, y, from: this.y(step.at) };
    });
  }

  drawChip({ step, y, from }) {
    const { kind } = explain(step.type);
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
    this.drawPanel();
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

  // -- the panel ---------------------------------------------------------------------------------

  drawPanel() {
    const step = this.model.steps[this.step];
    if (!step) {
      setChildren(
        this.panel,
        h("h2", {}, "Step through the request"),
        h(
          "p",
          {},
          "Each column is a node; time runs down. Every arrow is a message that was sent, from " +
            "the time it left to the time it was processed. Amber bars are writes to disk.",
        ),
        h("p.quiet", {}, "Press → for the first step, or select an arrow to see its content."),
        this.legend(),
      );
      return;
    }
    const one = this.chosen ?? step.messages[0];
    const { title, text, kind } = explain(step.type);
    const names = (side) => {
      const nodes = [...new Set(step.messages.map((message) => message[side]))];
      return this.chosen
        ? one[side]
        : nodes.length > 2
        ? `${nodes.length} ${role(nodes[0])}s`
        : nodes.join(", ");
    };
    const durations = step.messages.filter((message) =>
      message.sent !== null && message.received !== null
    ).map((message) => message.received - message.sent);
    const facts = [
      ["from", names("from")],
      ["to", names("to")],
      ["sent", `+${duration(one.sent ?? one.received)}`],
      [
        "latency",
        this.chosen
          ? (one.received === null
            ? arrival(one)
            : one.sent === null
            ? "sending not recorded"
            : duration(one.received - one.sent))
          : durations.length > 1
          ? `${duration(Math.min(...durations))} to ${duration(Math.max(...durations))}`
          : durations.length
          ? duration(durations[0])
          : "–",
      ],
      ["slot", one.slot],
      ["ballot", one.ballot],
      ["epoch", one.epoch],
    ].filter(([, value]) => value !== null && value !== undefined && value !== "");
    setChildren(
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

  drawStagePanel(stage) {
    const { kind, title, text } = STAGES[stage.name] ??
      { kind: "client", title: stage.name, text: "" };
    this.choose(null, -1);
    setChildren(
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
      ["paxos", "Paxos: agree on the order"],
      ["journal", "written to disk"],
      ["commit", "two-phase commit: all stores vote"],
      ["done", "decided"],
      ["rule", "elections, leases, views"],
      ["wrong", "rejected or lost"],
    ];
    return h("ul.legend", {}, rows.map(([kind, what]) => h("li", {}, h(`i.${kind}`), what)));
  }
}

/** Why a message has no arrival: only a simulation knows that it was lost. */
const arrival = (one) => (one.lost ? "lost" : "arrival not recorded");

/** 1, 2 or 5 times a power of ten that is at least `least`. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

/** A message's content as indented JSON, cut off if it is very long. */
function content(one) {
  const text = JSON.stringify(one.content ?? {}, null, 2);
  return text === "{}"
    ? "Nothing but the fields above."
    : text.length > 20_000
    ? `${text.slice(0, 20_000)}\n… ${text.length - 20_000} more characters`
    : text;
}
