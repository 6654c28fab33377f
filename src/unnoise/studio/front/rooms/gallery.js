// Gallery: everything that was made, with the recipe that makes it again.

import { address, get, post, remove, tensors } from "../api.js";
import { select } from "../controls.js";
import { h, turns } from "../dom.js";
import { number } from "../numbers.js";
import { guarded, tell } from "../status.js";
import { bench } from "../work.js";

const FORMATS = [".png", ".webp", ".gif", ".apng", ".npz", ".csv", ".safetensors"];
const PAGE = 60;

export async function make() {
  const state = { chosen: [], most: PAGE };
  const sheet = h("ul", { class: "sheet", "aria-label": "Results" });
  const empty = h("div", { class: "empty", hidden: true }, h("p", {}, "Nothing is made yet."), h("p", {}, "What you make in ", h("a", { href: "#/denoise" }, "Denoise"), " and ", h("a", { href: "#/steer" }, "Steer"), " is kept here."));
  const compare = h("button", { type: "button", disabled: true }, "Compare two");
  const count = h("span", { class: "help" });
  const more = h("button", { type: "button", class: "quiet", hidden: true }, "Show more");
  const dialog = h("dialog", { "aria-label": "Result" });
  document.body.append(dialog);
  const work = bench("Replaying");

  const turn = turns();
  async function list() {
    const newest = turn();
    const { results, count: all } = await get(`gallery?most=${state.most}`);
    if (!newest()) return;
    state.chosen = state.chosen.filter((id) => results.some((each) => each.id === id));
    count.textContent = all ? `${number(all, 6)} ${all === 1 ? "result" : "results"}` : "";
    empty.hidden = all > 0;
    more.hidden = results.length >= all;
    sheet.replaceChildren(...results.map(card));
    chosen();
  }

  function chosen() {
    compare.disabled = state.chosen.length !== 2;
  }

  function card(each) {
    const box = h("input", { type: "checkbox", "aria-label": `Choose ${each.id}`, checked: state.chosen.includes(each.id) });
    box.addEventListener("change", () => {
      state.chosen = box.checked ? [...state.chosen, each.id].slice(-2) : state.chosen.filter((id) => id !== each.id);
      for (const other of sheet.querySelectorAll("input")) other.checked = state.chosen.includes(other.dataset.id);
      chosen();
    });
    box.dataset.id = each.id;
    const look = h("button", { type: "button", class: "quiet" }, "Open");
    look.addEventListener("click", () => open(each));
    return h("li", { class: "card", "data-result": each.id },
      h("img", { src: picture(each.id), alt: told(each), loading: "lazy", class: small(each) ? "crisp" : null }),
      h("div", { class: "name" }, h("span", {}, each.model), box),
      h("p", {}, told(each)),
      h("div", { class: "row" }, look,
        each.keep_steps ? h("a", { class: "button quiet", href: `#/denoise?result=${each.id}` }, "Scrub") : null));
  }

  const picture = (id, suffix = ".png") => address(`gallery/${id}/samples${suffix}`);
  const small = (each) => each.spec?.kind === "image";

  function open(each) {
    const format = select({ label: "Format", choices: FORMATS.filter((suffix) => fits(suffix, each)), value: ".png", onChange: () => { link.href = picture(each.id, format.value); link.download = `${each.id}${format.value}`; } });
    const link = h("a", { class: "button", href: picture(each.id), download: `${each.id}.png` }, "Download");
    const replay = h("button", { type: "button" }, "Replay");
    const gone = h("button", { type: "button", class: "quiet" }, "Delete");
    const verdict = h("p", { class: "help", "data-number": "replay" });
    replay.addEventListener("click", guarded(async () => {
      replay.disabled = true;
      try {
        const again = await work.follow(await post(`gallery/${each.id}/replay`, {}));
        const same = await sameness(each.id, again.id);
        verdict.textContent = SAMENESS[same];
        verdict.dataset.same = same;
        await list();
      } finally {
        replay.disabled = false;
      }
    }));
    gone.addEventListener("click", guarded(async () => {
      await remove(`gallery/${each.id}`);
      dialog.close();
      tell("It is deleted.");
      await list();
    }));
    dialog.replaceChildren(
      h("div", { class: "row between" }, h("h2", {}, each.model), closing()),
      h("div", { class: "plates" },
        h("img", { src: picture(each.id), alt: told(each), class: small(each) ? "thumb crisp" : "thumb" }),
        h("div", { class: "fields" }, facts(each), h("div", { class: "row" }, h("div", { class: "grow" }, format.element), link),
          h("div", { class: "row" }, replay, each.keep_steps ? h("a", { class: "button", href: `#/denoise?result=${each.id}`, onClick: () => dialog.close() }, "Scrub") : null, gone), work.element, verdict)),
      h("details", {}, h("summary", {}, "The whole recipe"), h("pre", { tabindex: 0 }, JSON.stringify(each.recipe, null, 2))));
    dialog.showModal();
  }

  function closing() {
    const close = h("button", { type: "button", class: "quiet" }, "Close");
    close.addEventListener("click", () => dialog.close());
    return close;
  }

  compare.addEventListener("click", guarded(async () => {
    const { results } = await get(`gallery?most=${state.most}`);
    const both = state.chosen.map((id) => results.find((each) => each.id === id));
    const rows = both.map((each) => plain(each));
    const names = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) => rows[0][name] !== rows[1][name]);
    dialog.replaceChildren(
      h("div", { class: "row between" }, h("h2", {}, "Side by side"), closing()),
      h("div", { class: "plates pair" }, both.map((each) => h("figure", {}, h("img", { src: picture(each.id), alt: told(each), class: small(each) ? "thumb crisp" : "thumb" }), h("figcaption", {}, each.model)))),
      h("table", { class: "readout" }, h("caption", { class: "unseen" }, "Where the recipes differ"),
        h("tbody", {}, names.length ? names.map((name) => h("tr", {}, h("th", { scope: "row" }, name), rows.map((row) => h("td", {}, row[name] ?? "–")))) : h("tr", {}, h("td", {}, "The recipes are the same.")))));
    dialog.showModal();
  }));
  more.addEventListener("click", guarded(() => { state.most += PAGE; return list(); }));

  const element = h(
    "section", { class: "room", "data-room": "gallery" },
    h("h1", {}, "Gallery"),
    h("p", { class: "lede" }, "Everything that was made here, each with its recipe: model, seed, sampler, steps, guidance. The recipe makes it again, to the byte."),
    h("div", { class: "row between later" }, h("div", { class: "row" }, compare, count)), empty, sheet, more,
  );
  await list();
  return { element, state, show: () => guarded(list)() };
}

function fits(suffix, each) {
  if (suffix === ".csv") return each.spec?.kind === "points";
  return [".gif", ".apng"].includes(suffix) ? each.keep_steps : true;
}

const SAMENESS = {
  bytes: "Made again: the same to the byte.",
  rounding: "Made again: the same but for rounding, since network calls are shared with other requests.",
  other: "Made again, and it differs: is the model still the same?",
};

// How alike two results are; what shares network calls with others may round otherwise.
async function sameness(a, b) {
  const fresh = { cache: "no-store" };
  const [first, second] = (await Promise.all([a, b].map((id) => tensors(`gallery/${id}/samples.safetensors`, fresh)))).map((found) => found.x.values);
  if (first.length !== second.length) return "other";
  const largest = first.reduce((far, value, i) => Math.max(far, Math.abs(value - second[i])), 0);
  if (largest === 0) return "bytes";
  return largest <= (first instanceof Uint8Array ? 2 : 1e-3) ? "rounding" : "other";
}

function told({ recipe }) {
  const asked = recipe.prompt ?? (recipe.label === null || recipe.label === undefined ? null : `label ${recipe.label}`);
  return [asked, `${recipe.sampler.name.replaceAll("_", " ")}, ${recipe.steps} steps`, recipe.guidance.scale === 1 ? null : `guidance ${number(recipe.guidance.scale)}`, `seed ${recipe.seed}`].filter(Boolean).join(" · ");
}

// Of a picture that samples began from, not all of its text, but enough to tell it from another.
function short(text) {
  return text.includes("data:") && text.length > 80 ? `${text.slice(0, 24)}…${text.slice(-60, -36)}… (${text.length} characters)` : text;
}

function plain({ recipe, seconds, calls }) {
  const text = (value) => short(typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  const rows = Object.fromEntries(Object.entries(recipe).filter(([, value]) => value !== null).map(([name, value]) => [name, text(name === "model" ? value.hash.slice(0, 12) : value)]));
  return { ...rows, "network calls": text(calls ?? "–"), seconds: number(seconds) };
}

function facts(each) {
  const rows = plain(each);
  delete rows.unnoise;
  return h("dl", { class: "facts" }, Object.entries(rows).flatMap(([name, value]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, value)]));
}
