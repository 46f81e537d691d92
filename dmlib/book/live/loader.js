// Starts each figure that computes when it comes near: its module and its weights are scripts that are added then.
(() => {
  const page = (window.dmlibLive ??= { modules: {}, weights: {} }), root = document.documentElement.dataset.content_root;
  const run = (node) => new Promise((done, fail) => {
    const script = document.createElement("script");
    Object.assign(script, { onload: done, onerror: () => fail(new Error(`${script.src} could not be read`)) });
    if (node.dataset.src) script.src = root + node.dataset.src;
    else script.textContent = node.textContent;
    document.head.append(script);
    if (!node.dataset.src) done();
  });
  const start = async (box) => {
    for (const node of box.querySelectorAll("[data-late]"))
      if (!(node.dataset.key in page[node.dataset.late])) await run(node);
    const values = JSON.parse(box.querySelector(".dm-data").textContent);
    for (const [name, value] of Object.entries(values))
      if (value?.shapes) values[name] = { shapes: value.shapes, halves: page.weights[value.weights] };
    const link = root === undefined ? "" : (box.closest("[id]")?.id ?? "");
    const { engine, figure, table } = page.modules[box.dataset.module]();
    const first = Object.fromEntries(Object.entries(table).map(([name, { value }]) => [name, value]));
    const model = engine.store({ ...first, ...values, table, link });
    const el = document.createElement("div");
    box.querySelector(".dm-still").replaceWith(el);
    figure.render({ model, el, from: new URL(location.href).searchParams.get(link) });
  };
  const near = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
    if (!isIntersecting) return;
    near.unobserve(target);
    start(target).catch((error) => {
      target.dataset.failed = String(error);
      console.error(error);
    });
  }), { rootMargin: "600px" });
  document.querySelectorAll(".dm-live:not([data-ready])").forEach((box) => {
    box.dataset.ready = "1";
    near.observe(box);
  });
})();
