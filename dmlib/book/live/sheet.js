// Images of 8 x 8 cells with levels from 0 to 16: shown, pointed at and drawn.

import * as engine from "./engine.js";
import * as pen from "./math/pen.js";

export const LEVELS = 17;
const SIDE = 8, CELLS = SIDE ** 2;
// A drawing is a text with a letter from 0 to g for each cell.
export const EMPTY = "0".repeat(CELLS);
export const sane = (text) => (String(text).replace(/[^0-9a-g]/g, "0") + EMPTY).slice(0, CELLS);
export const levels = (text) => Array.from(text, (letter) => parseInt(letter, LEVELS));
export const written = (image) => Array.from(image, (level) => level.toString(LEVELS)).join("");
// Levels from 0 to 16 as values from -1 to 1, as the networks have them.
export const values = (levels) => Array.from(levels, (level) => level / 8 - 1);
export const named = (i) => `row ${Math.floor(i / SIDE) + 1}, column ${(i % SIDE) + 1}`;
const middle = (i) => [(i % SIDE) + 0.5, Math.floor(i / SIDE) + 0.5];
const cell = (place) => place.map((v) => Math.floor(engine.clamp(v, 0, SIDE - 0.01))).reduce((x, y) => x + SIDE * y);

// A square picture of values from -1, black, to 1, white.
export function picture({ ctx }, values, left, top, size) {
  Object.assign(ctx, { imageSmoothingEnabled: false, fillStyle: "#000" });
  ctx.fillRect(left, top, size, size);
  const opacities = Array.from(values || [-1], (value) => (value + 1) / 2);
  ctx.drawImage(engine.tinted(opacities, "#fff"), left, top, size, size);
}

// A plot for such a picture, and the picture in it with its title.
export function plot(self, label, parent) {
  const aspect = (width) => width / (width + 20);
  return engine.plot(self, label, { x: [0, SIDE], y: [SIDE, 0], aspect, parent, pad: [22, 2, 2, 2] });
}
export function show(plot, values, title, ink, color = ink.text) {
  const { ctx } = plot, left = plot.x(0), top = plot.y(0), size = plot.x(SIDE) - left;
  engine.text(plot, title, left, 15, color);
  picture(plot, values, left, top, size);
  Object.assign(ctx, { strokeStyle: ink.gray, lineWidth: 0.5 });
  for (let i = 0; i < CELLS; i++) {
    const [x, y] = middle(i);
    ctx.strokeRect(plot.x(x - 0.5), plot.y(y - 0.5), size / SIDE, size / SIDE);
  }
}

// A plot with a frame around the cell of the value `name`, which the arrow keys move; `level` is said of it.
export function pick(self, label, name, parent, { level = () => "", more } = {}) {
  const { model } = self, made = plot(self, label, parent), at = () => middle(model.get(name));
  const say = () => named(model.get(name)) + level(model.get(name)), move = (...place) => model.set(name, cell(place));
  const arrow = (dx, dy) => move(at()[0] + dx, at()[1] - dy);
  made.handle(label, { at, move, arrow, say, color: "data", jump: true, more }).classList.add("dm-cell");
  return made;
}

// A plot to draw on, with the controls "pen" and "cell" and the value "drawing"; `touched` is called first.
export function pad(self, parent, touched = () => {}) {
  const { model } = self, image = () => levels(model.get("drawing"));
  let last;
  const paint = (a, b, erase = model.get("pen") === "erase") => {
    touched();
    model.set("drawing", written(pen.stroke(image(), a, b, LEVELS - 1, erase)));
    model.set("cell", cell(b));
  };
  const made = pick(self, "Pen on the drawing: Space paints, Delete erases", "cell", parent, {
    level: (i) => `, level ${image()[i]}`,
    more: (key) => {
      const known = [" ", "Delete"].includes(key), here = middle(model.get("cell"));
      if (known) paint(here, here, key === " " ? undefined : true);
      return known;
    },
  });
  const pull = (event) => {
    const area = made.canvas.getBoundingClientRect();
    const to = [made.unx(event.clientX - area.left), made.uny(event.clientY - area.top)];
    paint(event.type === "pointerdown" ? to : last, to);
    last = to;
  };
  Object.assign(made.box.style, { touchAction: "none", cursor: "crosshair" });
  made.box.addEventListener("pointerdown", (event) => {
    made.box.setPointerCapture(event.pointerId);
    pull(event);
  });
  made.box.addEventListener("pointermove", (event) => made.box.hasPointerCapture(event.pointerId) && pull(event));
  engine.button(self, "Clear the drawing", () => model.set("drawing", EMPTY));
  return made;
}
