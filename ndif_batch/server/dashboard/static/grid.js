// Draws the parameter space of a job: a cell a task, in the colour of where it stands, or of what it saved once it has.
"use strict";

const CELLS = [["waiting", "--rest"], ["leased", "--leased"], ["saved", "--completed"], ["failed", "--failed"], ["cancelled", "--cancelled"], ["excluded", "--paper"]];
const LETTER = 7, LINE = 16;

async function drawGrid(element) {
  try {
    const answer = await fetch(element.dataset.grid);
    if (!answer.ok) return;
    element.data = await answer.json();
  } catch {
    return;
  }
  paint(element);
}

function paint(element) {
  const { rows, columns, cells, values, low, high, colours } = element.data;
  const canvas = element.querySelector("canvas"), high_rows = cells.length, wide = cells[0].length;
  const margin = rows ? Math.min(150, Math.max(...rows.labels.map((one) => one.length), rows.name.length) * LETTER + 12) : 4;
  const room = element.clientWidth - margin - 2;
  const width = Math.max(1, Math.min(34, room / wide));
  const height = rows ? Math.max(3, Math.min(26, 520 / high_rows, Math.max(width, 9))) : 40;
  const scale = devicePixelRatio || 1, whole = margin + width * wide, tall = LINE + height * high_rows + 2 * LINE;
  canvas.width = whole * scale;
  canvas.height = tall * scale;
  canvas.style.width = `${whole}px`;
  canvas.style.height = `${tall}px`;
  const draw = canvas.getContext("2d");
  draw.scale(scale, scale);
  const inks = CELLS.map(([, name]) => ink(name)), gap = width > 6 && height > 6 ? 1 : 0;
  cells.forEach((row, i) => row.forEach((cell, j) => {
    const value = values && values[i][j];
    draw.fillStyle = value === null || value === undefined ? inks[cell] : colour(value, low, high, colours);
    draw.fillRect(margin + j * width, LINE + i * height, width - gap, height - gap);
    if (CELLS[cell][0] === "failed" && gap) cross(draw, margin + j * width, LINE + i * height, width - gap, height - gap);
  }));
  draw.fillStyle = ink("--soft");
  draw.font = "12px system-ui, sans-serif";
  draw.textBaseline = "middle";
  if (rows) {
    draw.textAlign = "right";
    every(rows.labels, LINE / height, (label, i) => draw.fillText(label, margin - 6, LINE + (i + 0.5) * height, margin - 8));
    draw.textAlign = "left";
    draw.fillText(rows.name, 0, LINE / 2);
  }
  if (columns) {
    draw.textAlign = "center";
    const longest = Math.max(...columns.labels.map((one) => one.length));
    every(columns.labels, (longest * LETTER + 8) / width, (label, j) =>
      draw.fillText(label, margin + (j + 0.5) * width, LINE + height * high_rows + LINE * 0.6));
    draw.fillText(columns.name, margin + (width * wide) / 2, LINE + height * high_rows + LINE * 1.55);
  }
  element.frame = { margin, width, height };
  key(element);
  element.dataset.drawn = "yes";
}

// Apart from a value of that colour.
function cross(draw, x, y, width, height) {
  draw.strokeStyle = ink("--card");
  draw.lineWidth = 1.5;
  draw.beginPath();
  for (const [from, to] of [[0.3, 0.7], [0.7, 0.3]]) {
    draw.moveTo(x + width * from, y + height * 0.25);
    draw.lineTo(x + width * to, y + height * 0.75);
  }
  draw.stroke();
}

function every(labels, room, put) {
  const step = Math.max(1, Math.ceil(room));
  for (let i = 0; i < labels.length; i += step) put(labels[i], i);
}

function colour(value, low, high, colours) {
  const at = Math.min(1, Math.max(0, (value - low) / (high - low))) * (colours.length - 1);
  const first = Math.min(Math.floor(at), colours.length - 2), part = at - first;
  return `rgb(${colours[first].map((from, i) => Math.round(from + part * (colours[first + 1][i] - from)))})`;
}

function key(element) {
  const { cells, values, low, high, colours, save, steps } = element.data, line = element.querySelector(".key");
  const plain = new Set();
  let some = false;
  cells.forEach((row, i) => row.forEach((cell, j) => {
    if (values && values[i][j] !== null) some = true;
    else plain.add(cell);
  }));
  line.replaceChildren();
  if (some) {
    const ramp = document.createElement("canvas");
    ramp.width = 160;
    ramp.height = 1;
    const draw = ramp.getContext("2d");
    for (let x = 0; x < 160; x++) {
      draw.fillStyle = colour(low + (x / 159) * (high - low), low, high, colours);
      draw.fillRect(x, 0, 1, 1);
    }
    const part = document.createElement("span");
    part.append(`${save} ${digits(low)}`, ramp, digits(high));
    line.append(part);
  }
  for (const cell of [...plain].sort()) {
    const part = document.createElement("span"), swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = ink(CELLS[cell][1]);
    part.append(swatch, CELLS[cell][0]);
    line.append(part);
  }
  if (Math.max(...steps) > 1) line.append(`every ${Math.max(...steps)}th place is drawn`);
}

const digits = (value) => String(Number(value.toPrecision(3)));

function under(element, i, j) {
  const { rows, columns, cells, values } = element.data, line = element.querySelector(".under");
  if (!(cells[i] && j in cells[i])) {
    line.textContent = "";
    return;
  }
  const value = values && values[i][j];
  const where = [rows && `${rows.name} ${rows.labels[i]}`, columns && `${columns.name} ${columns.labels[j]}`].filter(Boolean);
  line.textContent = `${where.join(", ")}: ${value === null || value === undefined ? CELLS[cells[i][j]][0] : Number(value.toPrecision(5))}`;
  element.at = [i, j];
}

document.addEventListener("pointermove", (event) => {
  const element = event.target.closest && event.target.closest("[data-grid]");
  if (!element || !element.frame || event.target !== element.querySelector("canvas")) return;
  const { margin, width, height } = element.frame, box = event.target.getBoundingClientRect();
  under(element, Math.floor((event.clientY - box.top - LINE) / height), Math.floor((event.clientX - box.left - margin) / width));
});

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
document.addEventListener("keydown", (event) => {
  const element = event.target.closest && event.target.closest("[data-grid]");
  if (!element || !element.data || !STEPS[event.key]) return;
  event.preventDefault();
  const [i, j] = element.at || [0, -1], [down, right] = STEPS[event.key];
  const bound = (value, length) => Math.min(length - 1, Math.max(0, value));
  under(element, bound(i + down, element.data.cells.length), bound(j + right, element.data.cells[0].length));
});
