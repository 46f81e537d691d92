// One reverse step: the prior of x_s from x_0, the likelihood of x_t, and the posterior of both.

import * as engine from "./engine.js";
import * as gaussian from "./math/gaussian.js";
import * as schedule from "./math/schedule.js";

const LOW = -3, HIGH = 3, TOP = 2.6;

export function render({ model, el, from }) {
  const names = ["schedule", "t", "s", "x_0", "x_t"], { T, beta_1, beta_T } = model.get("linear");
  const tables = { linear: schedule.linear(T, beta_1, beta_T), cosine: schedule.cosine(T) };
  const now = () => schedule.reverse(tables[model.get("schedule")], model.get("x_0"), model.get("x_t"), model.get("s"), model.get("t"));
  let gap = model.get("t") - model.get("s");  // which stays when t moves
  model.on("change:t", () => model.set("s", engine.clamp(model.get("t") - gap, 0, model.get("t") - 1)));
  model.on("change:s", () => {
    gap = Math.max(1, model.get("t") - model.get("s"));
    if (model.get("t") <= model.get("s")) model.set("t", model.get("s") + 1);
  });
  const shown = ([mean, variance]) => `mean ${mean.toFixed(2)}, standard deviation ${Math.sqrt(variance).toFixed(2)}`;

  const self = engine.figure({ model, el, from }, {
    names,
    draw: ({ ink }) => {
      const { prior, likelihood, posterior } = now();
      const xs = Array.from({ length: 301 }, (_, i) => LOW + ((HIGH - LOW) * i) / 300);
      const curves = [["likelihood, from xₜ", likelihood, ink.forward], ["prior, from x₀", prior, ink.data],
        ["posterior", posterior, ink.exact]];
      curves.forEach(([name, [mean, variance], color], i) => {
        if (variance > 0) engine.line(plot, xs, xs.map((x) => gaussian.density(mean, variance, x)), color, { fill: true });
        else engine.line(plot, [mean, mean], [0, TOP], color, { width: 4 - i, dash: i === 1 ? [6, 6] : [] });
        engine.text(plot, name, 12, 22 + 18 * i, color);
      });
      engine.axis(plot, "xₛ", ink);
    },
    words: () => {
      const { prior, posterior, weights } = now();
      if (model.get("s") === 0) return "s = 0: prior and posterior are one point, x₀; no observation can move it.";
      return `Prior: ${shown(prior)}. Posterior: ${shown(posterior)}; it weighs x₀ by ${weights[0].toFixed(3)} and ` +
        `xₜ by ${weights[1].toFixed(3)}.`;
    },
  });
  const plot = engine.plot(self, "Densities over xₛ: likelihood, prior and posterior", { x: [LOW, HIGH], y: [0, TOP], aspect: engine.wide(2, 1.3) });
  for (const [name, label, color] of [["x_0", "x₀", "data"], ["x_t", "xₜ", "forward"]])
    plot.handle(label, {
      at: () => [model.get(name), 0],
      move: (x) => model.set(name, engine.clamp(x, -2.5, 2.5)),
      say: () => model.get(name).toFixed(2),
      color,
    });
  engine.controls(self, names);
}
