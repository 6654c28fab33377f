// Elements in one call, and a few words that many rooms need.

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  assign(element, properties);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function s(tag, properties = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) if (value !== null) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}

function assign(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden") element[name] = value;
    else if (name === "html") element.innerHTML = value; // only ever our own words
    else element.setAttribute(name, value === true ? "" : value);
  }
}

let count = 0;

export function unique(stem) {
  count += 1;
  return `${stem}-${count}`;
}

// A letter of mathematics, with a bar or a hat where it has one.
export function math(letter, mark = "", below = "") {
  const sign = mark ? h("span", { class: mark }, letter) : letter;
  return h("var", {}, sign, below ? h("sub", {}, below) : null);
}

// Runs at most once a frame, with the newest arguments.
export function eachFrame(work) {
  let asked = null;
  return (...args) => {
    const waiting = asked !== null;
    asked = args;
    if (!waiting) {
      requestAnimationFrame(() => {
        const now = asked;
        asked = null;
        work(...now);
      });
    }
  };
}

// Runs when nothing has been asked for a while.
export function settled(work, wait = 150) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), wait);
  };
}

// Answers may come in another order than they were asked for: each call takes a turn, and gives a function that says whether
// no later one was taken.
export function turns() {
  let newest = 0;
  return () => {
    const mine = (newest += 1);
    return () => mine === newest;
  };
}

export function download(name, content, type = "application/octet-stream") {
  const url = URL.createObjectURL(new Blob([content], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
