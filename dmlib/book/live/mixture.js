// A Gaussian mixture in the reader's hands: what noise makes of it, and what samplers make of noise.

import * as engine from "./engine.js";
import * as oracle from "./math/oracle.js";
import * as random from "./math/random.js";
import * as sampling from "./math/sampling.js";
import * as schedule from "./math/schedule.js";

const T = 1000, N = 300, EDGE = [-3.2, 3.2], KNOTS = [0.85, 0.6, 0.3, 0.08, 0.0005];
const NAMES = ["forward", "ancestral", "DDIM", "flow"], { clamp, line, text } = engine;
const CURVES = {
  denoiser: [oracle.posteriorMean, "denoiser, E[x₀ | xₜ]"], noise: [oracle.noise, "noise, E[ε | xₜ]"],
  velocity: [oracle.velocity, "velocity, E[v | xₜ]"], score: [oracle.score, "score, the gradient of log q(xₜ)"],
};

// Components as [weight, x, y, standard deviation], eight at most, with possible values; null where there are none.
function tidy(parts) {
  const kept = Array.isArray(parts) ? parts.filter(Array.isArray).slice(0, 8) : [], place = (v) => clamp(v, -2.7, 2.7);
  return kept.length ? kept.map(([w, x, y, s]) => [clamp(w, 0, 1), place(x), place(y), clamp(s, 0.05, 1.2)]) : null;
}

// n middles of equal parts of a range.
const middles = (n, [low, high]) => Array.from({ length: n }, (_, i) => low + ((high - low) * (i + 0.5)) / n);

export function render({ model, el, from }) {
  const is = new Proxy({}, { get: (_, name) => model.get(name) });  // the values by name
  const samplers = is.show !== "field", { weights, means, vars } = is.mixture;
  const first = tidy(weights.map((w, k) => [w, means[k][0], means[k][1] ?? 0, Math.sqrt(vars[k])]));
  Object.entries({ parts: first, D: means[0].length, knots: KNOTS, chosen: 0 }).forEach((entry) => model.set(...entry));
  const fixed = { linear: schedule.linear(T), cosine: schedule.cosine(T) };
  let flat, m, bar, notice, counted, drawn = {}, whole = first, told = "";

  // The first n paths of the forward process and of each sampler, all from the same noise.
  const run = (n) => {
    const times = schedule.evenly(T, samplers ? is.steps : 100), seed = 1000 * is.seed;
    const row = (i) => random.normals(seed + i, n * m.D), fresh = (i = 0) => () => row((i += 1));
    const denoise = (x, t) => oracle.posteriorMean(m, x, bar[t]);
    const ddim = (eta) => sampling.ddim(denoise, bar, row(0), times, eta, fresh()).x;
    const paths = [sampling.forward(oracle.sample(m, n, random.generator(seed + 998)), bar, times, fresh())];
    if (samplers) paths.push(ddim(1), ddim(is.eta), sampling.flow(denoise, bar, row(0), times).x);
    return { times, paths };
  };
  const key = () => JSON.stringify([is.parts, is.D, is.schedule, is.knots, is.steps, is.eta, is.seed, is.paths]);

  const refuse = (words) => {
    notice = words;
    self.refresh();
  };
  const change = (k, values) =>
    model.set("parts", tidy(is.parts.map((part, i) => (i === k ? part.map((v, j) => values[j] ?? v) : part))));
  const join = () => {
    const k = is.parts.length;
    if (k === 8) return refuse("Eight components are the most there can be here.");
    model.set("parts", [...is.parts, [0.3, 2 * Math.sin(2.4 * k), 2 * Math.cos(2.4 * k), 0.3]]);
    model.set("chosen", k);
  };
  const remove = (k) => {
    if (is.parts.length === 1) return refuse("The last component has to stay: without one there is no distribution.");
    model.set("parts", is.parts.filter((_, i) => i !== k));
    if (grips[k].matches(":focus")) grips[is.chosen].focus();
  };

  // A picture of the density of x_t, relative to its peak: over the plane, or at each time over a line.
  const picture = ({ range: { x, y } }, color, t) => {
    const n = 48, ys = middles(n, y).reverse(), opacities = [];
    const columns = middles(n, x).map((v) =>
      (flat ? oracle.logDensity(m, ys, bar[Math.round(v)]) : oracle.logDensity(m, ys.flatMap((w) => [v, w]), bar[t])));
    const peak = Math.max(...columns.flat());
    columns.forEach((logs, i) => {
      const top = flat ? Math.max(...logs) : peak;
      logs.forEach((v, j) => { opacities[n * j + i] = 0.45 * Math.exp(v - top); });
    });
    return engine.tinted(opacities, color);
  };
  const spread = ({ ctx, x, y, range: { x: [left, right], y: [low, high] } }, made) =>
    ctx.drawImage(made, x(left), y(high), x(right) - x(left), y(low) - y(high));
  const title = (plot, words, ink) => text(plot, words, plot.width / 2, 14, ink.text, "center");

  // Panel i, of the forward process or a sampler: over time in one dimension, as trails in two, up to time t.
  const drawPaths = (plot, i, back, ink) => {
    const { times, paths } = drawn, path = paths[i], n = is.paths, here = times.findLastIndex((t) => t >= is.t);
    const x = (j, k) => (flat ? times[j] : path[j][2 * k]), y = (j, k) => path[j][is.D * k + is.D - 1];
    const along = [...times.keys()].filter((j) => (i ? j <= here : flat || j >= here)), order = path[0].slice().sort();
    spread(plot, back);
    for (let k = 0; k < n; k++) {
      const hue = flat ? (280 * order.indexOf(y(0, k))) / n : (180 * Math.atan2(y(0, k), x(0, k))) / Math.PI;
      const color = `hsl(${hue.toFixed()} 80% ${ink.ground === "#ffffff" ? 40 : 64}%)`;
      line(plot, along.map((j) => x(j, k)), along.map((j) => y(j, k)), color, { width: 1, alpha: flat ? 0.6 : 0.35 });
      plot.ctx.fillStyle = color;
      plot.ctx.fillRect(plot.x(x(here, k)) - 2, plot.y(y(here, k)) - 2, 4, 4);
    }
    title(plot, i === 2 ? `DDIM, η = ${is.eta.toFixed(2)}` : NAMES[i], ink);
    if (flat) text(plot, `t = ${T} … 0`, plot.width / 2, plot.height - 5, ink.gray, "center");
  };

  const drawEditor = (ink) => {
    const { range, ctx } = editor;
    if (flat) {
      const xs = middles(320, (range.x = EDGE)), density = (t) => oracle.logDensity(m, xs, bar[t]).map(Math.exp);
      range.y = [0, clamp(1.35 * Math.max(...density(0)), 0.6, 3.6)];
      line(editor, xs, density(is.t), ink.forward);
      line(editor, xs, density(0), ink.data, { fill: true });
      engine.axis(editor, "x", ink);
      text(editor, "density of x₀", 12, 20, ink.data);
      text(editor, `density of xₜ, t = ${is.t}`, 12, 38, ink.forward);
    } else {
      range.y = [-2.7, 2.7];
      range.x = range.y.map((v) => (v * (editor.width - 16)) / (editor.height - 30));
      spread(editor, picture(editor, ink.data, 0));
    }
    line(editor, [place(is.chosen)[0], shape()[0]], [place(is.chosen)[1], shape()[1]], ink.gray, { width: 1 });
    is.parts.forEach((part, k) => {
      const [x, y] = [editor.x(place(k)[0]), editor.y(place(k)[1])];
      ctx.strokeStyle = ink.data;
      ctx.beginPath();
      if (!flat) ctx.arc(x, y, editor.x(part[3]) - editor.x(0), 0, 7);
      ctx.stroke();
      if (whole === is.parts) text(editor, `${Math.round(100 * m.weights[k])}%`, x, y - 15, ink.text, "center");
      grips[k].style.zIndex = k === is.chosen ? 1 : 0;
    });
  };

  // The denoiser, or another of the best predictions: a curve in one dimension, arrows in two.
  const drawCurve = (back, ink) => {
    const place = is.curve === "denoiser", color = place ? ink.exact : ink.wrong, xs = middles(flat ? 240 : 12, EDGE);
    const read = (x) => CURVES[is.curve][0](m, x, bar[is.t]);
    Object.assign(curve.range, { x: EDGE, y: EDGE });
    if (flat) {
      const ys = read(xs), top = Math.max(3.2, ...ys.map(Math.abs));
      curve.range.y = [-top, top];
      line(curve, EDGE, place ? EDGE : [0, 0], ink.gray, { width: 1, dash: [4, 4] });
      line(curve, xs, ys, color);
      engine.axis(curve, "xₜ", ink);
      text(curve, top.toFixed(1), 10, 30, ink.gray);
    } else {
      spread(curve, back);
      const points = xs.flatMap((y) => xs.flatMap((x) => [x, y]));
      const ways = read(points).map((v, i) => (place ? v - points[i] : v)), most = Math.max(...ways.map(Math.abs));
      for (let i = 0; i < points.length; i += 2) {
        const [x, y, u, v] = [points[i], points[i + 1], ways[i] / most, ways[i + 1] / most];
        const [us, vs] = [[0, 0.8 * u, 0.5 * u - 0.2 * v], [0, 0.8 * v, 0.5 * v + 0.2 * u]];
        line(curve, us.map((d) => x + d), vs.map((d) => y + d), color, { width: 1 });
      }
    }
    title(curve, CURVES[is.curve][1], ink);
  };

  // How many of N samples each component has, and how far they are from exact draws.
  const count = () => {
    const ends = run(N).paths.map((path) => path.at(-1)), shares = ends.map((x) => oracle.counts(m, x));
    const truth = oracle.sample(m, N, random.generator(1000 * is.seed + 999)), names = NAMES.slice(1);
    const far = ends.map((x) => oracle.energy(m.D, truth, x).toFixed(3));
    const rows = m.weights.map((w, k) => [k + 1, ...[N * w, ...shares.map((row) => row[k])].map((v) => v.toFixed(1))]);
    const cells = [["k", "asked", "exact", ...names], ...rows, ["distance", "", ...far]];
    sheet.innerHTML = `<caption>${N} samples each, shared out among the components by p(k | x₀)</caption>` +
      cells.map((row, i) => `<tr>${row.map((v, j) => (i && j ? `<td>${v}` : `<th>${v}`)).join("")}`).join("");
    sheet.style.opacity = 1;
    counted = key();
    told = `Energy distance to exact draws (${names.join(", ")}): ${far.slice(1).join(", ")}; of other exact draws: ` +
      `${far[0]}. It has no bias and may fall below 0.`;
  };
  const words = () => {
    const wrong = ` At t = ${T} alpha bar is ${bar[T].toFixed(2)}: pure noise is a wrong start.`;
    if (samplers && counted !== key()) count();
    if (notice) return notice;
    if (whole !== is.parts) return "All weights are 0: nothing can be drawn. You see the last mixture with a weight.";
    return (told || `t = ${is.t}: alpha bar is ${bar[is.t].toFixed(3)}.`) + (bar[T] > 0.02 ? wrong : "");
  };

  const names = ["t", ...(samplers ? ["steps", "eta"] : ["curve"]), "schedule", "seed", "paths"];
  const self = engine.figure({ model, el, from }, {
    names,
    draw: ({ ink }) => {
      if (drawn.key !== key()) drawn = { key: key(), ...run(is.paths) };
      panels.forEach(({ range }) => { range.x = flat ? [T, 0] : EDGE; });
      const back = picture(panels[0], ink.gray, is.t);
      panels.forEach((plot, i) => drawPaths(plot, i, back, ink));
      drawEditor(ink);
      if (curve) drawCurve(back, ink);
      line(plan, [...bar.keys()], bar, ink.forward);
      engine.axis(plan, "t", ink);
      title(plan, "alpha bar, drawn by you", ink);
      if (counted !== key()) sheet.style.opacity = 0.4;
    },
    words,
    sane: {
      parts: (value) => tidy(value) ?? first,
      D: (value) => (value === 2 ? 2 : 1),
      chosen: (value) => Math.round(clamp(value, 0, is.parts.length - 1)),
      knots: (value) => schedule.decreasing(KNOTS.map((_, i) => clamp(value?.[i], 0, 1))),
    },
  });
  const hint = engine.add(self.stage, "div");
  const editor = engine.plot(self, "The mixture, with a grip for each component", {
    aspect: (width) => (flat ? 1.9 : 1.4) * (width > 480 ? 1.7 : 1),
  });
  const parent = engine.add(self.stage, "div", { class: "dm-row" });
  const frame = { y: EDGE, parent, pad: [20, 4, 20, 4], aspect: () => (samplers || !flat ? 1 : 1.6) };
  const panels = NAMES.slice(0, samplers ? 4 : 1).map((name) => engine.plot(self, `Paths, ${name}`, frame));
  const curve = samplers ? null : engine.plot(self, "The best prediction at time t", frame);
  const plan = engine.plot(self, "The schedule: alpha bar over t", {
    x: [0, T], aspect: engine.wide(5, 2.4), pad: [8, 20, 22, 8],
  });
  const sheet = engine.add(self.stage, "table", { class: "dm-table" });

  // A component's grip stands at its mean; on the line its height is the weight. The grip that shapes the chosen one
  // is farther from it the wider it is; in the plane its height is the weight.
  const place = (k) => [is.parts[k][1], flat ? 0.86 * is.parts[k][0] * editor.range.y[1] : is.parts[k][2]];
  const side = () => (place(is.chosen)[0] > 1 ? -1 : 1);
  const shape = () => {
    const [w, x, , s] = is.parts[is.chosen], y = place(is.chosen)[1];
    return [x + side() * (s + 0.8), flat ? y : y + w];
  };
  const say = (k) => {
    const [w, x, y, s] = is.parts[k].map((v) => v.toFixed(2));
    return `mean ${flat ? x : `${x}, ${y}`}; weight ${w}, width ${s}`;
  };
  const grips = Array.from({ length: 8 }, (_, k) => editor.handle(`component ${k + 1}`, {
    at: () => place(k),
    move: (x, y) => change(k, flat ? [y / 0.86 / editor.range.y[1], x] : [undefined, x, y]),
    say: () => say(k),
    shown: () => k < is.parts.length,
    color: "data",
    more: (pressed) => pressed === "Delete" && (remove(k), true),
  }));
  grips.forEach((grip, k) => grip.addEventListener("focus", () => model.set("chosen", k)));
  editor.handle("shape of the chosen component", {
    at: shape,
    move: (x, y) => {
      const [px, py] = place(is.chosen);
      change(is.chosen, { 0: flat ? undefined : y - py, 3: side() * (x - px) - 0.8 });
    },
    say: () => say(is.chosen),
    step: 0.01,
  });
  KNOTS.forEach((_, i) => plan.handle(`alpha bar at t = ${200 * i + 200}`, {
    at: () => [200 * i + 200, is.knots[i]],
    move: (_x, y) => model.set("knots", schedule.decreasing(is.knots.map((v, j) => (i === j ? y : v)))),
    say: () => is.knots[i].toFixed(3),
    color: "forward",
  }));

  engine.controls(self, names);
  engine.button(self, "Play", () => {
    let last = null;
    engine.play(4000, (share) => {
      if (last !== null && last !== is.t) return false;
      model.set("t", (last = Math.round(T * (samplers ? 1 - share : share))));
    });
  });
  engine.button(self, "Add", join);
  engine.button(self, "Remove", () => remove(is.chosen));
  const turn = engine.button(self, "", () => model.set("D", 3 - is.D));
  const follow = () => {
    notice = "";
    flat = is.D === 1;
    if (is.parts.some(([w]) => w)) whole = is.parts;  // while all weights are zero, the last mixture stays
    m = {
      D: is.D,
      weights: oracle.normalized(whole.map(([w]) => w)),
      means: whole.flatMap((part) => part.slice(1, 1 + is.D)),
      vars: whole.map((part) => part[3] ** 2),
    };
    bar = fixed[is.schedule] ?? schedule.drawn(T, is.knots);
    turn.textContent = flat ? "Two dimensions" : "One dimension";
    hint.textContent = flat ? "Pull a point across to move it, up for more weight; the grip beside it sets its width."
      : "Pull a point to move it; the grip beside it sets its width across, and its weight upward.";
    plan.box.hidden = is.schedule !== "drawn";
    parent.style.cssText = samplers ? "--wide: 4" : `--wide: 2; --columns: ${is.D}`;
    if (is.chosen >= is.parts.length) model.set("chosen", is.parts.length - 1);
  };
  follow();
  model.on("change", follow);
}
