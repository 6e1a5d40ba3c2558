// Load and count of a pool over the last minutes, kept by this page from what it has polled.

import { makeSvg, setAttribute } from "./dom.js";
import { duration, percent } from "./format.js";

const WINDOW_S = 300;
const SPAN_MIN_S = 60; // a young page shows one minute, then ever more up to the window
const WIDTH = 300;
const HEIGHT = 44;
const GAP_S = 6; // a longer silence (a hidden tab, a lost connection) is drawn as a gap
const POINTS_MAX = 400;

export class Spark {
  constructor() {
    this.points = []; // {at, load, count}, oldest first
    this.span_s = SPAN_MIN_S;
    this.area = makeSvg("path", { class: "spark-area" });
    this.line = makeSvg("path", { class: "spark-line" });
    this.steps = makeSvg("path", { class: "spark-count" });
    this.marks = []; // lines across it, at loads that mean something
    const attributes = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "spark", role: "img" };
    this.root = makeSvg("svg", attributes, this.area, this.line, this.steps);
  }

  // `lines`: {at, label}, at these loads its triggers want another number.
  add(at, pool, lines) {
    this.points.push({ at, load: pool.load, count: pool.count });
    while (this.points.length > POINTS_MAX || this.points[0].at < at - WINDOW_S) this.points.shift();
    const minutes = Math.ceil((at - this.points[0].at) / SPAN_MIN_S);
    this.span_s = Math.max(SPAN_MIN_S, minutes * SPAN_MIN_S);
    const countMax = Math.max(1, pool.max, ...this.points.map((point) => point.count));
    const x = (point) => WIDTH - ((at - point.at) / this.span_s) * WIDTH;
    const y = (ratio) => 2 + (1 - ratio) * (HEIGHT - 4);
    this.#mark(lines.map((line) => y(line.at).toFixed(1)));
    const runs = this.#runs();
    setAttribute(this.line, "d", runs.map((run) => path(run, x, (point) => y(point.load))).join(""));
    setAttribute(this.area, "d", runs.map((run) => area(run, x, (point) => y(point.load))).join(""));
    setAttribute(this.steps, "d", stairs(this.points, x, (point) => y(point.count / countMax)));
    setAttribute(this.root, "aria-label", this.#label());
  }

  // Stretches without a missing load or a gap in time.
  #runs() {
    const runs = [];
    let last = null;
    for (const point of this.points) {
      if (point.load === null) {
        last = null;
        continue;
      }
      if (last === null || point.at - last.at > GAP_S) runs.push([]);
      runs[runs.length - 1].push(point);
      last = point;
    }
    return runs;
  }

  #mark(heights) {
    while (this.marks.length > heights.length) this.marks.pop().remove();
    while (this.marks.length < heights.length) {
      this.marks.push(makeSvg("line", { class: "spark-threshold", x1: 0, x2: WIDTH }));
      this.root.prepend(this.marks[this.marks.length - 1]);
    }
    heights.forEach((y, place) => {
      setAttribute(this.marks[place], "y1", y);
      setAttribute(this.marks[place], "y2", y);
    });
  }

  #label() {
    const loads = this.points.map((point) => point.load).filter((load) => load !== null);
    if (!loads.length) return `No load in the last ${duration(this.span_s)}`;
    const range = `${percent(Math.min(...loads))} to ${percent(Math.max(...loads))}`;
    return `Load in the last ${duration(this.span_s)}: ${range}, now ${percent(loads[loads.length - 1])}`;
  }
}

function path(points, x, y) {
  return points.map((point, at) => `${at ? "L" : "M"}${x(point).toFixed(1)} ${y(point).toFixed(1)}`).join("");
}

function area(points, x, y) {
  const first = x(points[0]).toFixed(1);
  const last = x(points[points.length - 1]).toFixed(1);
  return `${path(points, x, y)}L${last} ${HEIGHT}L${first} ${HEIGHT}Z`;
}

function stairs(points, x, y) {
  let text = "";
  let last = null;
  for (const point of points) {
    const here = `${x(point).toFixed(1)} ${y(point).toFixed(1)}`;
    if (last === null || point.at - last.at > GAP_S) text += `M${here}`;
    else text += `L${x(point).toFixed(1)} ${y(last).toFixed(1)}L${here}`;
    last = point;
  }
  return text;
}
