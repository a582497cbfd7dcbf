/* The address of what is seen: `#section?tokens=…&layer=…`. A link opens the page at that very view. */

const KEYS = { tokens: "family", quantity: "quantity", prompts: "style", layer: "layer", step: "step", run: "run", prompt: "prompt" };
const START = { ...state };
const ALLOWED = {
  family: DATA.families.map((f) => f.id), quantity: QUANTITIES.map(([name]) => name), style: DATA.styles,
  layer: Array.from({ length: LAYERS }, (_, l) => l), step: stepsOf, run: DATA.drill.map((_, i) => i), prompt: DATA.prompts.map((_, i) => i),
};

function address(section) {
  const chosen = Object.values(KEYS).some((key) => state[key] !== START[key]);
  return `#${section}${chosen ? `?${new URLSearchParams(Object.entries(KEYS).map(([name, key]) => [name, state[key]]))}` : ""}`;
}
function refreshLinks() {
  for (const link of document.querySelectorAll("nav a, h2 .here")) link.setAttribute("href", address(link.dataset.section));
}
/* Called after every choice: the address follows, without an entry in the history for each. */
function remember(section) {
  refreshLinks();
  history.replaceState(null, "", address(section));
}
function follow() {
  const [id, query] = location.hash.slice(1).split("?");
  for (const [name, value] of new URLSearchParams(query || "")) {
    const key = Object.hasOwn(KEYS, name) && KEYS[name], found = key && ALLOWED[key].find((allowed) => String(allowed) === value);
    if (found !== undefined) state[key] = found;
  }
  if (query) { drawAll(true); drawDrill(); }
  refreshLinks();
  const target = id && document.getElementById(id);
  if (!target) return;
  if (target.matches("tr.verdict")) target.querySelector(".badge").dispatchEvent(new CustomEvent("open"));
  target.scrollIntoView({ behavior: "instant" });
}
function wireLinks() {
  const main = document.querySelector("main");
  let seen = address("");
  for (const kind of ["change", "input", "click", "keydown"]) main.addEventListener(kind, (event) => {
    const section = event.composedPath().find((node) => node.localName === "section");
    if (section && !event.target.closest("a") && address("") !== seen) { seen = address(""); remember(section.id); }
  });
  addEventListener("hashchange", () => { follow(); seen = address(""); });
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.dataset.section, a]));
  const seeing = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && links.has(entry.target.id)) {
      for (const link of links.values()) link.removeAttribute("aria-current");
      const link = links.get(entry.target.id);
      link.setAttribute("aria-current", "true");
      link.parentNode.scrollLeft = link.offsetLeft - 40;
    }
  }, { rootMargin: "-60px 0px -75% 0px" });
  for (const section of document.querySelectorAll("main > section")) seeing.observe(section);
}
