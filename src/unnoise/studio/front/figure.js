// Figures on canvas: crisp at any density, in the colours of the page, drawn again when either changes.

import { eachFrame, h } from "./dom.js";

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A canvas that calls draw(context, width, height) in CSS pixels. What is drawn stands behind it as `numbers`.
export function plate(label, draw) {
  const canvas = h("canvas", { class: "square", role: "img", "aria-label": label });
  canvas.numbers = null;
  const paint = eachFrame(() => {
    const { width, height } = canvas.getBoundingClientRect();
    if (!width || !height) return;
    const density = devicePixelRatio || 1;
    const [across, down] = [Math.round(width * density), Math.round(height * density)];
    if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
    const context = canvas.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    draw(context, width, height);
  });
  new ResizeObserver(paint).observe(canvas);
  addEventListener("repaint", paint);
  return { canvas, paint };
}

// From a square window of the plane to the canvas.
export function frame(window, width, height) {
  const [left, right, bottom, top] = window;
  const scale = Math.min(width / (right - left), height / (top - bottom));
  const [middleX, middleY] = [(left + right) / 2, (bottom + top) / 2];
  return {
    scale,
    x: (value) => width / 2 + (value - middleX) * scale,
    y: (value) => height / 2 - (value - middleY) * scale,
  };
}

export function points(context, at, values, { fill, radius = 2.4, opacity = 0.85, every = 2 }) {
  context.fillStyle = fill;
  context.globalAlpha = opacity;
  context.beginPath();
  for (let i = 0; i + 1 < values.length; i += every) {
    const [x, y] = [at.x(values[i]), at.y(values[i + 1])];
    context.moveTo(x + radius, y);
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }
  context.fill();
  context.globalAlpha = 1;
}

// The ways of some points through all frames: values of each frame as x, y, x, y, ...
export function paths(context, at, frames, { stroke, count, width = 1, opacity = 0.5, until = frames.length }) {
  context.strokeStyle = stroke;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.globalAlpha = opacity;
  context.beginPath();
  for (let i = 0; i < count; i += 1) {
    for (let k = 0; k < until; k += 1) {
      const [x, y] = [at.x(frames[k][2 * i]), at.y(frames[k][2 * i + 1])];
      if (k) context.lineTo(x, y);
      else context.moveTo(x, y);
    }
  }
  context.stroke();
  context.globalAlpha = 1;
}

export function arrows(context, at, places, vectors, { stroke, length, reference }) {
  context.strokeStyle = stroke;
  context.fillStyle = stroke;
  context.lineWidth = 1.3;
  context.lineCap = "round";
  for (let i = 0; i + 1 < places.length; i += 2) {
    const size = Math.hypot(vectors[i], vectors[i + 1]);
    const long = (length * Math.min(size / reference, 1.6)) / 1.6;
    if (!(long > 0.6)) continue;
    const [ux, uy] = [vectors[i] / size, -vectors[i + 1] / size];
    const [x, y] = [at.x(places[i]), at.y(places[i + 1])];
    const [ex, ey] = [x + ux * long, y + uy * long];
    const head = Math.min(4.5, 0.45 * long);
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(ex - ux * head * 0.8, ey - uy * head * 0.8);
    context.stroke();
    context.beginPath();
    context.moveTo(ex, ey);
    context.lineTo(ex - ux * head - uy * head * 0.55, ey - uy * head + ux * head * 0.55);
    context.lineTo(ex - ux * head + uy * head * 0.55, ey - uy * head - ux * head * 0.55);
    context.fill();
  }
}

const scratch = document.createElement("canvas");

// Pictures in a grid, each of channels x height x width. `level` turns a value into a brightness of 0 ... 255.
export function pictures(context, width, height, { values, shape, level = (v) => v, gap = 6 }) {
  const [count, channels, rows, columns] = shape;
  const across = Math.ceil(Math.sqrt(count));
  const down = Math.ceil(count / across);
  const margin = count > 1 ? gap : 0;
  const cell = Math.min((width - margin * (across + 1)) / (across * columns), (height - margin * (down + 1)) / (down * rows));
  const [w, hgt] = [cell * columns, cell * rows];
  const left = (width - across * w - (across - 1) * margin) / 2;
  const top = (height - down * hgt - (down - 1) * margin) / 2;
  [scratch.width, scratch.height] = [columns, rows];
  const pen = scratch.getContext("2d", { willReadFrequently: true });
  const image = pen.createImageData(columns, rows);
  const plane = rows * columns;
  context.imageSmoothingEnabled = cell < 1;
  for (let n = 0; n < count; n += 1) {
    for (let i = 0; i < plane; i += 1) {
      const first = n * channels * plane + i;
      for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = level(values[first + (channels >= 3 ? c * plane : 0)]);
      image.data[4 * i + 3] = channels === 4 ? level(values[first + 3 * plane]) : 255;
    }
    pen.putImageData(image, 0, 0);
    const x = left + (n % across) * (w + margin);
    const y = top + Math.floor(n / across) * (hgt + margin);
    context.drawImage(scratch, x, y, w, hgt);
  }
}
