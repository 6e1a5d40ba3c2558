// The dashboard: polls the status while somebody looks, follows the events, and steers autoscaling.

import { byId, make, reconcile, setAttribute, setClass, setHidden, setText } from "./dom.js";
import { watchEvents } from "./events.js";
import { age, clock, plural } from "./format.js";
import { showHost } from "./host.js";
import { showInstances, watchFilter } from "./instances.js";
import { showPools } from "./pools.js";

const POLL_MS = 1500;
const POLL_TIMEOUT_MS = 5000;
const ANSWER_MS = 8000;

let timer = null;
let polling = false;
let lastSeen = null; // when the last status arrived, on the page's own clock
let answerTimer = null;

async function poll() {
  clearTimeout(timer);
  if (polling) return;
  polling = true;
  try {
    const response = await fetch("/status", { signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error?.message ?? `status ${response.status}`);
    lastSeen = performance.now();
    showConnected(true);
    show(body);
  } catch (failure) {
    showConnected(false, failure);
  } finally {
    polling = false;
    if (!document.hidden) timer = setTimeout(poll, POLL_MS);
  }
}

function show(status) {
  const mode = status.autoscaling;
  setText(
    byId("facts"),
    `${status.version} · ${status.driver} driver · up ${age(status.uptime_s)} · ${plural(status.scaling_events, "scaling event")}`,
  );
  const button = byId("autoscaling");
  button.disabled = byId("check").disabled = false;
  setAttribute(button, "aria-checked", mode.enabled);
  setText(byId("mode"), modeSentence(status));
  showNotices(status);
  showHost(status.host, status.cost);
  showPools(status.pools, performance.now() / 1000);
  showInstances(status.instances);
  setText(byId("footer"), [status.config_file || "no configuration file", status.state_dir, status.agents_address].join(" · "));
  setText(document.querySelector("title"), title(status));
}

function modeSentence(status) {
  const mode = status.autoscaling;
  const who = mode.since_wall ? `by ${mode.owner} since ${clock(mode.since_wall)}` : `by ${mode.owner}`;
  const check = mode.enabled && status.next_check_s !== null ? `, next check in ${age(status.next_check_s)}` : "";
  return `${mode.enabled ? "on" : "off"} ${who}${check}`;
}

function title(status) {
  const wrong = status.unhealthy_agents + status.pools.reduce((sum, pool) => sum + pool.failed, 0);
  return wrong ? `(${wrong}) agentd` : "agentd";
}

function showNotices(status) {
  const notices = [...new Set(status.degraded)].map((text) => ({ text, tone: "bad" }));
  if (!status.enabled) {
    notices.push({ text: "agentd starts and stops nothing: multi_agent.enabled is false", tone: "warn" });
  }
  if (!status.autoscaling.enabled && status.enabled) {
    notices.push({ text: "Autoscaling is off: nothing is added or removed; repair goes on.", tone: "warn" });
  }
  for (const pause of status.autoscaling.pauses) {
    notices.push({ text: `Scaling ${pause.direction} is paused by ${pause.owner}; repair goes on.`, tone: "warn" });
  }
  if (status.recovering_s > 0) {
    notices.push({ text: "agentd has just started: it listens for heartbeats before it replaces anything.", tone: "warn" });
  }
  if (status.unhealthy_agents > 0) {
    notices.push({ text: `${plural(status.unhealthy_agents, "instance is", "instances are")} late with heartbeats.`, tone: "warn" });
  }
  for (const advice of status.advice) {
    notices.push({ text: advice.pool ? `${advice.pool}: ${advice.text}` : advice.text, tone: "advice" });
  }
  reconcile(
    byId("notices"),
    notices,
    (notice) => notice.text,
    (notice) => ({ root: make("p", `banner ${notice.tone}`, notice.text) }),
    () => {},
  );
}

function showConnected(connected, failure = null) {
  const banner = byId("lost");
  document.body.classList.toggle("stale", !connected);
  if (!connected) {
    const since = lastSeen === null ? "" : ` What you see is ${age((performance.now() - lastSeen) / 1000)} old.`;
    setText(banner, `No connection to agentd (${failure.message}). Agents run on without it. Trying again.${since}`);
    byId("autoscaling").disabled = byId("check").disabled = true;
  }
  setHidden(banner, connected);
}

async function post(path) {
  const response = await fetch(path, { method: "POST" });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error?.message ?? `status ${response.status}`);
  return body;
}

function answer(text, tone) {
  const line = byId("answer");
  clearTimeout(answerTimer);
  setClass(line, `banner ${tone}`);
  setText(line, text);
  setHidden(line, false);
  answerTimer = setTimeout(() => setHidden(line, true), ANSWER_MS);
}

// Runs what a button asks for: one at a time, with its outcome told either way.
function act(button, work) {
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    try {
      answer(await work(), "good");
    } catch (failure) {
      answer(`That did not work: ${failure.message}`, "bad");
    } finally {
      button.removeAttribute("aria-busy");
      poll();
    }
  });
}

async function toggle() {
  const enable = byId("autoscaling").getAttribute("aria-checked") !== "true";
  const { enabled } = await post(enable ? "/autoscaler/enable" : "/autoscaler/disable");
  setAttribute(byId("autoscaling"), "aria-checked", enabled);
  return `Autoscaling is ${enabled ? "on" : "off"}.`;
}

async function check() {
  const { decisions } = await post("/autoscaler/check");
  const moved = decisions.filter((decision) => decision.granted !== decision.current);
  const held = decisions.filter((decision) => decision.held && decision.granted === decision.current);
  const moves = moved.map((decision) => `${decision.pool} ${decision.current} → ${decision.granted}`).join(", ");
  const parts = [moved.length ? moves : "no pool changes"];
  if (held.length) parts.push(`held back: ${held.map((decision) => decision.pool).join(", ")}`);
  return `Checked ${plural(decisions.length, "pool")}: ${parts.join("; ")}.`;
}

act(byId("autoscaling"), toggle);
act(byId("check"), check);
watchFilter();
watchEvents();
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
window.addEventListener("online", poll);
poll();
