// One card for each pool: how many, how loaded, what would happen next and why not now.

import { byId, make, makeBar, reconcile, setAttribute, setBar, setHidden, setText } from "./dom.js";
import { age, budgetText, bytes, count, duration, money, percent, plural, sentence } from "./format.js";
import { Spark } from "./spark.js";

export function showPools(pools, at) {
  reconcile(byId("pools"), pools, (pool) => pool.name, makeCard, (card, pool) => fillCard(card, pool, at));
  setHidden(byId("pools-empty"), pools.length > 0);
  const total = pools.reduce((sum, pool) => sum + pool.count, 0);
  setText(byId("pools-sum"), pools.length ? `${plural(total, "instance")} in ${plural(pools.length, "pool")}` : "");
}

function makeCard(pool) {
  const part = (tag, classes) => make(tag, classes);
  const card = {
    number: part("span", "number-now"),
    bounds: part("span", "quiet"),
    badges: part("ul", "badges"),
    load: part("span", "load-now"),
    work: part("span", "quiet"),
    readings: part("p", "readings quiet"),
    forecast: part("p", "forecast quiet"),
    bar: makeBar(`Load of ${pool.name}`),
    spark: new Spark(),
    span: part("span"),
    next: part("p", "next"),
    limits: part("ul", "limits"),
    unless: part("p", "quiet"),
    small: part("p", "quiet small"),
  };
  const title = make("h3", "", pool.name);
  title.id = `pool-${pool.name}`;
  const legend = make("p", "legend quiet", "load", make("span", "key key-count"), "count", card.span);
  legend.prepend(make("span", "key key-load"));
  card.root = make(
    "article",
    "card",
    make("header", "", title, make("p", "numbers", card.number, card.bounds)),
    card.badges,
    make("div", "load-line", card.load, card.work),
    card.readings,
    card.bar.root,
    card.spark.root,
    legend,
    card.forecast,
    card.next,
    card.limits,
    card.unless,
    card.small,
  );
  card.root.dataset.pool = pool.name;
  card.root.setAttribute("aria-labelledby", title.id);
  return card;
}

function fillCard(card, pool, at) {
  setText(card.number, pool.count);
  setText(card.bounds, ` of ${pool.min}–${pool.max}` + (pool.capacity < pool.max ? `, room for ${pool.capacity}` : ""));
  reconcile(card.badges, badges(pool), (badge) => badge.name, makeBadge, fillBadge);
  const tone = loadTone(pool);
  const lines = loadLines(pool);
  setText(card.load, pool.load === null ? "no load yet" : `${percent(pool.load)} load`);
  setText(card.work, `${pool.queue_length} waiting, ${pool.in_flight} in flight`);
  setBar(card.bar, pool.load, {
    tone,
    text: pool.load === null ? "unknown" : percent(pool.load),
    marks: lines,
  });
  card.spark.add(at, pool, lines);
  setText(card.readings, pool.readings.map(readingText).join(" · "));
  setHidden(card.readings, !pool.readings.length);
  setText(card.forecast, pool.forecast ? forecastText(pool.forecast) : "");
  setHidden(card.forecast, !pool.forecast);
  setText(card.span, `, last ${duration(card.spark.span_s)}`);
  setText(card.next, nextSentence(pool.next));
  setAttribute(card.next, "data-move", pool.next.direction === "none" && pool.next.held ? "held" : pool.next.direction);
  const held = pool.next.held || pool.next.direction !== "none";
  const limits = held ? pool.next.limits.map((limit, place) => ({ ...limit, place })) : [];
  reconcile(card.limits, limits, (limit) => limit.place, makeLimit, fillLimit);
  setText(card.unless, sentence(pool.next.counterfactual));
  setHidden(card.unless, !pool.next.counterfactual);
  setText(card.small, smallPrint(pool));
}

// Whether one of its triggers looks at its thresholds.
function hasThresholds(pool) {
  return pool.policy.split(", ").includes("threshold");
}

// The loads at which its triggers want another number, for those that look at the load.
function loadLines(pool) {
  const lines = [];
  if (hasThresholds(pool)) {
    lines.push({ at: pool.scale_down_threshold, label: `shrinks below ${percent(pool.scale_down_threshold)}` });
    lines.push({ at: pool.scale_up_threshold, label: `grows above ${percent(pool.scale_up_threshold)}` });
  }
  for (const rule of pool.rules.filter((each) => each.type === "target")) {
    const parameters = Object.fromEntries(rule.parameters.map(({ name, value }) => [name, value]));
    const target = Number(parameters.target);
    if (parameters.signal === "load") lines.push({ at: target, label: `aims at ${percent(target)}` });
  }
  return lines;
}

// What a collector has read, and for how long nobody has been able to.
function readingText(reading) {
  if (reading.value === null) return `${reading.name}: ${reading.trouble || "not read yet"}`;
  const text = `${reading.name} ${count(reading.value)}`;
  if (!reading.stale && !reading.trouble) return text;
  return `${text}, ${age(reading.age_s)} old${reading.trouble ? `: ${reading.trouble}` : ""}`;
}

// How many tasks are expected how far ahead, and whether the pool grows for them, where it could; `agentctl forecast` has more.
function forecastText(forecast) {
  const far = (ahead_s) => (ahead_s < 3600 ? `${ahead_s / 60} min` : `${ahead_s / 3600} h`);
  const ahead = forecast.ahead.map((each) => `${Math.round(each.expected.middle)} in ${far(each.ahead_s)}`);
  const text = `Tasks expected: ${ahead.join(", ")}`;
  if (forecast.code === "forecast_unused") return text;
  return `${text}; ${forecast.heeded ? "heeded" : "not heeded"}: ${forecast.text}`;
}

function loadTone(pool) {
  if (pool.load === null) return "";
  if (!hasThresholds(pool)) return "good";
  if (pool.load > pool.scale_up_threshold) return "bad";
  return pool.load < pool.scale_down_threshold ? "idle" : "good";
}

export function nextSentence(next) {
  const { current, wanted, granted } = next;
  let what;
  if (granted !== current) {
    what = `Next: ${granted > current ? "grow" : "shrink"} from ${current} to ${granted}`;
    if (wanted !== granted) what += ` (wants ${wanted})`;
  } else {
    what = next.held ? `Next: wants ${wanted}, stays at ${current}` : `Next: stay at ${current}`;
  }
  const calm = next.held || granted !== current ? [] : next.limits; // an idle pool at its smallest
  const why = [...next.reasons, ...calm].map((link) => link.text).join("; ");
  return why ? `${what}. ${sentence(why)}` : what;
}

function badges(pool) {
  const known = [
    ["ready", pool.ready],
    ["starting", pool.starting],
    ["draining", pool.draining],
    ["late", pool.unhealthy],
    ["failed", pool.failed],
  ];
  return known.filter(([name, number]) => number > 0 || name === "ready").map(([name, number]) => ({ name, number }));
}

function makeBadge(badge) {
  const root = make("li", `badge state-${badge.name}`);
  return { root };
}

function fillBadge(row, badge) {
  setText(row.root, `${badge.number} ${badge.name}`);
}

// In a limit's text: for how long it still holds.
const TIME_LEFT = /\b(waits|next try in) [0-9]|[0-9] ?[smhd] left\b/;

function makeLimit() {
  const text = make("span");
  const wait = make("span", "wait");
  return { root: make("li", "", text, wait), text, wait };
}

function fillLimit(row, limit) {
  setText(row.text, limit.text);
  const told = limit.lifts_in_s === null || TIME_LEFT.test(limit.text);
  setText(row.wait, told ? "" : ` · ${age(limit.lifts_in_s)} left`);
}

function smallPrint(pool) {
  const parts = [];
  if (pool.rolling) parts.push(pool.rolling.text);
  if (pool.target) {
    const until = pool.target.expires_in_s === null ? "until changed" : `for ${age(pool.target.expires_in_s)} more`;
    parts.push(`${pool.target.owner} set ${pool.target.count} ${until}: ${pool.target.reason || "no reason given"}`);
  }
  parts.push(pool.policy);
  if (pool.core) parts.push(`${pool.core} core`);
  parts.push(`${bytes(pool.footprint_bytes)} each${pool.footprint_learned ? "" : " (assumed)"}`);
  if (pool.start_times.p50_s !== null) parts.push(`starts in ${duration(pool.start_times.p50_s)}`);
  if (pool.effect) parts.push(`last scaling: ${pool.effect.verdict.replaceAll("_", " ")}`);
  const room = pool.headroom.instances;
  if (room !== null) parts.push(room > 0 ? `host has room for ${room} more` : pool.headroom.text || "host has no room");
  if (pool.up_cooldown_s > 0) parts.push(`may grow in ${age(pool.up_cooldown_s)}`);
  if (pool.down_cooldown_s > 0) parts.push(`may shrink in ${age(pool.down_cooldown_s)}`);
  if (pool.cost) parts.push(`${money(pool.cost.per_hour, pool.cost.currency)} an hour`);
  const [scaling] = pool.cost?.scalings ?? [];
  if (scaling) {
    const does = scaling.per_hour < 0 ? "saves" : "costs";
    parts.push(`the last scaling ${does} ${money(Math.abs(scaling.per_hour), pool.cost.currency)} an hour`);
  }
  for (const budget of pool.cost?.budgets ?? []) parts.push(budgetText(budget));
  if (pool.bundled_agent) parts.push("runs the bundled sample agent");
  return parts.join(" · ");
}
