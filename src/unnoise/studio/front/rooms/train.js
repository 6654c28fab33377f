// Train: data looked at, a run begun, and watched as it learns; paused and resumed at will.

import { address, get, numbers, post } from "../api.js";
import { optionControls, select, slider, text } from "../controls.js";
import { curves, roundTicks } from "../curve.js";
import { h, turns } from "../dom.js";
import { colour, frame, pictures, plate, points } from "../figure.js";
import { number, seconds } from "../numbers.js";
import { guarded, tell } from "../status.js";

const EVERY = 1000; // milliseconds between two looks at a run
const FIRST = ["steps", "batch_size", "lr"];
const WORDS = { running: "learning", paused: "paused", stopped: "stopped", finished: "finished", failed: "failed" };

export async function make() {
  const parts = await get("train/parts");
  const state = { run: null, facts: null, seen: true, others: false, timer: 0, picture: null };
  const recipe = select({ label: "Recipe", name: "recipe", choices: parts.recipes.map((each) => [each.name, each.name]), value: "spiral", onChange: () => changed() });
  const about = h("p", { class: "help" });
  const data = text({ label: "Data", name: "data", help: "A folder of images, Parquet, .npz or .csv of yours, or a set that comes with unnoise; empty for the recipe’s own.", placeholder: "the recipe’s own" });
  data.input.setAttribute("list", "own-sets");
  const sets = h("datalist", { id: "own-sets" }, parts.data.map((name) => h("option", { value: name })));
  const see = h("button", { type: "button" }, "See it");
  const name = text({ label: "Name of the run", name: "run", value: "spiral" });
  const seed = slider({ label: "Seed", name: "seed", from: 0, to: 99, low: 0, high: 2 ** 31, value: 0, whole: true });
  const start = h("button", { type: "button", class: "primary" }, "Start");
  const place = h("div", { class: "fields" });
  let options = null;

  function changed() {
    const found = parts.recipes.find((each) => each.name === recipe.value);
    about.textContent = found.description;
    const known = parts.controls.map((each) => (each.name in found.training && typeof found.training[each.name] !== "object"
      ? { ...each, default: found.training[each.name], to: each.to && Math.max(each.to, 2 * found.training[each.name]) } : each));
    const pick = (wanted) => known.filter((each) => FIRST.includes(each.name) === wanted);
    const [first, rest] = [optionControls(pick(true)), optionControls(pick(false))];
    options = { get value() { return { ...first.value, ...rest.value }; } };
    place.replaceChildren(first.element, h("details", {}, h("summary", {}, "All options of a training"), rest.element));
    name.value = recipe.value;
  }
  changed();

  // The data.
  const seen = h("div", { class: "later", hidden: true });
  see.addEventListener("click", guarded(async () => {
    const own = parts.recipes.find((each) => each.name === recipe.value).data;
    const path = data.value.trim() || own;
    if (!path) throw new Error("this recipe has no data of its own: name a folder or file of yours");
    const found = await post("train/look", { path });
    const shown = numbers(found.shown);
    const view = plate(`Samples of ${path}`, (context, width, height) => {
      if (found.kind === "points") {
        let [low, high] = [Infinity, -Infinity];
        for (const value of shown.values) [low, high] = [Math.min(low, value), Math.max(high, value)];
        const pad = 0.08 * (high - low);
        points(context, frame([low - pad, high + pad, low - pad, high + pad], width, height), shown.values, { fill: colour("cloud"), radius: 2 });
      } else if (shown.shape.length === 4) {
        pictures(context, width, height, { values: shown.values, shape: shown.shape, gap: 4 });
      }
    });
    view.canvas.numbers = shown.values;
    seen.hidden = false;
    const labels = Object.entries(found.labels);
    seen.replaceChildren(
      h("h2", {}, `The data: ${path}`),
      h("div", { class: "plates" }, view.canvas, h("div", {},
        h("dl", { class: "facts" },
          ...fact("samples", `${number(found.count, 7)} ${found.kind}, shape ${found.shape.join(" × ")}`),
          ...fact("values", found.low === null ? "none is finite" : `${number(found.low)} to ${number(found.high)}, mean ${number(found.mean)}`),
          ...fact("labels", labels.length ? labels.slice(0, 12).map(([label, count]) => `${label} (${count})`).join(", ") : "none"),
          ...fact("captions", found.captions || "none"), ...fact("duplicates", found.duplicates), ...fact("unreadable", found.skipped.length)),
        found.warnings.map((each) => h("p", { class: "help" }, each)))));
    seen.scrollIntoView({ block: "nearest" });
  }));
  const fact = (label, value) => [h("dt", {}, label), h("dd", {}, String(value))];

  // The run.
  const title = h("h2", {});
  const told = h("p", { class: "help", "data-number": "state" });
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Steps that are made" });
  const pause = h("button", { type: "button" }, "Pause");
  const resume = h("button", { type: "button" }, "Resume");
  const stop = h("button", { type: "button", class: "quiet" }, "Stop");
  const loss = curves({ label: "Loss over steps", height: 230, range: [0, 1], ticks: logTicks, xLabel: "step", logarithmic: true });
  const byTime = curves({ label: "Validation loss over time", height: 190, range: [0, 1], ticks: logTicks, xLabel: "time t, from data to noise", logarithmic: true });
  const byTimeBox = h("div", {}, h("h3", {}, "Loss at each time, and its floor"), byTime.element);
  const measured = h("div", { class: "curves" });
  const picture = h("img", { alt: "", class: "drawn" });
  const pictureBox = h("figure", { hidden: true }, h("h3", {}, "What it makes by now"), picture);
  const caption = h("figcaption", {});
  const view = h("div", { class: "fields", hidden: true },
    h("div", { class: "row between" }, title, h("div", { class: "row" }, pause, resume, stop)),
    h("div", {}, bar, told),
    h("div", {}, h("h3", { class: "legend" }, ...[["", "loss, smoothed"], ["second", "validation"], ["third", "floor"]].map(([kind, words]) => h("span", {}, h("span", { class: `key ${kind}` }), words))), loss.element),
    h("div", { class: "plates" }, pictureBox, byTimeBox), measured, caption);
  const runs = h("ul", { class: "runs", "aria-label": "Runs" });

  for (const [button, what] of [[pause, "pause"], [resume, "resume"], [stop, "stop"]]) {
    button.addEventListener("click", guarded(async () => {
      button.disabled = true;
      await post(`train/runs/${state.run}/${what}`, {});
      tell({ pause: "It saves, and ends after this step; Resume goes on from there.", resume: "It goes on from where it was saved.", stop: "It saves, and ends after this step." }[what]);
      await look();
    }));
  }

  start.addEventListener("click", guarded(async () => {
    start.disabled = true;
    try {
      const asked = { name: name.value.trim(), recipe: recipe.value, data: data.value.trim(), options: options.value, seed: seed.value };
      await post("train/runs", asked);
      await list();
      await choose(asked.name);
    } finally {
      start.disabled = false;
    }
  }));

  const rows = new Map(); // by the name of the run; they stay, so that what has the keyboard keeps it
  function row(each) {
    const how = h("span", { class: "help" });
    const button = h("button", { type: "button", class: "quiet", "data-run": each.name }, h("span", {}, each.name), how);
    button.addEventListener("click", guarded(() => choose(each.name)));
    return { element: h("li", {}, button), button, how };
  }

  function showRow(each) {
    if (!rows.has(each.name)) rows.set(each.name, row(each));
    const { button, how } = rows.get(each.name);
    button.setAttribute("aria-pressed", each.name === state.run ? "true" : "false");
    how.textContent = `${WORDS[each.state]}, step ${number(each.step, 7)}`;
  }

  async function list() {
    const found = await get("train/runs");
    found.forEach(showRow);
    const wanted = found.map((each) => rows.get(each.name).element);
    if (wanted.length !== runs.children.length || wanted.some((each, k) => runs.children[k] !== each)) runs.replaceChildren(...wanted);
    state.others = found.some((each) => each.state === "running" && each.name !== state.run);
    return found;
  }

  async function choose(run) {
    state.run = run;
    view.hidden = false;
    await look();
  }

  const turn = turns();
  const looked = guarded(look);
  async function look() {
    clearTimeout(state.timer);
    if (!state.run || !state.seen) return;
    const newest = turn();
    const facts = await get(`train/runs/${state.run}`);
    if (!newest()) return;
    const changedState = state.facts?.state !== facts.state || state.facts?.name !== facts.name;
    state.facts = facts;
    show(facts);
    if (changedState || state.others) await list();
    else showRow(facts);
    const settling = facts.state === "running" || state.others || (facts.state === "paused" && changedState);
    if (settling) state.timer = setTimeout(looked, EVERY);
  }

  function show(facts) {
    title.textContent = facts.name;
    const share = facts.steps ? facts.step / facts.steps : 0;
    bar.value = share;
    const rate = facts.samples_per_second ? `, ${number(facts.samples_per_second)} samples a second` : "";
    const left = facts.eta ? `, ${seconds(facts.eta)} left` : "";
    const where = facts.steps ? `step ${number(facts.step, 7)} of ${number(facts.steps, 7)}` : "reading data and building the network";
    told.textContent = facts.state === "failed" ? `failed: ${facts.said.replace(/^unnoise: /, "")}` : `${WORDS[facts.state]}: ${where}${facts.state === "running" ? rate + left : ""}`;
    told.dataset.state = facts.state;
    told.dataset.step = facts.step;
    pause.hidden = stop.hidden = facts.state !== "running";
    resume.hidden = !["paused", "stopped", "failed"].includes(facts.state) || !facts.begun;
    for (const each of [pause, resume, stop]) each.disabled = false;
    const { curves: c } = facts;
    const lines = [{ kind: "first", name: "loss", x: c.step, y: c.smoothed }];
    if (c.validated.step.length) lines.push({ kind: "second", name: "validation", x: c.validated.step, y: c.validated.loss });
    const end = Math.max(facts.steps, c.step.at(-1) ?? 1);
    if (c.floor !== null) lines.push({ kind: "third", name: "floor", x: [0, end], y: [c.floor, c.floor] });
    loss.show(lines, { x: [0, end], y: span([...c.smoothed, ...c.validated.loss, c.floor]) });
    byTimeBox.hidden = !c.by_time;
    if (c.by_time) {
      const found = [{ kind: "first", name: "loss", x: c.by_time.t, y: c.by_time.loss }];
      if (c.by_time.floor) found.push({ kind: "third", name: "floor", x: c.by_time.t, y: c.by_time.floor });
      byTime.show(found, { x: [0, 1], y: span(c.by_time.loss, c.by_time.floor ?? []) });
    }
    measured.replaceChildren(...Object.entries(c.measured).map(([key, each]) => {
      const made = curves({ label: `${key} over steps`, height: 150, range: [0, 1], ticks: roundTicks, xLabel: "step" });
      made.show([{ kind: "first", name: key, x: each.step, y: each.value }], { x: [0, end], y: [Math.min(0, ...each.value), Math.max(...each.value)] });
      return h("div", {}, h("h3", {}, key), made.element);
    }));
    const last = facts.pictures.at(-1);
    pictureBox.hidden = !last;
    if (last && state.picture !== `${facts.name}/${last}`) {
      state.picture = `${facts.name}/${last}`;
      picture.src = address(`train/runs/${facts.name}/pictures/${last}`);
      picture.alt = `Samples that ${facts.name} has drawn: ${last}`;
    }
    caption.replaceChildren(h("strong", {}, "Figure 4. "), c.floor === null
      ? "The loss of the run as it learns."
      : `The loss as it falls towards its floor, ${number(c.floor)}: what the exact denoiser of this data would have, and no model can go below on average.`,
    ...(facts.has_model ? [" Its model can be used by now, in ", h("a", { href: "#/denoise" }, "Denoise"), "."] : []));
  }

  const element = h(
    "section", { class: "room", "data-room": "train" },
    h("h1", {}, "Train"),
    h("p", { class: "lede" }, "Show a network data with noise in it, ask for the data without, and mend what was wrong: thousands of times. It is the same trainer, and the same run folder, as on the command line."),
    h("div", { class: "spread" },
      h("figure", {}, view, seen, h("h2", { class: "later" }, "Runs"), runs),
      h("div", { class: "panel" },
        h("section", { class: "fields" }, h("div", {}, recipe.element, about), data.element, sets, h("div", {}, see)),
        h("section", { class: "fields" }, name.element, place, seed.element, h("div", {}, start)))),
  );
  const found = await list();
  if (found.length) await choose(found[0].name);
  return {
    element,
    state,
    hide: () => { state.seen = false; clearTimeout(state.timer); },
    show: () => { state.seen = true; looked(); },
  };
}

// The ends of a logarithmic axis. A floor may lie as low as it likes: no more than a hundredth of the loss is shown of it.
function span(values, floor = []) {
  const positive = (list) => list.filter((each) => each !== null && each > 0 && Number.isFinite(each));
  const known = positive(values);
  if (!known.length) return [0.01, 1];
  const high = Math.max(...known);
  const low = Math.max(Math.min(...known, ...positive(floor)), Math.min(...known) / 100);
  return [low / 1.25, high * 1.15];
}

function logTicks([low, high]) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const each of [1, 2, 5]) {
      const tick = Number((each * 10 ** power).toPrecision(3));
      if (tick >= low && tick <= high) found.push(tick);
    }
  }
  return found.length > 6 ? found.filter((each) => each.toExponential().startsWith("1e")) : found;
}
