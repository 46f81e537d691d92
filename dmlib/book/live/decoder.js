// A VAE with a plane of codes: a point and the digit it decodes to, a drawing and where the encoder puts it.

import * as engine from "./engine.js";
import * as gaussian from "./math/gaussian.js";
import * as random from "./math/random.js";
import * as vae from "./math/vae.js";
import * as sheet from "./sheet.js";

const HALF = 3.6, GRID = 48, { LEVELS, EMPTY } = sheet;
const along = (n) => Array.from({ length: n }, (_, i) => -HALF + (2 * HALF * (i + 0.5)) / n);
const two = (value) => value.toFixed(2), pair = (values) => Array.from(values, two).join(", ");

export function render({ model, el, from }) {
  const net = engine.tensors(model.get("net")), { mean: centers, var: spreads, labels } = model.get("codes");
  const digits = model.get("digits").map(sheet.written), noise = random.normals(0, 128);
  const image = () => sheet.levels(model.get("drawing"));
  const point = () => [model.get("z_1"), model.get("z_2")];
  const go = (z) => z.forEach((value, k) => model.set(`z_${k + 1}`, engine.clamp(value, -3.5, 3.5)));
  const prior = (xs, ys) => vae.aggregate([[0, 0]], [[1, 1]], xs, ys);
  const aggregate = (xs, ys) => vae.aggregate(centers, spreads, xs, ys);
  const at = (density) => density(...point().map((value) => [value]))[0][0].toFixed(3);
  const field = aggregate(along(GRID), along(GRID).reverse()).flat(), top = Math.max(...field);
  const shades = field.map((value) => (0.8 * value) / top);
  let bound;
  const take = () => model.set("drawing", digits[Math.min(model.get("test"), digits.length - 1)]);
  const weigh = () => {
    const blank = model.get("drawing") === EMPTY;
    bound = blank ? null : vae.elbo(net, image(), noise.slice(0, 2 * model.get("S")), LEVELS);
  };
  if (!model.get("drawing")) take();
  weigh();
  [["test", take], ["drawing", weigh], ["S", weigh]].forEach(([name, hear]) => model.on("change:" + name, hear));

  const self = engine.figure({ model, el, from }, {
    names: ["test", "S", "pen", "z_1", "z_2", "pixel", "cell"],
    sane: { drawing: sheet.sane },
    draw: ({ ink, root }) => {
      const rows = vae.decode(net, point(), LEVELS);
      codes(ink, root.dataset.ink === "dark" ? 72 : 32);
      densities(ink, point());
      sheet.show(digit, sheet.values(vae.means(rows)), "mean image at z", ink);
      sheet.show(pad, sheet.values(image()), bound ? "drawing" : "draw here", ink, ink.forward);
      bars(ink, rows[model.get("pixel")].map(Math.exp));
      terms(ink);
    },
    words: () => {
      const z = point(), i = model.get("pixel"), row = vae.decode(net, z, LEVELS)[i], most = Math.max(...row);
      const said = `At z = (${pair(z)}) the prior has density ${at(prior)}, the aggregate posterior ` +
        `${at(aggregate)}. Pixel in ${sheet.named(i)}: likeliest level ${row.indexOf(most)}, p = ${two(Math.exp(most))}. `;
      if (!bound) return said + "Nothing is drawn, so there is no bound: draw a digit, or take a test digit.";
      return said + `Code of the drawing: mean (${pair(bound.mean)}), standard deviations ` +
        `(${pair(bound.logVar.map(half))}); bound ${two(bound.bound)} nats, ${two(bound.bits)} bits per dimension.`;
    },
  });
  const half = (value) => Math.exp(value / 2);

  // The plane: density of the aggregate posterior, contours of the prior, test digits, and the code of the drawing.
  function codes(ink, lightness) {
    const ring = (center, [a, b], color, style) =>
      engine.line(plane, ...gaussian.ellipse(center, [a, 0], [0, b]), color, style);
    plane.ctx.drawImage(engine.tinted(shades, ink.data), 0, 0, plane.width, plane.height);
    for (const r of [1, 2, 3]) ring([0, 0], [r, r], ink.model, { width: 1.5, dash: [5, 4] });
    const color = (label) => `hsl(${36 * label} 75% ${lightness}%)`;
    centers.forEach(([a, b], i) =>
      engine.text(plane, labels[i], plane.x(a), plane.y(b) + 4, color(labels[i]), "center"));
    engine.text(plane, "prior p(z)", 8, 18, ink.model);
    engine.text(plane, "aggregate posterior q(z)", 8, 36, ink.data);
    if (!bound) return;
    engine.text(plane, "code of the drawing", 8, 54, ink.forward);
    for (const k of [1, 2]) ring(bound.mean, bound.logVar.map((value) => k * half(value)), ink.forward);
  }

  // Both densities along the horizontal through z.
  function densities(ink, [a, b]) {
    const xs = along(144);
    engine.line(strip, xs, prior(xs, [b])[0], ink.model, { dash: [5, 4] });
    engine.line(strip, xs, aggregate(xs, [b])[0], ink.data, { fill: true });
    engine.line(strip, [a, a], [0, 1.2 * top], ink.text, { width: 1 });
    engine.text(strip, `p(z) = ${at(prior)}`, 8, 18, ink.model);
    engine.text(strip, `q(z) = ${at(aggregate)}`, strip.width - 8, 18, ink.data, "right");
    engine.axis(strip, "z₁", ink);
  }

  // The distribution of the picked pixel; the level of the drawing stands out.
  function bars(ink, probabilities) {
    const high = Math.max(...probabilities) > 0.4 ? 1 : 0.4, level = bound ? image()[model.get("pixel")] : -1;
    table.range.y = [0, 1.3 * high];
    engine.line(table, [-0.5, 16.5], [high, high], ink.faint, { width: 1 });
    probabilities.forEach((p, v) =>
      engine.line(table, [v, v], [0, p], v === level ? ink.forward : ink.data, { width: table.width / 22 }));
    engine.text(table, `p(level), up to ${high}`, 8, 15, ink.text);
    if (bound) engine.text(table, "the drawing's level", table.width - 8, 15, ink.forward, "right");
    engine.axis(table, "", ink);
  }

  // The two terms of the bound as costs, one beside the other.
  function terms(ink) {
    if (!bound) return engine.text(costs, "Nothing is drawn: no bound.", 8, 15, ink.gray);
    const { reconstruction, divergence, bound: nats, bits } = bound, foot = costs.height - 6;
    costs.range.x = [0, Math.max(150, -nats)];
    engine.line(costs, [0, -reconstruction], [0.5, 0.5], ink.forward, { width: 20 });
    engine.line(costs, [-reconstruction, -nats], [0.5, 0.5], ink.text, { width: 20 });
    engine.text(costs, `bound ${two(nats)} nats = ${two(bits)} bits per dimension`, 8, 15, ink.text);
    engine.text(costs, `reconstruction ${two(reconstruction)}`, 8, foot, ink.forward);
    engine.text(costs, `minus KL ${two(divergence)}`, costs.width - 8, foot, ink.text, "right");
  }

  const columns = engine.add(self.stage, "div", { class: "dm-row dm-two" }), x = [-HALF, HALF];
  const [left, right] = [1, 2].map(() => engine.add(columns, "div"));
  const pictures = engine.add(right, "div", { class: "dm-row" });
  const plane = engine.plot(self, "The plane of codes", { x, y: x, aspect: 1, parent: left, pad: [0, 0, 0, 0] });
  const strip = engine.plot(self, "Densities along the horizontal through z", {
    x, y: [0, 1.2 * top], aspect: 3.2, parent: left, pad: [8, 0, 22, 0],
  });
  plane.handle("z", { at: point, move: (...to) => go(to), say: () => pair(point()), step: 0.01, jump: true });
  const digit = sheet.pick(self, "Pixel of the decoded digit", "pixel", pictures), pad = sheet.pad(self, pictures);
  const table = engine.plot(self, "Distribution of the picked pixel", { x: [-0.5, 16.5], aspect: 2.6, parent: right });
  const costs = engine.plot(self, "The bound of the drawing and its two terms", { aspect: 4.2, parent: right });
  engine.controls(self, ["test", "S", "pen"]);
  engine.button(self, "Move z to its code", () => bound && go(Array.from(bound.mean)));
}
