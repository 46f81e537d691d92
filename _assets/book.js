// window.LABELS and MOVED are written by the build, in index.js, and window.EQUATIONS, as MathML, in equations.js.
// The words of a drawing are no place for the marks of a search, and to ask for their box would end the search.
document.querySelectorAll("svg :is(title, desc)").forEach((words) => words.classList.add("nohighlight"));
// Hovering or focusing a reference to an equation shows the equation; the pointer may enter what is shown.
document.addEventListener("DOMContentLoaded", () => {
  const card = document.createElement("div");
  card.className = "eq-card";
  card.setAttribute("role", "tooltip");
  card.id = "eq-card";
  card.hidden = true;
  document.body.append(card);
  let leaving = null, equations = null, tapped = null;
  const hide = () => { card.hidden = true; tapped = null; };
  const leave = () => { leaving = setTimeout(hide, 250); };
  const read = () => equations ??= new Promise((done) => {
    const script = document.createElement("script");
    script.src = document.documentElement.dataset.content_root + "_static/equations.js";
    script.onload = done;
    document.head.append(script);
  });
  const show = async (link) => {
    clearTimeout(leaving);
    await read();
    if (!link.matches(":hover, :focus")) return;
    card.innerHTML = window.EQUATIONS[decodeURIComponent(link.hash.slice(1))] || "";
    card.hidden = !card.innerHTML;
    const at = link.getBoundingClientRect();
    const left = Math.min(at.left, document.documentElement.clientWidth - card.offsetWidth - 8);
    const above = at.top - card.offsetHeight - 4;
    card.style.left = Math.max(8, left) + window.scrollX + "px";
    card.style.top = (above > 0 ? above : at.bottom + 4) + window.scrollY + "px";
  };
  document.querySelectorAll('a[href*="#equation-"]').forEach((link) => {
    if (link.closest(".eqno")) return;
    link.setAttribute("aria-describedby", "eq-card");
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("focus", () => show(link));
    link.addEventListener("mouseleave", leave);
    link.addEventListener("blur", hide);
    link.addEventListener("click", (event) => {  // A first touch shows the equation, a second one leads to it.
      if (event.pointerType !== "touch" || tapped === link) return;
      event.preventDefault();
      link.focus();
      tapped = link;
    });
  });
  card.addEventListener("mouseenter", () => clearTimeout(leaving));
  card.addEventListener("mouseleave", leave);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  // Formulas are copied as TeX.
  document.addEventListener("copy", (event) => {
    const selected = getSelection();
    if (selected.isCollapsed) return;
    const range = selected.getRangeAt(0);
    const formula = (node) => (node.closest ? node : node.parentElement).closest("math");
    const [first, last] = [formula(range.startContainer), formula(range.endContainer)];
    if (first) range.setStartBefore(first);
    if (last) range.setEndAfter(last);
    const part = range.cloneContents();
    if (!part.querySelector("math")) return;
    part.querySelectorAll("math").forEach((math) => {
      const mark = math.getAttribute("display") === "block" ? "$$" : "$";
      math.replaceWith(mark + math.dataset.tex + mark);
    });
    event.clipboardData.setData("text/plain", part.textContent);
    event.preventDefault();
  });
  // What is wider than its column scrolls in its own box, by keyboard too, and fades where more of it lies.
  const WIDE = "div.math > .formula, .cell_output > .output, .drawing, .dm-frames, .dm-map, pre, .pst-scrollable-table-container";
  const fade = (box) => {
    const rest = box.scrollWidth - box.clientWidth;
    box.classList.toggle("more-before", box.scrollLeft > 2);
    box.classList.toggle("more-behind", box.scrollLeft < rest - 2);
  };
  // Read when a box has been laid out, so that no fold is laid out to be asked.
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target: box }) => {
    if (box.scrollWidth <= box.clientWidth || !/auto|scroll/.test(getComputedStyle(box).overflowX)) return;
    if (box.tabIndex < 0) box.addEventListener("scroll", () => fade(box), { passive: true });
    box.tabIndex = 0;
    fade(box);
  }));
  document.querySelectorAll(WIDE).forEach((box) => sizes.observe(box));
  // The section in sight is marked in the contents.
  const links = new Map([...document.querySelectorAll(".bd-toc-nav a")].map((a) => [a.hash.slice(1), a]));
  const shown = new Set();
  const spy = new IntersectionObserver((entries) => {
    entries.forEach(({ target, isIntersecting }) => shown[isIntersecting ? "add" : "delete"](target.id));
    const here = [...links.keys()].filter((id) => shown.has(id)).pop();
    links.forEach((link, id) => [link, link.parentElement].forEach((e) => e.classList.toggle("active", id === here)));
  }, { rootMargin: "-70px 0px -70%" });
  links.forEach((link, id) => id && spy.observe(document.getElementById(id)));
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
  // Sphinx marks what was searched for 10 ms after the page is there, and fails at the words of a drawing or a formula.
  if (/[?&]highlight=/.test(performance.getEntriesByType("navigation")[0].name))  // it has left the address already
    document.querySelectorAll("svg *, math *").forEach((part) => part.classList.add("nohighlight"));
  setTimeout(() => document.querySelectorAll(".detour:has(.highlighted)").forEach(open), 20);
  const PRINTED = ".fold:not(.checks, [open])";
  let opened = [];
  let theme = "";
  window.addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    opened = [...document.querySelectorAll(PRINTED)];
    opened.forEach((fold) => { fold.open = true; });
  });
  window.addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = theme;
    opened.forEach((fold) => { fold.open = false; });
  });
});
