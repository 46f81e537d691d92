"""What makes a figure of drawn frames move in a page without a kernel: its style and its script."""

from __future__ import annotations

# The frames are white, so the player is an opaque white card: its contrast is the same in light and dark.
STYLE = """
.dm-player { box-sizing: border-box; width: fit-content; max-width: 100%; margin: .5rem auto 1rem; padding: .75rem;
 color: #222; color-scheme: light; background: #fff; border: 1px solid #ccc; border-radius: .5rem; }
.dm-frames { overflow-x: auto; }
.dm-player img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.dm-player img[hidden] { display: none; }
.dm-controls { display: flex; gap: 1rem; align-items: center; margin-top: .5rem; }
.dm-axes { display: grid; flex: 1; grid-template-columns: auto minmax(4rem, 1fr) auto; gap: .4rem .75rem;
 align-items: center; }
.dm-axes label { display: contents; }
.dm-axes input { width: 100%; height: 24px; margin: 0; accent-color: #0072b2; }
.dm-axes output { min-width: 3.5em; padding: 0; text-align: right; font-variant-numeric: tabular-nums; }
.dm-player button { min-width: 4.5em; padding: .3rem .6rem; font: inherit; color: #222; background: #f2f2f2;
 border: 1px solid #767676; border-radius: .25rem; cursor: pointer; }
html[data-theme="dark"] .cell_output :is(.text_html:has(> .dm-player), .dm-player img) { padding: 0 !important;
 background: none !important; }
@media (max-width: 600px) { .dm-frames img { width: max(100%, .75 * var(--drawn)); max-width: none; } }
@media (prefers-reduced-motion: reduce) { .dm-player button { display: none; } }
@media print { .dm-player .dm-controls { display: none; } }
"""

SCRIPT = """
document.querySelectorAll(".dm-player:not([data-ready])").forEach((player) => {
  player.dataset.ready = "1";
  const images = [...player.querySelectorAll("img")], sliders = [...player.querySelectorAll("input")];
  const outputs = [...player.querySelectorAll("output")], button = player.querySelector("button");
  const ticks = sliders.map((slider) => JSON.parse(slider.dataset.ticks));
  let wanted = null;
  const show = () => {
    let frame = 0;
    sliders.forEach((slider, i) => {
      const value = ticks[i][slider.value];
      frame = frame * ticks[i].length + Number(slider.value);
      outputs[i].textContent = value;
      slider.setAttribute("aria-valuetext", value);
    });
    const image = images[frame];
    wanted = image;
    const turn = () => { if (image === wanted) images.forEach((other) => { other.hidden = other !== image; }); };
    if (image.complete || !image.hidden) return turn();
    image.loading = "eager";
    image.onload = image.onerror = turn;
  };
  const fetchAll = () => images.forEach((image) => { image.loading = "eager"; });
  ["pointerenter", "focusin", "touchstart"].forEach((touch) =>
    player.addEventListener(touch, fetchAll, { once: true, passive: true }));
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
    outputs.forEach((output) => output.setAttribute("aria-live", "polite"));
  };
  const step = () => {
    if (!player.isConnected) return stop();
    for (let i = sliders.length - 1; i >= 0; i--) {
      const next = (Number(sliders[i].value) + 1) % ticks[i].length;
      sliders[i].value = next;
      if (next > 0) break;
    }
    show();
  };
  const play = () => {
    outputs.forEach((output) => output.setAttribute("aria-live", "off"));
    button.textContent = "Pause";
    timer = setInterval(step, Number(player.dataset.interval));
  };
  sliders.forEach((slider) => {
    slider.addEventListener("input", () => { stop(); show(); });
    slider.addEventListener("pointerdown", stop);
    slider.addEventListener("keydown", (event) => { if (event.key !== "Tab") stop(); });
  });
  button.addEventListener("click", () => (timer === null ? play() : stop()));
  show();
});
"""
