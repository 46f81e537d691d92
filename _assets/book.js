// window.EQUATIONS, LABELS and MOVED are written by the build, in index.js.
// Hovering or focusing a reference to an equation shows the equation (window.EQUATIONS).
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
  const WIDE = ".math, .math mjx-container, .cell_output *, pre, .pst-scrollable-table-container";
  const contain = (within = document) => within.querySelectorAll(WIDE).forEach((box) => {
    if (box.scrollWidth > box.clientWidth && /auto|scroll/.test(getComputedStyle(box).overflowX)) box.tabIndex = 0;
  });
  window.addEventListener("load", () => {
    const typeset = window.MathJax && MathJax.startup && MathJax.startup.promise;
    (typeset || Promise.resolve()).then(() => contain());
  });
  window.addEventListener("resize", () => contain());
  document.addEventListener("toggle", (event) => contain(event.target), true);
});

// What is folded opens for a link into it, for a search hit and for print. What is not on this page may be on another.
document.addEventListener("DOMContentLoaded", () => {
  const open = (element) => {
    for (let fold = element; fold; fold = fold.parentElement) if (fold.matches("details")) fold.open = true;
  };
  const arrive = () => {
    const id = decodeURIComponent(location.hash.slice(1)), target = document.getElementById(id);
    if (target) {
      open(target.querySelector(":scope > .fold") || target);
      if (target.closest(".fold")) target.scrollIntoView();
    } else if (id) {
      const here = Object.keys(window.MOVED).find((old) => (location.pathname + location.hash).endsWith("/" + old));
      if (here) location.replace(window.MOVED[here]);
      else if (id in window.LABELS)
        location.replace(document.documentElement.dataset.content_root + window.LABELS[id] + ".html#" + id);
    }
  };
  arrive();
  window.addEventListener("hashchange", arrive);
  document.addEventListener("click", (event) => {
    if (event.target.closest('a[href*="#"]')) setTimeout(arrive);  // the hash may be the same as before
  });
  // Sphinx marks what was searched for 10 ms after the page is there, and fails at the words of a drawing.
  document.querySelectorAll("svg *").forEach((part) => part.classList.add("nohighlight"));
  setTimeout(() => document.querySelectorAll(".detour:has(.highlighted)").forEach(open), 20);
  const PRINTED = ".fold:not(.checks, [open])";
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(PRINTED)];
    opened.forEach((fold) => { fold.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((fold) => { fold.open = false; }));
});
