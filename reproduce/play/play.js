"use strict";
// The page computes what the package computes: equation (1), a mask, and the masked network.
// `models`, `images` and `n` (sides of an image, classes) come from the page.

/** Return the Float32Array that is written in base64 (little-endian). */
function floats(text) {
  return new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

/** Return s M + v for a matrix M (s.length, v.length) that is stored row by row. */
function affine(s, M, v) {
  const out = Float64Array.from(v);
  for (let i = 0; i < s.length; i++) {
    if (s[i] === 0) continue; // nothing to add: what the kernels of the package skip, too
    for (let j = 0; j < out.length; j++) out[j] += s[i] * M[i * out.length + j];
  }
  return out;
}

const N_COLUMNS = 16; // of the picture of the units, as in the style sheet

const sigmoid = (z) => 1 / (1 + Math.exp(-z));

function softmax(z) {
  const top = Math.max(...z);
  const e = Array.from(z, (one) => Math.exp(one - top));
  const sum = e.reduce((a, b) => a + b);
  return e.map((one) => one / sum);
}

/** The masks of each rule, for the probabilities sigma. */
const rules = {
  sampled: (sigma) => sigma.map((p) => (Math.random() < p ? 1 : 0)),
  expected: (sigma) => sigma.slice(),
  thresholded: (sigma) => sigma.map((p) => (p > 0.5 ? 1 : 0)),
};

/** Equation (1): the probability that each unit takes part, for pixels x from 0 to 1. */
const policy = (model, x) => Array.from(affine(x, model.Z, model.o), sigmoid);

/** The class probabilities of the network with the mask u. */
function classify(model, x, u) {
  const s = affine(x, model.W, model.b).map((a, i) => u[i] * Math.tanh(a));
  return softmax(affine(s, model.W_out, model.b_out));
}

/** Multiplications of the units that take part, of the policy, and of the whole network. */
function multiplications(model, u) {
  const n_units = model.b.length, n_classes = model.b_out.length;
  const a_unit = n.side * n.side + n_classes;
  const taking_part = u.filter((one) => one > 0).length;
  return { network: taking_part * a_unit, policy: n.side * n.side * n_units, dense: n_units * a_unit };
}

for (const model of models) {
  for (const name of ["Z", "o", "W", "b", "W_out", "b_out"]) model[name] = floats(model[name]);
}
const pixels = images.map((one) => Array.from(atob(one.pixels), (c) => c.charCodeAt(0) / 255));

// What the page shows now.

const state = { model: 0, rule: "sampled", x: pixels[0].slice(), sigma: [], u: [], unit: null };
const id = (name) => document.getElementById(name);
const percent = (part, digits = 0) => (100 * part).toFixed(digits) + " %";

function look() {
  state.sigma = policy(models[state.model], state.x);
  draw_masks();
}

function draw_masks() {
  state.u = rules[state.rule](state.sigma);
  show();
}

/** Draw numbers from 0 to 1, row by row, as darkness on a square canvas. */
function paint(canvas, values) {
  const side = Math.round(Math.sqrt(values.length));
  canvas.width = canvas.height = side;
  const picture = new ImageData(side, side);
  values.forEach((v, i) => picture.data.set([0, 0, 0, 255 * v], 4 * i));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** Paint column `unit` of a matrix: white is its least weight, black its largest. */
function paint_weights(canvas, M, unit, n_units) {
  const column = Array.from({ length: n.side * n.side }, (_, i) => M[i * n_units + unit]);
  const most = Math.max(...column.map(Math.abs)) || 1;
  paint(canvas, column.map((w) => (w / most + 1) / 2));
}

function show() {
  const model = models[state.model], { sigma, u } = state;
  paint(id("seen"), state.x);
  sigma.forEach((p, i) => {
    const cell = id("units").children[i];
    cell.style.setProperty("--p", `${100 * p}%`);
    cell.classList.toggle("on", u[i] > 0.5);
    const part = state.rule === "expected" ? "takes part with this weight" : u[i] ? "takes part" : "is dropped";
    cell.title = `unit ${i + 1}: probability ${p.toFixed(3)}, ${part}`;
    cell.setAttribute("aria-label", cell.title);
  });
  const k = u.filter((one) => one > 0).length;
  id("count").textContent = state.rule === "expected"
    ? `All ${u.length} units take part, each weighted by its probability.`
    : `${k} of ${u.length} units take part. Expected: ${sigma.reduce((a, b) => a + b).toFixed(1)}.`;
  const probabilities = classify(model, state.x, u);
  const best = probabilities.indexOf(Math.max(...probabilities));
  probabilities.forEach((p, c) => {
    const row = id("classes").children[c];
    row.classList.toggle("best", c === best);
    row.querySelector("meter").value = p;
    row.querySelector("output").textContent = percent(p, 1);
  });
  const done = multiplications(model, u);
  id("work").textContent =
    `Network: ${percent(done.network / done.dense)} of its multiplications. The policy adds ` +
    `${percent(done.policy / done.dense)}, because it looks at every pixel for every unit.`;
  id("facts").textContent =
    `Test error ${percent(model.test_error, 2)}, with ${percent(model.active)} of the units active ` +
    `on average, after ${model.epoch} epochs of training.`;
  if (state.unit !== null) {
    id("unit").hidden = false;
    id("unit-name").textContent = `Unit ${state.unit + 1}`;
    paint_weights(id("unit-w"), model.W, state.unit, u.length);
    paint_weights(id("unit-z"), model.Z, state.unit, u.length);
  }
}

// Drawing a digit, by pointer or by keys.

const pad = id("pad"), ink = pad.getContext("2d", { willReadFrequently: true });
const pen = { x: pad.width / 2, y: pad.height / 2, down: false };

function stroke(x, y) {
  ink.lineWidth = pad.width / 13;
  ink.lineCap = ink.lineJoin = "round";
  ink.beginPath();
  ink.moveTo(pen.x, pen.y);
  ink.lineTo(x, y + 0.01); // a dot if the pen does not move
  ink.stroke();
  [pen.x, pen.y] = [x, y];
  state.x = as_mnist();
  look();
}

/** The drawing as MNIST has it: in a box of 20 pixels, its centre of mass in the middle. */
function as_mnist() {
  const { width, height } = pad, alpha = ink.getImageData(0, 0, width, height).data;
  let [left, right, top, bottom] = [width, 0, height, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!alpha[4 * (y * width + x) + 3]) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
    }
  }
  if (right <= left) return new Array(n.side * n.side).fill(0);
  const scale = (n.side - 8) / Math.max(right - left, bottom - top);
  const fit = (dx, dy) => {
    const small = document.createElement("canvas");
    small.width = small.height = n.side;
    const to = small.getContext("2d");
    to.imageSmoothingQuality = "high";
    to.drawImage(pad, left, top, right - left, bottom - top, dx, dy,
      scale * (right - left), scale * (bottom - top));
    const data = to.getImageData(0, 0, n.side, n.side).data;
    return Array.from({ length: n.side * n.side }, (_, i) => data[4 * i + 3] / 255);
  };
  const first = fit(4, 4);
  let [mass, mx, my] = [0, 0, 0];
  first.forEach((v, i) => { mass += v; mx += v * (i % n.side); my += v * Math.floor(i / n.side); });
  const middle = (n.side - 1) / 2;
  return fit(4 + Math.round(middle - mx / mass), 4 + Math.round(middle - my / mass));
}

function clear_pad() {
  ink.clearRect(0, 0, pad.width, pad.height);
  state.x = new Array(n.side * n.side).fill(0);
  look();
}

const place = (event) => {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) * pad.width) / box.width, ((event.clientY - box.top) * pad.height) / box.height];
};
pad.addEventListener("pointerdown", (event) => {
  pad.setPointerCapture(event.pointerId);
  [pen.x, pen.y] = place(event);
  pen.down = true;
  stroke(pen.x, pen.y);
});
pad.addEventListener("pointermove", (event) => pen.down && stroke(...place(event)));
for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { pen.down = false; });

const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
pad.addEventListener("keydown", (event) => {
  if (event.key === " ") {
    pen.down = !pen.down;
    if (pen.down) stroke(pen.x, pen.y);
  } else if (event.key in steps) {
    const [dx, dy] = steps[event.key], a_step = pad.width / n.side;
    const to = [pen.x + dx * a_step, pen.y + dy * a_step].map((c) => Math.min(Math.max(c, 0), pad.width));
    if (pen.down) stroke(...to);
    else [pen.x, pen.y] = to;
  } else {
    return;
  }
  event.preventDefault();
  show_pen();
});
function show_pen() {
  const mark = id("pen");
  mark.hidden = document.activeElement !== pad;
  mark.style.left = `${(100 * pen.x) / pad.width}%`;
  mark.style.top = `${(100 * pen.y) / pad.height}%`;
  mark.classList.toggle("down", pen.down);
}
pad.addEventListener("focus", show_pen);
pad.addEventListener("blur", () => { pen.down = false; show_pen(); });

// Controls.

images.forEach((one, i) => id("examples").add(new Option(`a ${one.label} (test image ${one.index})`, i)));
models.forEach((one, i) => {
  const label = document.createElement("label");
  label.innerHTML = `<input type="radio" name="model" value="${i}"> λ = ${one.lam}`;
  id("models").append(label);
});
for (let i = 0; i < models[0].b.length; i++) {
  const cell = document.createElement("button");
  cell.type = "button";
  cell.tabIndex = i ? -1 : 0; // one stop for the tab key; arrow keys go on from there
  cell.addEventListener("click", () => { state.unit = i; show(); });
  id("units").append(cell);
}
for (let c = 0; c < models[0].b_out.length; c++) {
  const row = document.createElement("li");
  row.innerHTML = `<span>${c}</span><meter min="0" max="1" aria-label="class ${c}"></meter><output></output>`;
  id("classes").append(row);
}
id("units").addEventListener("keydown", (event) => {
  if (!(event.key in steps)) return;
  const cells = [...id("units").children], [dx, dy] = steps[event.key];
  const next = cells[cells.indexOf(event.target) + dx + N_COLUMNS * dy];
  if (next) {
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
  event.preventDefault();
});
id("examples").addEventListener("change", (event) => {
  ink.clearRect(0, 0, pad.width, pad.height);
  state.x = pixels[event.target.value].slice();
  look();
});
id("again").addEventListener("click", draw_masks);
id("clear").addEventListener("click", clear_pad);
id("models").addEventListener("change", (event) => { state.model = Number(event.target.value); look(); });
id("rules").addEventListener("change", (event) => { state.rule = event.target.value; draw_masks(); });
document.querySelector("input[name=model]").checked = true;
document.querySelector("input[value=sampled]").checked = true;
look();
