// A DDPM for 8 x 8 digits, sampled from noise or from a drawing that is noised first, with all its predictions of x₀.

import * as engine from "./engine.js";
import * as denoising from "./math/denoising.js";
import * as random from "./math/random.js";
import * as schedule from "./math/schedule.js";
import * as unet from "./math/unet.js";

const SIDE = 8, CELLS = SIDE ** 2, INK = 16, FILM = 50; // FILM is the most pictures in the film
const EMPTY = "0".repeat(CELLS);

// The part that runs in a worker: given the packed weights, a function from a state to the prediction of x₀ there.
export function serve(net) {
  const rows = Object.entries(engine.tensors(net)).map(([name, row]) => [name, Float64Array.from(row)]);
  const weights = Object.fromEntries(rows);
  return ({ x, t, alphaBar, clamped }) => {
    const start = performance.now(), x0 = denoising.cleaned(x, unet.predict(weights, x, t), alphaBar, clamped);
    return { x0, milliseconds: performance.now() - start };
  };
}

export function render({ model, el, from }) {
  const names = ["start", "t", "steps", "eta", "seed", "clamp", "shown"], { T, beta_1, beta_T } = model.get("linear");
  const alphaBar = schedule.linear(T, beta_1, beta_T), ask = engine.background("digits", serve, model.get("net"));
  if (!model.get("drawing")) model.set("drawing", EMPTY);
  // The drawing is a text of levels, 0 to g, one a cell.
  const sane = { drawing: (text) => (String(text).replace(/[^0-9a-g]/g, "0") + EMPTY).slice(0, CELLS) };
  const levels = () => Array.from(model.get("drawing"), (letter) => parseInt(letter, INK + 1));
  const drawn = () => model.get("start") === "drawing", gray = () => Float64Array.from(levels(), (level) => level / 8 - 1);
  let path = { x: [], x0: [], times: [T, 0], spent: 0 }, state = "running", run = 0, last = null, cell = 0, pen = INK;
  const steps = () => path.times.length - 1, done = () => path.x0.length;
  const at = () => Math.max(0, Math.min(Math.ceil((model.get("shown") * steps()) / 100), done()) - 1);

  // Takes the steps one by one. A later call ends an earlier one, once the prediction that is on its way is there.
  async function sample() {
    const mine = ++run;
    state = "running";
    await last;
    if (mine !== run) return;
    const t = Math.min(T, model.get("t")), times = schedule.evenly(t, Math.min(t, model.get("steps")));
    const { normal } = random.generator(model.get("seed")), noise = () => Float64Array.from({ length: CELLS }, normal);
    const first = drawn() ? denoising.noised(gray(), noise(), alphaBar[t]) : noise(), clamped = model.get("clamp");
    const way = denoising.path(alphaBar, first, times, model.get("eta"), noise), fresh = { x: [], x0: [], times, spent: 0 };
    const empty = drawn() && model.get("drawing") === EMPTY;
    if (empty) path = fresh;
    for (let next = way.next(); !next.done && !empty; self.refresh()) {
      const [x, time] = next.value;
      last = ask({ x, t: time, alphaBar: alphaBar[time], clamped });
      const { x0, milliseconds } = await last;
      if (mine !== run) return;
      path = fresh;
      path.x.push(x);
      path.x0.push(x0);
      path.spent += milliseconds;
      next = way.next(x0);
    }
    state = empty ? "empty" : "done";
    self.refresh();
  }
  const stop = () => {
    if (state === "running") state = "stopped";
    run++;
    self.refresh();
  };

  const words = () => {
    const i = at(), top = path.times[0], place = `Row ${Math.floor(cell / SIDE) + 1}, column ${(cell % SIDE) + 1}`;
    const where = focused() ? `${place}: level ${levels()[cell]} of ${INK}. ` : "";
    if (state === "empty") return where + "The drawing is empty: draw with a finger, a mouse, or the arrow keys and Space.";
    if (!done()) return where;
    const range = [Math.min, Math.max].map((end) => end(...path.x0[i]).toFixed(2)).join(" to ");
    const first = drawn() ? "the drawing, noised to" : `the noise of seed ${model.get("seed")} at`;
    const few = model.get("steps") > steps() ? ", all there are" : "", ended = state === "stopped" ? ", stopped" : "";
    return `${where}From ${first} t = ${top}: ${done()} of ${steps()} steps${few}${ended}. ` +
      `The prediction of step ${i + 1} has values from ${range}.`;
  };

  const draw = ({ ink, root, stage }) => {
    const narrow = stage.clientWidth < 480, i = at(), { size, columns, every, end } = film();
    root.dataset.state = state;
    took.textContent = done() ? `${(path.spent / done()).toFixed(1)} ms a step` : "";
    row.style.setProperty("--columns", narrow ? 2 : 3);
    pad.box.hidden = narrow && !drawn();
    pad.box.style.cssText = "touch-action: none;" + (narrow ? "grid-column: 1 / -1; margin: 0 15%" : "");
    large(pad, gray(), drawn() ? "your drawing" : "draw here to start from it", ink, drawn() ? 1 : 0.5);
    const square = (i, width = pad.width / SIDE) => [(i % SIDE) * width, Math.floor(i / SIDE) * width, width];
    for (let i = 0; i < CELLS; i++) outline(pad, square(i), ink.gray, 0.5);
    if (focused()) outline(pad, square(cell), ink.forward, 3);
    // Where motion is unwanted, the film alone tells how far it is.
    const kept = state !== "running" || !engine.still();
    large(now, kept && path.x[i], `xₜ at t = ${path.times[i]}`, ink);
    large(clean, kept && path.x0[i], "prediction of x₀", ink);
    for (let j = 0; j * every < steps(); j++) {
      const place = [(j % columns) * size + 2, Math.floor(j / columns) * size + 2, size - 4], here = j === Math.floor(i / every);
      picture(reel, path.x0[end(j)], ...place);
      outline(reel, place, here ? ink.forward : ink.faint, here ? 3 : 1);
    }
  };
  const outline = ({ ctx }, [left, top, size], strokeStyle, lineWidth) => {
    Object.assign(ctx, { strokeStyle, lineWidth });
    ctx.strokeRect(left, top, size, size);
  };
  // A large picture with its name below.
  const large = (plot, values, name, ink, alpha = 1) => {
    plot.ctx.globalAlpha = alpha;
    picture(plot, values, 0, 0, plot.width);
    plot.ctx.globalAlpha = 1;
    outline(plot, [0, 0, plot.width], ink.gray, 1);
    engine.text(plot, name, plot.width / 2, plot.width + 17, ink.text, "center");
  };
  // The grid of the film. With more steps than FILM a picture stands for several, and shows the last of them, end(j).
  const film = () => {
    const columns = reel.width > 480 ? 17 : 10, every = Math.ceil(steps() / FILM);
    return { size: reel.width / columns, columns, every, end: (j) => Math.min((j + 1) * every, steps()) - 1 };
  };
  const focused = () => pad.box.matches(":focus-visible");

  const self = engine.figure({ model, el, from }, { names, sane, draw, words });
  const row = engine.add(self.stage, "div", { class: "dm-row" });
  const square = (label) => engine.plot(self, label, { aspect: (width) => width / (width + 24), parent: row });
  const [pad, now, clean] = ["The drawing", "The state", "The prediction of x₀ from this state"].map(square);
  const reel = engine.plot(self, "The predictions of x₀, one for each step", { aspect: engine.wide(17 / 3, 2) });
  const bar = engine.add(self.stage, "div", { class: "dm-foot" });
  engine.button(self, "Sample", sample, bar);
  engine.button(self, "Stop", stop, bar);
  engine.button(self, "New noise", () => model.set("seed", (model.get("seed") + 1) % 1000), bar);
  engine.button(self, "Clear drawing", () => model.set("drawing", EMPTY), bar);
  const took = engine.add(bar, "span");
  engine.controls(self, names);
  reel.box.addEventListener("click", ({ offsetX, offsetY }) => {
    const { size, columns, end } = film();
    const i = end(Math.floor(offsetY / size) * columns + Math.floor(offsetX / size));
    model.set("shown", Math.floor((100 * (i + 1)) / steps()));
  });

  // Empty becomes ink, ink gray, gray empty; a drag gives to all cells what it gave to the first.
  const next = () => ({ 0: INK, [INK]: INK / 2 })[levels()[cell]] ?? 0;
  const put = (level) => {
    model.set("drawing", levels().map((old, i) => (i === cell ? level : old).toString(INK + 1)).join(""));
    model.set("start", "drawing");
  };
  let before = null;
  const pull = ({ clientX, clientY }) => {
    const { left, top } = pad.canvas.getBoundingClientRect();
    const here = [clientX - left, clientY - top].map((pixels) => (pixels * SIDE) / pad.width), first = before ?? here;
    for (let share = 0; share <= 1; share += 1 / 16) {
      const [column, line] = here.map((value, i) => Math.floor(first[i] + (value - first[i]) * share));
      if (Math.min(column, line) < 0 || Math.max(column, line) >= SIDE) continue;
      cell = line * SIDE + column;
      if (!before) pen = next();
      before ??= here;
      if (levels()[cell] !== pen) put(pen);
    }
    before = here;
  };
  const label = "Drawing of 8 by 8 cells: arrow keys move, Space changes a cell, Delete empties it";
  const attributes = { role: "application", tabindex: 0, "aria-label": label };
  Object.entries(attributes).forEach(([name, value]) => pad.box.setAttribute(name, value));
  pad.box.addEventListener("pointerdown", (event) => {
    before = null;
    pad.box.setPointerCapture(event.pointerId);
    pull(event);
  });
  pad.box.addEventListener("pointermove", (event) => pad.box.hasPointerCapture(event.pointerId) && pull(event));
  pad.box.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -SIDE, ArrowDown: SIDE }[event.key];
    if (way) cell = (cell + way + CELLS) % CELLS;
    else if ([" ", "Enter"].includes(event.key)) put(next());
    else if (["Delete", "Backspace"].includes(event.key)) put(0);
    else return;
    event.preventDefault();
    self.refresh();
  });
  ["focus", "blur"].forEach((event) => pad.box.addEventListener(event, self.refresh));

  // At first a drawing is noised to a time at which its shape can be seen, and noise stands at the last time.
  model.on("change:start", () => model.set("t", drawn() ? Math.min(T, 40) : T));
  [...names.slice(0, -1), "drawing"].forEach((name) => model.on("change:" + name, () => {
    model.set("shown", 100);
    sample();
  }));
  sample();
}

// A square picture of gray values, from -1, black, to 1, white; that of an array is made once.
const made = new WeakMap();
function picture({ ctx }, values, left, top, size) {
  if (!values) return;
  const small = made.get(values) ?? document.createElement("canvas");
  if (!made.has(values)) {
    const pixels = new ImageData(SIDE, SIDE);
    for (let i = 0; i < pixels.data.length; i++) pixels.data[i] = i % 4 < 3 ? 127.5 * (values[i >> 2] + 1) : 255;
    Object.assign(small, { width: SIDE, height: SIDE }).getContext("2d").putImageData(pixels, 0, 0);
    made.set(values, small);
  }
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(small, left, top, size, size);
}
