// Steer: what is asked for, how hard it is pushed, and what that does to the samples, as numbers.

import { get, remove, tensors } from "../api.js";
import { asking, nothingYet } from "../asking.js";
import { slider } from "../controls.js";
import { curves, roundTicks } from "../curve.js";
import { h, settled, turns } from "../dom.js";
import { colour, frame, pictures, plate, points } from "../figure.js";
import { fixed, number } from "../numbers.js";
import { windowOf } from "../run.js";
import { guarded } from "../status.js";
import { bench } from "../work.js";

const SHEET = 4;
const BETWEEN = 7;
const SWEEP = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 8];
const NAMES = ["adherence", "diversity", "saturation"];

export async function make() {
  const parts = await get("denoise/parts");
  const head = [
    h("h1", {}, "Steer"),
    h("p", { class: "lede" }, "Say what you want, and push. More guidance follows the words or the label more closely, makes samples more alike, and in the end overdoes it. Watch all three."),
  ];
  if (!parts.models.length) return { element: h("section", { class: "room", "data-room": "steer" }, head, nothingYet("steer")), empty: true };

  const state = { drawing: null, sheet: [], way: [], vary: null, ends: [null, null], measured: new Map(), fresh: true };
  const turn = turns(); // what was asked for later must not be wiped by what comes late
  const work = bench("Sampling");
  const modelTurn = turns();
  let opening = null; // what is known of a model that was chosen, on its way
  const scale = slider({ label: "Guidance", name: "guidance", help: "1 is the plain conditional model, 0 forgets what was asked for, above 1 pushes towards it.", from: 0, to: 12, low: 0, high: 1000, value: 2, onInput: settled(() => again(), 250) });
  let ask = null;
  ask = asking(parts, {
    onModel: (card) => {
      if (ask) preset(card);
      opening = guarded(modelChanged)(card);
    },
    counts: false,
  });
  if (ask.card) preset(ask.card);
  ask.rule.element.hidden = true;
  const share = slider({ label: "How far variations go", name: "share", from: 0, to: 1, low: 0, high: 1, value: 0.25, onInput: settled(() => state.vary && again(), 250) });
  const measuredOn = slider({ label: "Samples measured", name: "measured", from: 8, to: 256, low: 8, high: 512, value: 64, whole: true });
  const generate = h("button", { type: "button", class: "primary" }, "Generate");
  const sweep = h("button", { type: "button" }, "Measure over guidance");
  const back = h("button", { type: "button", class: "quiet", hidden: true }, "Back to the seeds");
  const title = h("h2", {}, "Four seeds");
  const sheet = h("ul", { class: "sheet four", "aria-label": "Contact sheet" });
  const between = h("div", { hidden: true });
  const told = h("dl", { class: "numbers" });
  const plots = NAMES.map((name) => {
    const made = curves({ label: `${name} over guidance`, height: 150, range: [0, 1], ticks: roundTicks, xLabel: "guidance" });
    return { name, ...made, box: h("div", {}, h("h3", {}, name), made.element) };
  });
  const plotsBox = h("div", { class: "curves three", hidden: true }, plots.map((each) => each.box));
  const caption = h("figcaption", {});

  async function modelChanged(card) {
    const newest = modelTurn();
    turn();
    guarded(work.stop)();
    const drawing = await get(`denoise/models/${encodeURIComponent(card.name)}`);
    if (!newest()) return;
    state.drawing = drawing;
    [state.sheet, state.way, state.vary, state.ends, state.fresh] = [[], [], null, [null, null], true];
    state.measured.clear();
    draw();
  }

  // At once, and not when all is known of the model: what is typed meanwhile stays.
  function preset(card) {
    if (card.labels.length) ask.label.value = card.labels[Math.min(3, card.labels.length - 1)];
    if (card.sampling.guidance) scale.value = Math.max(1.5, card.sampling.guidance);
  }

  function guidance() {
    return { ...ask.rule.value, scale: scale.value };
  }

  function request(seed, blend, n = ask.card.kind === "points" ? 300 : 1) {
    return ask.request({ n, seed, blend, guidance: guidance(), strict: false });
  }

  // The seeds of the sheet, or what a sample becomes with some noise of others mixed in.
  function wanted() {
    const first = ask.seed.value;
    if (!state.vary) return Array.from({ length: SHEET }, (_, k) => ({ seed: first + k, blend: null, name: `seed ${first + k}` }));
    return Array.from({ length: SHEET }, (_, k) => ({
      seed: state.vary.seed, blend: { seed: 1000 + k, share: share.value }, name: `variation ${k + 1}`,
    }));
  }

  const again = () => (state.fresh ? undefined : generated());

  const make_ = async () => {
    const newest = turn();
    await Promise.all([work.stop(), opening]);
    if (!newest()) return;
    state.fresh = false;
    const items = wanted();
    const ends = await work.run(items.map((each) => request(each.seed, each.blend)), () => {}, { look: false, together: true });
    const made = await Promise.all(items.map(async (each, k) => ({ ...each, id: ends[k].id, x: await samples(ends[k].id) })));
    if (!newest()) return;
    state.sheet = made;
    draw();
    if (state.ends.every(Boolean)) await interpolate(newest);
    if (newest()) await measure([scale.value], newest);
  };

  async function samples(id) {
    return (await tensors(`gallery/${id}/samples.safetensors`)).x;
  }

  // What is measured is read once, and nobody wants to see it again.
  async function measure(scales, newest) {
    const base = { ...request(5000, null, measuredOn.value), listed: false };
    const requests = scales.map((each) => ({ ...base, ...(base.guidance ? { guidance: { ...base.guidance, scale: each } } : {}) }));
    const ends = await work.run(requests, () => {}, { look: false, together: true });
    const found = await Promise.all(ends.map((facts) => get(`steer/readings/${facts.id}`)));
    await Promise.all(ends.map((facts) => remove(`gallery/${facts.id}`)));
    if (!newest()) return;
    scales.forEach((each, i) => state.measured.set(each, found[i]));
    drawMeasured(); // and not the cards, of which a person may be pressing a button
  }

  async function interpolate(newest) {
    const [a, b] = state.ends;
    const shares = Array.from({ length: BETWEEN }, (_, k) => k / (BETWEEN - 1));
    const ends = await work.run(shares.map((each) => request(a.seed, { seed: b.seed, share: each })), () => {}, { look: false, together: true });
    const way = await Promise.all(ends.map(async (facts, k) => ({ name: `${Math.round(100 * shares[k])} %`, id: facts.id, x: await samples(facts.id) })));
    if (!newest()) return;
    state.way = way;
    draw();
  }

  const generated = guarded(make_);
  generate.addEventListener("click", generated);
  sweep.addEventListener("click", guarded(async () => {
    const newest = turn();
    await Promise.all([work.stop(), opening]);
    if (!newest()) return;
    state.fresh = false;
    await measure(SWEEP, newest);
  }));
  back.addEventListener("click", guarded(() => { state.vary = null; return make_(); }));

  function picture(item, label) {
    const { canvas, paint } = plate(label, (context, width, height) => {
      const { shape, values } = item.x;
      if (state.drawing.kind !== "points") {
        pictures(context, width, height, { values, shape });
        return;
      }
      const onto = frame(windowOf(state.drawing, { frames: [values] }), width, height);
      points(context, onto, values, { fill: colour("cloud"), radius: Math.max(1.2, width / 170) });
    });
    canvas.numbers = item.x.values;
    canvas.dataset.result = item.id;
    paint();
    return canvas;
  }

  function card(item) {
    const chosen = state.ends.findIndex((each) => each?.seed === item.seed && !item.blend);
    const vary = h("button", { type: "button", class: "quiet" }, "Vary this one");
    vary.addEventListener("click", guarded(() => { state.vary = { seed: item.seed }; return make_(); }));
    const end = h("button", { type: "button", class: "quiet", "aria-pressed": chosen >= 0 ? "true" : "false" }, chosen < 0 ? (state.ends[0] ? "To here" : "From here") : chosen ? "The end" : "The start");
    end.addEventListener("click", guarded(() => {
      const [a, b] = state.ends;
      if (chosen >= 0) state.ends = [chosen === 0 ? b : a, null];
      else state.ends = a ? [a, { seed: item.seed }] : [{ seed: item.seed }, null];
      state.way = [];
      draw();
      return state.ends.every(Boolean) ? interpolate(turn()) : undefined;
    }));
    return h("li", { class: "card" }, picture(item, `${item.name} at guidance ${number(scale.value)}`), h("div", { class: "name" }, item.name), h("div", { class: "row" }, vary, item.blend ? null : end));
  }

  function draw() {
    title.textContent = state.vary ? `Variations of seed ${state.vary.seed}` : "Four seeds";
    back.hidden = !state.vary;
    const blank = () => h("li", { class: "card" }, plate("Nothing is made yet", () => {}).canvas);
    sheet.replaceChildren(...(state.sheet.length ? state.sheet.map(card) : Array.from({ length: SHEET }, blank)));
    between.hidden = !state.way.length;
    between.replaceChildren(
      h("h2", {}, `From seed ${state.ends[0]?.seed} to seed ${state.ends[1]?.seed}`),
      h("ul", { class: "strip", "aria-label": "Interpolation" }, state.way.map((each) => h("li", { class: "card" }, picture(each, `${each.name} of the way`), h("p", {}, each.name)))),
    );
    drawMeasured();
  }

  function drawMeasured() {
    const now = state.measured.get(scale.value) ?? [];
    told.replaceChildren(...NAMES.map((name) => reading(name, now.find((each) => each.name === name))));
    const scales = [...state.measured.keys()].sort((a, b) => a - b);
    plotsBox.hidden = scales.length < 2;
    for (const plot of plots) {
      const found = scales.map((each) => state.measured.get(each).find((one) => one.name === plot.name)?.value ?? null);
      const known = found.filter((each) => each !== null);
      plot.box.hidden = !known.length;
      if (!known.length) continue;
      const [low, high] = [Math.min(0, ...known), Math.max(plot.name === "saturation" ? 0.1 : 1, ...known)];
      plot.show([{ kind: "first", name: plot.name, x: scales, y: found }], { at: scales.includes(scale.value) ? scale.value : null, x: [scales[0], scales.at(-1)], y: [low, high] });
    }
    const asked = ask.card?.labels.length ? (ask.label.value ? `the label ${ask.label.value}` : "nothing") : ask.prompt.value ? `“${ask.prompt.value}”` : "nothing";
    caption.replaceChildren(h("strong", {}, "Figure 3. "), state.sheet.length
      ? `${ask.card.name}, asked for ${asked} at guidance ${number(scale.value)}. The numbers are measured on ${measuredOn.value} samples of other seeds.`
      : "Nothing is made yet: press Generate, then drag the guidance.");
  }

  const element = h(
    "section", { class: "room", "data-room": "steer" }, head,
    h("div", { class: "spread" },
      h("figure", {}, h("div", { class: "row between" }, title, back), sheet, told, plotsBox, between, caption),
      h("div", { class: "panel" },
        h("section", { class: "fields" }, ask.fields, scale.element, h("div", {}, h("div", { class: "row" }, generate, sweep), work.element)),
        h("section", { class: "fields" }, ask.seed.element, share.element, measuredOn.element),
        h("section", { class: "fields" }, ask.sampler.element, ask.steps.element, h("details", {}, h("summary", {}, "The rule of guidance"), h("div", { class: "fields" }, ask.rule.element))))),
  );
  ask.rule.element.hidden = false;
  for (const each of [ask.label.input, ask.prompt.input, ask.negative.input]) each.addEventListener("change", () => { state.measured.clear(); again(); });
  return { element, state, show: guarded(ask.refresh) };
}

const TELL = {
  adherence: (each) => (each.low === null ? fixed(each.value) : h("span", {}, `${Math.round(100 * each.value)} %`, h("small", {}, `${Math.round(100 * each.low)} to ${Math.round(100 * each.high)} %`))),
  diversity: (each) => fixed(each.value),
  saturation: (each) => `${each.value > 0 ? "+" : ""}${Math.round(100 * each.value)} %`.replace("-", "−"),
};

function reading(name, found) {
  const known = found && found.value !== null;
  return h("div", { "data-number": name },
    h("dt", {}, name),
    h("dd", {}, known ? TELL[name](found) : "–", h("small", {}, found ? found.meaning : "not measured yet")));
}
