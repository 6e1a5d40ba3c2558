// The page is built and changed through these. Text goes in as text only: what agents say is not trusted.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function make(tag, classes = "", ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  element.append(...children);
  return element;
}

export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// The setters touch the page only when something differs, so that nothing flickers and selections survive.
export function setText(element, text) {
  const value = String(text);
  if (element.textContent !== value) element.textContent = value;
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

export function setClass(element, classes) {
  if (element.className !== classes) element.className = classes;
}

export function setStyle(element, name, value) {
  if (element.style[name] !== value) element.style[name] = value;
}

const kept = new WeakMap();

// Brings the children of `parent` in line with `items`: a row lives as long as its key is among them.
// `create(item)` returns an object whose `root` is the element; `update(row, item)` fills it.
export function reconcile(parent, items, key, create, update) {
  const rows = kept.get(parent) ?? new Map();
  kept.set(parent, rows);
  const wanted = new Set(items.map(key));
  for (const [name, row] of rows) {
    if (!wanted.has(name)) {
      row.root.remove();
      rows.delete(name);
    }
  }
  let next = parent.firstElementChild;
  for (const item of items) {
    let row = rows.get(key(item));
    if (!row) {
      row = create(item);
      rows.set(key(item), row);
    }
    if (row.root === next) next = next.nextElementSibling;
    else parent.insertBefore(row.root, next);
    update(row, item);
  }
}

// A bar from 0 to 1 with marks on it. `marks` are {at, label}.
export function makeBar(label) {
  const fill = make("span", "fill");
  const root = make("div", "bar", fill);
  root.setAttribute("role", "meter");
  root.setAttribute("aria-label", label);
  root.setAttribute("aria-valuemin", "0");
  root.setAttribute("aria-valuemax", "100");
  return { root, fill, marks: [] };
}

export function setBar(bar, ratio, { tone = "", text = "", marks = [] } = {}) {
  const value = Math.min(1, Math.max(0, ratio ?? 0));
  setStyle(bar.fill, "width", `${(value * 100).toFixed(1)}%`);
  setClass(bar.fill, `fill ${tone}`);
  setAttribute(bar.root, "aria-valuenow", Math.round(value * 100));
  setAttribute(bar.root, "aria-valuetext", text);
  while (bar.marks.length < marks.length) {
    const mark = make("span", "mark");
    bar.marks.push(mark);
    bar.root.append(mark);
  }
  bar.marks.forEach((mark, at) => {
    setHidden(mark, !marks[at]);
    if (!marks[at]) return;
    setStyle(mark, "left", `${(marks[at].at * 100).toFixed(1)}%`);
    setAttribute(mark, "title", marks[at].label);
  });
}
