/* Taking a chart along: the picture as SVG or PNG, its numbers as CSV. Nothing leaves the page but a file. */

const DRAWN = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-linecap", "opacity", "font-size", "font-weight", "text-anchor", "visibility"];

function save(name, blob) {
  const link = html("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
function csv(rows) {
  const field = (v) => v == null ? "" : typeof v === "number" ? String(+v.toPrecision(6)) : /[",\r\n]/.test(v) ? `"${v.replaceAll('"', '""')}"` : v;
  return rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
}
function settled(from, to) {
  const style = getComputedStyle(from);
  for (const name of DRAWN) { to.removeAttribute(name); to.style.setProperty(name, style.getPropertyValue(name)); }
  [...from.children].forEach((child, i) => settled(child, to.children[i]));
}
/* One SVG that needs no stylesheet: title, chart, legend, ground. */
function picture(node, title) {
  const chart = node.querySelector("svg.chart"), [x, y, width, height] = chart.getAttribute("viewBox").split(" ").map(Number);
  const style = getComputedStyle(node), head = 20, inner = chart.cloneNode(true);
  settled(chart, inner);
  for (const [key, value] of Object.entries({ x: 0, y: head, width, height })) inner.setAttribute(key, value);
  for (const name of ["tabindex", "role", "aria-label", "aria-roledescription", "class"]) inner.removeAttribute(name);
  const keys = [];
  let left = 4, row = head + height + 14;
  for (const entry of node.querySelectorAll(".legend > span")) {
    const line = entry.querySelector("line").cloneNode(), room = 40 + 6 * entry.textContent.length;
    if (left > 4 && left + room > width) { left = 4; row += 14; }
    settled(entry.querySelector("line"), line);
    keys.push(svg("g", { transform: `translate(${left} ${row})` }, svg("g", { transform: "translate(0 -8)" }, line), label(30, 0, entry.textContent, { fill: style.color, "font-size": 10 })));
    left += room;
  }
  const tall = keys.length ? row + 6 : head + height, font = style.fontFamily.replaceAll('"', "'");
  return svg("svg", { xmlns: NS, viewBox: `${x} 0 ${width} ${tall}`, width, height: tall, "font-family": font },
    svg("title", {}, title), svg("rect", { x, y: 0, width, height: tall, fill: style.backgroundColor }),
    label(x + 4, 14, title, { "font-size": 12, "font-weight": 600, fill: style.color }), inner, ...keys);
}
async function png(drawing, scale = 3) {
  const image = new Image(), canvas = document.createElement("canvas");
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(drawing.outerHTML)}`;
  await image.decode();
  canvas.width = scale * drawing.getAttribute("width"); canvas.height = scale * drawing.getAttribute("height");
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
/* What is offered depends on what `node` holds: a chart, or a table whose numbers only are of use. */
function exporter(node, title) {
  const source = node.querySelector("svg.chart") || node.querySelector(".rows");
  if (!source || !source.rows) return null;
  const name = title.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").toLowerCase();
  const button = (text, act) => { const b = html("button", { type: "button" }, text); b.addEventListener("click", act); return b; };
  const draw = () => picture(node, title);
  const pictures = source.matches("svg") ? [
    button("SVG", () => save(`${name}.svg`, new Blob([draw().outerHTML], { type: "image/svg+xml" }))),
    button("PNG", async () => save(`${name}.png`, await png(draw()))),
  ] : [];
  return html("details", { class: "take" }, html("summary", { "aria-label": `Export ${title}` }, "Export"),
    html("div", {}, pictures, button("CSV", () => save(`${name}.csv`, new Blob([csv(source.rows())], { type: "text/csv" })))));
}
