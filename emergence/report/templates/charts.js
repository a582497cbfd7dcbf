"use strict";
/* Drawing: elements, colours, heat maps, line charts. Text only ever enters through textContent. */

const NS = "http://www.w3.org/2000/svg";
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 2", "10 4"];

function add(parent, ...children) {
  for (const child of children.flat(Infinity)) if (child != null) parent.append(child);
  return parent;
}
function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return add(node, children);
}
function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return add(node, children);
}
function label(x, y, text, attributes = {}) {
  return svg("text", { x, y, ...attributes }, String(text));
}
function clear(id) {
  const node = document.getElementById(id);
  node.replaceChildren();
  return node;
}
function colour(share) {
  const at = Math.max(0, Math.min(1, share)) * (VIRIDIS.length - 1), i = Math.min(VIRIDIS.length - 2, Math.floor(at));
  const channel = (stop, k) => parseInt(VIRIDIS[stop].slice(1 + 2 * k, 3 + 2 * k), 16);
  return `rgb(${[0, 1, 2].map((k) => Math.round(channel(i, k) + (at - i) * (channel(i + 1, k) - channel(i, k)))).join(",")})`;
}
/* Black or white, whichever reads better on `colour(share)`: at least 4.5 to 1 either way. */
function ink(share) {
  const [r, g, b] = colour(share).match(/\d+/g).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}
/* Multiples of 1, 2 or 5 times a power of ten that cover `from` to `to` in about `count` parts. */
function roundTicks(from, to, count = 5, least = 0) {
  const raw = Math.max((to - from) / count, least, Number.MIN_VALUE), power = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max(least, power * [1, 2, 5, 10].find((f) => f * power >= raw * 0.999));
  const first = Math.floor(from / step + 1e-6), last = Math.ceil(to / step - 1e-6);
  return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
}
const stepTicks = (far) => roundTicks(0, far, 5, 1).filter((v) => v <= far);
function percent(value) {
  if (value == null) return "–";
  const p = 100 * value;
  return p > 0 && p < 0.05 ? "< 0.1 %" : `${p.toFixed(1).replace(/^-0\.0$/, "0.0")} %`;
}
function visible(text) {
  return Array.from(text, (c) => c === " " ? "␣" : c === "\n" ? "⏎" : c === "\t" ? "⇥"
    : /[\p{C}\p{Z}]/u.test(c) ? `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩` : c).join("");
}

const tip = html("div", { id: "tip", "aria-hidden": "true", hidden: "" });
function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18}px`;
}
function hideTip() { tip.hidden = true; }

/* values[step][layer]; layer 0 at the bottom; the first column (the base model) stands apart. */
function heatmap({ values, steps, top, cut, name, unit, describe, say, pick, chosen }) {
  const layers = values[0].length, left = 26, gap = 5, bottom = 28, width = 300;
  const high = Math.max(3, Math.min(12, 230 / layers)), wide = (width - left - gap) / steps.length, height = layers * high;
  const x = (s) => left + s * wide + (s > 0 ? gap : 0), y = (l) => (layers - 1 - l) * high;
  const root = svg("svg", { class: "chart heat", viewBox: `0 -1 ${width + 1} ${height + bottom + 1}`, tabindex: 0, role: "application",
    "aria-roledescription": "heat map", "aria-label": `${name}. Arrow keys move, Enter selects.` });
  for (let s = 0; s < steps.length; s++) for (let l = 0; l < layers; l++) {
    const v = values[s][l];
    add(root, svg("rect", { x: x(s).toFixed(1), y: y(l).toFixed(1), width: (wide + 0.05).toFixed(2), height: (high + 0.05).toFixed(2), "shape-rendering": "crispEdges", fill: v == null ? "none" : colour(v / top) }));
  }
  const over = (s, l) => cut != null && s >= 0 && s < steps.length && l >= 0 && l < layers && values[s][l] != null && values[s][l] >= cut;
  let path = "";
  for (let s = 0; s < steps.length; s++) for (let l = 0; l < layers; l++) if (over(s, l)) {
    const [x0, y0, x1, y1] = [x(s), y(l), x(s) + wide, y(l) + high];
    if (!over(s, l + 1)) path += `M${x0} ${y0}H${x1}`;
    if (!over(s, l - 1)) path += `M${x0} ${y1}H${x1}`;
    if (!over(s - 1, l) || s === 1) path += `M${x0} ${y0}V${y1}`;
    if (!over(s + 1, l) || s === 0) path += `M${x1} ${y0}V${y1}`;
  }
  if (path) add(root, svg("path", { class: "edge", d: path }));
  const every = Math.max(1, Math.ceil(layers / 6));
  for (let l = 0; l < layers; l++) if (l % every === 0 || l === layers - 1 && l % every > every / 2) add(root, label(left - 4, y(l) + high / 2 + 3.5, `L${l}`, { "text-anchor": "end" }));
  const skip = Math.ceil(24 / wide);
  steps.forEach((step, s) => { if (s % skip === 0) add(root, label(x(s) + wide / 2, height + 12, s === 0 ? "base" : step, { "text-anchor": "middle" })); });
  add(root, label((left + width) / 2, height + 25, "step", { "text-anchor": "middle" }));
  root.rows = () => [["step", "layer", unit], ...steps.flatMap((step, s) => values[s].map((v, l) => [step, l, v]))];
  const frame = (kind, s, l) => svg("rect", { class: kind, x: x(s), y: y(l), width: wide, height: high });
  const mark = steps.indexOf(chosen.step);
  if (mark >= 0 && chosen.layer < layers) add(root, frame("chosen under", mark, chosen.layer), frame("chosen", mark, chosen.layer));
  let at = [mark < 0 ? steps.length - 1 : mark, Math.min(chosen.layer, layers - 1)];
  const cursor = svg("g");
  add(root, cursor);
  const move = (s, l) => {
    at = [Math.max(0, Math.min(steps.length - 1, s)), Math.max(0, Math.min(layers - 1, l))];
    cursor.replaceChildren(frame("cursor", ...at), frame("inner", ...at));
    return describe(...at);
  };
  const find = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
    const s = point.x < left + wide + gap / 2 ? 0 : Math.floor((point.x - left - gap) / wide), l = layers - 1 - Math.floor(point.y / high);
    return point.x < left || l < 0 || l >= layers || s >= steps.length ? null : [s, l];
  };
  root.addEventListener("pointermove", (event) => { const cell = find(event); if (cell) showTip(event, move(...cell)); else hideTip(); });
  root.addEventListener("pointerleave", () => { hideTip(); if (document.activeElement !== root) cursor.replaceChildren(); });
  root.addEventListener("click", (event) => { const cell = find(event); if (cell) pick(steps[cell[0]], cell[1]); });
  root.addEventListener("focus", () => say(move(...at)));
  root.addEventListener("blur", () => cursor.replaceChildren());
  root.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (by) { event.preventDefault(); say(move(at[0] + by[0], at[1] + by[1])); }
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(steps[at[0]], at[1]); }
  });
  return root;
}

/* series: {name, x, y, low, high, index, base}; one x value a point. */
function lines({ series, from, to, top, bottom = 0, cut, band, name, xName, ticks, mark, format = percent, say }) {
  const levels = roundTicks(bottom, top);
  bottom = levels[0]; top = levels[levels.length - 1];
  const width = 320, height = 190, left = 40, right = 14, above = 8, below = 26;
  const X = (v) => left + (width - left - right) * (v - from) / ((to - from) || 1);
  const Y = (v) => height - below - (height - below - above) * (v - bottom) / ((top - bottom) || 1);
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "application", "aria-roledescription": "line chart", "aria-label": `${name}. Left and right keys read the values.` });
  if (band) add(root, svg("rect", { class: "band", x: X(band[0]), y: above, width: X(band[1]) - X(band[0]), height: height - below - above }));
  root.rows = () => [["series", xName, "value", "low", "high"], ...series.flatMap((s) => s.x.map((v, i) => [s.name, v, s.y[i], s.low ? s.low[i] : null, s.high ? s.high[i] : null]))];
  for (const v of levels) {
    add(root, svg("line", { class: "grid-line", x1: left, x2: width - right, y1: Y(v), y2: Y(v) }), label(left - 4, Y(v) + 3.5, format === percent ? `${+(100 * v).toPrecision(3)} %` : +v.toPrecision(3), { "text-anchor": "end" }));
  }
  for (const tick of ticks) add(root, label(X(tick), height - below + 12, tick, { "text-anchor": "middle" }));
  add(root, label((left + width - right) / 2, height - 2, xName, { "text-anchor": "middle" }));
  if (cut != null && cut <= top) add(root, svg("line", { class: "cut", x1: left, x2: width - right, y1: Y(cut), y2: Y(cut) }));
  if (mark != null) add(root, svg("line", { class: "rule", x1: X(mark), x2: X(mark), y1: above, y2: height - below }));
  for (const s of series) {
    const stroke = s.base ? "var(--base)" : `var(--s${s.index % 6})`;
    const points = s.x.map((v, i) => [X(v), s.y[i] == null ? null : Y(s.y[i]), i]).filter((p) => p[1] != null);
    if (!points.length) continue;
    if (s.low) {
      const edge = (values, order) => order.map((p) => `${p[0].toFixed(1)} ${Y(values[p[2]]).toFixed(1)}`).join("L");
      add(root, svg("path", { class: "ribbon", fill: stroke, d: `M${edge(s.high, points)}L${edge(s.low, points.slice().reverse())}Z` }));
    }
    add(root, svg("path", { class: "series", stroke, "stroke-dasharray": s.base ? "1 3" : DASHES[s.index % 6], d: `M${points.map((p) => `${p[0].toFixed(1)} ${p[1].toFixed(1)}`).join("L")}` }));
    if (points.length < 12) for (const p of points) add(root, svg("circle", { cx: p[0], cy: p[1], r: 2.2, fill: stroke }));
  }
  const all = [...new Set(series.flatMap((s) => s.x))].sort((a, b) => a - b), rule = svg("line", { class: "rule", y1: above, y2: height - below, visibility: "hidden" });
  add(root, rule);
  let at = all.length - 1;
  const move = (i) => {
    at = Math.max(0, Math.min(all.length - 1, i));
    rule.setAttribute("x1", X(all[at])); rule.setAttribute("x2", X(all[at])); rule.setAttribute("visibility", "visible");
    const rows = series.map((s) => [s, s.x.indexOf(all[at])]).filter(([s, k]) => k >= 0 && s.y[k] != null)
      .map(([s, k]) => `${s.name} ${format(s.y[k])}` + (s.low && s.low[k] !== s.high[k] ? ` (${format(s.low[k])} to ${format(s.high[k])})` : ""));
    return [`${xName} ${+all[at].toPrecision(3)}`, ...rows].join("\n");
  };
  root.addEventListener("pointermove", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
    let best = 0;
    all.forEach((v, i) => { if (Math.abs(X(v) - point.x) < Math.abs(X(all[best]) - point.x)) best = i; });
    showTip(event, move(best));
  });
  root.addEventListener("pointerleave", () => { hideTip(); rule.setAttribute("visibility", "hidden"); });
  root.addEventListener("focus", () => say(move(at).replaceAll("\n", " · ")));
  root.addEventListener("blur", () => rule.setAttribute("visibility", "hidden"));
  root.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); say(move(at + by).replaceAll("\n", " · ")); }
  });
  return root;
}

function legend(series) {
  return add(html("p", { class: "legend" }), series.map((s) => html("span", {},
    svg("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" }, svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, "stroke-width": 2, stroke: s.base ? "var(--base)" : `var(--s${s.index % 6})`, "stroke-dasharray": s.base ? "1 3" : DASHES[s.index % 6] })), s.name)));
}

function card(title, ...children) {
  const node = html("div", { class: "card" }, html("h3", {}, title), ...children);
  return add(node, exporter(node, title));
}
