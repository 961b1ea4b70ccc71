// The index: instant search, filters, orders, cards as they come into view, and the map.
import { cell, decimals, read, select } from "./data.js";
import { LayerMap } from "./map.js";

const PAGE = 60; // cards that are added at a time
const find = (id) => document.getElementById(id);
const controls = ["search", "evidence", "order", "selectivity", "sparsity"];
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

function card(one) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.className = "card";
  link.href = `unit/${one.id}.html`;
  const name = document.createElement("span");
  name.className = "name";
  name.append(`${one.state !== "alive" ? "–" : one.passes ? "●" : "○"} ${one.name}`);
  const score = document.createElement("small");
  score.textContent = one.state === "alive" ? `r ${decimals(one.correlation)}` : one.state;
  name.append(score);
  const thumbs = document.createElement("span");
  thumbs.className = "thumbs";
  if (one.rows) thumbs.append(...one.top.map((label, place) => cell("", one, place, about.columns, label)));
  link.append(name, thumbs);
  const words = one.words.slice(0, 4).join(", ");
  const text = document.createElement("span");
  text.className = "text";
  text.textContent = words || (one.state === "alive" ? `selectivity ${decimals(one.selectivity)}, sparsity ${decimals(one.sparsity)}` : "");
  link.append(text);
  item.append(link);
  return item;
}

function more() {
  const next = found.slice(shown, shown + PAGE);
  find("cards").append(...next.map(card));
  shown += next.length;
}

function update() {
  if (!about) return;
  const asked = {
    words: find("search").value, evidence: find("evidence").value, order: find("order").value,
    selectivity: least("selectivity"), sparsity: least("sparsity"),
  };
  const start = performance.now();
  found = select(units, asked);
  document.body.dataset.searchMs = (performance.now() - start).toFixed(2);
  shown = 0;
  find("cards").replaceChildren();
  more();
  const reading = units.length < about.units ? ` (${units.length} of ${about.units} read)` : "";
  find("count").textContent = `${found.length} of ${about.units} units${reading}`;
  map.draw(units, new Set(found.map((one) => one.id)), about);
  remember();
}

function remember() {
  const state = new URLSearchParams();
  for (const id of controls) {
    const { value, defaultValue, options } = find(id);
    if (value && value !== (options ? options[0].value : defaultValue)) state.set(id, value);
  }
  if (!find("map-view").hidden) state.set("view", "map");
  const hash = state.toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname);
}

function view(isMap) {
  find("map-view").hidden = !isMap;
  find("cards").hidden = isMap;
  find("show-map").setAttribute("aria-pressed", String(isMap));
  find("show-list").setAttribute("aria-pressed", String(!isMap));
  if (isMap) map.resize();
  remember();
}

function start() {
  const said = new URLSearchParams(location.hash.slice(1));
  for (const id of controls) if (said.has(id)) find(id).value = said.get(id);
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
  if (said.get("view") === "map") view(true);
  read("", (what, all) => { about = what; units = all; update(); })
    .catch((error) => { find("count").textContent = `The units cannot be read: ${error.message}`; });
}

start();
