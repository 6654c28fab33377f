// The frame around the rooms: which one is shown, the theme, and what is said aloud.

import { h } from "./dom.js";
import { clear, tell } from "./status.js";

const ROOMS = [
  ["noise", "Noise"],
  ["denoise", "Denoise"],
  ["steer", "Steer"],
  ["train", "Train"],
  ["gallery", "Gallery"],
  ["models", "Models"],
];
const main = document.getElementById("room");
const opened = new Map();
let shown = null;

const links = ROOMS.map(([name, title]) => h("a", { href: `#/${name}`, "data-room": name }, title));
document.getElementById("rooms").append(...links);

async function show() {
  const [name, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  if (location.hash && !location.hash.startsWith("#/")) return; // a link within the page
  const known = ROOMS.find(([each]) => each === name) ?? ROOMS[0];
  for (const link of links) {
    if (link.dataset.room === known[0]) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  links.find((link) => link.dataset.room === known[0]).scrollIntoView({ block: "nearest", inline: "nearest" });
  document.title = `${known[1]} · unnoise studio`;
  if (!opened.has(known[0])) opened.set(known[0], open(known[0]));
  const room = await opened.get(known[0]);
  if (room.empty) opened.delete(known[0]); // there may be something for it to show when it is opened next
  if (shown !== room) {
    shown?.hide?.();
    clear();
    const first = shown === null;
    main.replaceChildren(room.element);
    shown = room;
    if (!first) {
      main.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
  }
  room.show?.(new URLSearchParams(query));
}

async function open(name) {
  try {
    const { make } = await import(`./rooms/${name}.js`);
    return await make();
  } catch (error) {
    opened.delete(name);
    tell(error);
    return { element: h("section", { class: "room" }, h("h1", {}, name), h("p", {}, "This room did not open: ", error.message)) };
  }
}

// The theme: as the system says, until a person chooses; each press goes on to the next.
const THEMES = { auto: "Auto theme", light: "Light theme", dark: "Dark theme" };
const button = document.getElementById("theme");
const media = matchMedia("(prefers-color-scheme: dark)");

function paint(theme) {
  const dark = theme === "dark" || (theme === "auto" && media.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  button.textContent = { auto: "Auto", light: "Light", dark: "Dark" }[theme];
  button.setAttribute("aria-label", THEMES[theme]);
  dispatchEvent(new Event("repaint"));
}

function stored() {
  const kept = localStorage.getItem("theme");
  return kept in THEMES ? kept : "auto";
}

button.addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(stored()) + 1) % names.length];
  localStorage.setItem("theme", next);
  paint(next);
});
media.addEventListener("change", () => paint(stored()));
paint(stored());

addEventListener("hashchange", show);
show();
