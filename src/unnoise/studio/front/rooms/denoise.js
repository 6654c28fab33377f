// Denoise: from noise to data, every step kept, so that one can go back and look again.

import { get, numbers } from "../api.js";
import { asking, nothingYet } from "../asking.js";
import { part, segments, toggle } from "../controls.js";
import { eachFrame, h, math, settled, turns } from "../dom.js";
import { arrows, colour, frame, paths, pictures, plate, points } from "../figure.js";
import { number, seconds } from "../numbers.js";
import { player } from "../player.js";
import { drawn, fetchRun, grown, windowOf } from "../run.js";
import { guarded, tell } from "../status.js";
import { bench } from "../work.js";

export async function make() {
  const parts = await get("denoise/parts");
  const head = [
    h("h1", {}, "Denoise"),
    h("p", { class: "lede" }, "Start from pure noise, ask the network what the clean data was on average, move a small step towards its answer, and ask again. Every step is kept: go back and look."),
  ];
  if (!parts.models.length) return { element: h("section", { class: "room", "data-room": "denoise" }, head, nothingYet("denoise")), empty: true };

  const state = { drawing: null, runs: [null, null], facts: [null, null], field: null, k: 0 };
  const turn = turns(); // what was asked for later must not be wiped by what comes late
  const [modelTurn, fieldTurn] = [turns(), turns()];
  let opening = null; // what is known of a model that was chosen, on its way
  const work = bench("Sampling");
  const ask = asking(parts, { onModel: (card) => { opening = guarded(modelChanged)(card); } });
  const sides = [0, 1].map((i) => side(i, state));
  const generate = h("button", { type: "button", class: "primary" }, "Generate");
  const time = player({ label: "Step", last: 1, id: "step", onMove: (k) => { state.k = k; refresh(); }, told: (k) => toldStep(state, k), duration: 5000 });
  time.disabled = true;
  const place = h("output", { class: "at", for: "step" });
  const ways = toggle({ label: "Their ways", name: "ways", value: true, onChange: () => refresh() });
  const cloud = toggle({ label: "The data", name: "cloud", value: true, onChange: () => refresh() });
  const arrowsOn = toggle({ label: "The score as arrows", name: "score", value: false, onChange: guarded(() => { fields.hidden = !arrowsOn.value; return field(); }) });
  const layers = h("div", { class: "row layers" }, ways.element, cloud.element, arrowsOn.element);
  const beside = segments({ label: "Beside it", choices: [["none", "nothing"], ["sampler", "a sampler"], ["exact", "exact"]], value: "none", onChange: () => besideChanged() });
  const second = part({ label: "The other sampler", parts: parts.samplers, value: { name: "ddim" } });
  second.element.hidden = true;
  const fields = h("div", { class: "plates pair", hidden: true });
  const learned = fieldPlate("The score that it has learned", "learned", state);
  const exact = fieldPlate("The exact score of its data", "exact", state);
  fields.append(learned.element, exact.element);
  const caption = h("figcaption", {});

  async function modelChanged(card) {
    const newest = modelTurn();
    turn();
    fieldTurn();
    guarded(work.stop)();
    const drawing = await get(`denoise/models/${encodeURIComponent(card.name)}`);
    if (!newest()) return;
    drawing.data = drawing.data && numbers(drawing.data);
    state.drawing = drawing;
    [state.runs, state.facts, state.field] = [[null, null], [null, null], null];
    layers.hidden = drawing.kind !== "points";
    fields.hidden = drawing.kind !== "points" || !arrowsOn.value;
    time.disabled = true;
    refresh();
  }

  function besideChanged() {
    second.element.hidden = beside.value !== "sampler";
    [state.runs[1], state.facts[1]] = [null, null];
    refresh();
  }

  generate.addEventListener("click", guarded(() => making(() => {
    const asked = ask.request({ keep_steps: true });
    const requests = [asked];
    if (beside.value === "sampler") requests.push({ ...asked, sampler: second.value });
    return (onFacts) => work.run(requests, onFacts);
  })));

  // A job that was under way when the page was loaded anew, or that another page has asked for.
  const pickUp = async () => {
    const found = (await get("jobs")).find((job) => job.keep_steps && ask.has(job.model));
    if (!found || generate.disabled) return; // a person was faster
    ask.model.value = found.model;
    ask.changed();
    await making(() => async (onFacts) => [await work.follow(found, (facts) => onFacts(facts, 0), { look: true })]);
  };

  // Shows what is made as it is made, and then opens it; what ends too early can be looked at as far as it was seen.
  async function making(prepare) {
    time.stop();
    generate.disabled = true;
    time.disabled = true;
    const newest = turn();
    try {
      await opening;
      const begin = prepare();
      [state.runs, state.facts] = [[null, null], [null, null]];
      await opened(await begin((facts, i) => newest() && live(facts, i)), newest);
    } catch (error) {
      if (newest()) halted(error.name === "AbortError" ? "cancelled" : "failed");
      throw error;
    } finally {
      generate.disabled = false;
    }
  }

  // What comes while it is made: one more step.
  function live(facts, i) {
    state.facts[i] = facts;
    if (facts.look) {
      const { shape, values } = numbers(facts.look.noisy);
      state.runs[i] = grown(state.runs[i], facts.look, shape, spread(values, values.length), numbers(facts.look.denoised).values);
    }
    refresh();
  }

  function halted(how) {
    const at = state.facts.findLastIndex((facts) => facts && !facts.exact && facts.state !== "done");
    if (at >= 0) state.facts[at] = { ...state.facts[at], state: how };
    const run = state.runs[0];
    const grew = run?.live;
    for (const each of state.runs) if (each) each.live = false;
    if (grew) {
      time.last = run.count - 1;
      time.disabled = run.count < 2;
      time.move(run.count - 1);
    }
    if (how === "cancelled") tell(at >= 0 && state.facts[at].steps ? `${sentence(haltedAt(state.facts[at]))}.` : "Cancelled before its first step.");
    refresh();
  }

  // While it is made the scale of the noise is not known here, so points are brought to the size of the window.
  function spread(values, each) {
    if (state.drawing.kind !== "points" || !state.drawing.window) return values;
    const [left, right] = state.drawing.window;
    let sum = 0;
    for (let i = 0; i < each; i += 1) sum += (values[i] - (state.drawing.centre[i % 2] ?? 0)) ** 2;
    return drawn(values, 0, each, state.drawing.centre, Math.min(1, (right - left) / 5.6 / Math.sqrt(sum / each || 1)));
  }

  async function opened(ends, newest) {
    const runs = await Promise.all(ends.map((facts) => fetchRun(`jobs/${facts.id}/steps`, state.drawing)));
    if (!newest()) return;
    [state.runs, state.facts] = [[...runs, null].slice(0, 2), [...ends, null].slice(0, 2)];
    try {
      if (beside.value === "exact") await besideExact(ends[0].id, newest);
    } finally {
      if (newest()) {
        time.last = runs[0].count - 1;
        time.disabled = false;
        time.move(runs[0].count - 1);
      }
    }
    if (newest()) await field();
  }

  async function besideExact(id, newest) {
    tell("Asking the exact denoiser of the training data …");
    const begin = performance.now();
    const run = await fetchRun(`denoise/exact/${id}`, state.drawing);
    if (!newest() || beside.value !== "exact") return;
    state.runs[1] = run;
    state.facts[1] = { exact: true, seconds: (performance.now() - begin) / 1000 };
    tell("Both are there: drag to compare.");
  }

  const askField = settled(guarded(async () => {
    const t = state.runs[0]?.t[state.k] ?? 0.3;
    if (!(t > 0)) return;
    const newest = fieldTurn();
    const found = await get(`denoise/field/${encodeURIComponent(ask.card.name)}?t=${t}`);
    if (!newest()) return;
    for (const name of ["at", "learned", "exact", "cloud"]) found[name] = found[name] && numbers(found[name]);
    state.field = { ...found, t };
    exact.element.hidden = !found.exact;
    learned.show();
    exact.show();
  }), 60);
  async function field() {
    if (state.drawing?.kind === "points" && arrowsOn.value) askField();
  }

  const refresh = eachFrame(() => {
    sides.forEach((each) => each.show({ ways: ways.value, cloud: cloud.value }));
    const run = state.runs[0];
    const last = run && !run.live ? state.facts[0]?.steps ?? run.step[run.count - 1] : 0;
    place.textContent = run ? `step ${run.step[shownStep(state, run)]}${last ? ` of ${last}` : ""}` : "";
    caption.replaceChildren(...words(state, ask));
    if (run && !run.live) field();
  });

  const element = h(
    "section", { class: "room", "data-room": "denoise" }, head,
    h("div", { class: "spread" },
      h("figure", {},
        h("div", { class: "figure-rows" }, sides.map((each) => each.element)),
        h("div", { class: "scrub" }, time.button, h("div", { class: "grow" }, time.range), place),
        layers, fields, caption),
      h("div", { class: "panel" },
        h("section", { class: "fields" }, ask.fields, h("div", {}, generate, work.element)),
        h("section", { class: "fields" }, ask.sampler.element, ask.steps.element),
        h("section", { class: "fields" }, h("div", { class: "field" }, h("span", { class: "name" }, "Beside it"), beside.element), second.element),
        h("section", { class: "fields" }, ask.rule.element, ask.counts, ask.seed.element, ask.grid.element))),
  );

  // A result of the gallery, looked back on.
  async function open(id) {
    time.disabled = true;
    const facts = await get(`jobs/${id}`);
    if (!ask.has(facts.model)) throw new Error(`${facts.model} is not on the shelf any more: it can be dropped in, in the room Models`);
    ask.model.value = facts.model;
    ask.changed();
    await opening;
    beside.value = "none";
    besideChanged();
    await opened([facts], turn());
  }
  let loaded = false; // whether the room was shown before
  return {
    element,
    hide: () => time.stop(),
    show: guarded(async (query) => {
      const first = !loaded;
      loaded = true;
      await ask.refresh();
      if (query?.get("result")) await open(query.get("result"));
      else if (first) await pickUp();
      refresh();
    }),
    state,
  };
}

// One run: where the samples are, and what they are estimated to be.
function side(i, state) {
  const head = h("div", { class: "row" });
  const options = {};
  const kinds = ["noisy", "denoised"];
  const plates = kinds.map((kind) => {
    const { canvas, paint } = plate("", (context, width, height) => draw(context, width, height, kind));
    canvas.dataset.side = i;
    canvas.dataset.shows = kind;
    return { kind, canvas, paint };
  });
  const titles = [h("h3", {}, h("span", {}, math("x", "", "t"), ", what there is")), h("h3", {}, h("span", {}, math("x", "hat", "0"), ", what it leads to"))];
  const element = h("div", {}, head, h("div", { class: "plates pair" }, plates.map((each, j) => h("div", { class: "plate" }, titles[j], each.canvas))));

  const at = () => (state.runs[i] ? shownStep(state, state.runs[i]) : 0);
  // Another run may have other steps: what is shown is the step nearest in time.
  function place() {
    const [own, first] = [state.runs[i], state.runs[0]];
    if (!own || own === first || own.live || !first || first.live) return at();
    const t = first.t[Math.min(state.k, first.count - 1)];
    let best = 0;
    for (let k = 0; k < own.count; k += 1) if (Math.abs(own.t[k] - t) < Math.abs(own.t[best] - t)) best = k;
    return best;
  }

  function draw(context, width, height, kind) {
    const run = state.runs[i];
    const { drawing } = state;
    if (!run) return;
    const k = place();
    const values = kind === "noisy" ? run.frames[k] : run.estimates[k];
    if (drawing.kind !== "points") {
      pictures(context, width, height, { values, shape: run.shape });
      return;
    }
    const onto = frame(windowOf(drawing, run), width, height);
    if (options.cloud && drawing.data) points(context, onto, drawing.data.values, { fill: colour("ghost"), radius: 1.5, opacity: 0.75 });
    if (kind === "noisy" && options.ways && !run.live) {
      const count = Math.min(run.shape[0], 60);
      paths(context, onto, run.frames, { stroke: colour("edge"), count, opacity: 0.45, until: k + 1 });
    }
    points(context, onto, values, { fill: colour(i ? "ink" : "cloud"), radius: Math.max(1.6, width / 190) });
  }

  function show(chosen) {
    Object.assign(options, chosen);
    const run = state.runs[i];
    element.hidden = i === 1 && !run;
    const facts = state.facts[i];
    head.replaceChildren(...(facts ? heading(facts, i) : []));
    for (const each of plates) {
      const k = place();
      each.canvas.numbers = run ? (each.kind === "noisy" ? run.frames[k] : run.estimates[k]) : null;
      each.canvas.setAttribute("aria-label", run
        ? `${each.kind === "noisy" ? "The noisy samples" : "The estimate of the clean samples"} at step ${run.step[k]}, time ${number(run.t[k])}`
        : "Nothing is made yet");
      each.paint();
    }
  }
  return { element, show };
}

// Of a run that grows its newest step, else the one that was chosen.
const shownStep = (state, run) => (run.live ? run.count - 1 : Math.min(state.k, run.count - 1));
const haltedAt = (facts) => `${facts.state} after step ${number(facts.step, 6)} of ${facts.steps ? number(facts.steps, 6) : "…"}`;
const sentence = (text) => text[0].toUpperCase() + text.slice(1);

function heading(facts, i) {
  const name = facts.exact ? "exact denoiser of the data" : facts.recipe.sampler.name.replaceAll("_", " ");
  const told = [];
  if (!facts.exact) told.push(h("span", { class: "help", "data-number": "nfe" }, `${number(facts.calls, 6)} network calls`));
  if (["cancelled", "failed"].includes(facts.state)) told.push(h("span", { class: "help", "data-number": "halted" }, haltedAt(facts)));
  if (facts.state === "done" || facts.exact) told.push(h("span", { class: "help", "data-number": "seconds" }, seconds(facts.seconds)));
  return [h("h2", {}, h("span", { class: i ? "key second" : "key" }), name), ...told];
}

function fieldPlate(title, which, state) {
  const { canvas, paint } = plate(title, (context, width, height) => {
    const { field } = state;
    if (!field?.[which]) return;
    const onto = frame(field.window, width, height);
    const centre = state.drawing.centre;
    const places = drawn(field.at.values, 0, field.at.values.length, centre, field.shrink);
    if (field.cloud) points(context, onto, drawn(field.cloud.values, 0, field.cloud.values.length, centre, field.shrink), { fill: colour("ghost"), radius: 1.4, opacity: 0.7 });
    const basis = (field.exact ?? field.learned).values;
    const sizes = [];
    for (let i = 0; i < basis.length; i += 2) sizes.push(Math.hypot(basis[i], basis[i + 1]));
    sizes.sort((a, b) => a - b);
    arrows(context, onto, places, field[which].values, { stroke: colour(which === "learned" ? "cloud" : "ink"), length: width / 15, reference: sizes[sizes.length >> 1] || 1 });
  });
  const aside = h("span", { class: "aside" });
  canvas.dataset.field = which;
  function show() {
    const { field } = state;
    canvas.numbers = field?.[which]?.values ?? null;
    aside.textContent = !field ? "" : which === "learned" && field.error !== null ? `off by ${Math.round(100 * field.error)} %` : `t = ${number(field.t)}`;
    paint();
  }
  return { element: h("div", { class: "plate" }, h("h3", {}, h("span", {}, title), aside), canvas), show };
}

function toldStep(state, k) {
  const run = state.runs?.[0];
  return run && !run.live ? `step ${run.step[k]}, time ${number(run.t[k])}` : `step ${k}`;
}

function words(state, ask) {
  const run = state.runs[0];
  const label = h("strong", {}, "Figure 2. ");
  if (!run) return [label, "Nothing is made yet: press Generate."];
  const k = shownStep(state, run);
  const what = state.drawing.kind === "points" ? `${run.shape[0]} points` : run.shape[0] > 1 ? `${run.shape[0]} pictures` : "A picture";
  const besides = state.runs[1] ? (state.facts[1]?.exact ? " Below, the exact denoiser of the training data from the same noise." : " Below, the other sampler from the same noise.") : "";
  const halted = ["cancelled", "failed"].includes(state.facts[0]?.state) ? `${sentence(haltedAt(state.facts[0]))}: these are the steps that were seen. ` : "";
  return [label, halted, `${what} of ${ask.card.name} at `, math("t"), ` = ${number(run.t[k])}: left the noisy samples, right what they are estimated to be. `,
    state.drawing.kind === "points" ? "Noisy data is drawn at the size of the data." : "", besides];
}
