// A slider through time with a button that plays it.

import { h, s } from "./dom.js";

const icons = {
  play: "M3 1.5v13l11-6.5z",
  pause: "M3 2h3.6v12H3zM9.4 2H13v12H9.4z",
};

// total() is the last place; onMove(k) is called for each; told(k) is what a screen reader says of it.
export function player({ label, last, told, onMove, duration = 8000, id }) {
  const range = h("input", { type: "range", min: 0, max: last, step: 1, value: 0, "aria-label": label, id });
  const icon = s("path", { d: icons.play });
  const button = h("button", { type: "button", class: "round", "aria-label": "Play" }, s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, icon));
  let running = null;
  const show = () => range.setAttribute("aria-valuetext", told(Number(range.value)));

  function move(k, inform = true) {
    range.value = k;
    show();
    if (inform) onMove(Number(range.value));
  }
  function stop() {
    if (running) cancelAnimationFrame(running.handle);
    running = null;
    icon.setAttribute("d", icons.play);
    button.setAttribute("aria-label", "Play");
  }
  function play() {
    const end = Number(range.max);
    const begin = Number(range.value) >= end ? 0 : Number(range.value);
    const start = performance.now();
    icon.setAttribute("d", icons.pause);
    button.setAttribute("aria-label", "Pause");
    const tick = (now) => {
      const k = Math.min(end, begin + Math.floor(((now - start) / duration) * end));
      if (k !== Number(range.value)) move(k);
      if (k >= end) stop();
      else running.handle = requestAnimationFrame(tick);
    };
    running = { handle: requestAnimationFrame(tick) };
  }
  button.addEventListener("click", () => (running ? stop() : play()));
  range.addEventListener("input", () => {
    stop();
    show();
    onMove(Number(range.value));
  });
  show();
  return {
    button,
    range,
    stop,
    move,
    get at() { return Number(range.value); },
    set last(next) {
      range.max = next;
      show();
    },
    set disabled(off) { range.disabled = button.disabled = off; },
  };
}
