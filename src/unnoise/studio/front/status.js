// What happens is said once, in a line that screen readers read aloud: errors stay until they are dismissed, or something is tried again.

import { h } from "./dom.js";

const place = document.getElementById("status");
let timer = 0;
let failed = null; // the work that the error which is shown comes from

export function tell(said) {
  clearTimeout(timer);
  failed = null;
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
  failed = null;
  place.replaceChildren();
}

// Work that may fail: what went wrong is told, and the work's place in the page stays as it was. The error goes with the next
// try of the same work, or with anything that a person begins; what the page looks up by itself leaves the errors of others.
export function guarded(work) {
  return async (...args) => {
    if (failed === work || (failed && args[0] instanceof Event)) clear();
    try {
      return await work(...args);
    } catch (error) {
      if (error.name !== "AbortError") {
        tell(error);
        failed = work;
      }
      return undefined;
    }
  };
}
