// What the pages do in the browser beyond htmx: the chosen jobs, the question before an action, charts, and what was told.
"use strict";

const byId = (id) => document.getElementById(id);
const chosen = new Set();

// Swaps keep what the visitor is doing: ticks, what is typed, what is open, and drawn charts.
const KEPT = new Set(["checked", "value", "open"]);
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
  !(KEPT.has(name) && node.matches("input, select, textarea, details, dialog"));
Idiomorph.defaults.callbacks.beforeNodeMorphed = (node, next) => {
  if (!(node instanceof Element)) return true;
  if (node.matches("[data-grid]")) {
    if (node.dataset.version !== next.dataset.version) {
      node.dataset.version = next.dataset.version;
      drawGrid(node);
    }
    return false;
  }
  if (!node.matches("[data-chart]")) return true;
  if (next.dataset && node.dataset.chart !== next.dataset.chart) {
    node.dataset.chart = next.dataset.chart;
    draw(node);
  }
  return false;
};

function tell(text, bad) {
  const line = document.createElement("p");
  line.textContent = text;
  if (bad) line.className = "bad";
  byId("told").append(line);
  setTimeout(() => line.remove(), bad ? 12000 : 5000);
}

function count() {
  for (const box of document.querySelectorAll("[data-job]")) {
    if (box.checked) chosen.add(box.dataset.job);
    else chosen.delete(box.dataset.job);
  }
  const bulk = byId("bulk");
  if (!bulk) return;
  byId("chosen").textContent = chosen.size ? `${chosen.size} chosen` : "none chosen";
  for (const button of bulk.querySelectorAll("button")) button.disabled = !chosen.size;
}

function ask(button) {
  const dialog = byId("ask"), { title, text, yes, reason, fields, values, post } = button.dataset;
  const jobs = button.closest("#bulk") ? [...chosen] : [];
  const many = jobs.length === 1 ? `job ${jobs[0]}` : `${jobs.length} jobs`;
  byId("ask-title").textContent = title.replace("{jobs}", many);
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  byId("ask-wrong").hidden = true;
  const why = byId("ask-why").querySelector("input");
  why.value = "";
  why.required = reason === "needed";
  byId("ask-why").hidden = reason === "none";
  byId("ask-fields").replaceChildren(...JSON.parse(fields || "[]").map(field));
  dialog.dataset.to = post;
  dialog.dataset.values = JSON.stringify([...jobs.map((job) => ["job", job]), ...Object.entries(JSON.parse(values || "{}"))]);
  dialog.showModal();
}

function field({ label, options, ...rest }) {
  const made = document.createElement("label");
  made.className = "field";
  made.append(label + " ");
  const input = document.createElement(options ? "select" : "input");
  for (const word of options || []) input.append(new Option(word, word, false, word === rest.value));
  for (const [name, value] of Object.entries(rest)) if (!(options && name === "value")) input.setAttribute(name, value);
  made.append(input);
  return made;
}

async function send(dialog) {
  const body = new URLSearchParams(new FormData(dialog.querySelector("form")));
  for (const [name, value] of JSON.parse(dialog.dataset.values)) body.append(name, value);
  byId("ask-yes").disabled = true;
  try {
    const answer = await fetch(dialog.dataset.to, { method: "POST", body, headers: { "HX-Request": "true" } });
    const text = await answer.text();
    if (answer.ok) {
      dialog.close();
      for (const box of document.querySelectorAll("[data-job]:checked")) box.checked = false;
      chosen.clear();
      count();
      done(answer.headers, text);
    } else {
      byId("ask-wrong").textContent = text || answer.statusText;
      byId("ask-wrong").hidden = false;
    }
  } catch {
    byId("ask-wrong").textContent = "The server does not answer.";
    byId("ask-wrong").hidden = false;
  } finally {
    byId("ask-yes").disabled = false;
  }
}

function done(headers, text) {
  const told = headers.get("X-Told");
  if (told) tell(decodeURIComponent(told), headers.has("X-Partly"));
  if (text) {
    byId("secret-text").textContent = text;
    byId("secret").showModal();
  }
  htmx.trigger(document.body, "changed");
}

function draw(element) {
  const [hours, ran, spared] = JSON.parse(element.dataset.chart);
  element.replaceChildren();
  const short = (n) => (n >= 1e9 ? n / 1e9 + "G" : n >= 1e6 ? n / 1e6 + "M" : n >= 1e3 ? n / 1e3 + "k" : String(n));
  const axis = { stroke: ink("--soft"), grid: { stroke: ink("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const bars = uPlot.paths.bars({ size: [0.7, 28], radius: 0.15 });
  new uPlot(
    {
      width: element.clientWidth, height: element.clientHeight - 28,
      cursor: { points: { show: false }, drag: { x: false, y: false } },
      legend: { live: false },
      scales: { y: { range: (_, low, high) => [0, high || 1] } },
      axes: [{ ...axis, grid: { show: false }, size: 30, values: clock }, { ...axis, size: 54, values: (_, marks) => marks.map(short) }],
      series: [
        { label: "Hour", value: "{YYYY}-{MM}-{DD} {HH}:00" },
        { label: "as if alone", fill: ink("--wash"), stroke: ink("--accent"), width: 1, paths: bars, points: { show: false } },
        { label: "ran", fill: ink("--accent"), width: 0, paths: bars, points: { show: false } },
      ],
    },
    [hours, ran.map((n, i) => n + spared[i]), ran],
    element,
  );
}

const clock = (_, marks) =>
  marks.map((at) => new Date(at * 1000)).map((at, i) =>
    at.getHours() && i ? `${at.getHours()}:00` : at.toLocaleDateString(undefined, { month: "short", day: "numeric" }));

function ink(name) {
  const probe = document.createElement("i");
  probe.className = "probe";
  document.body.append(probe);
  probe.style.color = `var(${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function drawAll() {
  document.querySelectorAll("[data-chart]").forEach(draw);
  document.querySelectorAll("[data-grid]").forEach(drawGrid);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-post]");
  if (button) ask(button);
  else if (event.target.id === "ask-no") byId("ask").close();
  else if (event.target.id === "secret-copy") navigator.clipboard.writeText(byId("secret-text").textContent).then(() => tell("copied"));
});
document.addEventListener("change", (event) => {
  if (event.target.id === "all")
    for (const box of document.querySelectorAll("[data-job]")) box.checked = event.target.checked;
  if (event.target.matches("#all, [data-job]")) count();
});
document.addEventListener("submit", (event) => {
  if (!event.target.closest("#ask")) return;
  event.preventDefault();
  send(byId("ask"));
});
document.addEventListener("htmx:sseOpen", (event) => {
  source = event.detail.source;
  pulse(true);
});
document.addEventListener("htmx:sseError", () => pulse(false));
document.addEventListener("htmx:afterSwap", count);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
// A browser has six connections to one server for all its tabs: those that nobody sees let theirs go.
let source = null;
document.addEventListener("visibilitychange", () => {
  const wire = byId("wire");
  if (document.hidden && source) {
    source.close();
    source = null;
    pulse(false);
  } else if (!document.hidden && !source && wire) {
    const again = wire.cloneNode(true);
    wire.replaceWith(again);
    htmx.process(again);
    drawAll();
  }
});
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawAll(); } });

function pulse(live) {
  const light = byId("pulse");
  light.textContent = live ? "live" : "every 5 s";
  light.classList.toggle("live", live);
}

const current = document.querySelector("nav [aria-current]");
if (current) current.scrollIntoView({ inline: "center", block: "nearest" });
count();
drawAll();
