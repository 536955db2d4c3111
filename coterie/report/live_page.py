"""The live page of a run: the report, made again whenever the folder has changed, below a line that says how it stands.

The page asks its own server, and the browser is told to ask no other: see `LIVE_POLICY`.
"""

from __future__ import annotations

from html import escape

from coterie.report.page_parts import STYLE

LIVE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the pages: scripts and styles that stand in them, requests to this server alone."""

_STYLE = """
#live { display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: baseline; margin: 0 0 1.4rem;
  padding: .5rem .9rem; background: var(--card); border-radius: 8px; border-left: 4px solid var(--line);
  overflow-wrap: anywhere; }
#live[data-kind=running] { border-color: var(--series-3); } #live[data-kind=finished] { border-color: var(--series-1); }
#live[data-kind=failed], #live[data-kind=stopped], #live[data-kind=lost] { border-color: var(--series-8); }
#live code:empty { display: none; } #live time { color: var(--soft); margin-left: auto; }
"""

_SCRIPT = """
const line = document.getElementById("live"), report = document.getElementById("report");
const style = document.getElementById("style"), own = style.textContent;
let stamp = null;
function show(state) {
  line.dataset.kind = state.kind;
  line.querySelector("b").textContent = state.sentence;
  line.querySelector("code").textContent = state.command;
}
function sorted() {
  return [...report.querySelectorAll("table.sortable")].map(table => {
    const heads = [...table.querySelectorAll("th")], k = heads.findIndex(head => head.hasAttribute("aria-sort"));
    return k < 0 ? null : [k, heads[k].getAttribute("aria-sort")];
  });
}
function swap(text) {
  const page = new DOMParser().parseFromString(text, "text/html"), orders = sorted();
  const open = [...report.querySelectorAll("details")].map(each => each.open);
  document.title = page.title;
  style.textContent = [...page.querySelectorAll("style")].map(each => each.textContent).join("\\n") + own;
  report.replaceChildren(...page.body.childNodes);
  for (const old of report.querySelectorAll("script")) {  // those of a parsed page do not run
    const script = document.createElement("script");
    script.textContent = "{" + old.textContent + "}";
    old.replaceWith(script);
  }
  report.querySelectorAll("details").forEach((each, k) => { if (k < open.length) each.open = open[k]; });
  report.querySelectorAll("table.sortable").forEach((table, k) => {
    const button = orders[k] && table.querySelectorAll("th button")[orders[k][0]];
    if (button) { button.click(); if (orders[k][1] === "descending") button.click(); }
  });
}
async function get(name) {
  const answer = await fetch(name, {cache: "no-store"});
  if (!answer.ok) throw new Error(answer.status);
  return answer;
}
async function look() {
  let pause = 1000;
  try {
    const state = await (await get("state")).json();
    if (state.stamp !== stamp) {
      swap(await (await get("page")).text());
      stamp = state.stamp;
      line.querySelector("time").textContent = new Date().toLocaleTimeString();
    }
    show(state);
    pause = 1000 * state.pause;
  } catch (error) {
    show({kind: "lost", sentence: "No answer from coterie watch, so this may be old. Start it again.", command: ""});
    pause = 5000;
  }
  setTimeout(look, pause);
}
look();
"""


def live_page(name: str) -> str:
    """Return the page that a browser opens: it asks for `state` and, where that has changed, for `page`."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(name)}</title>\n<style>{STYLE}</style>\n<style id=style>{_STYLE}</style>\n</head>\n<body>\n"
        "<div id=live role=status data-kind=waiting><b>Reading the folder.</b><code></code><time></time></div>\n"
        "<noscript><p>Without scripts this page cannot update itself: <a href=page>the report as of now</a>.</p>"
        f"</noscript>\n<div id=report></div>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )
