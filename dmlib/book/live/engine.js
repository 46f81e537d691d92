// What every figure that computes in the page shares: a drawing, things to drag, controls, words, reset and link.

import * as halves from "./math/halves.js";

const INK = {
  light: { ground: "#ffffff", text: "#222222", gray: "#5e5e5e", faint: "#d9d9d9", data: "#0072b2", forward: "#c04f00",
    model: "#007f5c", exact: "#222222", wrong: "#a61192" },
  dark: { ground: "#1b1e23", text: "#eeeeee", gray: "#b4b4b4", faint: "#454a52", data: "#63b8f0", forward: "#ff9c5a",
    model: "#3fcf9f", exact: "#eeeeee", wrong: "#ee86dd" },
};

// A store of values by name, with the methods of an anywidget's model.
export function store(values) {
  const kept = { ...values }, heard = {};
  return {
    get: (name) => kept[name],
    set(name, value) {
      if (kept[name] === value) return;
      kept[name] = value;
      (heard["change:" + name] ?? []).forEach((hear) => hear());
      (heard.change ?? []).forEach((hear) => hear());
    },
    on: (event, hear) => (heard[event] ??= []).push(hear),
    save_changes() {},
  };
}

export const clamp = (x, low, high) => Math.min(high, Math.max(low, Number.isFinite(x) ? x : low));
// An aspect for wide screens, and another for phones.
export const wide = (aspect, narrow) => (width) => (width > 480 ? aspect : narrow);
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// A new element within another.
export function add(parent, tag, attributes = {}, text = "") {
  const node = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

// Dark where the ground under the figure is dark, whatever the host calls its theme.
function isDark(el) {
  for (let node = el; node; node = node.parentElement) {
    const [r, g, b, a = 1] = (getComputedStyle(node).backgroundColor.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    if (a > 0.5) return r + g + b < 384;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// A value that a control can have, as near to this one as there is.
function natural(spec, value) {
  if (spec.options) return spec.options.includes(value) ? value : spec.value;
  if (typeof spec.value === "boolean") return value === true;
  const number = clamp(Number(value), spec.min, spec.max);
  return spec.min + Math.round((number - spec.min) / spec.step) * spec.step;
}

// The frame of a figure in el. draw() is called, once a frame at most, when a value, the theme or the width changes;
// words() says the present values. The controls in `names`, and the values that `sane` cleans, make up the state that
// reset and link know: sane is {name: (value) -> a possible value near it}. `from` is the state in the address, if any.
export function figure({ model, el, from }, { draw, words, names, sane = {} }) {
  const root = add(el, "div", { class: "dm-figure" }), table = model.get("table");
  add(root, "style", {}, STYLE);
  const kept = [...names, ...Object.keys(sane)];
  const stage = add(root, "div", { class: "dm-stage" }), knobs = add(root, "div", { class: "dm-knobs" });
  const said = add(root, "p", { class: "dm-said", role: "status", "aria-live": "polite" });
  const foot = add(root, "div", { class: "dm-foot" });
  const first = Object.fromEntries(kept.map((name) => [name, structuredClone(model.get(name))]));
  const plots = [], self = { root, stage, knobs, foot, model, plots, ink: INK.light };
  let waiting = false, speaking = null;
  self.paint = () => {
    waiting = false;
    if (!root.isConnected) return;
    const dark = isDark(el.parentElement);
    self.ink = INK[dark ? "dark" : "light"];
    root.dataset.ink = dark ? "dark" : "light";
    plots.forEach((plot) => plot.clear());
    draw(self);
    plots.forEach((plot) => plot.place());
    clearTimeout(speaking);
    speaking = setTimeout(() => { said.textContent = words(self); }, 150);
  };
  self.refresh = () => {
    if (!waiting) requestAnimationFrame(self.paint);
    waiting = true;
  };
  self.state = () => Object.fromEntries(kept.map((name) => [name, model.get(name)]));
  self.restore = (state) => kept.forEach((name) => {
    if (name in state) model.set(name, table[name] ? natural(table[name], state[name]) : sane[name](structuredClone(state[name])));
  });
  button(self, "Reset", () => self.restore(first));
  if (model.get("link")) link(self);
  model.on("change", self.refresh);
  try {
    if (from) self.restore(JSON.parse(from));
  } catch {
    said.textContent = "The state in the address could not be read; this is the first state.";
  }
  new ResizeObserver(self.refresh).observe(stage);
  new MutationObserver(self.refresh).observe(document.documentElement, { attributes: true });
  new MutationObserver(self.refresh).observe(document.body, { attributes: true });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", self.refresh);
  self.refresh();
  return self;
}

export function button(self, name, click, parent = self.foot) {
  const node = add(parent, "button", { type: "button" }, name);
  node.addEventListener("click", () => click(node));
  return node;
}

// A button that copies the address of this page with the figure's state in it.
function link(self) {
  button(self, "Copy link", async (node) => {
    const url = new URL(location.href), name = self.model.get("link");
    url.searchParams.set(name, JSON.stringify(self.state()));
    url.hash = name;
    try {
      await navigator.clipboard.writeText(url.href);
      node.textContent = "Copied";
    } catch {
      history.replaceState(null, "", url.href);
      node.textContent = "In the address bar";
    }
    setTimeout(() => { node.textContent = "Copy link"; }, 2000);
  });
}

// A drawing of its own within the figure, `aspect` times as wide as high; its label is read out. x and y go from data
// to pixels by the ranges given, unx and uny back.
export function plot(self, label, { x = [0, 1], y = [0, 1], aspect = 2, parent = self.stage, pad = [8, 8, 22, 8] } = {}) {
  const box = add(parent, "div", { class: "dm-plot" }), handles = [];
  const canvas = add(box, "canvas", { role: "img", "aria-label": label }), ctx = canvas.getContext("2d");
  const [top, right, bottom, left] = pad, made = { box, canvas, ctx, range: { x, y } };
  const to = (value, [a, b], low, high) => low + ((value - a) / (b - a)) * (high - low);
  made.x = (value) => to(value, made.range.x, left, made.width - right);
  made.y = (value) => to(value, made.range.y, made.height - bottom, top);
  made.unx = (pixel) => to(pixel, [left, made.width - right], ...made.range.x);
  made.uny = (pixel) => to(pixel, [made.height - bottom, top], ...made.range.y);
  made.clear = () => {
    made.width = Math.max(120, box.clientWidth);
    made.height = Math.round(made.width / (typeof aspect === "function" ? aspect(made.width) : aspect));
    const dense = devicePixelRatio || 1, [w, h] = [made.width * dense, made.height * dense].map(Math.round);
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    canvas.style.height = made.height + "px";
    ctx.setTransform(dense, 0, 0, dense, 0, 0);
    ctx.clearRect(0, 0, made.width, made.height);
    Object.assign(ctx, { font: "13px system-ui, sans-serif", lineWidth: 1.5, lineJoin: "round", globalAlpha: 1 });
  };
  made.place = () => handles.forEach((handle) => handle());
  // Something to drag: at() is its place in data, move(x, y) is told where it is pulled, say() is its value in words;
  // arrow(dx, dy), in steps, takes the arrow keys where the place is no free point of the plane; with `jump`, a click on
  // the drawing pulls it there.
  made.handle = (name, { at, move, say, arrow, jump, color = "text", step = 0.02, shown = () => true, more = null }) => {
    const grip = add(box, "div", { class: "dm-grip", role: "slider", tabindex: 0, "aria-label": name });
    let off = [0, 0];  // from the pointer to the middle of the grip, so that it does not jump
    const pull = (event) => {
      const area = canvas.getBoundingClientRect();
      move(made.unx(event.clientX - area.left + off[0]), made.uny(event.clientY - area.top + off[1]));
    };
    if (jump) canvas.addEventListener("click", pull);
    grip.addEventListener("pointerdown", (event) => {
      const area = grip.getBoundingClientRect();
      off = [area.left + area.width / 2 - event.clientX, area.top + area.height / 2 - event.clientY];
      grip.setPointerCapture(event.pointerId);
      grip.focus({ preventScroll: true });
      event.preventDefault();
    });
    grip.addEventListener("lostpointercapture", () => { off = [0, 0]; });
    grip.addEventListener("pointermove", (event) => grip.hasPointerCapture(event.pointerId) && pull(event));
    grip.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
      if (way && arrow) arrow(...way.map((part) => part * (event.shiftKey ? 5 : 1)));
      else if (way) {
        const [px, py] = at(), size = step * (event.shiftKey ? 5 : 1), { x: rx, y: ry } = made.range;
        move(px + way[0] * size * (rx[1] - rx[0]), py + way[1] * size * (ry[1] - ry[0]));
      } else if (!more?.(event.key)) return;
      event.preventDefault();
    });
    handles.push(() => {
      grip.hidden = !shown();
      if (grip.hidden) return;
      const [px, py] = at();
      grip.style.left = made.x(px) + "px";
      grip.style.top = made.y(py) + "px";
      grip.style.setProperty("--grip", self.ink[color] ?? color);
      grip.setAttribute("aria-valuenow", px.toPrecision(3));
      grip.setAttribute("aria-valuetext", say());
    });
    return grip;
  };
  self.plots.push(made);
  return made;
}

// A line through points of data; with `fill`, down to y = 0 in a light shade.
export function line(plot, xs, ys, color, { width = 2, dash = [], fill = false, alpha = 1 } = {}) {
  const { ctx } = plot;
  ctx.save();
  Object.assign(ctx, { strokeStyle: color, fillStyle: color, lineWidth: width });
  ctx.setLineDash(dash);
  ctx.beginPath();
  for (let i = 0; i < xs.length; i++) ctx.lineTo(plot.x(xs[i]), plot.y(ys[i]));
  ctx.globalAlpha = alpha;
  ctx.stroke();
  if (fill) {
    ctx.lineTo(plot.x(xs[xs.length - 1]), plot.y(0));
    ctx.lineTo(plot.x(xs[0]), plot.y(0));
    ctx.globalAlpha = 0.15 * alpha;
    ctx.fill();
  }
  ctx.restore();
}

export function text(plot, words, px, py, color, align = "left") {
  Object.assign(plot.ctx, { fillStyle: color, textAlign: align });
  plot.ctx.fillText(words, px, py);
}

// A square picture in one color, of the opacities given, row after row.
export function tinted(opacities, color) {
  const side = Math.sqrt(opacities.length), image = new ImageData(side, side);
  opacities.forEach((opacity, i) => { image.data[4 * i + 3] = 255 * opacity; });
  const made = Object.assign(document.createElement("canvas"), { width: side, height: side }), pen = made.getContext("2d");
  pen.putImageData(image, 0, 0);
  Object.assign(pen, { globalCompositeOperation: "source-in", fillStyle: color }).fillRect(0, 0, side, side);
  return made;
}

// The horizontal axis at the bottom of a plot, with whole numbers and a name.
export function axis(plot, name, ink) {
  const { ctx, height, range: { x: [low, high] } } = plot, foot = height - 22, every = Math.max(1, Math.ceil((high - low) / 8));
  Object.assign(ctx, { strokeStyle: ink.gray, lineWidth: 1 });
  ctx.strokeRect(plot.x(low), foot, plot.x(high) - plot.x(low), 0);
  for (let value = Math.ceil(low / every) * every; value <= high; value += every) {
    ctx.strokeRect(plot.x(value), foot, 0, 4);
    text(plot, String(value), plot.x(value), height - 5, ink.gray, "center");
  }
  text(plot, name, plot.x(high), foot - 5, ink.gray, "right");
}

// The controls of the values named, as the module's table says: a range, a choice, or a switch.
export function controls(self, names, parent = self.knobs) {
  for (const name of names) {
    const spec = self.model.get("table")[name], box = add(parent, "label", { class: "dm-knob" });
    const show = (value) => (spec.digits === undefined ? String(value) : Number(value).toFixed(spec.digits));
    add(box, "span", {}, spec.label);
    if (spec.options) {
      const node = add(box, "select");
      spec.options.forEach((option) => add(node, "option", { value: option }, option));
      node.addEventListener("change", () => self.model.set(name, node.value));
      follow(self, name, (value) => { node.value = value; });
    } else if (typeof spec.value === "boolean") {
      const node = add(box, "input", { type: "checkbox" });
      node.addEventListener("change", () => self.model.set(name, node.checked));
      follow(self, name, (value) => { node.checked = value; });
    } else {
      const { min, max, step } = spec, node = add(box, "input", { type: "range", min, max, step });
      const out = add(box, "output");
      node.addEventListener("input", () => self.model.set(name, Number(node.value)));
      follow(self, name, (value) => {
        node.value = value;
        out.textContent = show(value);
        node.setAttribute("aria-valuetext", show(value));
      });
    }
  }
}

function follow(self, name, show) {
  show(self.model.get(name));
  self.model.on("change:" + name, () => show(self.model.get(name)));
}

// Calls frame(share of the way) until it is 1 or false is returned; at once at the end where motion is unwanted.
export function play(milliseconds, frame) {
  if (still()) return frame(1);
  const start = performance.now();
  const next = (now) => {
    const share = clamp((now - start) / milliseconds, 0, 1);  // a frame may have begun before the start
    if (frame(share) !== false && share < 1) requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
}

// Asks serve(setup), a function of one question, in a worker made of the text of the module, whose figure exports serve;
// where there can be no worker, the page answers, a question in a slice of time. Both is done in the order of asking.
export function background(module, serve, setup) {
  const waiting = [];
  let post;
  const here = () => {
    const answer = serve(setup);
    post = () => setTimeout(() => waiting[0].done(answer(waiting.shift().question)));
    waiting.forEach(post);
  };
  try {
    const text = `const { figure } = (${window.dmlibLive.modules[module]})(); let answer;
      onmessage = ({ data }) => { if (answer) postMessage(answer(data)); else answer = figure.serve(data); };`;
    const worker = new Worker("data:text/javascript," + encodeURIComponent(text));
    worker.onmessage = ({ data }) => waiting.shift().done(data);
    worker.onerror = () => {
      worker.terminate();
      here();
    };
    worker.postMessage(setup);
    post = () => worker.postMessage(waiting.at(-1).question);
  } catch {
    here();
  }
  return (question) => new Promise((done) => {
    waiting.push({ question, done });
    post();
  });
}

// Tensors by name, as Python packed them.
export const tensors = halves.tensors;
