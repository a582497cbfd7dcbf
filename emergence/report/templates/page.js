/* The page: what is chosen, and every section drawn from it. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const [CLASSES, ARMS, LAYERS, SCALE] = [DATA.classes, DATA.arms, DATA.layers, DATA.scale];
const QUANTITIES = [["own", "mass on the own class"], ["apart", "own minus others"], ["elsewhere", "here minus elsewhere"], ["entropy", "entropy of the layer (nats)"], ["kl", "KL from the output layer (nats)"]];
const AGAINST = { apart: "other", elsewhere: "rest" };
const last = ARMS[0].steps[ARMS[0].steps.length - 1];
const state = { family: "words", style: DATA.styles[0], quantity: "own", layer: Math.floor(LAYERS / 2), step: last, run: 0, prompt: 0 };

const mean = (values) => values.includes(null) ? null : values.reduce((a, b) => a + b, 0) / values.length;
const say = (text) => { document.getElementById("readout").textContent = text; };
const nearest = (steps, step) => steps.reduce((best, s, i) => Math.abs(s - step) < Math.abs(steps[best] - step) ? i : best, 0);

/* Per seed, step, layer: numbers in [0, 1] or null. */
function perSeed(arm, c, s, l, family = state.family) { return arm.own[family][state.style][c].map((seed) => seed[s][l] == null ? null : seed[s][l] / SCALE); }
function ownMean(arm, c, s, l, family) { return mean(perSeed(arm, c, s, l, family)); }
function compared(key, arm, c, s, l) { const v = arm[key][state.family][state.style][c][s][l]; return v == null ? null : v / SCALE; }
function value(arm, c, s, l) {
  if (state.quantity === "entropy" || state.quantity === "kl") return arm[state.quantity][state.style][s][l] / 100;
  const mine = ownMean(arm, c, s, l);
  if (state.quantity === "own") return mine;
  const against = compared(AGAINST[state.quantity], arm, c, s, l);
  return mine == null || against == null ? null : mine - against;
}
function band(arm, c, points) {
  const rows = points.map(([s, l]) => perSeed(arm, c, s, l)), ok = rows.map((r) => !r.includes(null));
  return { y: rows.map(mean), low: rows.map((r, i) => ok[i] ? Math.min(...r) : null), high: rows.map((r, i) => ok[i] ? Math.max(...r) : null) };
}
const atStep = (step) => step === 0 ? "base" : `step ${step}`;
function nice(v) { for (const t of [0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]) if (v <= t) return t; return v; }

function select(name, options, current, change) {
  const node = html("select", { "aria-label": name }, options.map(([v, text]) => html("option", { value: v }, text)));
  node.value = current;
  node.addEventListener("change", () => change(node.value));
  return html("label", {}, name, node);
}
function slider(name, max, current, text, change) {
  const node = html("input", { type: "range", min: 0, max, step: 1, value: current, "aria-label": name }), output = html("output", {}, text(current));
  node.addEventListener("input", () => { output.textContent = text(+node.value); change(+node.value); });
  return html("label", {}, name, node, output);
}
const stepsOf = [...new Set(ARMS.flatMap((a) => a.steps))].sort((a, b) => a - b);
const layerSlider = (then) => slider("Layer", LAYERS - 1, state.layer, (l) => `L${l}`, (l) => { state.layer = l; then(); });
const stepSlider = (then) => slider("Step", stepsOf.length - 1, Math.max(0, stepsOf.indexOf(state.step)), (i) => stepsOf[i] === 0 ? "base" : String(stepsOf[i]), (i) => { state.step = stepsOf[i]; then(); });

function drawControls() {
  const node = clear("controls"), set = (key) => (v) => { state[key] = v; drawAll(false); };
  add(node, select("Tokens", DATA.families.map((f) => [f.id, f.title]), state.family, set("family")),
    select("Quantity", QUANTITIES, state.quantity, set("quantity")));
  if (DATA.styles.length > 1) add(node, select("Prompts", DATA.styles.map((s) => [s, s]), state.style, set("style")));
  node.onsubmit = (event) => event.preventDefault();
}

function drawMaps() {
  const nats = state.quantity === "entropy" || state.quantity === "kl", classes = nats ? [0] : CLASSES.map((_, c) => c);
  const tables = ARMS.map((arm) => classes.map((c) => arm.steps.map((_, s) => Array.from({ length: LAYERS }, (_, l) => value(arm, c, s, l)))));
  const found = tables.flat(3).filter((v) => v != null), top = nats ? Math.max(...found, 0.01) : nice(Math.max(...found, 0.02));
  const format = (v) => v == null ? "–" : nats ? `${v.toFixed(2)} nats` : percent(v);
  const grid = clear("map-grid"), legend = clear("map-legend");
  if (!found.length) { add(grid, html("p", { class: "note" }, "This quantity is not defined for these tokens.")); return; }
  ARMS.forEach((arm, a) => classes.forEach((c, k) => {
    const values = tables[a][k], name = nats ? `${arm.name}, all classes` : `${arm.name}, ${CLASSES[c]}`;
    const describe = (s, l) => {
      const head = `${name} · L${l} · ${arm.steps[s] === 0 ? "base model" : `step ${arm.steps[s]}`}: ${format(values[s][l])}`;
      if (nats) return `${head} (base ${format(values[0][l])})`;
      const seeds = perSeed(arm, c, s, l), spread = seeds.length > 1 && !seeds.includes(null) ? `, seeds ${percent(Math.min(...seeds))} to ${percent(Math.max(...seeds))}` : "";
      return `${head}\nbase ${format(values[0][l])}, others ${percent(compared("other", arm, c, s, l))}, elsewhere ${percent(compared("rest", arm, c, s, l))}${spread}`;
    };
    add(grid, card(name, heatmap({ values, steps: arm.steps, top, cut: nats ? null : DATA.threshold, name, unit: nats ? `${state.quantity} (nats)` : state.quantity, describe, say, chosen: state,
      pick: (step, layer) => { state.step = step; state.layer = layer; drawAll(false); say(`Chosen: L${layer}, step ${step}.`); } })));
  }));
  const key = svg("svg", { viewBox: "0 0 300 30", width: 300, height: 30, role: "img", "aria-label": `Colour scale from 0 to ${format(top)}` });
  for (let i = 0; i < 60; i++) add(key, svg("rect", { x: 4 + i * 4, y: 2, width: 4.2, height: 10, fill: colour(i / 59) }));
  add(key, DATA.threshold < 0.2 * top && !nats ? null : label(4, 24, nats ? "0" : "0 %"), label(244, 24, format(top), { "text-anchor": "end" }));
  if (!nats && DATA.threshold < 0.8 * top) { const x = 4 + 240 * DATA.threshold / top; add(key, svg("line", { x1: x, x2: x, y1: 0, y2: 14, stroke: "#ff5a36", "stroke-width": 2 }), label(x, 24, percent(DATA.threshold), { "text-anchor": x < 40 ? "start" : "middle" })); }
  add(legend, key);
}

const drawnMaximum = () => nice(Math.max(0.12, ...ARMS.flatMap((arm) => CLASSES.flatMap((_, c) => arm.own[state.family][state.style][c].flat(2).map((v) => v == null ? 0 : v / SCALE)))));

function drawGrowth() {
  const grid = clear("growth-grid"), top = drawnMaximum();
  for (const arm of ARMS) {
    const series = CLASSES.map((name, index) => ({ name, index, x: arm.steps, ...band(arm, index, arm.steps.map((_, s) => [s, state.layer])) }));
    add(grid, card(`${arm.name} at L${state.layer}`, lines({ series, from: 0, to: Math.max(...arm.steps, 1), top, cut: DATA.threshold, name: `${arm.name}: strength over steps at layer ${state.layer}`, xName: "step", ticks: stepTicks(Math.max(...arm.steps, 1)), mark: arm.steps[nearest(arm.steps, state.step)], say }), legend(series)));
  }
}
function drawProfiles() {
  const grid = clear("profile-grid"), top = drawnMaximum(), depth = Array.from({ length: LAYERS }, (_, l) => (l + 1) / LAYERS);
  CLASSES.forEach((name, c) => {
    const series = ARMS.map((arm, index) => { const s = nearest(arm.steps, state.step); return { name: `${arm.name}, ${atStep(arm.steps[s])}`, index, x: depth, ...band(arm, c, depth.map((_, l) => [s, l])) }; });
    series.push({ name: "base", base: true, index: 5, x: depth, y: depth.map((_, l) => ownMean(ARMS[0], c, 0, l)) });
    add(grid, card(`${name} by depth`, lines({ series, from: 0, to: 1, top, cut: DATA.threshold, band: DATA.middle, name: `${name}: strength over depth`, xName: "depth", ticks: [0, 0.25, 0.5, 0.75, 1], mark: (state.layer + 1) / LAYERS, say }), legend(series)));
  });
}

function drawConfusion() {
  const grid = clear("confusion-grid");
  for (const arm of ARMS) {
    const s = nearest(arm.steps, state.step), counts = arm.confusion[state.style][s][state.layer], total = counts.flat().reduce((a, b) => a + b, 0);
    const right = counts.reduce((sum, row, i) => sum + row[i], 0);
    const told = html("p", { class: "note" }, total ? `${percent(right / total)} of ${total} readings name their own class` : "no prompts");
    add(grid, card(`${arm.name}, L${state.layer}, ${atStep(arm.steps[s])}`, told, confusionTable(counts)));
  }
}

function drawDrill(controls = true) {
  const run = DATA.drill[state.run], prompt = DATA.prompts[state.prompt];
  if (!run || !prompt) { clear("drill"); return; }
  if (controls) add(clear("drill-controls"),
    select("Run", DATA.drill.map((d, i) => [i, `${d.arm}, seed ${d.seed}`]), state.run, (v) => { state.run = +v; drawDrill(false); }),
    select("Prompt", DATA.prompts.map((p, i) => [i, `${visible(p.text)}  (${p.class}, ${p.style}${p.half < 0 ? ", from the config" : ""})`]), state.prompt, (v) => { state.prompt = +v; drawDrill(false); }));
  const body = html("tbody");
  for (let l = LAYERS - 1; l >= 0; l--) {
    add(body, html("tr", {}, html("th", { scope: "row" }, `L${l}`), run.steps.map((step, s) => {
      const text = DATA.tokens[run.top[state.prompt][s][l]], p = run.p[state.prompt][s][l] / 1000, right = text === prompt.first;
      const words = run.words[state.prompt][s][l], answer = run.answer[state.prompt][s][l];
      const about = `L${l}, ${step === 0 ? "base model" : `step ${step}`}: “${visible(text)}” ${percent(p)} · right answer “${visible(prompt.first)}” ${percent(answer == null ? null : answer / 1000)} · words of ${prompt.class} ${percent(words == null ? null : words / 1000)}`;
      const cell = html("td", { class: right ? "right" : "", "data-about": about, tabindex: s === 0 && l === LAYERS - 1 ? 0 : -1 }, html("bdi", {}, visible(text)));
      cell.style.background = colour(p); cell.style.color = ink(p);
      return cell;
    })));
  }
  const table = html("table", { class: "drill" }, html("caption", { class: "note" }, "Prompt ", html("code", {}, html("bdi", {}, visible(prompt.text))), ` · right answer ${prompt.answer}, first token “${visible(prompt.first)}”`),
    html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "layer"), run.steps.map((s) => html("th", { scope: "col" }, s === 0 ? "base" : `step ${s}`)))), body);
  const tell = (cell) => { document.getElementById("drill-readout").textContent = cell.dataset.about; };
  table.addEventListener("pointermove", (event) => { const cell = event.target.closest("td"); if (cell) showTip(event, cell.dataset.about.replaceAll(" · ", "\n")); else hideTip(); });
  table.addEventListener("pointerleave", hideTip);
  table.addEventListener("focusin", (event) => tell(event.target));
  table.addEventListener("click", (event) => { const cell = event.target.closest("td"); if (cell) cell.focus(); });
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td"), by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!cell || !by) return;
    event.preventDefault();
    const row = body.rows[cell.parentNode.sectionRowIndex + by[0]], next = row && row.cells[cell.cellIndex + by[1]];
    if (next && next.tagName === "TD") { cell.tabIndex = -1; next.tabIndex = 0; next.focus(); }
  });
  const holder = html("div", { class: "rows" }, table);
  holder.rows = () => [["layer", "step", "token", "probability", "right answer", "words of its class"], ...run.steps.flatMap((step, s) => Array.from({ length: LAYERS }, (_, l) =>
    [`L${l}`, step, visible(DATA.tokens[run.top[state.prompt][s][l]]), ...[run.p, run.answer, run.words].map((of) => of[state.prompt][s][l]).map((v) => v == null ? null : v / 1000)]))];
  add(clear("drill"), holder);
  add(clear("drill-take"), exporter(document.getElementById("prompts"), `${run.arm} seed ${run.seed}, ${prompt.text}`));
}

function drawTraining() {
  const grid = clear("training-grid"), names = Object.keys(DATA.logs), arms = [...new Set(names.map((n) => n.split("/")[0]))];
  const curves = [["train_loss", "Training loss", null], ["valid_loss", "Validation loss", null], ["valid_accuracy", "Validation: first token right", percent], ["valid_exact", "Validation: whole answer right", percent], ["train_classifier_loss", "Loss of the classification term", null]];
  for (const [key, title, format] of curves) {
    const series = names.map((name) => ({ name: name.replace("/", " seed "), index: arms.indexOf(name.split("/")[0]), rows: DATA.logs[name].filter((r) => typeof r[key] === "number") }))
      .filter((s) => s.rows.length).map((s) => ({ ...s, x: s.rows.map((r) => r.step), y: s.rows.map((r) => r[key]) }));
    if (!series.length) continue;
    const top = format ? nice(Math.max(...series.flatMap((s) => s.y))) : Math.max(...series.flatMap((s) => s.y));
    add(grid, card(title, lines({ series, from: 0, to: Math.max(...series.flatMap((s) => s.x), 1), top, name: title, xName: "step", ticks: stepTicks(Math.max(...series.flatMap((s) => s.x), 1)), format: format || ((v) => v.toPrecision(3)), say }),
      legend(arms.map((name, index) => ({ name, index })).filter(({ index }) => series.some((s) => s.index === index)))));
  }
  for (const arm of ARMS) {
    const series = CLASSES.map((name, index) => { const rows = arm.correct[state.style][index], y = arm.steps.map((_, s) => mean(rows.map((r) => r[s])));
      const at = (f) => arm.steps.map((_, s) => y[s] == null ? null : f(...rows.map((r) => r[s])) / SCALE); return { name, index, x: arm.steps, y: y.map((v) => v == null ? null : v / SCALE), low: at(Math.min), high: at(Math.max) }; });
    add(grid, card(`${arm.name}: held-out prompts whose last answer token is right (${state.style})`, lines({ series, from: 0, to: Math.max(...arm.steps, 1), top: 1, name: `${arm.name}: held-out accuracy`, xName: "step", ticks: stepTicks(Math.max(...arm.steps, 1)), say }), legend(series)));
  }
}

function drawPlace() {
  const redraw = () => { drawGrowth(); drawProfiles(); drawConfusion(); };
  add(clear("growth-controls"), layerSlider(redraw));
  add(clear("profile-controls"), stepSlider(redraw));
  add(clear("confusion-controls"), layerSlider(redraw), stepSlider(redraw));
  redraw();
}
function drawAll(first) { if (first) drawControls(); drawMaps(); drawPlace(); drawTraining(); }

/* Evidence of one verdict, drawn when it is opened. */
const PARTS = { strength: "own mass", margin: "minus the largest other", others: "minus other answers" };
const partsOf = (d) => ({ ...PARTS, ...Object.fromEntries(Object.keys(d).filter((k) => k.startsWith("against ")).map((k) => [k, `minus on ${k.slice(8)} prompts`])) });
const share = (v) => v.toFixed(2);
function byLayer(v, names, cut, format, title) {
  const d = v.details, depth = d.layers.map((l) => (l + 1) / LAYERS);
  const series = Object.entries(names).filter(([key]) => d[key]).map(([key, name], index) => {
    const part = d[key].estimate ? d[key] : { estimate: d[key] };
    return { name, index, x: depth, y: part.estimate, low: part.low, high: part.high };
  });
  const all = series.flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])]).filter((x) => x != null);
  const top = format === percent ? nice(Math.max(0.12, ...all)) : 1, low = Math.min(0, ...all), bottom = format === percent && low < 0 ? -nice(-low) : 0;
  return card(title, lines({ series, from: 0, to: 1, top, bottom, cut, band: DATA.middle, name: title, xName: "depth", ticks: [0, 0.25, 0.5, 0.75, 1], mark: v.layer == null ? null : (v.layer + 1) / LAYERS, format, say: (t) => say(t) }), legend(series));
}
function confusionTable(counts) {
  const node = html("div", { class: "scroll rows", tabindex: 0, role: "group", "aria-label": "confusion table" }, html("table", { class: "counts-table" },
    html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "true ↓  read →"), CLASSES.map((c) => html("th", { scope: "col" }, c)))),
    html("tbody", {}, counts.map((row, i) => html("tr", {}, html("th", { scope: "row" }, CLASSES[i]), row.map((n, j) => {
      const sum = row.reduce((a, b) => a + b, 0), part = sum ? n / sum : 0, cell = html("td", i === j ? { "aria-label": `${n}, right` } : {}, String(n));
      cell.style.background = colour(part); cell.style.color = ink(part); if (i === j) cell.style.fontWeight = "700";
      return cell;
    }))))));
  node.rows = () => [["true", "read", "readings"], ...counts.flatMap((row, i) => row.map((n, j) => [CLASSES[i], CLASSES[j], n]))];
  return node;
}
function drawEvidence(node) {
  const v = DATA.verdicts.find((x) => `${x.prediction}/${x.class}` === node.dataset.verdict), d = v.details;
  node.replaceChildren();
  if (d.layers && d.strength) add(node, byLayer(v, partsOf(d), v.threshold, percent, "By layer, with 95 % intervals"));
  if (d.layers && d.accuracy && d.control) add(node, probeCard(v));
  if (d.by_step && d.steps) {
    const series = [{ name: v.class, index: 0, x: d.steps, y: d.by_step }];
    add(node, card("Own mass by step", lines({ series, from: 0, to: Math.max(...d.steps, 1), top: nice(Math.max(0.12, ...d.by_step)), name: "own mass by step", xName: "step", ticks: stepTicks(Math.max(...d.steps, 1)), say })));
  }
  if (Array.isArray(d.confusion)) add(node, card("Confusion of the judged prompts", confusionTable(d.confusion)));
  node.hidden = !node.children.length;
}
const probeCard = (v) => byLayer(v, { accuracy: "probe", control: "control task", lens: "lens, own words" }, null, share, `${v.class}: balanced accuracy of the probe`);
function drawProbe() {
  const found = DATA.verdicts.filter((v) => v.details.layers && v.details.accuracy && v.details.control);
  document.getElementById("probe").hidden = !found.length;
  const grid = clear("probe-grid");
  for (const v of found) {
    const c = CLASSES.indexOf(v.class), own = ARMS[0].own.words[v.style] || ARMS[0].own.words[DATA.styles[0]];
    const lens = v.details.layers.map((l) => own[c][0][0][l] == null ? null : own[c][0][0][l] / SCALE);
    add(grid, probeCard({ ...v, details: { ...v.details, lens } }));
  }
}

function wireVerdicts() {
  for (const button of document.querySelectorAll(".badge")) {
    const panel = document.getElementById(button.getAttribute("aria-controls"));
    const open = (yes) => { button.setAttribute("aria-expanded", String(yes)); panel.hidden = !yes; if (yes) panel.querySelectorAll(".evidence-charts").forEach(drawEvidence); };
    open(false);
    const row = button.closest("tr");
    button.addEventListener("click", () => { open(panel.hidden); if (!panel.hidden) history.replaceState(null, "", `#${row.id}`); });
    button.addEventListener("open", () => open(true));
    const go = panel.querySelector(".goto");
    if (go) go.addEventListener("click", () => {
      state.layer = +row.dataset.layer; state.step = +row.dataset.step;
      const run = DATA.drill.findIndex((d) => d.arm === row.dataset.arm), prompt = DATA.prompts.findIndex((p) => p.class === row.dataset.cls);
      if (run >= 0) state.run = run;
      if (prompt >= 0) state.prompt = prompt;
      drawAll(false); drawDrill();
      document.getElementById("maps").scrollIntoView();
      say(`Chosen: L${state.layer}, step ${state.step}.`);
      remember("maps");
    });
  }
}
