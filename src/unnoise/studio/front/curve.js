// Curves in SVG, with a mark that moves, and that moves what the curves are about when it is dragged.

import { h, s } from "./dom.js";
import { number } from "./numbers.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [44, 10, 10, 30];

// lines: [{name, kind: "first" | "second" | "third", x, y}]; onPick(x) is called while a person drags.
export function curves({ label, height = 190, range, ticks, xLabel, onPick, logarithmic = false }) {
  const svg = s("svg", { class: "curve", role: "img", "aria-label": label, height });
  const element = h("div", {}, svg);
  let lines = [];
  let mark = null;
  let span = [0, 1];
  let ends = range;
  const scale = (y) => (logarithmic ? Math.log10(Math.max(y, 1e-12)) : y);

  function places() {
    const width = Math.max(160, element.clientWidth);
    const [low, high] = [scale(ends[0]), scale(ends[1])];
    return {
      width,
      x: (v) => LEFT + ((v - span[0]) / (span[1] - span[0] || 1)) * (width - LEFT - RIGHT),
      y: (v) => TOP + (1 - (Math.min(high, Math.max(low, scale(v))) - low) / (high - low || 1)) * (height - TOP - BOTTOM),
    };
  }

  function draw() {
    if (!element.clientWidth) return;
    const at = places();
    svg.setAttribute("viewBox", `0 0 ${at.width} ${height}`);
    const marks = typeof ticks === "function" ? ticks(ends) : ticks;
    const parts = [];
    for (const tick of marks) {
      parts.push(s("line", { class: "tick", x1: LEFT, x2: at.width - RIGHT, y1: at.y(tick), y2: at.y(tick) }));
      parts.push(s("text", { x: LEFT - 8, y: at.y(tick) + 4, "text-anchor": "end" }, number(tick)));
    }
    for (const [share, anchor] of [[0, "start"], [1, "end"]]) {
      const value = span[0] + share * (span[1] - span[0]);
      parts.push(s("text", { x: at.x(value), y: height - 8, "text-anchor": anchor }, number(value, 4)));
    }
    if (xLabel) parts.push(s("text", { x: (LEFT + at.width - RIGHT) / 2, y: height - 8, "text-anchor": "middle" }, xLabel));
    for (const line of [...lines].reverse()) {
      let path = "";
      for (let i = 0; i < line.x.length; i += 1) {
        const y = line.y[i];
        if (y === null || Number.isNaN(y)) continue;
        path += `${path ? "L" : "M"}${at.x(line.x[i]).toFixed(1)} ${at.y(y).toFixed(1)}`;
      }
      parts.push(s("path", { class: `line ${line.kind}`, d: path }));
    }
    if (mark !== null) {
      parts.push(s("line", { class: "mark", x1: at.x(mark), x2: at.x(mark), y1: TOP, y2: height - BOTTOM }));
      for (const line of [...lines].reverse()) {
        const i = nearest(line.x, mark);
        if (line.y[i] !== null && line.kind !== "third") parts.push(s("circle", { class: `dot-${line.kind}`, cx: at.x(mark), cy: at.y(line.y[i]), r: 5 }));
      }
    }
    svg.replaceChildren(...parts);
    svg.dataset.mark = mark ?? "";
  }

  function picked(event) {
    const box = svg.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    onPick(span[0] + Math.min(1, Math.max(0, share)) * (span[1] - span[0]));
  }
  if (onPick) {
    svg.addEventListener("pointerdown", (event) => {
      svg.setPointerCapture(event.pointerId);
      picked(event);
    });
    svg.addEventListener("pointermove", (event) => event.buttons && picked(event));
  } else {
    svg.style.cursor = "default";
  }
  new ResizeObserver(draw).observe(element);
  return {
    element,
    svg,
    show(next, { at = mark, x = span, y = ends } = {}) {
      [lines, mark, span, ends] = [next, at, x, y];
      draw();
    },
    move(at) {
      mark = at;
      draw();
    },
    get lines() { return lines; },
  };
}

function nearest(sorted, value) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle;
    else high = middle;
  }
  return Math.abs(sorted[low] - value) <= Math.abs(sorted[high] - value) ? low : high;
}

// Four or five round numbers between two ends.
export function roundTicks([low, high]) {
  const raw = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + 1e-9 * step; tick += step) found.push(Number(tick.toPrecision(6)));
  return found;
}
