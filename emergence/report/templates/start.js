/* What happens when the page is opened. */

document.body.append(tip);
for (const heading of document.querySelectorAll("main > section > h2")) {
  const section = heading.parentNode.id;
  add(heading, html("a", { class: "here", "data-section": section, href: `#${section}`, "aria-label": `Link to ${heading.textContent} as it is shown` }, "#"));
}
wireVerdicts();
drawAll(true);
drawProbe();
drawUsed();
drawDrill();
wireLinks();
follow();
document.documentElement.dataset.ready = "true";
