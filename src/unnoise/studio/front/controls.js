// Controls of a part, made from what its options declare: a new option of a new part has its slider by itself.

import { h, unique } from "./dom.js";
import { number } from "./numbers.js";

const MOST_STEPS = 1000; // of a slider

// A slider with a field beside it, on a logarithmic scale where its ends are far apart.
export function slider({ label, name, help, from, to, low, high, value, whole, log, onInput, format }) {
  const id = unique("slider");
  const curved = log ?? (from > 0 && to / from > 200);
  const place = (v) => (curved ? Math.log(Math.max(v, from) / from) / Math.log(to / from) : (v - from) / (to - from));
  const at = (share) => {
    const found = curved ? from * (to / from) ** share : from + (to - from) * share;
    return whole ? Math.round(found) : Number(found.toPrecision(3));
  };
  const steps = whole && !curved ? Math.max(1, to - from) : MOST_STEPS;
  const range = h("input", {
    type: "range", id, min: 0, max: steps, step: 1, "data-option": name, "aria-describedby": help ? `${id}-help` : null,
  });
  const field = h("input", {
    type: "number", class: "small", "aria-label": `${label}, as a number`, step: whole ? 1 : "any", min: low, max: high,
  });
  const told = () => (format ? format(current) : number(current));
  let current = value;
  const show = () => {
    if (current === null) field.value = "";
    else {
      range.value = Math.round(Math.min(1, Math.max(0, place(current))) * steps);
      if (document.activeElement !== field) field.value = current;
    }
    range.setAttribute("aria-valuetext", current === null ? "as the model says" : told());
  };
  range.addEventListener("input", () => {
    current = at(range.value / steps);
    show();
    onInput?.(current);
  });
  field.addEventListener("change", () => {
    const typed = field.value === "" ? value : Number(field.value);
    current = typed === null ? null : Math.min(high ?? Infinity, Math.max(low ?? -Infinity, whole ? Math.round(typed) : typed));
    field.value = current ?? "";
    show();
    onInput?.(current);
  });
  show();
  const element = h(
    "div", { class: "field" },
    h("div", { class: "name" }, h("label", { for: id }, label), field),
    range,
    help ? h("p", { class: "help", id: `${id}-help` }, help) : null,
  );
  return {
    element,
    range,
    get value() { return current; },
    set value(next) { current = next; show(); },
  };
}

export function select({ label, help, choices, value, onChange, name }) {
  const id = unique("select");
  const element = h("select", { id, "data-option": name, "aria-describedby": help ? `${id}-help` : null });
  const fill = (list, chosen) => {
    element.replaceChildren(...list.map((each) => {
      const [key, text] = Array.isArray(each) ? each : [each, String(each)];
      return h("option", { value: key }, text);
    }));
    if (chosen !== undefined && chosen !== null) element.value = chosen;
  };
  fill(choices, value);
  element.addEventListener("change", () => onChange?.(element.value));
  return {
    element: h(
      "div", { class: "field" },
      h("label", { class: "name", for: id }, label),
      element,
      help ? h("p", { class: "help", id: `${id}-help` }, help) : null,
    ),
    input: element,
    fill,
    get value() { return element.value; },
    set value(next) { element.value = next; },
  };
}

export function toggle({ label, help, value, onChange, name }) {
  const input = h("input", { type: "checkbox", checked: value, "data-option": name });
  input.addEventListener("change", () => onChange?.(input.checked));
  return {
    element: h("div", { class: "field" }, h("label", { class: "switch" }, input, label), help ? h("p", { class: "help" }, help) : null),
    input,
    get value() { return input.checked; },
    set value(next) { input.checked = next; },
  };
}

export function text({ label, help, value, onChange, name, lines, placeholder }) {
  const id = unique("text");
  const input = lines
    ? h("textarea", { id, rows: lines, placeholder, value: value ?? "", "data-option": name })
    : h("input", { type: "text", id, placeholder, value: value ?? "", autocomplete: "off", "data-option": name });
  input.addEventListener("change", () => onChange?.(input.value));
  return {
    element: h("div", { class: "field" }, h("label", { class: "name", for: id }, label), input, help ? h("p", { class: "help" }, help) : null),
    input,
    get value() { return input.value; },
    set value(next) { input.value = next ?? ""; },
  };
}

// Several words of which one is chosen, side by side.
export function segments({ label, choices, value, onChange }) {
  const group = unique("segments");
  const inputs = choices.map(([key, words]) => {
    const input = h("input", { type: "radio", name: group, value: key, checked: key === value });
    input.addEventListener("change", () => onChange?.(key));
    return [input, h("label", {}, input, words)];
  });
  return {
    element: h("div", { class: "segments", role: "radiogroup", "aria-label": label }, inputs.map(([, shown]) => shown)),
    get value() { return inputs.find(([input]) => input.checked)?.[0].value; },
    set value(next) { for (const [input] of inputs) input.checked = input.value === next; },
  };
}

// Words with `code` in them.
export const marked = (told) => told.split("`").map((piece, i) => (i % 2 ? h("code", {}, piece) : piece));

const words = (name) => name.replaceAll("_", " ");

// One option as the server describes it.
export function control(option, onChange) {
  // A small number that may be far larger, such as a learning rate, has a slider around it.
  const wide = option.kind === "number" && option.from === 0 && option.default > 0 && option.to / option.default > 100;
  const [from, to] = wide ? [option.default / 100, Math.min(option.to, option.default * 100)] : [option.from, option.to];
  const common = { label: words(option.name), name: option.name, help: option.help, value: option.default };
  if (option.kind === "number" || option.kind === "whole") {
    return slider({ ...common, from, to, low: option.low, high: option.high, whole: option.kind === "whole", onInput: onChange });
  }
  if (option.kind === "choice") return select({ ...common, choices: option.choices, onChange });
  if (option.kind === "switch") return toggle({ ...common, onChange });
  if (option.kind === "numbers") {
    const made = text({ ...common, value: (option.default ?? []).join(", "), onChange });
    return {
      element: made.element,
      get value() { return made.value.split(",").filter((part) => part.trim()).map(Number); },
      set value(next) { made.value = (next ?? []).join(", "); },
    };
  }
  return text({ ...common, onChange });
}

// The controls of a list of options; its value holds only what differs from the defaults.
export function optionControls(options, onChange, values = {}) {
  const made = options.map((option) => [option, control(option, onChange)]);
  for (const [option, each] of made) if (option.name in values && values[option.name] !== null) each.value = values[option.name];
  return {
    element: h("div", { class: "fields" }, made.map(([, each]) => each.element)),
    get value() {
      const differs = ([option, each]) => each.value !== null && JSON.stringify(each.value) !== JSON.stringify(option.default)
        && !(each.value === "" && option.default === null);
      return Object.fromEntries(made.filter(differs).map(([option, each]) => [option.name, each.value]));
    },
  };
}

// A part of one kind, chosen by name, with its own controls below; its value is {name, ...options}.
export function part({ label, parts, value, onChange, none }) {
  let options = null;
  const below = h("div", {});
  const note = h("p", { class: "help" });
  const chosen = select({
    label, choices: [...(none ? [["", none]] : []), ...parts.map((each) => [each.name, words(each.name)])],
    value: value?.name ?? "", onChange: () => { build({}); onChange?.(); },
  });
  function build(values) {
    const found = parts.find((each) => each.name === chosen.value);
    options = found?.controls.length ? optionControls(found.controls, () => onChange?.(), values) : null;
    note.replaceChildren(...marked(found?.summary ?? ""));
    below.replaceChildren(...(options ? [h("details", {}, h("summary", {}, "Its options"), options.element)] : []));
  }
  build(value ?? {});
  return {
    element: h("div", { class: "fields" }, h("div", {}, chosen.element, note), below),
    input: chosen.input,
    get value() { return chosen.value ? { name: chosen.value, ...(options?.value ?? {}) } : null; },
    set value(spec) {
      chosen.value = spec?.name ?? "";
      build(spec ?? {});
    },
  };
}
