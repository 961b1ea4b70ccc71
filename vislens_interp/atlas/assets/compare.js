// Units of this atlas beside the most alike units of another.
import { card, matcher, read, remember } from "./data.js";

const PAGE = 30; // pairs that are added at a time
const find = (id) => document.getElementById(id);
const controls = ["search", "order"];
const ORDERS = { alike: (a, b) => b.r - a.r || a.one - b.one, unit: (a, b) => a.one - b.one, unlike: (a, b) => a.r - b.r || a.one - b.one };
let pairs = [];
let found = [];
let shown = 0;
const sides = [{ root: "../" }, {}]; // root, about and units by their numbers

function row(pair) {
  const item = document.createElement("li");
  const alike = document.createElement("p");
  alike.className = "alike";
  alike.textContent = `r ${pair.r.toFixed(2).replace("-", "−")}`;
  const [one, other] = [pair.one, pair.other].map((id, side) => {
    const { root, units, about } = sides[side];
    const unit = units.get(id);
    if (unit) return card(root, unit, about);
    const bare = document.createElement("p");
    bare.textContent = `unit ${id}, which has no page`;
    return bare;
  });
  item.append(one, alike, other);
  return item;
}

function more() {
  const next = found.slice(shown, shown + PAGE);
  find("pairs").append(...next.map(row));
  shown += next.length;
}

function update() {
  const holds = matcher(find("search").value);
  const held = (pair) => [pair.one, pair.other].some((id, side) => { const unit = sides[side].units.get(id); return unit && holds(unit); });
  found = pairs.filter(held).sort(ORDERS[find("order").value]);
  shown = 0;
  find("pairs").replaceChildren();
  more();
  find("count").textContent = `${found.length} of ${pairs.length} units`;
  remember(controls);
}

async function side(place) {
  await read(sides[place].root, (about, units) => {
    Object.assign(sides[place], { about, units: new Map(units.map((one) => [one.id, one])) });
  });
}

async function start() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const id of controls) if (asked.has(id)) find(id).value = asked.get(id);
  const said = await (await fetch(`${encodeURIComponent(document.body.dataset.name)}.json`)).json();
  sides[1].root = `${said.other.split("/").map(encodeURIComponent).join("/")}/`;
  await Promise.all([side(0), side(1)]);
  if (sides[1].about.key !== said.key) throw new Error("the other folder holds another atlas now; run vislens atlas compare again");
  pairs = said.pairs.map(([one, other, r]) => ({ one, other, r }));
  for (const id of controls) find(id).addEventListener("input", update);
  find("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); find("search").focus(); }
    if (event.key === "i" && !typing) find("index").click();
    if (event.key === "Escape" && event.target.id === "search") { find("search").value = ""; update(); }
  });
  new IntersectionObserver((entries) => { if (entries.some((one) => one.isIntersecting) && shown < found.length) more(); },
    { rootMargin: "600px" }).observe(find("more"));
  update();
}

start().catch((error) => { find("count").textContent = `The units cannot be read: ${error.message}`; });
