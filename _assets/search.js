// The search page: places that hold all words, the best first. window.PLACES is written by the build, in places.js.
const asked = (new URLSearchParams(location.search).get("q") || "").trim();
const plain = (text) => text.toLowerCase().normalize("NFD").replace(/[\u0300-\u036f]/g, "");
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const terms = plain(asked).split(/\s+/).filter(Boolean).map((word) => word.replace(/(?<=\w{3})s$/, ""));
const starts = terms.map((term) => new RegExp((/^\w/.test(term) ? "(?<!\\w)" : "") + escaped(term), "g"));
const phrase = plain(asked);

// How well a place fits: 0 unless it holds every word; words of a title count most, then the words as they were asked.
const fit = (title, text) => {
  const [head, body] = [plain(title), plain(text)];
  const found = starts.map((start) => 10 * (head.match(start) ? 1 : 0) + Math.min(5, (body.match(start) || []).length));
  if (found.includes(0)) return 0;
  const whole = (head.includes(phrase) ? 20 : 0) + (terms.length > 1 && body.includes(phrase) ? 10 : 0);
  return found.reduce((sum, n) => sum + n, whole);
};

const marked = (text) => {
  const parts = document.createElement("span");
  const either = new RegExp(terms.map((term) => (/^\w/.test(term) ? "(?<!\\w)" : "") + escaped(term)).join("|"), "gi");
  let at = 0;
  for (const match of text.matchAll(either)) {
    const mark = document.createElement("mark");
    mark.textContent = match[0];
    parts.append(text.slice(at, match.index), mark);
    at = match.index + match[0].length;
  }
  parts.append(text.slice(at));
  return parts;
};

// Whole words around the first match.
const excerpt = (text) => {
  const first = Math.max(0, Math.min(...starts.map((start) => plain(text).search(start)).filter((at) => at >= 0)) - 80);
  const from = first && Number.isFinite(first) ? text.indexOf(" ", first) + 1 : 0;
  const to = text.length > from + 240 ? text.lastIndexOf(" ", from + 240) : text.length;
  return (from ? "… " : "") + text.slice(from, to) + (to < text.length ? " …" : "");
};

const item = ({ page, pageTitle, anchor, title, text }) => {
  const li = document.createElement("li"), link = document.createElement("a"), where = document.createElement("div");
  link.href = `${page}.html?highlight=${encodeURIComponent(terms.join(" "))}#${anchor}`;
  link.append(marked(title));
  where.className = "where";
  where.textContent = title === pageTitle ? "" : pageTitle;
  const words = document.createElement("p");
  words.append(marked(excerpt(text)));
  li.append(link, where, words);
  return li;
};

const found = !terms.length ? [] : window.PLACES.flatMap(([page, pageTitle, weight, places]) =>
  places.map(([anchor, title, text]) => ({ page, pageTitle, anchor, title, text, score: weight * fit(title, text) })))
  .filter(({ score }) => score > 0).sort((a, b) => b.score - a.score);
const results = document.getElementById("search-results"), list = document.createElement("ol"), count = document.createElement("p");
count.setAttribute("role", "status");
count.textContent = asked && `${found.length || "No"} place${found.length === 1 ? "" : "s"} for “${asked}”`
  + (found.length > 50 ? ", the best 50:" : "");
list.append(...found.slice(0, 50).map(item));
results.append(count, list);
document.querySelectorAll(".bd-search-container form.bd-search input").forEach((input) => { input.value = asked; });
