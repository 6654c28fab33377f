// The steps of one run, as numbers to draw from: noisy samples and estimates of every step that was kept.

import { tensors } from "./api.js";

export async function fetchRun(path, drawing) {
  const { step, t, shrink, noisy, denoised } = await tensors(path);
  const shape = noisy.shape.slice(1);
  const each = shape.reduce((product, size) => product * size, 1);
  const run = { count: step.values.length, step: step.values, t: t.values, shrink: shrink.values, shape, noisy: noisy.values, denoised: denoised.values, each };
  const points = drawing.kind === "points";
  const frame = (values, k, scale) => (points ? drawn(values, k, each, drawing.centre, scale) : values.subarray(k * each, (k + 1) * each));
  run.frames = Array.from({ length: run.count }, (_, k) => frame(noisy.values, k, shrink.values[k]));
  run.estimates = Array.from({ length: run.count }, (_, k) => frame(denoised.values, Math.max(k, Math.min(1, run.count - 1)), 1));
  return run;
}

const MOST_SEEN = 96 * 1024 * 1024; // bytes of steps that are kept while they are made

// A run with one more step of those that are seen while it is made; where they grow too many, every other one is let go.
export function grown(run, { step, t }, shape, noisy, estimate) {
  const before = run ?? { step: [], t: [], frames: [], estimates: [] };
  const next = { shape, each: noisy.length, live: true };
  const every = before.step.length * (noisy.byteLength + estimate.byteLength) > MOST_SEEN ? 2 : 1;
  const thinned = (list) => list.filter((_, k) => k % every === 0);
  for (const [name, value] of [["step", step], ["t", t], ["frames", noisy], ["estimates", estimate]]) next[name] = [...thinned(before[name]), value];
  if (next.step.length === 2 && next.step[0] === 0) next.estimates[0] = estimate; // before the first step nothing is estimated yet
  return { ...next, count: next.step.length };
}

// Points about their centre, as much smaller as noisy data has grown.
export function drawn(values, k, each, centre, scale) {
  const part = new Float32Array(each);
  for (let i = 0; i < each; i += 1) {
    const middle = centre[i % 2] ?? 0;
    part[i] = middle + (values[k * each + i] - middle) * scale;
  }
  return part;
}

export function windowOf(drawing, run) {
  if (drawing.window) return drawing.window;
  let [low, high] = [Infinity, -Infinity];
  for (const value of run.frames.at(-1)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const pad = 0.15 * (high - low) || 1;
  return [low - pad, high + pad, low - pad, high + pad];
}
