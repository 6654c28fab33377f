// What happens is said once, in a line that screen readers read aloud: errors stay until they are dismissed.

import { h } from "./dom.js";

const place = document.getElementById("status");
let timer = 0;

export function tell(said) {
  clearTimeout(timer);
  if (said instanceof Error) {
    place.replaceChildren(
      h("p", { class: "error" }, said.message),
      h("button", { type: "button", class: "quiet", onClick: clear }, "Dismiss"),
    );
    return;
  }
  place.replaceChildren(h("p", {}, said));
  timer = setTimeout(clear, 6000);
}

export function clear() {
  place.replaceChildren();
}

// Work that may fail: what went wrong is told, and the work's place in the page stays as it was.
export function guarded(work) {
  return async (...args) => {
    try {
      return await work(...args);
    } catch (error) {
      if (error.name !== "AbortError") tell(error);
      return undefined;
    }
  };
}
