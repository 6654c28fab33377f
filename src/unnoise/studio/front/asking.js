// What may be asked of a model: sampler, steps, times, guidance, label or words, seed. Every control is made from its options.

import { get } from "./api.js";
import { part, select, slider, text } from "./controls.js";
import { h } from "./dom.js";

const STEPS = 1000;

export function asking(parts, { onModel, counts = true }) {
  let { models } = parts;
  const model = select({ label: "Model", name: "model", choices: models.map((each) => [each.name, each.name]), value: models[0]?.name, onChange: () => changed() });
  const label = select({ label: "Label", name: "label", choices: [["", "nothing"]], value: "" });
  const prompt = text({ label: "Words", name: "prompt", lines: 2, placeholder: "what it should show" });
  const negative = text({ label: "Words to push away from", name: "negative_prompt", lines: 1 });
  const sampler = part({ label: "Sampler", parts: parts.samplers, value: { name: "dpmpp_2m" } });
  const steps = slider({ label: "Steps", name: "steps", from: 1, to: STEPS, low: 1, high: STEPS, value: 20, whole: true, log: true });
  const grid = select({
    label: "Times", name: "grid", choices: [["", "as the model says"], ...parts.grids.map((each) => [each.name, `${each.name.replaceAll("_", " ")}: ${each.summary}`])], value: "",
  });
  const rule = part({ label: "Guidance", parts: parts.guidance, value: { name: "classifier_free" } });
  const embedded = slider({ label: "Distilled guidance", name: "embedded_guidance", help: "The scale told to this model, into which guidance was distilled; 1 by default.", from: 0, to: 10, low: 0, high: 1000, value: null });
  const n = slider({ label: "Samples", name: "n", from: 1, to: 1000, low: 1, high: 2000, value: 300, whole: true, log: true });
  const seed = slider({ label: "Seed", name: "seed", from: 0, to: 99, low: 0, high: 2 ** 31, value: 0, whole: true });
  const elements = { model, label, prompt, negative, sampler, steps, grid, rule, embedded, n, seed };
  let card = null;

  function changed() {
    card = models.find((each) => each.name === model.value);
    if (!card) return;
    label.fill([["", "nothing"], ...card.labels.map((each) => [each, each])], "");
    label.element.hidden = !card.labels.length;
    prompt.element.hidden = negative.element.hidden = !card.words;
    embedded.element.hidden = !card.embedded_guidance;
    rule.element.hidden = !card.labels.length && !card.words;
    const own = card.sampling;
    if (own.sampler) sampler.value = own.sampler;
    if (own.steps) steps.value = own.steps;
    const points = card.kind === "points";
    const large = !points && card.shape.at(-1) > 32;
    n.value = points ? 300 : large ? 4 : 16;
    onModel?.(card);
  }
  changed();

  return {
    ...elements,
    fields: h("div", { class: "fields" }, model.element, label.element, prompt.element, negative.element, embedded.element),
    counts: counts ? n.element : null,
    changed,
    // Asks for the models anew: some may have come or gone while another room was shown.
    async refresh() {
      ({ models } = await get("denoise/parts"));
      const before = model.value;
      const there = models.some((each) => each.name === before);
      model.fill(models.map((each) => [each.name, each.name]), there ? before : models[0]?.name);
      if (!there) changed();
    },
    has: (name) => models.some((each) => each.name === name),
    get card() { return card; },
    request(more = {}) {
      if (!card) throw new Error("no model is on the shelf: train one, or drop one in, in the room Models");
      const asked = {
        model: model.value, n: n.value, sampler: sampler.value, steps: steps.value, seed: seed.value,
        grid: grid.value || null,
        label: card.labels.length ? label.value || null : null,
        prompt: card.words ? prompt.value.trim() || null : null,
        negative_prompt: card.words ? negative.value.trim() || null : null,
        embedded_guidance: card.embedded_guidance ? embedded.value : null,
        strict: true,
        ...more,
      };
      if (asked.label || asked.prompt) asked.guidance = more.guidance ?? rule.value;
      else delete asked.guidance;
      return asked;
    },
  };
}

export function nothingYet(what) {
  return h("div", { class: "empty" },
    h("p", {}, `No model is loaded yet, so there is nothing to ${what}.`),
    h("p", {}, "Train one in the room ", h("a", { href: "#/train" }, "Train"), ", or drop a model folder into ", h("a", { href: "#/models" }, "Models"), "."));
}
