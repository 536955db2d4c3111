// What screen readers and keyboards need, and the theme lacks: names, and a way into what scrolls.
function name(selector, label) {
  document.querySelectorAll(selector).forEach((each, k) => each.setAttribute("aria-label", label(k)));
}

addEventListener("load", () => setTimeout(() => {  // after the theme's own script
  name(".md-search", () => "Search");
  name(".md-code__nav", (k) => `Code ${k + 1}`);
  for (const each of document.querySelectorAll(".md-nav[aria-labelledby]")) {
    const [title, level] = [each.querySelector(".md-nav__title")?.innerText.trim(), each.dataset.mdLevel];
    each.removeAttribute("aria-labelledby");
    each.setAttribute("aria-label", `${title || "Pages"}, level ${level}`);
  }
  for (const each of document.querySelectorAll(".md-typeset th:empty")) each.replaceWith(document.createElement("td"));
  for (const each of document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap, .md-typeset p"))
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
}, 100));
