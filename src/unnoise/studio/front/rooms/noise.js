// Noise: the forward process, live. The scales of every level, the data and one noise come once; the page mixes x_t itself.

import { get, numbers, post } from "../api.js";
import { part, segments, select, slider } from "../controls.js";
import { curves } from "../curve.js";
import { eachFrame, h, math, settled, turns } from "../dom.js";
import { colour, frame, pictures, plate, points } from "../figure.js";
import { fixed, number } from "../numbers.js";
import { player } from "../player.js";
import { guarded, tell } from "../status.js";

const LARGEST = 192; // pixels of a side of a person's own picture
const WINDOW = [-3.3, 3.3, -3.3, 3.3];
const NEAREST_LOG = 16; // of the log-SNR's axis

export async function make() {
  const known = await get("noise/parts");
  const last = known.levels - 1;
  const state = { k: 0, data: null, curves: [null, null], seed: 0, own: null };

  const sides = [0, 1].map((i) => side(i, state));
  const plates = h("div", { class: "plates pair" }, sides.map((each) => each.element));
  const time = player({
    label: "Timestep", last, onMove: (k) => { state.k = k; refresh(); }, id: "timestep",
    told: (k) => `level ${k}${state.curves[0] ? `, alpha-bar ${number(state.curves[0].alpha[k] ** 2)}` : ""}`,
  });
  const place = h("output", { class: "at", for: "timestep" });
  const power = curves({ label: "Alpha-bar over time", range: [0, 1], ticks: [0, 0.5, 1], xLabel: "timestep", onPick: (k) => time.move(Math.round(k)) });
  const ratio = curves({
    label: "Log-SNR over time", range: [-NEAREST_LOG, NEAREST_LOG], ticks: [-10, 0, 10], xLabel: "timestep", onPick: (k) => time.move(Math.round(k)),
  });
  const table = readout();
  const caption = h("figcaption", {});

  const chosen = [
    part({ label: "Schedule", parts: known.schedules, value: { name: "cosine" }, onChange: settled(guarded(() => load(0))) }),
    part({ label: "Beside it", parts: known.schedules, value: { name: "linear" }, none: "nothing", onChange: settled(guarded(() => load(1))) }),
  ];
  const set = select({ label: "Points or pictures", choices: known.data.map((name) => [name, name.replaceAll("_", " ")]), value: known.data[0], onChange: guarded(loadData), name: "data" });
  const file = h("input", { type: "file", accept: "image/*", id: "own-picture", class: "unseen" });
  file.addEventListener("change", guarded(() => file.files[0] && loadOwn(file.files[0])));
  const seed = slider({ label: "Seed of the noise", name: "seed", from: 0, to: 20, low: 0, high: 2 ** 31, value: 0, whole: true, onInput: settled(guarded((v) => { state.seed = v; return state.own ? noiseForOwn() : loadData(); })) });
  const scaled = segments({ label: "Draw", choices: [["fit", "to fit"], ["raw", "as it is"]], value: "fit", onChange: () => refresh() });

  const curveTurns = [turns(), turns()];
  async function load(i) {
    const newest = curveTurns[i]();
    const spec = chosen[i].value;
    const curve = spec ? await post("noise/curve", spec) : null;
    if (newest()) take(i, curve);
  }

  function take(i, curve) {
    state.curves[i] = curve;
    const levels = Array.from({ length: known.levels }, (_, k) => k);
    const shown = state.curves.map((each, j) => each && { kind: j ? "second" : "first", name: each.name, x: levels, each }).filter(Boolean);
    power.show(shown.map((line) => ({ ...line, y: line.each.alpha.map((a) => a * a) })), { x: [0, last], at: state.k });
    ratio.show(shown.map((line) => ({ ...line, y: line.each.log_snr })), { x: [0, last], at: state.k });
    refresh();
  }

  const dataTurn = turns();
  async function loadData() {
    const newest = dataTurn();
    state.own = null;
    const told = await get(`noise/data/${set.value}?n=300&seed=${state.seed}`);
    if (newest()) takeData(told);
  }

  function takeData(told) {
    state.data = { name: told.name, kind: told.kind, x0: numbers(told.x_0), eps: numbers(told.eps) };
    refresh();
  }

  // A picture of the person's own is read here, and nothing of it is sent anywhere.
  async function loadOwn(chosenFile) {
    const bitmap = await createImageBitmap(chosenFile).catch(() => {
      throw new Error(`${chosenFile.name} is no picture that this browser reads: choose a PNG, JPEG or WebP file`);
    });
    const shrink = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [Math.max(1, Math.round(bitmap.width * shrink)), Math.max(1, Math.round(bitmap.height * shrink))];
    const canvas = h("canvas", { width, height });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.drawImage(bitmap, 0, 0, width, height);
    const { data } = pen.getImageData(0, 0, width, height);
    const values = new Float32Array(3 * width * height);
    for (let i = 0; i < width * height; i += 1) for (let c = 0; c < 3; c += 1) values[c * width * height + i] = data[4 * i + c] / 127.5 - 1;
    state.own = { name: chosenFile.name, x0: { shape: [1, 3, height, width], values } };
    await noiseForOwn();
    tell("The picture stays in this browser; only its size was told to the server.");
  }

  async function noiseForOwn() {
    const newest = dataTurn();
    const { name, x0 } = state.own;
    const [, channels, height, width] = x0.shape;
    const eps = numbers(await get(`noise/eps?width=${width}&height=${height}&channels=${channels}&seed=${state.seed}`));
    if (!newest()) return;
    state.data = { name, kind: "image", x0, eps };
    refresh();
  }

  const refresh = eachFrame(() => {
    const [first, second] = state.curves;
    plates.classList.toggle("one", !second);
    sides.forEach((each, i) => {
      each.element.hidden = !state.curves[i];
      each.show(scaled.value === "fit");
    });
    place.textContent = `level ${state.k} of ${last}`;
    for (const each of [power, ratio]) each.move(state.k);
    table.show(state.k, state.curves, known.levels);
    caption.replaceChildren(...words(state, first, second, last));
  });

  const element = h(
    "section", { class: "room", "data-room": "noise" },
    h("h1", {}, "Noise"),
    h("p", { class: "lede" }, "Destroying data needs no learning. Every step keeps a little less of the signal and adds a little more noise, until nothing but noise is left. Drag, and watch."),
    h("div", { class: "spread" },
      h("figure", {},
        plates,
        h("div", { class: "scrub" }, time.button, h("div", { class: "grow" }, time.range), place),
        h("div", { class: "curves" },
          h("div", {}, h("h3", {}, "Signal left, ", math("α", "bar")), power.element),
          h("div", {}, h("h3", {}, "log-SNR, ln ", math("α"), "² / ", math("σ"), "²"), ratio.element)),
        caption),
      h("div", { class: "panel" },
        h("section", {}, table.element),
        h("section", { class: "fields" }, chosen[0].element, chosen[1].element),
        h("section", { class: "fields" },
          set.element,
          h("div", {}, file, h("label", { class: "button", for: "own-picture" }, "A picture of your own"), h("p", { class: "help" }, "It stays in this browser.")),
          seed.element,
          h("div", { class: "field" }, h("span", { class: "name" }, "Size"), scaled.element, h("p", { class: "help" }, "Some schedules let x grow; to fit, it is drawn over the root of α² + σ²."))))),
  );
  takeData(known.first.data);
  known.first.curves.forEach((curve, i) => take(i, curve));
  time.move(Math.round(0.12 * last));
  return { element, hide: () => time.stop(), state };
}

// One schedule's picture of the data at the present level.
function side(i, state) {
  const title = h("h2", {});
  let mixed = null;
  const { canvas, paint } = plate("", (context, width, height) => {
    if (!mixed) return;
    if (state.data.kind === "points") {
      points(context, frame(WINDOW, width, height), mixed, { fill: colour(i ? "ink" : "cloud"), radius: Math.max(1.6, width / 190) });
    } else {
      const shape = state.data.x0.shape;
      pictures(context, width, height, { values: mixed, shape, level: (v) => v * 127.5 + 127.5 });
    }
  });
  canvas.dataset.side = i;
  function show(fit) {
    const curve = state.curves[i];
    if (!curve || !state.data) return;
    const [a, s] = [curve.alpha[state.k], curve.sigma[state.k]];
    const shrink = fit ? 1 / Math.max(1, Math.hypot(a, s)) : 1;
    const { x0, eps } = state.data;
    if (mixed?.length !== x0.values.length) mixed = new Float32Array(x0.values.length);
    for (let j = 0; j < mixed.length; j += 1) mixed[j] = (a * x0.values[j] + s * eps.values[j]) * shrink;
    canvas.numbers = mixed;
    title.replaceChildren(h("span", {}, h("span", { class: i ? "key second" : "key" }), curve.name.replaceAll("_", " ")), h("span", { class: "aside" }, math("α", "bar"), ` = ${number(a * a)}`));
    canvas.setAttribute("aria-label", `${state.data.name.replaceAll("_", " ")} at level ${state.k} of the ${curve.name} schedule: ${Math.round(100 * a * a)} percent of the signal's power is left`);
    paint();
  }
  return { element: h("div", { class: "plate" }, title, canvas), show };
}

function readout() {
  const heads = [0, 1].map((i) => h("th", { scope: "col" }, h("span", { class: i ? "key second" : "key" }), h("span", { class: "unseen" })));
  const rows = [
    ["time", [h("span", {}, "time ", math("t"))], (k, c, n) => fixed((k + 1) / n, 3)],
    ["signal", [h("span", {}, "signal ", math("α"))], (k, c) => number(c.alpha[k])],
    ["noise", [h("span", {}, "noise ", math("σ"))], (k, c) => number(c.sigma[k])],
    ["alpha-bar", [math("α", "bar"), " = ", math("α"), "²"], (k, c) => number(c.alpha[k] ** 2)],
    ["snr", ["SNR"], (k, c) => number(c.sigma[k] ? (c.alpha[k] / c.sigma[k]) ** 2 : Infinity)],
    ["log-snr", ["log-SNR"], (k, c) => (c.log_snr[k] === null ? (c.alpha[k] ? "∞" : "−∞") : fixed(c.log_snr[k]))],
  ];
  const cells = rows.map(([name, label, value]) => ({ value, label, both: [0, 1].map((i) => h("td", { "data-number": name, "data-side": i })) }));
  const element = h("table", { class: "readout" },
    h("caption", { class: "unseen" }, "What the schedules say at this level"),
    h("thead", {}, h("tr", {}, h("td", {}), heads)),
    h("tbody", {}, cells.map(({ label, both }) => h("tr", {}, h("th", { scope: "row" }, label), both))));
  function show(k, both, count) {
    both.forEach((curve, i) => {
      heads[i].hidden = !curve;
      heads[i].lastChild.textContent = curve?.name ?? "";
      for (const cell of cells) {
        cell.both[i].hidden = !curve;
        if (curve) cell.both[i].textContent = cell.value(k, curve, count);
      }
    });
  }
  return { element, show };
}

function words(state, first, second, last) {
  if (!first || !state.data) return [];
  const left = (curve) => number(100 * curve.alpha[state.k] ** 2, 2);
  const what = state.data.kind === "points" ? `${state.data.x0.shape[0]} points` : state.data.x0.shape[0] > 1 ? `${state.data.x0.shape[0]} pictures` : "A picture";
  return [
    h("strong", {}, "Figure 1. "), `${what} after step ${state.k + 1} of ${last + 1}: `, math("x", "", "t"), " = ", math("α"), math("x", "", "0"), " + ", math("σ"), math("ε"),
    `. The ${first.name.replaceAll("_", " ")} schedule has left ${left(first)} % of the signal’s power`,
    second ? `, the ${second.name.replaceAll("_", " ")} schedule ${left(second)} %; the noise ` : "; the noise ", math("ε"), " is the same throughout.",
  ];
}
