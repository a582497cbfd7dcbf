/* Code and wide tables scroll in boxes of their own: a keyboard must reach those, with a mouse at hand or not. */
function reach() {
  for (const box of document.querySelectorAll(":is(pre > code, .md-typeset__scrollwrap):not([tabindex])")) box.tabIndex = 0;
}
new MutationObserver(reach).observe(document.body, { childList: true, subtree: true, attributeFilter: ["tabindex"] });
reach();
