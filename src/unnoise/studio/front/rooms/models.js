// Models: what stands on the shelf, what it takes of the memory, and folders that are dropped in.

import { get, post, remove, send } from "../api.js";
import { h, turns } from "../dom.js";
import { bytes, number } from "../numbers.js";
import { guarded, tell } from "../status.js";

const CHUNK = 2 * 1024 * 1024;

export async function make() {
  const list = h("ul", { class: "list", "aria-label": "Models" });
  const memory = h("progress", { max: 1, value: 0, "aria-label": "Memory that loaded models take" });
  const told = h("p", { class: "help" });
  const input = h("input", { type: "file", id: "model-folder", class: "unseen", webkitdirectory: true, multiple: true });
  const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Copying" });
  const zone = h("div", { class: "empty", id: "drop" },
    h("p", {}, "Drop a model folder here: ", h("code", {}, "model.yaml"), " and its ", h("code", {}, ".safetensors"), "."),
    h("p", {}, input, h("label", { class: "button", for: "model-folder" }, "Choose a folder")), bar);

  const turn = turns();
  async function show() {
    const newest = turn();
    const found = await get("models");
    if (!newest()) return;
    memory.value = found.memory ? found.loaded / found.memory : 0;
    told.textContent = `${bytes(found.loaded)} of ${bytes(found.memory)} that models may take are taken. Those used least recently make room for others.`;
    list.replaceChildren(...found.models.map(card));
    if (!found.models.length) list.append(h("li", {}, h("p", { class: "help" }, "No model stands here yet: train one, or drop one in.")));
  }

  function card(model) {
    const more = h("div", {});
    const whole = h("details", {}, h("summary", {}, "All that it says of itself"), more);
    whole.addEventListener("toggle", guarded(async () => {
      if (!whole.open || more.childNodes.length) return;
      more.append(h("pre", { tabindex: 0 }, JSON.stringify(await get(`models/${encodeURIComponent(model.name)}/description`), null, 2)));
    }));
    const off = h("button", { type: "button", class: "quiet" }, "Take off the shelf");
    off.addEventListener("click", guarded(async () => {
      await remove(`models/${encodeURIComponent(model.name)}`);
      tell(`${model.name} is off the shelf; its folder stays where it is.`);
      await show();
    }));
    const rows = model.error ? [["error", model.error]] : [
      ["makes", `${model.kind === "points" ? "points" : "pictures"} of shape ${model.shape.join(" × ")}`],
      ["asked by", [model.labels.length ? `${model.labels.length} labels` : null, model.takes_words ? "words" : null].filter(Boolean).join(" and ") || "nothing"],
      ["network", describe(model.parts?.network)], ["predicts", describe(model.parts?.denoiser)], ["process", describe(model.parts?.process)],
      ["size", `${bytes(model.bytes)}${model.loaded ? ", in memory" : " on disk"}`],
      ["trained", trained(model.trained)], ["stands in", model.path],
    ];
    return h("li", { "data-model": model.name },
      h("div", { class: "row between" }, h("h2", {}, model.name, " ", h("span", { class: "help" }, model.loaded ? "loaded" : "")), off),
      h("dl", { class: "facts" }, rows.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      model.error ? null : whole);
  }

  const drop = guarded(async (files, folder) => {
    const useful = files.filter((file) => /\.(safetensors|yaml|json|txt)$/.test(file.name));
    if (!useful.some((file) => file.name === "model.yaml")) throw new Error(`${folder} is no model folder: it holds no model.yaml; of a run, drop the folder model in it`);
    const name = folder.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "") || "model";
    const all = useful.reduce((sum, file) => sum + file.size, 0);
    let done = 0;
    bar.hidden = false;
    try {
      for (const file of useful) {
        let at = 0;
        do {
          const part = file.slice(at, at + CHUNK);
          await send(`models/${encodeURIComponent(name)}/files/${encodeURIComponent(file.name)}?at=${at}`, part, { "content-type": "application/octet-stream" });
          at += part.size;
          done += part.size;
          bar.value = done / all;
        } while (at < file.size);
      }
      await post(`models/${encodeURIComponent(name)}/whole`, {});
      tell(`${name} is on the shelf.`);
    } finally {
      bar.hidden = true;
      await show();
    }
  });

  input.addEventListener("change", () => {
    const files = [...input.files];
    if (!files.length) return;
    const parts = files[0].webkitRelativePath.split("/");
    const top = files.filter((file) => file.webkitRelativePath.split("/").length <= 2);
    drop(top.some((file) => file.name === "model.yaml") ? top : files.filter((file) => file.webkitRelativePath.split("/")[1] === "model"), parts[0] || "model");
  });
  for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
  zone.addEventListener("drop", guarded(async (event) => {
    event.preventDefault();
    const entry = event.dataTransfer.items[0]?.webkitGetAsEntry();
    if (!entry?.isDirectory) throw new Error("that is no folder: drop the folder that holds model.yaml");
    let files = await within(entry);
    if (!files.some((file) => file.name === "model.yaml")) {
      const inner = await entries(entry).then((found) => found.find((each) => each.isDirectory && each.name === "model"));
      if (inner) files = await within(inner);
    }
    await drop(files, entry.name);
  }));

  const element = h(
    "section", { class: "room", "data-room": "models" },
    h("h1", {}, "Models"),
    h("p", { class: "lede" }, "A model is a folder: a description that one can read, and weights that cannot run code. Those in use are held in memory; the rest wait on disk."),
    h("div", { class: "spread" }, h("div", {}, list), h("div", { class: "panel" }, h("section", {}, h("h2", {}, "Memory"), memory, told), h("section", {}, h("h2", {}, "Another model"), zone))),
  );
  await show();
  return { element, show: () => guarded(show)() };
}

const entries = (folder) => new Promise((resolve, reject) => {
  const reader = folder.createReader();
  const found = [];
  const next = () => reader.readEntries((some) => { if (some.length) { found.push(...some); next(); } else resolve(found); }, reject);
  next();
});

async function within(folder) {
  const files = (await entries(folder)).filter((each) => each.isFile);
  return Promise.all(files.map((each) => new Promise((resolve, reject) => each.file(resolve, reject))));
}

function describe(part) {
  if (!part) return "";
  const { name, ...options } = part;
  const told = Object.entries(options).filter(([, value]) => value !== null && typeof value !== "object").slice(0, 5).map(([key, value]) => `${key.replaceAll("_", " ")} ${typeof value === "number" ? number(value) : value}`);
  return [name?.replaceAll("_", " "), ...told].filter(Boolean).join(", ");
}

function trained(told) {
  if (!told) return "";
  return [told.recipe, told.steps && `${number(told.steps, 7)} steps`, told.samples_seen && `${number(told.samples_seen, 9)} samples seen`].filter(Boolean).join("; ");
}
