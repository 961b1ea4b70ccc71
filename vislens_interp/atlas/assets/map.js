// The map of the layer: a canvas, a label under the pointer, arrow keys from unit to unit.
import { cell, decimals } from "./data.js";

const MARGIN = 22;

export class LayerMap {
  constructor(canvas, label, open) {
    Object.assign(this, { canvas, label, open, units: [], kept: new Set(), about: null, chosen: null });
    canvas.tabIndex = 0;
    canvas.addEventListener("pointermove", (event) => this.choose(this.near(event)));
    canvas.addEventListener("pointerleave", () => this.choose(null));
    canvas.addEventListener("click", (event) => { const one = this.near(event); if (one) open(one); });
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  draw(units, kept, about) {
    this.units = units.filter((one) => one.x !== null);
    Object.assign(this, { kept, about });
    this.paint();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return;
    this.scale = window.devicePixelRatio || 1;
    this.canvas.width = clientWidth * this.scale;
    this.canvas.height = clientHeight * this.scale;
    this.paint();
  }

  place(one) {
    const { clientWidth, clientHeight } = this.canvas;
    return [MARGIN + one.x * (clientWidth - 2 * MARGIN), MARGIN + (1 - one.y) * (clientHeight - 2 * MARGIN)];
  }

  paint() {
    if (!this.canvas.clientWidth || !this.scale) return;
    const style = getComputedStyle(document.documentElement);
    const [ink, soft, edge, mark] = ["--ink", "--soft", "--edge", "--mark"].map((name) => style.getPropertyValue(name));
    const context = this.canvas.getContext("2d");
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    context.clearRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    const radius = Math.max(2.5, Math.min(7, 90 / Math.sqrt(this.units.length + 1)));
    for (const one of this.units) {
      const [x, y] = this.place(one);
      context.beginPath();
      if (!this.kept.has(one.id)) {
        context.arc(x, y, 1.5, 0, 7);
        context.fillStyle = edge;
        context.fill();
      } else {
        context.arc(x, y, radius, 0, 7);
        context.lineWidth = 1.5;
        context.fillStyle = mark;
        context.strokeStyle = one.passes ? mark : soft;
        if (one.passes) context.fill();
        context.stroke();
      }
    }
    if (this.units.length <= 150) {
      context.fillStyle = soft;
      context.font = "11px system-ui, sans-serif";
      const kept = this.units.filter((one) => this.kept.has(one.id));
      const taken = kept.map((one) => { const [x, y] = this.place(one); return [x - radius, y - radius, x + radius, y + radius]; });
      for (const one of kept) {
        const [x, y] = this.place(one);
        const wide = context.measureText(one.name).width;
        for (const left of [x + radius + 3, x - radius - 3 - wide]) { // right of its dot, or left, or not at all
          const box = [left, y - 5, left + wide, y + 5];
          const free = left >= 0 && box[2] <= this.canvas.clientWidth
            && !taken.some((other) => other[0] < box[2] && box[0] < other[2] && other[1] < box[3] && box[1] < other[3]);
          if (!free) continue;
          context.fillText(one.name, left, y + 4);
          taken.push(box);
          break;
        }
      }
    }
    if (this.chosen) {
      const [x, y] = this.place(this.chosen);
      context.beginPath();
      context.arc(x, y, radius + 4, 0, 7);
      context.lineWidth = 2.5;
      context.strokeStyle = ink;
      context.stroke();
    }
  }

  near(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, least] = [null, 24];
    for (const one of this.units) {
      if (!this.kept.has(one.id)) continue;
      const [a, b] = this.place(one);
      const far = Math.hypot(a - x, b - y);
      if (far < least) [best, least] = [one, far];
    }
    return best;
  }

  choose(one) {
    if (one === this.chosen) return;
    this.chosen = one;
    this.label.hidden = !one;
    if (one) {
      const [x, y] = this.place(one);
      const thumbs = document.createElement("span");
      thumbs.className = "thumbs";
      if (one.rows) thumbs.append(...one.shown.map((name, place) => cell("", one, place, this.about.columns, name)));
      const words = one.words.length ? `, ${one.words.slice(0, 3).join(", ")}` : "";
      this.label.replaceChildren(`${one.passes ? "●" : "○"} ${one.name}: r ${decimals(one.correlation)}${words}`, thumbs);
      this.label.style.left = `${Math.min(x + 14, Math.max(0, this.canvas.clientWidth - 204))}px`;
      this.label.style.top = `${y + 14}px`;
    }
    this.paint();
  }

  key(event) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Enter" && this.chosen) return this.open(this.chosen);
    if (event.key === "Escape") return this.choose(null);
    const way = ways[event.key];
    if (!way) return undefined;
    event.preventDefault();
    const kept = this.units.filter((one) => this.kept.has(one.id));
    if (!this.chosen) return this.choose(kept[0] || null);
    const [x, y] = this.place(this.chosen);
    let [best, least] = [null, Infinity];
    for (const one of kept) {
      const [a, b] = this.place(one);
      const along = (a - x) * way[0] + (b - y) * way[1];
      const across = Math.abs((a - x) * way[1]) + Math.abs((b - y) * way[0]);
      if (one !== this.chosen && along > 0 && along >= across && along + 2 * across < least) [best, least] = [one, along + 2 * across];
    }
    return best && this.choose(best);
  }
}
