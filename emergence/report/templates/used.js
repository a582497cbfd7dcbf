/* What interventions carry: by depth, against what is readable, and position by position of one pair. */

const EXCHANGED = DATA.exchanged || [];
const PART_NAMES = { stream: "stream", words: "plane of the class words", "class means": "plane of the class means" };
const whenOf = (e) => e.arm === "base" ? "base" : `${e.arm}, step ${e.step}`;

function drawUsed() {
  document.getElementById("used").hidden = !EXCHANGED.length;
  if (!EXCHANGED.length) return;
  const depth = Array.from({ length: LAYERS }, (_, l) => (l + 1) / LAYERS), grid = clear("used-grid");
  for (const cls of CLASSES) {
    const here = EXCHANGED.filter((e) => e.class === cls), series = [];
    here.forEach((e, i) => series.push({ name: `${whenOf(e)}: stream`, index: i, x: depth, y: e.parts.stream.mean, low: e.parts.stream.low, high: e.parts.stream.high }));
    here.forEach((e) => Object.entries(e.parts).forEach(([part, p]) => {
      if (part !== "stream") series.push({ name: `${whenOf(e)}: ${PART_NAMES[part]}`, index: series.length, x: depth, y: p.mean, low: p.low, high: p.high });
    }));
    const held = here.find((e) => e.parts.stream.placebo.some((v) => v != null)), p = held && held.parts.stream;
    if (p) series.push({ name: `${whenOf(held)}: placebos`, base: true, index: 5, x: depth, y: p.placebo, low: p.placebo_low, high: p.placebo_high });
    const all = series.flatMap((s) => [...s.y, ...s.low, ...s.high]).filter((v) => v != null), low = Math.min(0, ...all);
    add(grid, card(`${cls}: what an exchange carries`, lines({ series, from: 0, to: 1, top: Math.max(1, ...all), bottom: low < -0.05 ? low : 0, band: DATA.middle, name: `${cls}: share carried over depth`, xName: "depth", ticks: [0, 0.25, 0.5, 0.75, 1], say }), legend(series)));
  }
  drawReadable();
  drawPositions();
}

/* Points {x, y, name, index} on [0, 1] squared, with a line at the threshold on both axes. */
function scatter({ points, name, xName, yName, cut, say }) {
  const width = 320, height = 240, left = 40, right = 10, above = 10, below = 34;
  const X = (v) => left + (width - left - right) * Math.max(0, Math.min(1, v)), Y = (v) => height - below - (height - below - above) * Math.max(0, Math.min(1, v));
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "application", "aria-roledescription": "scatter chart", "aria-label": `${name}. Left and right keys read the points.` });
  for (const v of [0, 0.25, 0.5, 0.75, 1]) add(root, svg("line", { class: "grid-line", x1: left, x2: width - right, y1: Y(v), y2: Y(v) }), label(left - 4, Y(v) + 3.5, `${100 * v} %`, { "text-anchor": "end" }), label(X(v), height - below + 12, `${100 * v}`, { "text-anchor": "middle" }));
  add(root, svg("line", { class: "cut", x1: left, x2: width - right, y1: Y(cut), y2: Y(cut) }), svg("line", { class: "cut", x1: X(cut), x2: X(cut), y1: above, y2: height - below }));
  add(root, label((left + width - right) / 2, height - 6, xName, { "text-anchor": "middle" }), label(width - right - 4, above + 10, "readable and used", { "text-anchor": "end" }), label(X(cut) + 4, Y(0) - 5, "readable, not used"), label(left + 4, above + 10, ""));
  for (const p of points) add(root, svg("circle", { cx: X(p.x), cy: Y(p.y), r: 3.2, fill: `var(--s${p.index % 6})`, "fill-opacity": 0.8 }));
  root.rows = () => [["point", xName, yName], ...points.map((p) => [p.name, p.x, p.y])];
  const ring = svg("circle", { class: "ring", r: 6, fill: "none", stroke: "currentColor", visibility: "hidden" });
  add(root, ring);
  let at = -1;
  const move = (i) => {
    at = Math.max(0, Math.min(points.length - 1, i));
    const p = points[at];
    ring.setAttribute("cx", X(p.x)); ring.setAttribute("cy", Y(p.y)); ring.setAttribute("visibility", "visible");
    return `${p.name}\n${xName} ${percent(p.x)}\n${yName} ${percent(p.y)}`;
  };
  root.addEventListener("pointermove", (event) => {
    const q = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
    const far = (p) => (X(p.x) - q.x) ** 2 + (Y(p.y) - q.y) ** 2;
    showTip(event, move(points.reduce((best, p, i) => far(p) < far(points[best]) ? i : best, 0)));
  });
  root.addEventListener("pointerleave", () => { hideTip(); ring.setAttribute("visibility", "hidden"); });
  root.addEventListener("focus", () => say(move(Math.max(at, 0)).replaceAll("\n", " · ")));
  root.addEventListener("blur", () => ring.setAttribute("visibility", "hidden"));
  root.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); say(move(at + by).replaceAll("\n", " · ")); }
  });
  return root;
}

function drawReadable() {
  const grid = clear("used-map-grid");
  CLASSES.forEach((cls, c) => {
    const here = EXCHANGED.filter((e) => e.class === cls), series = [];
    const points = here.flatMap((e, index) => {
      const arm = ARMS.find((a) => a.name === e.arm) || ARMS[0], s = e.arm === "base" ? 0 : nearest(arm.steps, e.step);
      series.push({ name: whenOf(e), index });
      return e.parts.stream.mean.map((y, l) => ({ x: mean(arm.own.words[e.style][c].map((seed) => seed[s][l] == null ? null : seed[s][l] / SCALE)), y, name: `${whenOf(e)}, L${l}`, index })).filter((p) => p.x != null && p.y != null && p.name);
    });
    if (points.length) add(grid, card(`${cls}: readable and used, by layer`, scatter({ points, name: `${cls}: mass on words against share carried`, xName: "mass on own words (%)", yName: "carried", cut: DATA.threshold, say }), legend(series)));
  });
}

function drawPositions() {
  const grid = clear("used-position-grid");
  for (const e of EXCHANGED) {
    if (!e.map) continue;
    const { tokens: [base, source], layers, share } = e.map;
    const head = html("tr", {}, html("th", { scope: "col" }, "layer"), base.map((t, i) => html("th", { scope: "col" }, html("bdi", {}, visible(t)), t === source[i] ? null : html("span", { class: "instead" }, " ← ", html("bdi", {}, visible(source[i]))))));
    const rows = layers.map((layer, r) => html("tr", {}, html("th", { scope: "row" }, `L${layer}`), share[r].map((v) => v == null ? html("td", {}, "–") : html("td", { style: `background:${colour(v)};color:${ink(Math.max(0, Math.min(1, v)))}` }, String(Math.round(100 * v)))))).reverse();
    const table = html("div", { class: "scroll rows", tabindex: 0, role: "group", "aria-label": `${whenOf(e)}, ${e.class}: carried by position` }, html("table", { class: "position-table" }, html("thead", {}, head), html("tbody", {}, rows)));
    table.rows = () => [["layer", "position", "token", "token of the source", "carried"], ...layers.flatMap((layer, r) => share[r].map((v, i) => [`L${layer}`, i, visible(base[i]), visible(source[i]), v]))];
    add(grid, card(`${whenOf(e)}, ${e.class}: “${visible(e.map.base)}” given “${visible(e.map.source)}” (% carried)`, table));
  }
}
