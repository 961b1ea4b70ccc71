// Units of the atlas as the index reads them: files of a thousand, each an array in the order below.
const STATES = ["alive", "dead", "constant", "not finite"];

export function unit(entry) {
  const [id, name, state, passes, correlation, q, sparsity, selectivity, x, y, twin, words, top, rows, line = 0, shown = top] = entry;
  const label = name || String(id);
  return {
    id, name: label, state: STATES[state], passes: passes === 1, correlation, q, sparsity, selectivity, x, y, twin,
    words, rows, line, shown, text: [id, label, ...words, ...top].join(" ").toLowerCase(),
  };
}

// Calls back with all units so far, in the order of the table, as each file comes in.
export async function read(root, callback) {
  const about = await (await fetch(`${root}site/index.json`)).json();
  const parts = about.parts.map(() => []);
  await Promise.all(about.parts.map(async (name, place) => {
    const entries = await (await fetch(`${root}site/${name}`)).json();
    parts[place] = entries.map(unit);
    callback(about, parts.flat());
  }));
}

const GROUPS = {
  all: () => true,
  good: (one) => one.passes,
  weak: (one) => one.state === "alive" && !one.passes,
  silent: (one) => one.state !== "alive",
  twin: (one) => one.twin >= 0,
};

// Whether a unit has a number, or holds all words.
export function matcher(words) {
  const asked = words.toLowerCase().split(/\s+/).filter(Boolean);
  const number = asked.length === 1 && /^\d+$/.test(asked[0]) ? Number(asked[0]) : null;
  return (one) => (number === null ? asked.every((word) => one.text.includes(word)) : one.id === number);
}

// Units that match, in order; those without a number come last.
export function select(units, { words, kind, evidence, selectivity, sparsity, order }) {
  const holds = matcher(words);
  const found = units.filter((one) =>
    GROUPS[evidence](one)
    && (!kind || one.words.includes(kind))
    && (selectivity === null || one.selectivity >= selectivity)
    && (sparsity === null || one.sparsity >= sparsity)
    && holds(one));
  if (order === "unit") return found.sort((a, b) => a.id - b.id);
  const value = (one) => (one[order] === null ? -Infinity : one[order]);
  return found.sort((a, b) => value(b) - value(a) || a.id - b.id);
}

// One picture of a unit's card, of the line of its sheet that the card shows, as the background of an element.
export function cell(root, one, place, columns, label) {
  const made = document.createElement("div");
  made.className = "cell";
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", label);
  made.style.backgroundImage = `url("${root}sheets/${one.id}.webp")`;
  made.style.backgroundSize = `${100 * columns}% ${100 * one.rows}%`;
  const [x, y] = [[place, columns], [one.line, one.rows]].map(([at, count]) => (count > 1 ? (100 * at) / (count - 1) : 0));
  made.style.backgroundPosition = `${x}% ${y}%`;
  return made;
}

export const decimals = (value) => (value === null ? "–" : value.toFixed(2).replace("-", "−"));

// A unit as a link to its page: evidence, number, prototypes or top images, and words.
export function card(root, one, about) {
  const link = document.createElement("a");
  link.className = "card";
  link.href = `${root}unit/${one.id}.html`;
  const name = document.createElement("span");
  name.className = "name";
  name.append(`${one.state !== "alive" ? "–" : one.passes ? "●" : "○"} ${one.name}`);
  const score = document.createElement("small");
  score.textContent = one.state === "alive" ? `r ${decimals(one.correlation)}` : one.state;
  name.append(score);
  const thumbs = document.createElement("span");
  thumbs.className = "thumbs";
  if (one.rows) thumbs.append(...one.shown.map((label, place) => cell(root, one, place, about.columns, label)));
  const text = document.createElement("span");
  text.className = "text";
  const words = one.words.slice(0, 4).join(", ");
  text.textContent = words || (one.state === "alive" ? `selectivity ${decimals(one.selectivity)}, sparsity ${decimals(one.sparsity)}` : "");
  link.append(name, thumbs, text);
  return link;
}

// Keeps the controls that are not as they were at first in the page's address.
export function remember(controls, more = {}) {
  const state = new URLSearchParams();
  for (const id of controls) {
    const { value, defaultValue, options } = document.getElementById(id);
    if (value && value !== (options ? options[0].value : defaultValue)) state.set(id, value);
  }
  for (const [name, value] of Object.entries(more)) state.set(name, value);
  const hash = state.toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname);
}
