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
  let running = null; // the work that is shown: its jobs, whether it was ended, and what leaves its stream of events
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

  function showAll(newest) {
    const done = newest.reduce((sum, facts) => sum + (facts.steps ? facts.step / facts.steps : facts.state === "done" ? 1 : 0), 0);
    const left = Math.max(0, ...newest.map((facts) => facts.eta ?? 0));
    bar.value = done / newest.length;
    told.textContent = `${newest.filter((facts) => facts.state === "done").length} of ${newest.length} done${left ? `, ${seconds(left)} left` : ""}`;
  }

  // Runs requests one after another, or all at once, when the server shares their network calls; onFacts(facts, i) hears of
  // every change. Returns the facts of their ends.
  function run(requests, onFacts = () => {}, { look = true, together = false } = {}) {
    return working(async (mine) => {
      if (together) {
        const jobs = await Promise.all(requests.map((each) => begin(mine, each)));
        return watch(mine, jobs, look, (facts, i, newest) => { showAll(newest); onFacts(facts, i); });
      }
      const ends = [];
      for (const [k, request] of requests.entries()) {
        const job = await begin(mine, request);
        ends.push(...await watch(mine, [job], look, (facts) => { show(facts, k, requests.length); onFacts(facts, k); }));
      }
      return ends;
    });
  }

  // Watches a job that was asked for elsewhere, to its end.
  function follow(job, onFacts = () => {}, { look = false } = {}) {
    return working(async (mine) => {
      mine.jobs.push(job);
      const [end] = await watch(mine, [job], look, (facts) => { show(facts, 0, 1); onFacts(facts); });
      return end;
    });
  }

  async function working(work) {
    const mine = { jobs: [], ended: false, leave: new AbortController() };
    running = mine;
    element.hidden = false;
    told.textContent = "asking …";
    bar.value = 0;
    try {
      return await work(mine);
    } catch (error) {
      const unheard = error instanceof TypeError || error.status === 0; // the page is left, or the server has gone
      if (!unheard) await end(mine); // nobody waits for the others
      throw error;
    } finally {
      if (running === mine) {
        running = null;
        element.hidden = true;
      }
    }
  }

  async function begin(mine, request) {
    if (mine.ended) throw cancelled();
    const job = await post("jobs", request);
    mine.jobs.push(job);
    if (!mine.ended) return job;
    await giveUp(job);
    throw cancelled();
  }

  // One stream tells of all: browsers keep six connections to a server, and a stream holds one for as long as it lasts.
  async function watch(mine, jobs, look, onFacts) {
    const newest = [...jobs];
    const query = new URLSearchParams([...jobs.map((job) => ["of", job.id]), ["look", look]]);
    for await (const facts of events(`jobs/events?${query}`, { signal: mine.leave.signal })) {
      const i = jobs.findIndex((job) => job.id === facts.id);
      newest[i] = facts;
      onFacts(facts, i, newest);
      if (facts.state === "cancelled") throw cancelled();
      if (facts.state === "failed") throw new Error(facts.error);
    }
    if (newest.some((facts) => facts.state !== "done")) throw new Error("the server was stopped before this was done");
    return newest;
  }

  // Its stream is left first, so that what ends the jobs need not wait for a connection.
  async function end(mine) {
    mine.ended = true;
    mine.leave.abort();
    await Promise.all(mine.jobs.map(giveUp));
  }

  async function stop() {
    if (running) await end(running);
  }
  return { element, run, follow, stop };
}

const cancelled = () => Object.assign(new Error("cancelled"), { name: "AbortError" });
const giveUp = (job) => post(`jobs/${job.id}/cancel`, {}).catch(() => {}); // it may have ended, and be known no more
