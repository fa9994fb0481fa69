"use strict";
// Draws the report from the JSON in #data. Jobs are parallel columns; row 0 is the best job.
const D = JSON.parse(document.getElementById("data").textContent);
const N = D.num.length;
const MAXIMIZE = D.direction === "maximize";
const MAX_LINES = 3000; // lines of the parallel coordinates: more are a solid block
const PAGE = 100; // table rows shown at a time
const FONT = '12px system-ui, "DejaVu Sans", sans-serif';
const $ = (selector, root = document) => root.querySelector(selector);
const rows = [...Array(N).keys()];
const finished = rows.filter((i) => D.status[i] === "finished");
const scored = finished.filter((i) => D.score[i] !== null);
const rowOf = new Map(D.num.map((num, i) => [num, i]));

// ---- small things

function el(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}
function note(section, text) { $(`#${section} > .note`).textContent = text; }
function short(x) {
  if (typeof x !== "number") return String(x);
  if (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e6)) {
    return x.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  return String(+x.toPrecision(6));
}
function duration(s) {
  if (s < 10) return `${s.toFixed(2)} s`;
  if (s < 60) return `${s.toFixed(1)} s`;
  const w = Math.round(s), two = (n) => String(n).padStart(2, "0");
  if (w < 3600) return `${Math.floor(w / 60)}:${two(w % 60)} min`;
  if (w < 172800) return `${Math.floor(w / 3600)}:${two(Math.floor((w % 3600) / 60))} h`;
  return `${Math.floor(w / 86400)} d ${Math.floor((w % 86400) / 3600)} h`;
}
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
function quantile(sorted, q) {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(q * (sorted.length - 1))))];
}
function hash(i) { // an even, repeatable scatter of 0..1
  const x = Math.sin((i + 1) * 12.9898) * 43758.5453;
  return x - Math.floor(x);
}
const scoreText = (i) => (D.score[i] !== null ? short(D.score[i]) : D.scoreText[i] || "–");
function valueText(p, i) {
  const v = p.values[i];
  return v === null ? null : typeof v === "number" ? short(v) : p.labels[v[0]];
}
function describe(i) {
  const head = `job ${D.num[i]}: ${D.status[i]}, score ${scoreText(i)}`;
  const params = D.params.map((p) => [p.name, valueText(p, i)]).filter((pair) => pair[1] !== null);
  const lines = params.slice(0, 14).map(([name, text]) => `${name} = ${text}`);
  if (params.length > 14) lines.push("...");
  const error = D.errors[D.error[i]];
  if (error && D.status[i] !== "finished") lines.push(error);
  return [head, ...lines].join("\n");
}

// ---- colours

let C = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["bg", "card", "ink", "dim", "line", "grid", "accent", "good", "mid", "bad",
    "fail", "idle", "stripe", "running", "lost"]) {
    C[name] = style.getPropertyValue(`--${name}`).trim();
  }
  const rgb = (hex) => {
    const h = hex.length === 4 ? hex.replace(/[0-9a-f]/gi, "$&$&") : hex;
    return [1, 3, 5].map((k) => parseInt(h.slice(k, k + 2), 16));
  };
  const stops = [rgb(C.bad), rgb(C.mid), rgb(C.good)];
  C.ramp = Array.from({ length: 65 }, (_, k) => {
    const t = (k / 64) * 2, a = stops[Math.min(1, Math.floor(t))];
    const b = stops[Math.min(1, Math.floor(t)) + 1], f = t - Math.min(1, Math.floor(t));
    return `rgb(${a.map((x, c) => Math.round(x + (b[c] - x) * f)).join(",")})`;
  });
}
const sortedScores = scored.map((i) => D.score[i]).sort((a, b) => a - b);
// Losses that spread over decades: on a log scale, or all good ones are one dot.
const LOG_SCORES = sortedScores.length > 7 && sortedScores[0] > 0
  && quantile(sortedScores, 0.9) / sortedScores[0] >= 100
  && (quantile(sortedScores, 0.5) - sortedScores[0]) / (quantile(sortedScores, 0.9) - sortedScores[0]) < 0.2;
const scaled = LOG_SCORES ? Math.log : (v) => v;
const bestScore = sortedScores.length ? (MAXIMIZE ? sortedScores.at(-1) : sortedScores[0]) : 0;
// From the 10% quantile of the bad side, so that a diverged run does not flatten the rest.
const worstShown = sortedScores.length ? quantile(sortedScores, MAXIMIZE ? 0.1 : 0.9) : 0;
function goodness(score) {
  if (bestScore === worstShown) return 1;
  const share = (scaled(score) / 2 - scaled(worstShown) / 2) / (scaled(bestScore) / 2 - scaled(worstShown) / 2);
  return Math.min(1, Math.max(0, share));
}
const colour = (score) => C.ramp[Math.round(goodness(score) * 64)];

// ---- axes: a value -> 0..1, with ticks

function niceTicks(min, max, count) {
  if (!Number.isFinite(max - min)) return [min, max];
  const step0 = (max - min) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(step0));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= step0) || step0;
  const ticks = [];
  for (let v = Math.ceil(min / step - 1e-9) * step; v <= max + step * 1e-6; v += step) {
    ticks.push(Math.abs(v) < step * 1e-9 ? 0 : v);
    if (ticks.length > 50) break;
  }
  return ticks;
}
function logTicks(min, max) {
  const ticks = [], decades = Math.log10(max / min), parts = decades > 3 ? [1] : [1, 2, 5];
  for (let e = Math.floor(Math.log10(min)); e <= Math.ceil(Math.log10(max)); e++) {
    for (const m of parts) {
      const v = m * 10 ** e;
      if (v >= min * 0.999 && v <= max * 1.001) ticks.push(+v.toPrecision(6));
    }
  }
  const every = Math.ceil(ticks.length / 8);
  return ticks.filter((_, k) => k % every === 0);
}
function numberAxis(sorted) { // of distinct numbers
  const min = sorted[0], max = sorted.at(-1), few = sorted.length <= 8;
  const ratios = sorted.slice(1).map((v, k) => v / sorted[k]);
  const geometric = sorted.length > 2 && min > 0 && ratios.every((r) => r > 1.3)
    && Math.max(...ratios.slice(0, 50)) / Math.min(...ratios.slice(0, 50)) < 2.6 && max / min >= 4;
  // Many values: on a log scale if most of them would crowd at the low end of a linear one.
  const crowded = max > min && (quantile(sorted, 0.5) - min) / (max - min) < 0.12;
  const log = min > 0 && (few ? geometric || max / min >= 100 : max / min >= 50 && crowded);
  const f = log ? Math.log : (v) => v;
  const pos = (v) => (max === min ? 0.5 : (f(v) - f(min)) / (f(max) - f(min)));
  const values = few ? sorted : log ? logTicks(min, max) : niceTicks(min, max, 5);
  return { pos, log, ticks: values.map((v) => ({ t: pos(v), text: short(v) })) };
}
function paramAxis(p) {
  const numbers = [...new Set(p.values.filter((v) => typeof v === "number"))].sort((a, b) => a - b);
  const absent = p.values.some((v) => v === null);
  const lanes = p.labels.map((text) => ({ text }));
  if (absent) lanes.push({ text: "absent", absent: true });
  // Numbers take what the lanes leave; lanes stand apart from them, at the lower end.
  const laneRoom = numbers.length ? Math.min(0.55, 0.1 + 0.12 * lanes.length) : 1;
  const base = numbers.length && lanes.length ? laneRoom : 0;
  const laneAt = (k) => (numbers.length
    ? base * 0.6 * (1 - (k + 0.5) / lanes.length)
    : 1 - (k + 0.5) / lanes.length);
  const axis = numbers.length ? numberAxis(numbers) : { pos: () => 0, ticks: [], log: false };
  const numberAt = (v) => base + (1 - base) * axis.pos(v);
  const ticks = axis.ticks.map((tick) => ({ t: base + (1 - base) * tick.t, text: tick.text }));
  lanes.forEach((lane, k) => ticks.push({ t: laneAt(k), text: lane.text, dim: lane.absent, lane: true }));
  const at = p.values.map((v) => (v === null ? laneAt(lanes.length - 1)
    : typeof v === "number" ? numberAt(v) : laneAt(v[0])));
  const laneWidth = numbers.length ? (base * 0.6) / Math.max(1, lanes.length) : 1 / lanes.length;
  return { name: p.name, at, ticks, log: axis.log, numeric: numbers.length > 0, laneWidth,
    few: numbers.length <= 8, values: p.values, absent, divide: base ? base * 0.75 : null };
}
function scoreAxis() {
  if (!sortedScores.length) return { pos: () => 0.5, ticks: [], clipped: 0 };
  let min = sortedScores[0], max = sortedScores.at(-1);
  const q1 = scaled(quantile(sortedScores, 0.25)), q3 = scaled(quantile(sortedScores, 0.75));
  const reach = 4 * (q3 - q1), back = LOG_SCORES ? Math.exp : (v) => v;
  if (reach > 0 && MAXIMIZE && q1 - scaled(min) > 2 * reach) min = back(q1 - reach);
  if (reach > 0 && !MAXIMIZE && scaled(max) - q3 > 2 * reach) max = back(q3 + reach);
  const clipped = sortedScores.filter((s) => s < min || s > max).length;
  const span = scaled(max) / 2 - scaled(min) / 2; // halves: the whole may be beyond a float
  const pos = (v) => (span === 0 ? 0.5 : Math.min(1, Math.max(0, (scaled(v) / 2 - scaled(min) / 2) / span)));
  const values = span === 0 ? [min] : LOG_SCORES ? logTicks(min, max) : niceTicks(min, max, 5);
  return { pos, clipped, ticks: values.map((v) => ({ t: pos(v), text: short(v) })) };
}
const S = scoreAxis();
const axes = D.params.map(paramAxis);
const byImportance = D.params.map((_, k) => k)
  .sort((a, b) => (D.importance[b] ?? -1) - (D.importance[a] ?? -1));

// ---- canvases

const charts = [];
function chart(parent, height, label, draw, { minWidth = 0, hits = null } = {}) {
  const canvas = el("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  parent.append(canvas);
  const one = { canvas, targets: [] };
  one.redraw = () => {
    const width = Math.max(minWidth, parent.clientWidth), scale = window.devicePixelRatio || 1;
    if (!width) return;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const g = canvas.getContext("2d");
    g.scale(scale, scale);
    g.font = FONT;
    g.textBaseline = "middle";
    one.targets = [];
    draw(g, width, height, one.targets);
  };
  one.hit = (x, y) => {
    if (hits) return hits(x, y);
    let found = null, near = 12 * 12;
    for (const [tx, ty, text] of one.targets) {
      const d = (tx - x) ** 2 + (ty - y) ** 2;
      if (d < near) { near = d; found = text; }
    }
    return found;
  };
  const tip = $("#tip");
  const show = (event) => {
    const box = canvas.getBoundingClientRect();
    let text = one.hit(event.clientX - box.left, event.clientY - box.top);
    if (typeof text === "function") text = text();
    if (text === null) { tip.hidden = true; return; }
    tip.textContent = text;
    tip.hidden = false;
    const w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.left = `${Math.max(4, Math.min(innerWidth - w - 4, event.clientX + 14))}px`;
    tip.style.top = `${event.clientY + 18 + h < innerHeight ? event.clientY + 18 : Math.max(4, event.clientY - h - 12)}px`;
  };
  canvas.addEventListener("pointermove", show);
  canvas.addEventListener("pointerdown", show);
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  charts.push(one);
  return one;
}
function clip(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  let low = 0, high = text.length;
  while (low < high) {
    const mid = (low + high + 1) >> 1;
    if (g.measureText(`${text.slice(0, mid)}…`).width <= width) low = mid; else high = mid - 1;
  }
  return low ? `${text.slice(0, low)}…` : "";
}
function clipName(g, name, width) { // of "optimizer.lr" the end says more
  const parts = name.split(".");
  while (parts.length > 1 && g.measureText(parts.join(".")).width > width) parts.shift();
  return clip(g, parts.join("."), width);
}
function frame(g, x0, y0, x1, y1) {
  g.strokeStyle = C.line;
  g.lineWidth = 1;
  g.beginPath();
  g.moveTo(x0, y0); g.lineTo(x0, y1); g.lineTo(x1, y1);
  g.stroke();
}
function yTicks(g, ticks, x0, x1, yOf) {
  g.textAlign = "right";
  let last = Infinity;
  for (const tick of ticks) {
    const y = yOf(tick.t);
    g.strokeStyle = C.grid;
    g.beginPath(); g.moveTo(x0, y); g.lineTo(x1, y); g.stroke();
    if (last - y < 13) continue;
    last = y;
    g.fillStyle = C.dim;
    g.fillText(tick.text, x0 - 6, y);
  }
}
function xTicks(g, ticks, y, xOf, width) {
  // Lanes ("absent", "None") have their label first; of the numbers as many as there is room for.
  g.textAlign = "center";
  const taken = [];
  const order = [...ticks.filter((t) => t.lane), ...ticks.filter((t) => !t.lane)];
  const most = Math.max(60, Math.min(130, width / Math.max(1, ticks.filter((t) => t.lane).length) - 8));
  for (const tick of order) {
    g.font = tick.dim ? `italic ${FONT}` : FONT;
    const text = clip(g, tick.text, tick.lane ? most : 130), half = g.measureText(text).width / 2;
    const x = xOf(tick.t), cx = Math.min(Math.max(x, half + 1), width - half - 1);
    if (taken.some(([a, b]) => cx - half < b + 6 && cx + half > a - 6)) continue;
    taken.push([cx - half, cx + half]);
    g.strokeStyle = C.line;
    g.beginPath(); g.moveTo(x, y); g.lineTo(x, y + 4); g.stroke();
    g.fillStyle = C.dim;
    g.fillText(text, cx, y + 13);
  }
  g.font = FONT;
}
const TIME_STEPS = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200];
function timeTicks(min, max, count) {
  const wanted = (max - min) / Math.max(1, count);
  if (wanted <= 0.5) return niceTicks(min, max, count);
  const step = TIME_STEPS.find((s) => s >= wanted) || 86400 * Math.ceil(wanted / 86400), ticks = [];
  for (let v = Math.ceil(min / step) * step; v <= max; v += step) ticks.push(v);
  return ticks;
}
const timeText = (v) => duration(v).replace(/\.0+ s/, " s").replace(":00 ", " ");
function leftRoom(g, ticks, most) {
  return Math.min(most, Math.max(24, ...ticks.map((t) => g.measureText(t.text).width)) + 10);
}
function dot(g, x, y, r) { g.beginPath(); g.arc(x, y, r, 0, 7); g.fill(); }
function cross(g, x, y, r) {
  g.beginPath();
  g.moveTo(x - r, y - r); g.lineTo(x + r, y + r);
  g.moveTo(x - r, y + r); g.lineTo(x + r, y - r);
  g.stroke();
}
const better = (MAXIMIZE ? "higher is better" : "lower is better") + (LOG_SCORES ? ", log scale" : "");
const clippedNote = S.clipped ? ` ${plural(S.clipped, "score")} beyond the scale at its edge.` : "";

// ---- head

function head() {
  const parts = [D.started ? `started ${D.started}` : "", D.devices.length ? plural(D.devices.length, "slot") : "",
    D.seed === null ? "" : `seed ${D.seed}`, D.hasTimes ? `run time ${duration(D.runTime)}` : "",
    D.direction, D.ended === null && D.hasTimes ? "not ended" : D.ended && D.ended !== "completed" ? `ended: ${D.ended}` : ""];
  $("#subtitle").textContent = parts.filter(Boolean).join(" · ");
  const tiles = $("#tiles");
  const tile = (label, value, className = "") => {
    const node = el("div", undefined, `tile ${className}`);
    node.append(el("span", label, "dim"), el("b", value));
    tiles.append(node);
  };
  const count = (status) => D.status.filter((s) => s === status).length;
  tile("best score", scored.length ? scoreText(scored[0]) : "none");
  const count3 = (n) => n.toLocaleString("en");
  tile("finished", D.total > finished.length ? `${count3(finished.length)} of ${count3(D.total)}` : count3(finished.length));
  tile("failed", count3(count("failed")), count("failed") ? "fail" : "");
  const other = N - finished.length - count("failed");
  if (other) tile(D.ended === null && D.hasTimes ? "running or waiting" : "not finished", count3(other));
  const done = finished.map((i) => D.duration[i]).filter(Boolean).sort((a, b) => a - b);
  if (done.length) tile("median job", duration(quantile(done, 0.5)));
  if (scored.length) {
    const i = scored[0];
    const params = D.params.map((p) => [p.name, valueText(p, i)]).filter((pair) => pair[1] !== null);
    tile(`best job: ${D.num[i]} (${D.name[i]})`, params.map(([n, v]) => `${n}=${v}`).join("   ") || "no parameters", "wide");
  }
  if (D.fixed.length) {
    const fixed = $("#fixed");
    fixed.hidden = false;
    $("summary", fixed).textContent = `${plural(D.fixed.length, "parameter")} the same in all jobs`;
    $("p", fixed).textContent = D.fixed.map(([n, v]) => `${n}=${v}`).join("   ");
  }
  $("#foot").textContent = `Made ${D.made} from ${D.source}.`;
}

// ---- best so far

function progress() {
  if (!scored.length) { note("progress", "No job gave a score yet."); return; }
  const timed = D.hasTimes;
  note("progress", `${better}; dots are finished jobs${timed ? ", over the sweep's run time" : ", by job number"}.${clippedNote}`);
  const at = (i) => (timed ? D.ended_at[i] : D.num[i]);
  const end = timed ? D.runTime || 1 : Math.max(1, ...D.num.slice(0, 50000));
  chart($("#progress .chart"), 260, "Best score over time", (g, width, height, targets) => {
    const x0 = leftRoom(g, S.ticks, width * 0.3), x1 = width - 14, y0 = 12, y1 = height - 26;
    const X = (t) => x0 + (t / end) * (x1 - x0), Y = (t) => y1 - t * (y1 - y0);
    yTicks(g, S.ticks, x0, x1, Y);
    frame(g, x0, y0, x1, y1);
    const ticks = (timed ? timeTicks : niceTicks)(0, end, Math.max(2, Math.min(8, width / 95)));
    xTicks(g, ticks.map((v) => ({ t: v / end, text: (timed ? timeText : short)(v) })), y1, (t) => x0 + t * (x1 - x0), width);
    g.fillStyle = C.mid;
    g.globalAlpha = scored.length > 2000 ? 0.35 : 0.8;
    const r = scored.length > 2000 ? 1.5 : 3;
    for (const i of scored) {
      if (at(i) === null) continue;
      const x = X(at(i)), y = Y(S.pos(D.score[i]));
      if (r < 2) g.fillRect(x - r, y - r, 2 * r, 2 * r); else dot(g, x, y, r);
      targets.push([x, y, () => describe(i)]);
    }
    g.globalAlpha = 1;
    g.strokeStyle = C.fail;
    for (const i of rows) {
      if (D.status[i] !== "failed" || at(i) === null) continue;
      cross(g, X(at(i)), y1 - 5, 3);
      targets.push([X(at(i)), y1 - 5, () => describe(i)]);
    }
    const steps = timed ? D.bests : numberedBests();
    g.strokeStyle = C.accent;
    g.fillStyle = C.accent;
    g.lineWidth = 2;
    g.beginPath();
    steps.forEach(([t, score], k) => {
      const y = Y(S.pos(score));
      if (k === 0) g.moveTo(X(t), y);
      else { g.lineTo(X(t), Y(S.pos(steps[k - 1][1]))); g.lineTo(X(t), y); }
    });
    if (steps.length) g.lineTo(x1, Y(S.pos(steps.at(-1)[1])));
    g.stroke();
    for (const [t, score, job] of steps) {
      const x = X(t), y = Y(S.pos(score));
      dot(g, x, y, 3);
      targets.push([x, y, `best so far: ${short(score)}\njob ${job}${timed ? `, after ${duration(t)}` : ""}`]);
    }
  });
}
function numberedBests() {
  const order = [...scored].sort((a, b) => D.num[a] - D.num[b]), steps = [];
  for (const i of order) {
    const s = D.score[i];
    if (!steps.length || (MAXIMIZE ? s > steps.at(-1)[1] : s < steps.at(-1)[1])) steps.push([D.num[i], s, D.num[i]]);
  }
  return steps;
}

// ---- importance

function importance() {
  const known = byImportance.filter((k) => D.importance[k] !== null);
  if (!known.length) {
    note("importance", D.params.length ? "Too few finished jobs to tell." : "No parameter varies.");
    return;
  }
  note("importance", "Share of the variance of the score ranks that each parameter explains by itself, less what chance would (rank epsilon²). A conditional parameter is judged among the jobs that have it." + (finished.length < 20 ? " Take it with care: there are few jobs." : ""));
  const bars = $("#importance .bars");
  for (const k of byImportance) {
    const share = D.importance[k];
    const label = el("span", D.params[k].name, "label");
    label.title = D.params[k].name;
    const track = el("div", undefined, "track"), fill = el("div", undefined, "fill");
    fill.style.width = `${(share ?? 0) * 100}%`;
    fill.hidden = share === null;
    track.append(fill);
    bars.append(label, track, el("span", share === null ? "–" : `${Math.round(share * 100)}%`, "value"));
  }
}

// ---- score against each parameter

function scatter() {
  if (!D.params.length || !scored.length) { note("scatter", "Nothing varies, or no job gave a score."); return; }
  const failures = rows.filter((i) => D.status[i] === "failed");
  note("scatter", `${better}; the most important first. Jobs that do not have a parameter stand under “absent”.${failures.length ? " × marks failed jobs." : ""}${clippedNote}`);
  const grid = $("#scatter .grid"), small = scored.length > 1500;
  for (const k of byImportance) {
    const axis = axes[k], cell = el("div", undefined, "cell");
    cell.append(el("h3", axis.name + (axis.log ? " (log)" : "")));
    grid.append(cell);
    chart(cell, 190, `Score against ${axis.name}`, (g, width, height, targets) => {
      const x0 = leftRoom(g, S.ticks, width * 0.35), x1 = width - 10, y0 = 8, y1 = height - 24;
      const pad = 10, X = (t) => x0 + pad + t * (x1 - x0 - 2 * pad), Y = (t) => y1 - 8 - t * (y1 - y0 - 10);
      yTicks(g, S.ticks, x0, x1, Y);
      frame(g, x0, y0, x1, y1);
      if (axis.divide !== null) { // lanes on the left, numbers on the right
        g.setLineDash([2, 3]);
        g.beginPath(); g.moveTo(X(axis.divide), y0); g.lineTo(X(axis.divide), y1); g.stroke();
        g.setLineDash([]);
      }
      xTicks(g, axis.ticks, y1, X, width);
      const room = (x1 - x0 - 2 * pad) * (axis.numeric ? 0.03 : Math.min(0.5, axis.laneWidth * 0.5));
      const spread = (i) => {
        const lane = typeof axis.values[i] !== "number";
        if (!lane && !axis.few) return 0;
        return (hash(D.num[i]) - 0.5) * Math.min(small ? 40 : 16, lane ? Math.max(room, 6) : room * 1.6);
      };
      const last = scored.length - 1;
      for (let n = last; n >= 0; n--) { // the best on top
        const i = scored[n], x = X(axis.at[i]) + spread(i), y = Y(S.pos(D.score[i]));
        g.fillStyle = axis.values[i] === null ? C.lost : colour(D.score[i]);
        g.globalAlpha = small ? 0.55 : 0.85;
        if (small) g.fillRect(x - 1.25, y - 1.25, 2.5, 2.5); else dot(g, x, y, 3.2);
        targets.push([x, y, () => describe(i)]);
      }
      g.globalAlpha = 1;
      g.strokeStyle = C.fail;
      g.lineWidth = 1.2;
      g.globalAlpha = failures.length > 200 ? 0.3 : 1;
      for (const i of failures) {
        const x = X(axis.at[i]) + spread(i);
        cross(g, x, y1 - 5, 2.5);
        targets.push([x, y1 - 5, () => describe(i)]);
      }
      g.globalAlpha = 1;
      const b = scored[0], bx = X(axis.at[b]) + spread(b), by = Y(S.pos(D.score[b]));
      g.strokeStyle = C.accent;
      g.lineWidth = 2;
      g.beginPath(); g.arc(bx, by, 5.5, 0, 7); g.stroke();
    });
  }
}

// ---- parallel coordinates

const brushes = new Map(); // axis index -> [low, high]; the score's is axes.length
function brushed(i) {
  for (const [k, [low, high]] of brushes) {
    const t = k < axes.length ? axes[k].at[i] : D.score[i] === null ? -1 : S.pos(D.score[i]);
    if (t < low || t > high) return false;
  }
  return true;
}
function parallel() {
  if (!D.params.length || !scored.length) { note("parallel", "Nothing varies, or no job gave a score."); return; }
  const all = [...axes, { name: "score", ticks: S.ticks }], count = all.length;
  const top = Math.min(scored.length, 300);
  const step = Math.max(1, (scored.length - top) / (MAX_LINES - top));
  const sample = scored.slice(0, top);
  for (let n = top; n < scored.length; n += step) sample.push(scored[Math.floor(n)]);
  const thinned = sample.length < scored.length;
  note("parallel", `One line a job; drag along an axis to select, tap it to clear.${thinned ? ` ${sample.length.toLocaleString("en")} of ${plural(scored.length, "job")} drawn: the ${top} best, and every ${step.toFixed(1)}th of the others.` : ""}`);
  const legend = $("#parallel .legend");
  const item = (className, text) => { const s = el("span"); s.append(el("i", undefined, className), text); legend.append(s); return s; };
  legend.append(el("span", `score ${short(worstShown)}`), el("i", undefined, "ramp"), el("span", short(bestScore)));
  $("i", item("", "best")).style.background = "var(--accent)";
  if (axes.some((axis) => axis.absent)) legend.append(el("span", "Lines are dashed where they touch “absent”."));
  const height = 330, y0 = 44, y1 = height - 14;
  const Y = (t) => y1 - t * (y1 - y0);
  let xs = [];
  const drawn = chart($("#parallel .chart"), height, "Parallel coordinates", (g, width) => {
    const edge = 46;
    xs = all.map((_, k) => edge + (k / (count - 1)) * (width - 2 * edge));
    const yAt = (i, k) => Y(k < axes.length ? axes[k].at[i] : S.pos(D.score[i]));
    const jitter = (i, k) => (k < axes.length && (axes[k].few || !axes[k].numeric) ? (hash(D.num[i] * 7 + k) - 0.5) * 7 : 0);
    const line = (i) => {
      for (let k = 0; k + 1 < count; k++) {
        const absent = [k, k + 1].some((a) => a < axes.length && axes[a].values[i] === null);
        g.setLineDash(absent ? [3, 4] : []);
        g.beginPath();
        const ya = yAt(i, k) + jitter(i, k), yb = yAt(i, k + 1) + jitter(i, k + 1), m = (xs[k] + xs[k + 1]) / 2;
        g.moveTo(xs[k], ya);
        g.bezierCurveTo(m, ya, m, yb, xs[k + 1], yb);
        g.stroke();
      }
    };
    const alpha = sample.length > 1000 ? 0.25 : sample.length > 200 ? 0.45 : 0.8;
    g.lineWidth = sample.length > 1000 ? 0.8 : 1.3;
    const inside = sample.filter(brushed);
    if (brushes.size) {
      g.globalAlpha = 0.08;
      g.strokeStyle = C.dim;
      for (const i of sample) if (!brushed(i)) line(i);
    }
    for (let n = inside.length - 1; n >= 0; n--) {
      const s = D.score[inside[n]];
      g.globalAlpha = alpha + (1 - alpha) * goodness(s) ** 4 * 0.7;
      g.strokeStyle = colour(s);
      line(inside[n]);
    }
    g.globalAlpha = 1;
    g.strokeStyle = C.accent;
    g.lineWidth = 2.5;
    if (inside.length) line(inside[0]);
    g.setLineDash([]);
    const slot = (width - 2 * edge) / (count - 1);
    all.forEach((axis, k) => {
      g.strokeStyle = C.dim;
      g.lineWidth = 1;
      g.beginPath(); g.moveTo(xs[k], y0); g.lineTo(xs[k], y1); g.stroke();
      if (brushes.has(k)) {
        const [low, high] = brushes.get(k);
        g.fillStyle = C.accent;
        g.globalAlpha = 0.3;
        g.fillRect(xs[k] - 7, Y(high), 14, Y(low) - Y(high));
        g.globalAlpha = 1;
      }
      g.fillStyle = C.ink;
      g.textAlign = "center";
      g.font = `600 ${FONT}`;
      const title = clipName(g, axis.name, Math.min(slot - 8, 2 * edge - 6 + (k && k < count - 1 ? 200 : 0)));
      g.fillText(title, xs[k], 12);
      g.font = `11px ${FONT.slice(5)}`;
      if (axis.log) { g.fillStyle = C.dim; g.fillText("log", xs[k], 27); }
      let last = Infinity;
      for (const tick of [...axis.ticks].sort((a, b) => a.t - b.t)) {
        const y = Y(tick.t);
        if (last - y < 13) continue;
        last = y;
        g.font = `${tick.dim ? "italic " : ""}11px ${FONT.slice(5)}`;
        const right = k === count - 1;
        g.textAlign = right ? "right" : "left";
        const text = clip(g, tick.text, right ? edge + 30 : Math.min(130, slot - 16));
        const x = right ? xs[k] - 6 : xs[k] + 6;
        g.strokeStyle = C.card;
        g.lineWidth = 3.5;
        g.lineJoin = "round";
        g.strokeText(text, x, y);
        g.fillStyle = tick.dim ? C.dim : C.ink;
        g.fillText(text, x, y);
      }
      g.font = FONT;
    });
  }, { minWidth: Math.max(300, count * 92), hits: () => null });
  dragAxes(drawn, () => xs, (y) => Math.min(1.02, Math.max(-0.02, (y1 - y) / (y1 - y0))));
}
function dragAxes(drawn, xsNow, tOf) {
  let axis = -1, from = 0;
  const canvas = drawn.canvas;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.style.touchAction = "pan-x pan-y";
  canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = place(event);
    axis = xsNow().findIndex((ax) => Math.abs(ax - x) < 14);
    if (axis < 0) return;
    from = y;
    brushes.delete(axis);
    canvas.setPointerCapture(event.pointerId);
    brushChanged(drawn);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (axis < 0) { canvas.style.cursor = xsNow().some((ax) => Math.abs(ax - place(event)[0]) < 14) ? "ns-resize" : ""; return; }
    const y = place(event)[1];
    if (Math.abs(y - from) > 4) {
      brushes.set(axis, [tOf(Math.max(y, from)), tOf(Math.min(y, from))]);
      brushChanged(drawn);
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { axis = -1; });
  $("#unbrush").addEventListener("click", () => { brushes.clear(); brushChanged(drawn); });
}
let waiting = false;
function brushChanged(drawn) {
  if (waiting) return;
  waiting = true;
  setTimeout(() => { // not at each pixel of a drag
    waiting = false;
    drawn.redraw();
    $("#unbrush").hidden = !brushes.size;
    table.refresh();
  }, 30);
}

// ---- timeline

const OUTCOMES = [["finished", "finished", "mid"], ["failed", "failed attempt", "fail"],
  ["stopped", "stopped or lost", "lost"], ["running", "running", "running"]];
function outcomeOf(kind) {
  if (kind === "finished" || kind === "running") return kind;
  return kind === "interrupted" || kind === "lost" ? "stopped" : "failed";
}
function timeline() {
  if (!D.spans.length) { note("timeline", D.hasTimes ? "Nothing ran." : "A log has no times; the journal of a sweep folder has."); return; }
  const slots = [...new Set([...D.devices.map((_, k) => k + 1), ...D.spans.map((s) => s[1])])].sort((a, b) => a - b);
  const end = D.runTime || 1, busy = new Map(slots.map((s) => [s, 0]));
  const bySlot = new Map(slots.map((s) => [s, []]));
  for (const span of D.spans) {
    busy.set(span[1], busy.get(span[1]) + span[3] - span[2]);
    bySlot.get(span[1]).push(span);
  }
  const used = [...busy.values()].reduce((a, b) => a + b, 0) / (slots.length * end);
  const kinds = new Set(D.spans.map((s) => outcomeOf(s[4])));
  note("timeline", `${Math.round(used * 100)}% of the slots' time was busy.${D.sessions.length ? " Dashed lines: the sweep was resumed; the pause is left out." : ""} Drag to zoom, double-click to see all.`);
  const legend = $("#timeline .legend");
  for (const [kind, text, name] of OUTCOMES) {
    if (!kinds.has(kind)) continue;
    const span = el("span"), box = el("i");
    box.style.background = `var(--${name})`;
    span.append(box, text);
    legend.append(span);
  }
  const idle = el("span");
  idle.append(el("i", undefined, "stripes"), "idle");
  legend.append(idle);
  const rowHeight = slots.length > 24 ? 16 : 26, height = slots.length * rowHeight + 34;
  let view = [0, end], geometry = null, selecting = null;
  const colourOf = Object.fromEntries(OUTCOMES.map(([kind, , name]) => [kind, name]));
  const drawn = chart($("#timeline .chart"), height, "What each slot did over time", (g, width) => {
    const label = (s) => `${s}${width > 560 && D.devices[s - 1] ? `  ${D.devices[s - 1]}` : ""}`;
    const x0 = leftRoom(g, slots.map((s) => ({ text: label(s) })), width * 0.3), x1 = width - 48;
    const X = (t) => x0 + ((t - view[0]) / (view[1] - view[0])) * (x1 - x0);
    geometry = { x0, x1, X };
    const stripes = pattern(g);
    slots.forEach((s, n) => {
      const y = n * rowHeight + 4, h = rowHeight - 6;
      g.textAlign = "right";
      g.fillStyle = C.ink;
      g.fillText(clip(g, label(s), x0 - 8), x0 - 6, y + h / 2);
      g.fillStyle = stripes;
      g.fillRect(x0, y, x1 - x0, h);
      g.save();
      g.beginPath(); g.rect(x0, y, x1 - x0, h); g.clip();
      const least = bySlot.get(s).length > x1 - x0 ? 0.7 : 2; // pixels of a failure
      for (const kind of ["finished", "running", "stopped", "failed"]) { // failures on top
        g.fillStyle = C[colourOf[kind]];
        for (const [, , from, to, outcome] of bySlot.get(s)) {
          if (outcomeOf(outcome) !== kind || to < view[0] || from > view[1]) continue;
          const a = X(from), w = X(to) - a;
          g.fillRect(a, y, Math.max(w > 4 ? w - 1 : w, kind === "failed" ? least : 0.5), h);
        }
      }
      g.restore();
      g.textAlign = "left";
      g.fillStyle = C.dim;
      g.fillText(`${Math.round((busy.get(s) / end) * 100)}%`, x1 + 8, y + h / 2);
    });
    const y1 = slots.length * rowHeight + 2;
    g.strokeStyle = C.ink;
    g.setLineDash([4, 3]);
    for (const t of D.sessions) {
      if (t < view[0] || t > view[1]) continue;
      g.beginPath(); g.moveTo(X(t), 0); g.lineTo(X(t), y1); g.stroke();
    }
    g.setLineDash([]);
    const span = view[1] - view[0];
    const ticks = timeTicks(view[0], view[1], Math.max(2, Math.min(8, width / 95)));
    xTicks(g, ticks.map((v) => ({ t: (v - view[0]) / span, text: timeText(v) })), y1, (t) => x0 + t * (x1 - x0), width);
    if (selecting) {
      g.fillStyle = C.accent;
      g.globalAlpha = 0.2;
      g.fillRect(Math.min(...selecting), 0, Math.abs(selecting[1] - selecting[0]), y1);
      g.globalAlpha = 1;
    }
  }, { hits: (x, y) => {
    const s = slots[Math.floor(y / rowHeight)];
    if (s === undefined || !geometry || x < geometry.x0 || x > geometry.x1) return null;
    const t = view[0] + ((x - geometry.x0) / (geometry.x1 - geometry.x0)) * (view[1] - view[0]);
    const slack = ((view[1] - view[0]) / (geometry.x1 - geometry.x0)) * 2;
    const near = bySlot.get(s).filter(([, , from, to]) => t >= from - slack && t <= to + slack);
    const hit = near.find((one) => outcomeOf(one[4]) === "failed") || near[0];
    if (!hit) return `slot ${s}: idle`;
    const row = rowOf.get(hit[0]);
    return `slot ${s}, ${duration(hit[3] - hit[2])}, attempt ${hit[4]}\n${row === undefined ? "" : describe(row)}`;
  } });
  const at = (event) => event.clientX - drawn.canvas.getBoundingClientRect().left;
  drawn.canvas.addEventListener("pointerdown", (event) => { selecting = [at(event), at(event)]; });
  drawn.canvas.addEventListener("pointermove", (event) => {
    if (!selecting || !event.buttons) return;
    selecting[1] = at(event);
    drawn.redraw();
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
    drawn.canvas.addEventListener(name, (event) => {
      if (!selecting) return;
      const [a, b] = [...selecting].sort((p, q) => p - q), { x0, x1 } = geometry;
      selecting = null;
      if (b - a > 8 && name === "pointerup") {
        const t = (x) => view[0] + (Math.min(1, Math.max(0, (x - x0) / (x1 - x0)))) * (view[1] - view[0]);
        view = [t(a), Math.max(t(b), t(a) + end * 1e-6)];
      }
      drawn.redraw();
    });
  }
  drawn.canvas.addEventListener("dblclick", () => { view = [0, end]; drawn.redraw(); });
}
function pattern(g) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const p = tile.getContext("2d");
  p.fillStyle = C.idle;
  p.fillRect(0, 0, 8, 8);
  p.strokeStyle = C.stripe;
  p.lineWidth = 2;
  p.beginPath();
  for (const d of [-8, 0, 8]) { p.moveTo(d, 8); p.lineTo(d + 8, 0); }
  p.stroke();
  return g.createPattern(tile, "repeat");
}

// ---- table

const rank = new Map(finished.map((i, n) => [i, n + 1]));
function columns() {
  const param = (p) => ({ title: p.name, number: p.values.every((v) => v === null || typeof v === "number"),
    text: (i) => valueText(p, i) ?? "", absent: (i) => p.values[i] === null,
    key: (i) => { const v = p.values[i]; return v === null ? [2, 0] : typeof v === "number" ? [0, v] : [1, p.labels[v[0]]]; } });
  const number = (title, value, text) => ({ title, number: true, text: (i) => (value(i) === null ? "" : text ? text(i) : String(value(i))), key: (i) => (value(i) === null ? [2, 0] : [0, value(i)]) });
  const words = (title, text, className) => ({ title, text, className, key: (i) => (text(i) ? [1, text(i)] : [2, 0]) });
  const list = [number("rank", (i) => rank.get(i) ?? null), number("score", (i) => D.score[i], scoreText),
    number("job", (i) => D.num[i]), ...D.params.map(param)];
  list[1].text = (i) => (D.score[i] === null && !D.scoreText[i] ? "" : scoreText(i));
  if (D.duration.some(Boolean)) list.push(number("time", (i) => D.duration[i], (i) => duration(D.duration[i])));
  if (D.slot.some(Boolean)) list.push(number("slot", (i) => D.slot[i]));
  if (D.attempts.some((n) => n > 1)) list.push(number("attempts", (i) => D.attempts[i]));
  list.push(words("status", (i) => D.status[i]), words("name", (i) => D.name[i]));
  if (D.errors.some(Boolean)) list.push(words("error", (i) => (D.status[i] === "finished" ? "" : D.errors[D.error[i]]), "error"));
  return list;
}
const table = {
  columns: columns(), sort: 0, down: false, shown: PAGE, texts: [],
  text(i) {
    return (this.texts[i] ??= this.columns.map((c) => c.text(i)).join(" ").toLowerCase());
  },
  test(word) { // one word of the filter -> a test of a row
    const compare = word.match(/^([^<>=]+)(<=|>=|=|<|>)(.+)$/);
    const column = compare && this.columns.find((c) => c.title.toLowerCase() === compare[1]);
    if (!column) return (i) => this.text(i).includes(word);
    const [, , sign, wanted] = compare, number = Number(wanted);
    return (i) => {
      const [kind, value] = column.key(i);
      if (kind === 0 && !Number.isNaN(number)) {
        return { "<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number, "=": value === number }[sign];
      }
      return sign === "=" && column.text(i).toLowerCase() === wanted;
    };
  },
  refresh() {
    const tests = $("#filter").value.toLowerCase().split(/\s+/).filter(Boolean).map((w) => this.test(w));
    const status = $("#status").value;
    if (status) tests.push((i) => D.status[i] === status);
    if (brushes.size) tests.push(brushed);
    const found = rows.filter((i) => tests.every((test) => test(i)));
    const column = this.columns[this.sort], sign = this.down ? -1 : 1;
    const keys = new Map(found.map((i) => [i, column.key(i)]));
    found.sort((a, b) => {
      const [ka, va] = keys.get(a), [kb, vb] = keys.get(b);
      if (ka !== kb) return ka - kb; // what is missing stays last, whichever way
      return (va < vb ? -1 : va > vb ? 1 : 0) * sign || a - b;
    });
    const body = $("#jobs tbody");
    body.replaceChildren(...found.slice(0, this.shown).map((i) => this.row(i)));
    $("#count").textContent = found.length === N ? plural(N, "job") : `${found.length.toLocaleString("en")} of ${plural(N, "job")}`;
    const more = $("#more"), left = found.length - this.shown;
    more.hidden = left <= 0;
    more.textContent = `show ${Math.min(left, PAGE * 5)} more of ${left.toLocaleString("en")}`;
    this.columns.forEach((c, k) => {
      const th = $(`#jobs thead th:nth-child(${k + 1})`);
      th.setAttribute("aria-sort", k !== this.sort ? "none" : this.down ? "descending" : "ascending");
      $("button", th).textContent = c.title + (k !== this.sort ? "" : this.down ? " ▾" : " ▴");
    });
  },
  row(i) {
    const tr = el("tr", undefined, `${D.status[i]}${i === scored[0] ? " best" : ""}`);
    for (const c of this.columns) {
      const absent = c.absent && c.absent(i);
      const td = el("td", absent ? "·" : c.text(i), `${c.number ? "number" : ""} ${c.className || ""} ${absent ? "absent" : ""}`.trim());
      if (td.textContent.length > 30) td.title = td.textContent;
      tr.append(td);
    }
    return tr;
  },
  build() {
    const tr = el("tr");
    this.columns.forEach((c, k) => {
      const th = el("th", undefined, c.number ? "number" : ""), button = el("button", c.title);
      button.type = "button";
      button.addEventListener("click", () => {
        this.down = this.sort === k ? !this.down : c.title === "score" && MAXIMIZE;
        this.sort = k;
        this.shown = PAGE;
        this.refresh();
      });
      th.append(button);
      tr.append(th);
    });
    $("#jobs thead").append(tr);
    const status = $("#status"), counts = new Map();
    for (const s of D.status) counts.set(s, (counts.get(s) || 0) + 1);
    status.append(new Option("all", ""), ...[...counts].map(([s, n]) => new Option(`${s} (${n})`, s)));
    const again = () => { this.shown = PAGE; this.refresh(); };
    $("#filter").placeholder = "filter, such as  " + (D.params[0] ? `${D.params[0].name}=${valueText(D.params[0], scored[0] ?? 0) ?? ""}` : "failed");
    $("#filter").addEventListener("input", again);
    status.addEventListener("change", again);
    $("#more").addEventListener("click", () => { this.shown += PAGE * 5; this.refresh(); });
    this.refresh();
  },
};

// ---- go

readColours();
head();
progress();
importance();
scatter();
parallel();
timeline();
table.build();
const redrawAll = () => charts.forEach((one) => one.redraw());
redrawAll();
let lastWidth = document.body.clientWidth;
new ResizeObserver(() => {
  if (document.body.clientWidth === lastWidth) return;
  lastWidth = document.body.clientWidth;
  requestAnimationFrame(redrawAll);
}).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redrawAll(); });
document.documentElement.dataset.ready = "yes"; // for tests
