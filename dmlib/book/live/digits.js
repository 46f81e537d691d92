// A DDPM for 8 x 8 digits, sampled from noise or from a drawing that is noised first, with all its predictions of x₀.

import * as engine from "./engine.js";
import * as denoising from "./math/denoising.js";
import * as random from "./math/random.js";
import * as schedule from "./math/schedule.js";
import * as unet from "./math/unet.js";
import * as sheet from "./sheet.js";

const FILM = 50; // the most pictures in the film

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
  const given = ["start", "t", "steps", "eta", "seed", "clamp"], names = [...given, "pen", "cell", "shown"];
  const { T, beta_1, beta_T } = model.get("linear");
  const alphaBar = schedule.linear(T, beta_1, beta_T), ask = engine.background("digits", serve, model.get("net"));
  model.set("drawing", sheet.sane(sheet.written(model.get("image") ?? [])));
  const drawn = () => model.get("start") === "drawing", image = () => sheet.values(sheet.levels(model.get("drawing")));
  let path = { x: [], x0: [], times: [T, 0], spent: 0 }, state = "running", run = 0, last = null;
  const steps = () => path.times.length - 1, done = () => path.x0.length;
  const at = () => Math.max(0, Math.min(Math.ceil((model.get("shown") * steps()) / 100), done()) - 1);

  // Takes the steps one by one. A later call ends an earlier one, once the prediction that is on its way is there.
  async function sample() {
    const mine = ++run;
    state = "running";
    await last;
    if (mine !== run) return;
    const t = Math.min(T, model.get("t")), times = schedule.evenly(t, Math.min(t, model.get("steps")));
    const { normal } = random.generator(model.get("seed")), noise = () => Float64Array.from({ length: 64 }, normal);
    const first = drawn() ? denoising.noised(image(), noise(), alphaBar[t]) : noise(), clamped = model.get("clamp");
    const way = denoising.path(alphaBar, first, times, model.get("eta"), noise), fresh = { x: [], x0: [], times, spent: 0 };
    const empty = drawn() && model.get("drawing") === sheet.EMPTY;
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
    const i = at(), top = path.times[0];
    if (state === "empty") return "The drawing is empty: draw with a finger, a mouse, or the arrow keys and Space.";
    if (!done()) return "";
    const range = [Math.min, Math.max].map((end) => end(...path.x0[i]).toFixed(2)).join(" to ");
    const first = drawn() ? "the drawing, noised to" : `the noise of seed ${model.get("seed")} at`;
    const few = model.get("steps") > steps() ? ", all there are" : "", ended = state === "stopped" ? ", stopped" : "";
    return `From ${first} t = ${top}: ${done()} of ${steps()} steps${few}${ended}. ` +
      `The prediction of step ${i + 1} has values from ${range}.`;
  };

  const draw = ({ ink, root, stage }) => {
    const narrow = stage.clientWidth < 480, i = at(), { size, columns, every, end } = film();
    root.dataset.state = state;
    took.textContent = done() ? `${(path.spent / done()).toFixed(1)} ms a step` : "";
    row.style.setProperty("--columns", narrow ? 2 : 3);
    pad.box.hidden = narrow && !drawn();
    pad.box.style.gridColumn = narrow ? "1 / -1" : "";
    sheet.show(pad, image(), drawn() ? "your drawing" : "draw to start from it", ink, ink.forward);
    // Where motion is unwanted, the film alone tells how far it is.
    const kept = state !== "running" || !engine.still();
    sheet.show(now, kept && path.x[i], `xₜ at t = ${path.times[i]}`, ink);
    sheet.show(clean, kept && path.x0[i], "prediction of x₀", ink);
    for (let j = 0; j * every < steps(); j++) {
      const place = [(j % columns) * size + 2, Math.floor(j / columns) * size + 2, size - 4], here = j === Math.floor(i / every);
      sheet.picture(reel, path.x0[end(j)], ...place);
      Object.assign(reel.ctx, { strokeStyle: here ? ink.forward : ink.faint, lineWidth: here ? 3 : 1 });
      reel.ctx.strokeRect(...place, size - 4);
    }
  };
  // The grid of the film. With more steps than FILM a picture stands for several, and shows the last of them, end(j).
  const film = () => {
    const columns = reel.width > 480 ? 17 : 10, every = Math.ceil(steps() / FILM);
    return { size: reel.width / columns, columns, every, end: (j) => Math.min((j + 1) * every, steps()) - 1 };
  };

  const self = engine.figure({ model, el, from }, { names, sane: { drawing: sheet.sane }, draw, words });
  const row = engine.add(self.stage, "div", { class: "dm-row" });
  const pad = sheet.pad(self, row, () => model.set("start", "drawing"));
  const [now, clean] = ["The state", "The prediction of x₀ from this state"].map((label) => sheet.plot(self, label, row));
  const reel = engine.plot(self, "The predictions of x₀, one for each step", { aspect: engine.wide(17 / 3, 2) });
  const bar = engine.add(self.stage, "div", { class: "dm-foot" });
  engine.button(self, "Sample", sample, bar);
  engine.button(self, "Stop", stop, bar);
  engine.button(self, "New noise", () => model.set("seed", (model.get("seed") + 1) % 1000), bar);
  const took = engine.add(bar, "span");
  engine.controls(self, names.filter((name) => name !== "cell"));
  reel.box.addEventListener("click", ({ offsetX, offsetY }) => {
    const { size, columns, end } = film();
    const i = end(Math.floor(offsetY / size) * columns + Math.floor(offsetX / size));
    model.set("shown", Math.floor((100 * (i + 1)) / steps()));
  });

  // At first a drawing is noised to a time at which its shape can be seen, and noise stands at the last time.
  model.on("change:start", () => model.set("t", drawn() ? Math.min(T, 40) : T));
  [...given, "drawing"].forEach((name) => model.on("change:" + name, () => {
    model.set("shown", 100);
    sample();
  }));
  sample();
}
