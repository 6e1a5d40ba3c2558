// The table of instances: rows live as long as their instance, cells change in place.

import { byId, make, makeBar, reconcile, setAttribute, setBar, setClass, setHidden, setText } from "./dom.js";
import { age, bytes, count, duration, NONE, percent } from "./format.js";

const NUMBERS = [
  ["Queue", (instance) => count(instance.queue_length)],
  ["In flight", (instance) => count(instance.in_flight)],
  ["Tasks", (instance) => count(instance.tasks_completed)],
  ["p95", (instance) => duration(instance.response_time_p95_s)],
  ["Last beat", (instance) => (instance.last_beat_age_s === null ? NONE : age(instance.last_beat_age_s))],
  ["Restarts", (instance) => count(instance.restarts)],
  ["Memory", (instance) => bytes(instance.memory_bytes)],
  ["PID", (instance) => instance.pid || NONE],
];

let shown = [];

export function showInstances(instances) {
  shown = instances;
  draw();
}

export function watchFilter() {
  byId("filter").addEventListener("input", draw);
}

function draw() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const matching = shown.filter((instance) => {
    const text = `${instance.id} ${instance.core_name} ${stateName(instance)} ${instance.cause}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  reconcile(byId("instances"), matching, (instance) => instance.id, makeRow, fillRow);
  const filtered = matching.length !== shown.length;
  setText(byId("instances-sum"), filtered ? `${matching.length} of ${shown.length}` : shown.length || "");
  setHidden(byId("instances-empty"), matching.length > 0);
  setText(byId("instances-empty"), filtered ? "No instance matches the filter." : "No instances.");
}

// "late" is no state of its own, but it is what a person looks for.
function stateName(instance) {
  return instance.missed_beats > 0 && instance.state === "ready" ? "late" : instance.state;
}

function makeRow(instance) {
  const cell = (label, classes = "") => {
    const td = make("td", classes);
    td.dataset.label = label;
    return td;
  };
  const name = make("th", "instance", make("span", "id", instance.id));
  name.scope = "row";
  const core = make("span", "quiet small");
  name.append(core);
  const badge = make("span", "badge");
  const state = cell("State");
  state.append(badge);
  const bar = makeBar(`Load of ${instance.id}`);
  const load = make("span", "load-text");
  const loadCell = cell("Load", "load-cell");
  loadCell.append(bar.root, load);
  const numbers = NUMBERS.map(([label]) => cell(label, "number"));
  const cause = cell("Cause", "cause");
  const root = make("tr", "", name, state, loadCell, ...numbers, cause);
  root.dataset.id = instance.id;
  return { root, name, core, badge, bar, load, numbers, cause };
}

function fillRow(row, instance) {
  const state = stateName(instance);
  setText(row.core, instance.core_name);
  setAttribute(row.name, "title", describe(instance));
  setText(row.badge, state);
  setClass(row.badge, `badge state-${state}`);
  setAttribute(row.badge, "title", `for ${age(instance.state_age_s)}`);
  setText(row.load, percent(instance.load));
  setHidden(row.bar.root, instance.load === null);
  setBar(row.bar, instance.load, { text: percent(instance.load) });
  NUMBERS.forEach(([, text], at) => setText(row.numbers[at], text(instance)));
  setText(row.cause, instance.cause);
  setClass(row.cause, instance.cause ? "cause" : "cause empty");
}

function describe(instance) {
  const labels = Object.entries(instance.labels).map(([name, value]) => `${name}=${value}`);
  return [`port ${instance.port}`, `incarnation ${instance.incarnation}`, `up ${age(instance.age_s)}`, ...labels].join("\n");
}
