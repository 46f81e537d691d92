// Hovering or focusing a reference to an equation shows the equation (window.EQUATIONS, written by the build).
document.addEventListener("DOMContentLoaded", () => {
  const card = document.createElement("div");
  card.className = "eq-card";
  card.setAttribute("role", "tooltip");
  card.id = "eq-card";
  card.hidden = true;
  document.body.append(card);
  const hide = () => { card.hidden = true; };
  const show = (link) => {
    const tex = (window.EQUATIONS || {})[decodeURIComponent(link.hash.slice(1))];
    if (!tex || !window.MathJax || !MathJax.typesetPromise) return;
    MathJax.typesetClear([card]);
    card.textContent = "\\[" + tex + "\\]";
    card.hidden = false;
    MathJax.typesetPromise([card]).then(() => {
      const at = link.getBoundingClientRect();
      const left = Math.min(at.left, document.documentElement.clientWidth - card.offsetWidth - 8);
      const above = at.top - card.offsetHeight - 6;
      card.style.left = Math.max(8, left) + window.scrollX + "px";
      card.style.top = (above > 0 ? above : at.bottom + 6) + window.scrollY + "px";
    });
  };
  document.querySelectorAll('a[href*="#equation-"]').forEach((link) => {
    if (link.closest(".eqno")) return;
    link.setAttribute("aria-describedby", "eq-card");
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("focus", () => show(link));
    link.addEventListener("mouseleave", hide);
    link.addEventListener("blur", hide);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  // What is wider than its column scrolls in its own box, by keyboard too.
  const WIDE = ".math, .math mjx-container, .cell_output *, pre";
  const contain = () => document.querySelectorAll(WIDE).forEach((box) => {
    if (box.scrollWidth > box.clientWidth && /auto|scroll/.test(getComputedStyle(box).overflowX)) box.tabIndex = 0;
  });
  window.addEventListener("load", () => {
    const typeset = window.MathJax && MathJax.startup && MathJax.startup.promise;
    (typeset || Promise.resolve()).then(contain);
  });
  window.addEventListener("resize", contain);
});
