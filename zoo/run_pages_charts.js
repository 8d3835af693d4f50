"use strict";
// Drawing: elements, numbers as text, lines against an axis, points. Text of runs goes in as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 380, HIGH = 236, LEFT = 52, RIGHT = 12, TOP = 8, BOTTOM = 36;

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "colour") made.style.setProperty("--c", `var(--c${value})`);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);
// a path of which the end stays in view where there is no room for all of it
const path = (text) => el("bdi", { dir: "ltr" }, text);

// Numbers --------------------------------------------------------------------------------------------------------------

function digits(value, count = 4) {
  if (typeof value !== "number") return value ?? "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(Math.min(count - 1, 2)).replace("e+", "e");
  if (size >= 10 ** (count - 1)) return Math.round(value).toLocaleString("en");
  return String(value.toPrecision(count));
}

const short = (value) => {
  const size = Math.abs(value);
  for (const [unit, factor] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (size >= factor * (unit === "k" ? 10 : 1)) return `${+(value / factor).toPrecision(3)}${unit}`;
  }
  return size && size < 1e-3 ? value.toExponential(0).replace("e+", "e") : String(+value.toPrecision(4));
};

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${+seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)} min`;
  return `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))} h`;
}

// Axes -----------------------------------------------------------------------------------------------------------------

function scale(values, log, from, to, padding = 0.04) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || value === undefined || (log && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return null;
  const on = log ? Math.log10 : (value) => value;
  let [a, b] = [on(low), on(high)];
  if (a === b) [a, b] = [a - (Math.abs(a) * 0.1 || 0.5), b + (Math.abs(b) * 0.1 || 0.5)];
  const room = (b - a) * padding;
  [a, b] = [a - room, b + room];
  const place = (value) => (value === null || value === undefined || (log && value <= 0) ? null : from + ((on(value) - a) / (b - a)) * (to - from));
  return { place, ticks: log ? logTicks(a, b) : linearTicks(a, b) };
}

function linearTicks(low, high) {
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) ticks.push(+(n * step).toPrecision(12));
  return ticks;
}

function logTicks(low, high) {
  const leaps = high - low > 5 ? [1] : high - low > 1.2 ? [1, 3] : [1, 2, 3, 5, 7];
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const leap of leaps) {
      const at = Math.log10(leap) + power;
      if (at >= low && at <= high) ticks.push(+(leap * 10 ** power).toPrecision(6));
    }
  }
  const every = Math.ceil(ticks.length / 7);
  return ticks.length < 2 ? linearTicks(10 ** low, 10 ** high).filter((tick) => tick > 0) : ticks.filter((_, i) => i % every === 0);
}

function frame(x, y, xName, xText = short) {
  const parts = [];
  for (const tick of y.ticks) {
    const at = y.place(tick);
    parts.push(svg("line", { class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: at, y2: at }));
    parts.push(svg("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, short(tick)));
  }
  let last = -Infinity;
  for (const tick of x.ticks) {
    const at = x.place(tick), text = xText(tick);
    if (at - last < text.length * 6 + 10) continue; // they would touch
    last = at;
    parts.push(svg("line", { class: "edge", x1: at, x2: at, y1: HIGH - BOTTOM, y2: HIGH - BOTTOM + 4 }));
    parts.push(svg("text", { x: at, y: HIGH - BOTTOM + 16, "text-anchor": "middle" }, text));
  }
  parts.push(svg("line", { class: "edge", x1: LEFT, x2: WIDE - RIGHT, y1: HIGH - BOTTOM, y2: HIGH - BOTTOM }));
  parts.push(svg("text", { x: WIDE - RIGHT, y: HIGH - 4, "text-anchor": "end" }, xName));
  return parts;
}

// Tip ------------------------------------------------------------------------------------------------------------------

function tell(rows, left, top) {
  const tip = byId("tip");
  tip.replaceChildren(...rows.map(([colour, name, value]) =>
    el("div", {}, el("span", colour === null ? {} : { class: "dot", colour }), el("span", {}, name), el("b", {}, value))));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(left + 14, innerWidth - box.width - 6))}px`;
  tip.style.top = `${top - box.height - 12 < 6 ? top + 16 : top - box.height - 12}px`;
}
const untell = () => { byId("tip").hidden = true; };

// Charts ---------------------------------------------------------------------------------------------------------------

// lines: [{colour, label, split, xs, ys}]; a missing value parts a line
function lineChart(title, lines, xName, xText, log) {
  const x = scale(lines.flatMap((line) => line.xs), false, LEFT, WIDE - RIGHT, 0.01);
  const y = scale(lines.flatMap((line) => line.ys), log, HIGH - BOTTOM, TOP);
  if (!x || !y) return el("p", { class: "quiet" }, log ? "Nothing above zero to draw." : "No numbers to draw.");
  const drawn = lines.map((line) => {
    let d = "", pen = "M";
    line.ys.forEach((value, i) => {
      const at = y.place(value), across = x.place(line.xs[i]);
      if (at === null || across === null) pen = "M";
      else { d += `${pen}${across.toFixed(1)} ${at.toFixed(1)}`; pen = "L"; }
    });
    const single = !d.includes("L");
    return svg("path", { class: `curve ${line.split}`, colour: line.colour, d: single && d ? `${d}h.1` : d, "stroke-linecap": "round", "stroke-width": single ? 5 : null });
  });
  const ends = lines.map((line) => `${line.label} ${line.split} ends at ${digits(line.ys.findLast((value) => value !== null))}`);
  const cross = svg("line", { class: "cross", y1: TOP, y2: HIGH - BOTTOM, visibility: "hidden" });
  const chart = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", tabindex: 0, "aria-label": `${title} against ${xName}: ${ends.join("; ")}. Arrow keys read the values.` }, ...frame(x, y, xName, xText), ...drawn, cross);
  const steps = [...new Set(lines.flatMap((line) => line.xs))].filter((at) => at !== null).sort((a, b) => a - b);
  let at = null;
  const show = (index) => {
    at = Math.max(0, Math.min(steps.length - 1, index));
    const here = x.place(steps[at]), box = chart.getBoundingClientRect();
    cross.setAttribute("x1", here);
    cross.setAttribute("x2", here);
    cross.setAttribute("visibility", "visible");
    const rows = lines.map((line) => {
      let best = -1;
      line.xs.forEach((value, i) => {
        if (value !== null && line.ys[i] !== null && (best < 0 || Math.abs(value - steps[at]) < Math.abs(line.xs[best] - steps[at]))) best = i;
      });
      return best < 0 ? null : [line.colour, `${line.label} · ${line.split || "run"}`, digits(line.ys[best])];
    }).filter(Boolean);
    tell([[null, xName, xText(steps[at])], ...rows], box.left + (here / WIDE) * box.width, box.top + 24);
  };
  const hide = () => { cross.setAttribute("visibility", "hidden"); untell(); };
  const near = (event) => {
    const box = chart.getBoundingClientRect(), wanted = ((event.clientX - box.left) / box.width) * WIDE;
    let best = 0;
    steps.forEach((step, i) => { if (Math.abs(x.place(step) - wanted) < Math.abs(x.place(steps[best]) - wanted)) best = i; });
    show(best);
  };
  chart.addEventListener("pointermove", near);
  chart.addEventListener("pointerdown", near);
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); show(at === null ? steps.length - 1 : at + by); }
  });
  return chart;
}

// points: [{key, x, y, label, text, colour (null: not chosen), pick}]
function scatter(title, points, xName, xText) {
  const shown = points.filter((point) => point.x > 0);
  const x = scale(shown.map((point) => point.x), true, LEFT, WIDE - RIGHT, 0.05);
  const y = scale(shown.map((point) => point.y), false, HIGH - BOTTOM, TOP, 0.08);
  if (!x || !y) return el("p", { class: "quiet" }, "No run here has both numbers.");
  const marks = [...shown].sort((a, b) => (a.colour !== null) - (b.colour !== null)).map((point) => {
    const tip = (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      tell([[point.colour, point.label, ""], [null, title, digits(point.y)], [null, xName, point.text]], box.left, box.top);
    };
    return svg("circle", { class: point.colour === null ? "run" : "run on", colour: point.colour ?? 0, cx: x.place(point.x), cy: y.place(point.y), r: point.colour === null ? 4.5 : 6,
      tabindex: 0, role: "button", "data-key": point.key, "aria-label": `${point.label}: ${digits(point.y)} at ${point.text}`, onpointerenter: tip, onfocus: tip, onpointerleave: untell, onblur: untell,
      onclick: () => { untell(); point.pick(); }, onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); untell(); point.pick(); } } });
  });
  return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "group", "aria-label": `${title} against ${xName}, ${shown.length} runs` }, ...frame(x, y, `${xName}, logarithmic`, xText), ...marks);
}
