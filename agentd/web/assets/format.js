// Numbers as people read them. Unknown (null) is a dash, never a zero.

export const NONE = "–";

export function percent(ratio) {
  return ratio === null ? NONE : `${Math.round(ratio * 100)} %`;
}

export function count(value) {
  return value === null ? NONE : value.toLocaleString("en");
}

export function bytes(value) {
  if (value === null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${value >= 100 || at === 0 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

export function duration(seconds) {
  if (seconds === null) return NONE;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// Amounts have two decimals, small ones three digits.
export function money(amount, currency = "") {
  const size = Math.abs(amount);
  const small = size < 0.1 && size >= 5e-7;
  const text = amount.toFixed(small ? Math.min(6, 2 - Math.floor(Math.log10(size))) : 2);
  return currency ? `${text} ${currency}` : text;
}

export function budgetText(budget) {
  const when = { hour: "this hour", day: "today", month: "this month" }[budget.window] ?? budget.window;
  if (budget.left < 0) return `${money(-budget.left)} over the ${money(budget.amount)} for ${when}`;
  return `${money(budget.left)} of ${money(budget.amount)} left ${when}`;
}

// Ages are shown in whole seconds so that they do not flicker.
export function age(seconds) {
  if (seconds === null) return NONE;
  const whole = Math.floor(seconds);
  if (whole < 100) return `${whole} s`;
  return whole < 600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : duration(whole);
}

export function clock(wall) {
  const when = new Date(wall * 1000);
  const time = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const today = when.toDateString() === new Date().toDateString();
  return today ? time : `${when.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}

export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function plural(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
