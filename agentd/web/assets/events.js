// What has happened, newest first: a list that the server's event stream adds to.

import { byId, make, reconcile, setHidden, setText } from "./dom.js";
import { clock } from "./format.js";

const KEPT_MAX = 200;
const SHOWN_MAX = 100;
const RETRY_MS = 3000;
const SCALING = new Set(["scale_up", "scale_down", "replace"]);
const TONES = {
  scale_up: "good", scale_down: "good", ready: "good", recovered: "good", adopt: "good", resume: "good",
  rolling_done: "good", rolling_cancelled: "warn", rolling_stopped: "bad",
  replace: "warn", exit: "warn", restart: "warn", late: "warn", hold: "warn", drain: "warn",
  start_failed: "bad", crash_loop: "bad", stop_forced: "bad", vanished: "bad", port_conflict: "bad",
  config_rejected: "bad", store: "bad",
};
const SPOKEN = new Set([...SCALING, "crash_loop", "start_failed", "autoscaling", "vanished"]);

const records = new Map(); // by id
let source = null;
let retry = null;
let heard = 0; // the id of the newest that came over the stream: each is spoken once, also where `load` was quicker

export function watchEvents() {
  byId("scaling-only").addEventListener("change", () => load());
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}

function open() {
  if (source || document.hidden) return;
  clearTimeout(retry);
  source = new EventSource("/events/stream");
  source.onopen = () => {
    setText(byId("live"), "live");
    load(); // what happened before the stream began, or while it was down
  };
  source.onmessage = (message) => {
    const record = JSON.parse(message.data);
    if (record.id > heard && SPOKEN.has(record.type)) {
      setText(byId("spoken"), `${words(record.type)} ${record.instance || record.pool}: ${record.reason}`);
    }
    heard = Math.max(heard, record.id);
    add([record]);
  };
  source.addEventListener("reset", () => {
    heard = 0;
    load();
  });
  source.onerror = () => {
    setText(byId("live"), "reconnecting");
    // The browser reconnects by itself unless the server refused; then we try again.
    if (source.readyState === EventSource.CLOSED) {
      close();
      retry = setTimeout(open, RETRY_MS);
    }
  };
}

function close() {
  clearTimeout(retry);
  source?.close();
  source = null;
}

async function load() {
  const urls = [`/events?limit=${SHOWN_MAX}`];
  // The last scaling events may be older than the newest events of all kinds.
  if (byId("scaling-only").checked) urls.push(urls[0] + [...SCALING].map((type) => `&type=${type}`).join(""));
  for (const url of urls) {
    try {
      const response = await fetch(url);
      if (response.ok) add((await response.json()).events);
    } catch {
      return; // the connection is lost; the banner says so, and the stream loads again when it is back
    }
  }
}

function add(found) {
  for (const record of found) records.set(record.id, record);
  const scalingOnly = byId("scaling-only").checked;
  const newest = [...records.values()].sort((a, b) => b.id - a.id);
  for (const record of newest.filter((record) => !SCALING.has(record.type)).slice(KEPT_MAX)) records.delete(record.id);
  for (const record of newest.filter((record) => SCALING.has(record.type)).slice(KEPT_MAX)) records.delete(record.id);
  const shown = newest.filter((record) => !scalingOnly || SCALING.has(record.type)).slice(0, SHOWN_MAX);
  reconcile(byId("events"), shown, (record) => record.id, makeRow, () => {});
  setHidden(byId("events-empty"), shown.length > 0);
}

const words = (type) => type.replaceAll("_", " ");

function makeRow(record) {
  const time = make("time", "quiet", clock(record.wall));
  const when = new Date(record.wall * 1000);
  time.dateTime = when.toISOString();
  time.title = when.toLocaleString();
  const type = make("span", `badge tone-${TONES[record.type] ?? "plain"}`, words(record.type));
  const what = make("span", "id", record.instance || record.pool);
  const reason = make("span", "reason", record.reason);
  if (record.actor) reason.append(make("span", "quiet", ` by ${record.actor}`));
  const root = make("li", "", time, type, what, reason);
  root.dataset.id = record.id;
  return { root };
}
