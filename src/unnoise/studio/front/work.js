// Long work: asked for, watched, and ended by a person who does not want to wait.

import { events, post } from "./api.js";
import { h } from "./dom.js";
import { number, seconds } from "./numbers.js";

// A bar with what is done, how long the rest takes, and a button that ends it.
export function bench(verb) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": verb });
  const told = h("span", {});
  const cancel = h("button", { type: "button", class: "quiet" }, "Cancel");
  const element = h("div", { class: "work", hidden: true }, bar, h("div", { class: "row" }, told, cancel));
  let running = [];
  cancel.addEventListener("click", () => {
    told.textContent = "ending …";
    stop();
  });

  function show(facts, done, all) {
    const share = facts.steps ? facts.step / facts.steps : 0;
    bar.value = (done + share) / all;
    const which = all > 1 ? `${done + 1} of ${all}: ` : "";
    if (facts.state === "waiting") told.textContent = `${which}waiting${facts.position ? `, number ${facts.position} in the queue` : ""}`;
    else told.textContent = `${which}step ${number(facts.step, 6)} of ${facts.steps ? number(facts.steps, 6) : "…"}${facts.eta ? `, ${seconds(facts.eta)} left` : ""}`;
  }

  // Runs requests one after another, or all at once, when the server shares their network calls; onFacts(facts, i) hears of
  // every change. Returns the facts of their ends.
  async function run(requests, onFacts = () => {}, { look = true, together = false } = {}) {
    element.hidden = false;
    told.textContent = "asking …";
    bar.value = 0;
    const newest = [];
    const mine = [];
    running = mine;
    async function follow(request, i) {
      const job = await post("jobs", request);
      mine.push(job);
      let last = job;
      for await (const facts of events(`jobs/${job.id}/events?look=${look}`)) {
        last = newest[i] = facts;
        if (together) showAll(newest, requests.length);
        else show(facts, i, requests.length);
        onFacts(facts, i);
      }
      if (last.state === "cancelled") throw Object.assign(new Error("cancelled"), { name: "AbortError" });
      if (last.state !== "done") throw new Error(last.error || "the server was stopped before this was done");
      return last;
    }
    try {
      if (together) return await Promise.all(requests.map(follow));
      const ends = [];
      for (const [i, request] of requests.entries()) ends.push(await follow(request, i));
      return ends;
    } finally {
      if (running === mine) {
        running = [];
        element.hidden = true;
      }
    }
  }

  // Watches a job that was asked for elsewhere, to its end.
  async function follow(job) {
    element.hidden = false;
    running = [job];
    try {
      let last = job;
      for await (const facts of events(`jobs/${job.id}/events?look=false`)) show((last = facts), 0, 1);
      if (last.state !== "done") throw new Error(last.error || "the server was stopped before this was done");
      return last;
    } finally {
      running = [];
      element.hidden = true;
    }
  }

  function showAll(newest, count) {
    const known = newest.filter(Boolean);
    const done = known.reduce((sum, facts) => sum + (facts.steps ? facts.step / facts.steps : facts.state === "done" ? 1 : 0), 0);
    const left = Math.max(0, ...known.map((facts) => facts.eta ?? 0));
    bar.value = done / count;
    told.textContent = `${known.filter((facts) => facts.state === "done").length} of ${count} done${left ? `, ${seconds(left)} left` : ""}`;
  }

  async function stop() {
    await Promise.all(running.map((each) => post(`jobs/${each.id}/cancel`, {}).catch(() => {})));
  }
  return { element, run, follow, stop, get busy() { return running.length > 0; } };
}
