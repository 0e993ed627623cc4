// Charts of the last minutes (uPlot), in the colours of the page.

import uPlot from "../vendor/uPlot.esm.js";
import { h } from "./dom.js";

const SPAN_S = 300;
const GAP_US = 5_000_000;

/** The figures, with an empty one in each gap, so that the chart draws no line across it. */
function withGaps(figures) {
  return figures.flatMap((one, index) => {
    const before = figures[index - 1];
    const isFar = before && one.time_us - before.time_us > GAP_US;
    return isFar ? [{ time_us: before.time_us + 1_000_000 }, one] : [one];
  });
}

/** A chart of the last minutes; call `draw(figures)` with the newest figures. */
export function chart({ title, unit, series }) {
  const place = h("div.plot");
  const values = series.map(() => h("strong", {}, "–"));
  const element = h(
    "figure.card.chart",
    {},
    h(
      "figcaption",
      {},
      h("h2", {}, title),
      h("span.grow"),
      series.map(({ label, colour }, index) =>
        h("span.key", {}, h(`i.${colour}`), label, " ", values[index])
      ),
    ),
    place,
  );
  let plot = null;
  const make = () => {
    plot?.destroy();
    // A canvas knows no custom properties: let the browser resolve the colour in this theme.
    const colour = (name) => {
      place.style.color = `var(--${name})`;
      return getComputedStyle(place).color;
    };
    const axis = {
      stroke: colour("ink-3"),
      grid: { stroke: colour("line"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    plot = new uPlot(
      {
        width: Math.max(200, place.clientWidth),
        height: 170,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        pxAlign: 0,
        scales: {
          x: { range: (_, __, last) => [last - SPAN_S, last] },
          y: { range: (_, __, most) => [0, Math.max(1, (most || 0) * 1.15)] },
        },
        axes: [{
          ...axis,
          size: 28,
          space: 70,
          values: (_, moments) =>
            moments.map((moment) =>
              new Date(moment * 1000).toLocaleTimeString(undefined, {
                hour: "2-digit",
                minute: "2-digit",
              })
            ),
        }, { ...axis, size: 44 }],
        series: [
          {},
          ...series.map((one) => ({
            label: one.label,
            stroke: colour(one.colour),
            width: 2,
            fill: one.fill
              ? colour(one.colour).replace("rgb(", "rgba(").replace(")", ", 0.13)")
              : undefined,
            points: { show: false },
            spanGaps: false,
          })),
        ],
      },
      data,
      place,
    );
  };
  let data = [[], ...series.map(() => [])];
  const resize = new ResizeObserver(
    () => (plot ? plot.setSize({ width: Math.max(200, place.clientWidth), height: 170 }) : make()),
  );
  resize.observe(place);
  addEventListener("theme", make);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", make);
  return {
    element,
    draw(figures) {
      const shown = withGaps(figures.slice(-SPAN_S));
      data = [
        shown.map((one) => one.time_us / 1e6),
        ...series.map(({ of }) => shown.map((one) => of(one) ?? null)),
      ];
      plot?.setData(data);
      const last = shown.at(-1);
      series.forEach(({ of }, index) => {
        const value = last ? of(last) : null;
        values[index].textContent = value === null
          ? "–"
          : `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString()}${unit}`;
      });
    },
    close() {
      resize.disconnect();
      removeEventListener("theme", make);
      scheme.removeEventListener("change", make);
      plot?.destroy();
    },
  };
}
