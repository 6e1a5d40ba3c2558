// The host's figures, and the programs that people want to see beside them.

import { byId, make, makeBar, reconcile, setAttribute, setBar, setClass, setText } from "./dom.js";
import { budgetText, bytes, money, percent } from "./format.js";

// The cost of all pools is one more tile, where any is configured.
export function showHost(host, cost) {
  if (host === null) return;
  const root = byId("host");
  if (!root.dataset.filled) {
    root.replaceChildren();
    root.dataset.filled = "yes";
  }
  const shown = cost ? [...tiles(host), costTile(cost)] : tiles(host);
  const named = shown.map((tile, place) => ({ ...tile, key: `${place} ${tile.name}` }));
  reconcile(root, named, (tile) => tile.key, makeTile, fillTile);
}

function tiles(host) {
  const used = host.memory_total_bytes - host.memory_available_bytes;
  const cpu = host.cpu_used_cores / host.cores;
  const pressures = [
    ["memory", host.memory_pressure_percent],
    ["CPU", host.cpu_pressure_percent],
    ["I/O", host.io_pressure_percent],
  ].filter(([, value]) => value !== null);
  const short = host.memory_available_bytes < host.memory_reserve_bytes;
  const diskShort = host.disk_free_bytes < host.disk_reserve_bytes;
  return [
    {
      name: "CPU",
      value: percent(cpu),
      text: `${host.cpu_used_cores.toFixed(1)} of ${host.cores} cores, load average ${host.load_average.toFixed(1)}`,
      ratio: cpu,
      tone: cpu > 0.95 ? "bad" : cpu > 0.85 ? "warn" : "",
    },
    {
      name: "Memory",
      value: `${bytes(host.memory_available_bytes)} free`,
      text: `of ${bytes(host.memory_total_bytes)}; ${bytes(host.memory_reserve_bytes)} stay reserved`,
      ratio: used / host.memory_total_bytes,
      tone: short ? "bad" : host.memory_available_bytes < 1.25 * host.memory_reserve_bytes ? "warn" : "",
      marks: [{ at: 1 - host.memory_reserve_bytes / host.memory_total_bytes, label: "no scale-up past this mark" }],
    },
    {
      name: "Disk",
      value: `${bytes(host.disk_free_bytes)} free`,
      text:
        `${bytes(host.disk_reserve_bytes)} stay reserved; ` +
        `${bytes(host.disk_read_bytes_per_s)}/s read, ${bytes(host.disk_write_bytes_per_s)}/s written`,
      tone: diskShort ? "bad" : "",
    },
    {
      name: "Pressure",
      value: pressures.length ? `${Math.max(...pressures.map(([, value]) => value)).toFixed(1)} %` : "unknown",
      text: pressures.length
        ? pressures.map(([name, value]) => `${name} ${value.toFixed(1)} %`).join(", ")
        : "this kernel does not tell",
      tone: pressures.some(([, value]) => value > 40) ? "bad" : pressures.some(([, value]) => value > 10) ? "warn" : "",
    },
    ...host.watched.map((program) => ({
      name: program.name,
      value: program.running ? `${program.cpu_cores.toFixed(1)} cores` : "not running",
      text: program.running
        ? `watched; ${bytes(program.memory_bytes)}, ${program.pids} ${program.pids === 1 ? "process" : "processes"}`
        : "watched",
      tone: program.running ? "" : "warn",
    })),
  ];
}

function costTile(cost) {
  const over = cost.budgets.some((budget) => budget.left < 0);
  const close = cost.budgets.some((budget) => budget.left < 0.1 * budget.amount);
  const facts = [`${money(cost.day.amount)} today, ${money(cost.projected_month)} projected this month`];
  return {
    name: "Cost",
    value: `${money(cost.per_hour, cost.currency)} an hour`,
    text: [...facts, ...cost.budgets.map(budgetText)].join("; "),
    tone: over ? "bad" : close ? "warn" : "",
  };
}

function makeTile(tile) {
  const value = make("p", "value");
  const text = make("p", "quiet");
  const root = make("div", "tile", make("h3", "", tile.name), value);
  let bar = null;
  if (tile.ratio !== undefined) {
    bar = makeBar(tile.name);
    root.append(bar.root);
  }
  root.append(text);
  return { root, value, text, bar };
}

function fillTile(row, tile) {
  setText(row.value, tile.value);
  setClass(row.value, `value ${tile.tone}`);
  setText(row.text, tile.text);
  setAttribute(row.root, "data-tone", tile.tone);
  if (row.bar) setBar(row.bar, tile.ratio, { tone: tile.tone, text: `${tile.value}, ${tile.text}`, marks: tile.marks });
}
