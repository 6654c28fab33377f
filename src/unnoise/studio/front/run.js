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
