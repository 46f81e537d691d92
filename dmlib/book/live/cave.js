// A cloud of objects, a light, and a shadow on the wall: what the shadow says about the object, and what it does not.

import * as engine from "./engine.js";
import * as gaussian from "./math/gaussian.js";
import * as light from "./math/light.js";

const HALF = [-4.9, 4.9], WALL = -3.4, LAMP = 4.3, TOP = 1.1;
const xs = Array.from({ length: 201 }, (_, i) => -4 + i / 25);

export function render({ model, el, from }) {
  const names = ["light", "shadow", "variance"];
  const [degrees, shadow, variance] = names.map((name) => () => model.get(name));
  const now = () => light.posterior((degrees() * Math.PI) / 180, shadow(), variance());
  const place = (along, deep) => now().u.map((part, k) => along * part + deep * now().h[k]);
  const beam = (a, b, color, width) =>
    engine.line(plane, ...[0, 1].map((k) => [place(...a)[k], place(...b)[k]]), color, { width });

  const self = engine.figure({ model, el, from }, {
    names,
    draw: ({ ink }) => {
      const found = now(), { u, h, mean, wall } = found;
      plane.ctx.fillStyle = ink.model;
      for (const [a, b] of model.get("cloud")) plane.ctx.fillRect(plane.x(a) - 1.5, plane.y(b) - 1.5, 3, 3);
      beam([-9, WALL], [9, WALL], ink.exact, 4);
      beam([shadow(), WALL], [shadow(), 9], ink.forward, 2);
      beam([0, LAMP], [0, LAMP - 0.8], ink.forward, 4);
      const axes = [u.map((part) => 2 * Math.sqrt(wall[1]) * part), h.map((part) => 2 * part)];
      engine.line(plane, ...gaussian.ellipse(mean, ...axes), ink.exact);
      sides.forEach(([side, plot]) => {
        const [m, v] = found[side], curve = (a, b) => xs.map((x) => gaussian.density(a, b, x));
        engine.line(plot, xs, curve(0, 1), ink.model, { width: 5, alpha: 0.8 });
        if (v > 0) engine.line(plot, xs, curve(m, v), ink.exact, { fill: true });
        else engine.line(plot, [m, m], [0, TOP], ink.exact);
        engine.text(plot, "prior", 10, 18, ink.model);
        engine.text(plot, "posterior", 10, 36, ink.exact);
        engine.text(plot, `along the ${side}`, plot.width - 10, 18, ink.gray, "right");
        engine.axis(plot, "", ink);
      });
    },
    words: () => {
      const [m, v] = now().wall;
      const sharp = v > 0 ? `, standard deviation ${Math.sqrt(v).toFixed(2)}` : " and no width, as there is no noise";
      return `Light at ${degrees()} degrees, shadow at ${shadow().toFixed(2)}. Along the wall the posterior has mean ` +
        `${m.toFixed(2)}${sharp}; along the light it is the prior: mean 0, standard deviation 1.`;
    },
  });
  const row = engine.add(self.stage, "div", { class: "dm-row dm-two" });
  const plane = engine.plot(self, "Objects, the light, the wall with the shadow, and the posterior as an ellipse", {
    x: HALF, y: HALF, aspect: 1, parent: row, pad: [0, 0, 0, 0],
  });
  const parent = engine.add(row, "div");
  const sides = ["wall", "light"].map((side) => [side, engine.plot(self, `Prior and posterior along the ${side}`, {
    x: [-4, 4], y: [0, TOP], parent,
  })]);
  const turn = (angle) => model.set("light", angle - 360 * Math.floor((angle + 180) / 360));
  const slide = (x) => model.set("shadow", engine.clamp(x, -3, 3));
  plane.handle("light", {
    at: () => place(0, LAMP),
    move: (x, y) => turn(Math.round((Math.atan2(y, x) * 180) / Math.PI) - 90),
    arrow: (dx, dy) => turn(degrees() + 2.5 * (dx + dy)),
    say: () => `${degrees()} degrees`,
    color: "forward",
  });
  plane.handle("shadow", {
    at: () => place(shadow(), WALL),
    move: (x, y) => slide(now().u[0] * x + now().u[1] * y),
    arrow: (dx, dy) => slide(shadow() + 0.1 * (dx + dy)),
    say: () => shadow().toFixed(2),
    color: "data",
  });
  engine.controls(self, names);
}
