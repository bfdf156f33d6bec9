"use strict";
for (const node of document.querySelectorAll(".whisker")) whisker(node, +node.dataset.v, +node.dataset.l, +node.dataset.h);
onChange.push(() => {
  for (const node of document.querySelectorAll("[data-badge]")) {
    let values = {};
    try { values = JSON.parse(node.dataset.values); } catch { /* the plain text stays */ }
    node.textContent = t("b_" + node.dataset.badge + "_text", values);
  }
});
