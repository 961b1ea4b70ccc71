// The index: instant search, filters, orders, cards as they come into view, and the map.
import { card, read, remember, select } from "./data.js";
import { LayerMap } from "./map.js";

const PAGE = 60; // cards that are added at a time
const find = (id) => document.getElementById(id);
const controls = ["search", "class", "evidence", "order", "selectivity", "sparsity"];
const asked = new URLSearchParams(location.hash.slice(1));
let units = [];
let about = null;
let found = [];
let shown = 0;

const map = new LayerMap(find("map"), find("map-label"), (one) => { location.href = `unit/${one.id}.html`; });

function range(name) {
  const values = units.map((one) => one[name]).filter((value) => value !== null);
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

function least(name) {
  const slider = find(name);
  const place = Number(slider.value);
  const [low, high] = range(name);
  const value = place === 0 || low > high ? null : low + ((high - low) * place) / 100;
  find(`${name}-value`).textContent = value === null ? "any" : value.toFixed(2);
  slider.setAttribute("aria-valuetext", value === null ? "any" : value.toFixed(2));
  return value;
}

function listed(link) {
  const item = document.createElement("li");
  item.append(link);
  return item;
}

// The classes that units have among their words, with the number of units; what the address asks for is kept.
function classes() {
  const counts = new Map();
  for (const one of units) for (const word of new Set(one.words)) counts.set(word, (counts.get(word) || 0) + 1);
  const box = find("class");
  const kept = box.value || asked.get("class") || "";
  const words = [...counts.keys()].sort((a, b) => a.localeCompare(b));
  if (kept && !counts.has(kept)) words.push(kept);
  box.replaceChildren(new Option("any", ""), ...words.map((word) => new Option(`${word} (${counts.get(word) || 0})`, word)));
  box.value = kept;
  box.disabled = !words.length;
}

function more() {
  const next = found.slice(shown, shown + PAGE);
  find("cards").append(...next.map((one) => listed(card("", one, about))));
  shown += next.length;
}

function update() {
  if (!about) return;
  const wanted = {
    words: find("search").value, kind: find("class").value, evidence: find("evidence").value, order: find("order").value,
    selectivity: least("selectivity"), sparsity: least("sparsity"),
  };
  const start = performance.now();
  found = select(units, wanted);
  document.body.dataset.searchMs = (performance.now() - start).toFixed(2);
  shown = 0;
  find("cards").replaceChildren();
  more();
  const reading = units.length < about.units ? ` (${units.length} of ${about.units} read)` : "";
  find("count").textContent = `${found.length} of ${about.units} units${reading}`;
  document.body.dataset.firstMs ??= performance.now().toFixed(0); // since the page was asked for
  map.draw(units, new Set(found.map((one) => one.id)), about);
  remember(controls, find("map-view").hidden ? {} : { view: "map" });
}

function view(isMap) {
  find("map-view").hidden = !isMap;
  find("cards").hidden = isMap;
  find("show-map").setAttribute("aria-pressed", String(isMap));
  find("show-list").setAttribute("aria-pressed", String(!isMap));
  if (isMap) map.resize();
  remember(controls, find("map-view").hidden ? {} : { view: "map" });
}

function start() {
  for (const id of controls) if (asked.has(id)) find(id).value = asked.get(id);
  for (const id of controls) find(id).addEventListener("input", update);
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  find("show-map").addEventListener("click", () => view(true));
  find("show-list").addEventListener("click", () => view(false));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); find("search").focus(); }
    if (event.key === "m" && !typing) view(find("map-view").hidden);
    if (event.key === "Escape" && event.target.id === "search") { find("search").value = ""; update(); }
  });
  new IntersectionObserver((entries) => { if (entries.some((one) => one.isIntersecting) && shown < found.length) more(); },
    { rootMargin: "600px" }).observe(find("more"));
  if (asked.get("view") === "map") view(true);
  read("", (what, all) => { about = what; units = all; classes(); update(); })
    .catch((error) => { find("count").textContent = `The units cannot be read: ${error.message}`; });
}

start();
