"use strict";
const line = document.getElementById("live"), report = document.getElementById("report");
const style = document.getElementById("style"), own = style.textContent;
let stamp = null;
function show(state) {
  line.dataset.kind = state.kind;
  line.querySelector("b").textContent = state.sentence;
  line.querySelector("code").textContent = state.command;
}
function orders() {
  return [...report.querySelectorAll("table.sortable")].map(table => {
    const heads = [...table.querySelectorAll("th")], k = heads.findIndex(head => head.hasAttribute("aria-sort"));
    return k < 0 ? null : [k, heads[k].getAttribute("aria-sort")];
  });
}
function swap(text) {
  const page = new DOMParser().parseFromString(text, "text/html"), sorting = orders(), places = coterie.remember();
  const open = [...report.querySelectorAll("details")].map(each => each.open);
  document.title = page.title;
  style.textContent = [...page.querySelectorAll("style")].map(each => each.textContent).join("\n") + own;
  report.replaceChildren(...(page.querySelector("main") || page.body).childNodes);
  coterie.enhance(report);
  coterie.restore(places);
  report.querySelectorAll("details").forEach((each, k) => { if (k < open.length) each.open = open[k]; });
  report.querySelectorAll("table.sortable").forEach((table, k) => {
    const button = sorting[k] && table.querySelectorAll("th button")[sorting[k][0]];
    if (button) { button.click(); if (sorting[k][1] === "descending") button.click(); }
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
