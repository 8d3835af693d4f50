// The page: what is chosen and filtered is `view`; every change draws again what depends on it.

const DATA = JSON.parse(byId("data").textContent);
const RUNS = DATA.runs;
const MOST = 8, FIRST_ROWS = 100, FIRST_PANELS = 6;
const view = { sort: "started", down: true, rows: FIRST_ROWS, chosen: [], axis: "step", shown: new Set(["train", "val", ""]), columns: new Set(), first: true };
RUNS.forEach((run, number) => { run.number = number; });

// Columns --------------------------------------------------------------------------------------------------------------

const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
const setting = (run, key) => {
  const column = DATA.settings[key], place = column ? column.of[run.number] ?? -1 : -1;
  return place < 0 ? null : column.values[place];
};
const scored = (run) => (run.score === null ? null : run.scores[run.score]);
const COLUMNS = new Map();
const column = (key, name, of, more = {}) => COLUMNS.set(key, { key, name, of, group: "Columns", show: (value) => value ?? "–", ...more });
column("state", "State", (run) => run.state, { kind: "state" });
column("model", "Model", (run) => run.model);
column("data", "Data", (run) => run.data);
column("task", "Task", (run) => run.task);
column("score", "Score", scored, { number: true, show: digits, kind: "score", score: (run) => run.score });
column("parameters", "Parameters", (run) => run.parameters, { number: true, show: count });
column("multiply_adds", "Multiply-adds", (run) => run.multiply_adds, { number: true, show: count });
column("seconds", "Time", (run) => run.seconds, { number: true, show: duration });
column("epochs", "Epochs", (run) => run.epochs, { number: true, show: count });
column("steps", "Steps", (run) => run.steps, { number: true, show: count });
column("seed", "Seed", (run) => run.seed, { number: true });
column("started", "Started", (run) => run.started);
column("commit", "Commit", (run) => run.commit, { kind: "code" });
column("command", "Command", (run) => run.command, { kind: "code" });
const USUAL = ["state", "model", "data", "task", "score", "parameters", "multiply_adds", "seconds", "epochs", "started", "commit", "command"];
const SCORES = [...new Set(RUNS.flatMap((run) => Object.keys(run.scores)))].sort();
for (const name of SCORES) column(`score:${name}`, name, (run) => run.scores[name] ?? null, { number: true, show: digits, group: "Scores", kind: "score", score: () => name });
for (const [key, { values, of }] of Object.entries(DATA.settings)) {
  if (values.length < 2 || COLUMNS.has(key)) continue;
  const isNumber = values.every((value) => value === "" || Number.isFinite(+value));
  column(`setting:${key}`, key, (run) => { const value = setting(run, key); return isNumber && value ? +value : value; }, { group: "Settings that differ", number: isNumber });
}
USUAL.forEach((key) => view.columns.add(key));

// which way a score is better, by the tasks that are judged by it
const MODES = new Map(RUNS.filter((run) => run.score).map((run) => [run.score, run.mode]));
const place = (name, run) => `${name} ${run.task} ${run.data}`;
const better = (name, a, b) => (MODES.get(name) === "max" ? a > b : a < b);

// Table ----------------------------------------------------------------------------------------------------------------

const FILTERS = [["task", "task"], ["data_set", "data"], ["model", "model"], ["state", "state"], ["sweep", "sweep"]];
const search = RUNS.map((run) => [run.name, run.model, run.data, run.task, run.commit, run.command].join(" ").toLowerCase());

function filtered() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  return RUNS.filter((run, i) => words.every((word) => search[i].includes(word)) &&
    FILTERS.every(([id, key]) => byId(id).value === "" || String(run[key]) === byId(id).value));
}

function sorted(runs) {
  const { of } = COLUMNS.get(view.sort) ?? { of: (run) => run.name };
  const lacks = (value) => value === null || value === undefined || value === "";
  return [...runs].sort((a, b) => {
    const [left, right] = [of(a), of(b)];
    if (lacks(left) || lacks(right)) return lacks(left) - lacks(right);
    const order = typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right), "en", { numeric: true });
    return view.down ? -order : order;
  });
}

function visibleColumns() {
  const task = byId("task").value, chosen = [...view.columns];
  const ofTask = task ? SCORES.filter((name) => name.startsWith("test/") && RUNS.some((run) => run.task === task && name in run.scores)).map((name) => `score:${name}`) : [];
  const keys = new Set([...chosen, ...ofTask]);
  return [...COLUMNS.values()].filter(({ key }) => keys.has(key) && !(task && (key === "task" || key === "score")))
    .sort((a, b) => rank(a) - rank(b));
}
const order = [...COLUMNS.keys()];
const narrow = matchMedia("(max-width: 720px)"); // a phone: the score stands beside the name
const rank = ({ key, kind }) => (kind === "score" && narrow.matches ? order.indexOf(key) / 1e4 - 1 : kind === "score" ? 4 + order.indexOf(key) / 1e4 : key.startsWith("setting:") ? 4.5 + order.indexOf(key) / 1e4 : order.indexOf(key));

function drawTable() {
  const runs = sorted(filtered()), columns = visibleColumns();
  const best = new Map(), having = new Map(); // of a score at a task on a data set, among the runs shown
  for (const run of runs) for (const [name, value] of Object.entries(run.scores)) {
    const key = place(name, run);
    having.set(key, (having.get(key) ?? 0) + 1);
    if (MODES.has(name) && typeof value === "number" && (!best.has(key) || better(name, value, best.get(key)))) best.set(key, value);
  }
  for (const key of best.keys()) if (having.get(key) === 1) best.delete(key); // the best of one is no news
  const heading = (key, name, number) => el("th", { scope: "col", class: number ? "number" : null, "aria-sort": view.sort === key ? (view.down ? "descending" : "ascending") : null },
    el("button", { type: "button", "data-key": `sort ${key}`, onclick: () => { view.down = view.sort === key ? !view.down : Boolean(number) || key === "started"; view.sort = key; keepFocus(drawTable); } }, name));
  byId("table").tHead.replaceChildren(el("tr", {}, el("th", { class: "pick", scope: "col", title: "compare" }, el("span", {}, "⇄")), heading("name", "Run"), ...columns.map(({ key, name, number }) => heading(key, name, number))));
  byId("table").tBodies[0].replaceChildren(...runs.slice(0, view.rows).map((run) => {
    const on = view.chosen.includes(run.number);
    return el("tr", { class: on ? "on" : null, colour: on ? run.colour : 0 },
      el("td", { class: "pick" }, el("input", { type: "checkbox", "data-key": `pick ${run.number}`, "aria-label": `compare ${run.name}`, checked: on, onchange: () => choose(run.number) })),
      el("th", { scope: "row", title: run.name }, el("button", { type: "button", onclick: () => showRun(run) }, path(run.name))),
      ...columns.map((one) => cell(run, one, best)));
  }));
  byId("more").hidden = runs.length <= view.rows;
  byId("more").textContent = `Show all ${runs.length} runs`;
  byId("count").textContent = `${runs.length === RUNS.length ? `${RUNS.length} runs` : `${runs.length} of ${RUNS.length} runs`}. Tick up to ${MOST} to compare them below; a name opens what is known of a run.`;
  drawCost(runs);
}

function cell(run, { of, show, number, kind, score }, best) {
  const value = of(run);
  if (kind === "state") return el("td", { class: value, title: run.notes.join(" ") || null }, value);
  if (kind === "code") return el("td", { class: "cut", title: value }, el("code", {}, value ?? "–"));
  if (kind !== "score") return el("td", { class: number ? "number" : "cut", title: number || !value ? null : value }, String(show(value)));
  const name = score(run), top = value !== null && best.get(place(name, run)) === value;
  return el("td", { class: "number", title: value === null ? null : `${name} ${value}${top ? ", the best shown on these data" : ""}` },
    COLUMNS.get("score").score === score && name ? el("span", { class: "name" }, name) : null, el("span", { class: top ? "best" : null }, `${top ? "★ " : ""}${show(value)}`));
}

// what had the keyboard has it again when it was drawn anew
function keepFocus(draw) {
  const key = document.activeElement?.dataset?.key;
  draw();
  if (key) document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

function choose(number, draw = true) {
  if (view.chosen.includes(number)) view.chosen = view.chosen.filter((other) => other !== number);
  else {
    if (view.chosen.length === MOST) view.chosen.shift();
    const taken = new Set(view.chosen.map((other) => RUNS[other].colour));
    RUNS[number].colour = [...Array(MOST).keys()].find((colour) => !taken.has(colour));
    view.chosen.push(number);
  }
  if (draw) keepFocus(() => { drawTable(); drawChosen(); });
}

// What is compared -----------------------------------------------------------------------------------------------------

const chosenRuns = () => view.chosen.map((number) => RUNS[number]);
const nobody = () => el("p", { class: "quiet" }, "Tick runs in the table to see them here.");

function drawChosen() {
  byId("chosen").replaceChildren(el("span", { class: "quiet" }, view.chosen.length ? "Compared:" : "No run is ticked."),
    ...chosenRuns().map((run) => el("span", { class: "chip", colour: run.colour, title: run.name }, el("span", { class: "dot" }), el("span", {}, path(run.name)),
      el("button", { type: "button", "aria-label": `take ${run.name} out`, onclick: () => choose(run.number) }, "×"))));
  drawCurves();
  drawPictures();
  drawDifferences();
}

function drawCurves() {
  const runs = chosenRuns(), log = byId("log").checked, panels = new Map();
  const lines = (run, group) => Object.entries(group.values).map(([name, ys]) => {
    const cut = name.indexOf("/"), split = cut < 0 ? "" : name.slice(0, cut);
    return { metric: cut < 0 ? name : name.slice(cut + 1), split, ys, every: group.every, xs: group[view.axis], run };
  });
  let without = 0, thinned = 1;
  for (const run of runs) for (const group of run.curves) {
    if (!group[view.axis]) { without++; continue; }
    for (const line of lines(run, group)) {
      if (!view.shown.has(line.split)) continue;
      thinned = Math.max(thinned, line.every);
      if (!panels.has(line.metric)) panels.set(line.metric, []);
      panels.get(line.metric).push({ ...line, colour: run.colour, label: run.name });
    }
  }
  const judged = new Set(runs.map((run) => (run.monitor ?? "").split("/").pop()));
  const weight = ([name, own]) => (name === "loss" ? 0 : judged.has(name) ? 1 : own.some((line) => line.split === "val") ? 2 : own[0].split ? 3 : 4);
  const all = [...panels].sort((a, b) => weight(a) - weight(b) || a[0].localeCompare(b[0]));
  const kept = byId("all_metrics").checked ? all : all.slice(0, FIRST_PANELS);
  const text = view.axis === "seconds" ? duration : short;
  byId("all_metrics").parentElement.lastChild.textContent = ` all ${all.length} metrics`;
  byId("all_metrics").parentElement.hidden = all.length <= FIRST_PANELS;
  const axis = { step: "optimisation step", epoch: "epoch", seconds: "time" }[view.axis];
  byId("curves").querySelector(".panels").replaceChildren(...(runs.length ? [] : [nobody()]),
    ...kept.map(([name, own]) => el("div", { class: "panel" }, el("h3", {}, name), lineChart(name, own, axis, text, log))),
    ...(without ? [el("p", { class: "quiet" }, "Curves without TensorBoard's events have no clock and are left out here.")] : []),
    ...(thinned > 1 ? [el("p", { class: "quiet" }, `Of long curves every ${thinned}th point or more often is drawn.`)] : []));
}

const last = (tag) => tag.split("/").pop().replaceAll("_", " ");

function drawPictures() {
  const runs = chosenRuns(), tags = new Map();
  const put = (tag, figure) => tags.set(last(tag), [...(tags.get(last(tag)) ?? []), figure]);
  for (const run of runs) {
    const caption = (text) => el("figcaption", { colour: run.colour }, el("span", { class: "dot" }), el("span", {}, path(run.name)), el("span", { class: "caption" }, text));
    for (const picture of run.pictures) put(picture.tag, el("figure", {}, shot(picture, run), caption(picture.caption)));
    for (const [tag, text] of run.texts) put(tag, el("figure", {}, el("pre", { tabindex: 0 }, text), caption("the last")));
  }
  const parts = [...tags].flatMap(([tag, figures]) => [el("h3", {}, tag), el("div", { class: "shots" }, ...figures)]);
  const none = runs.length ? el("p", { class: "quiet" }, "The runs that are compared have no pictures here.") : nobody();
  const left = DATA.left_out ? [el("p", { class: "quiet" }, `${count(DATA.left_out)} pictures of all runs found no room in this file; zoo report pictures=… makes more.`)] : [];
  byId("pictures").querySelector(".body").replaceChildren(...(parts.length ? parts : [none]), ...left);
}

function shot({ tag, caption, image }, run) {
  const [width, height] = DATA.sizes[image], alt = `${last(tag)} of ${run.name}, ${caption}`;
  const made = (attributes) => el("img", { src: DATA.images[image], alt, width, height, ...attributes });
  return el("button", { type: "button", "aria-label": `enlarge ${alt}`, onclick: () => open(`${last(tag)} · ${run.name} · ${caption}`, made({ style: `width:${Math.round(width * 1.2)}px;height:auto` })) }, made({ loading: "lazy" }));
}

function drawDifferences() {
  const runs = chosenRuns(), all = byId("same").checked;
  const keys = Object.keys(DATA.settings).filter((key) => {
    const values = runs.map((run) => setting(run, key));
    return values.some((value) => value !== null) && (all || values.some((value) => value !== values[0]));
  });
  const head = el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "setting"), ...runs.map((run) => el("th", { scope: "col", title: run.name, colour: run.colour }, el("span", { class: "dot", style: "display:inline-block" }), " ", path(run.name)))));
  const body = keys.map((key) => el("tr", {}, el("th", { scope: "row" }, key), ...runs.map((run) => { const value = setting(run, key); return el("td", { title: value }, value === null ? "–" : value === "" ? "none" : value); })));
  const says = runs.length < 2 && !all ? "Tick two runs or more to see where their settings differ." : "These runs have the same settings.";
  byId("differences").querySelector("table").replaceChildren(...(keys.length ? [head, el("tbody", {}, ...body)] : [el("caption", { style: "padding:12px;text-align:left" }, says)]));
}

// Score against cost ---------------------------------------------------------------------------------------------------

function drawCost(runs) {
  const names = [...new Set(runs.map((run) => run.score).filter(Boolean))];
  const judged = (name) => runs.filter((run) => run.score === name).length;
  names.sort((a, b) => judged(b) - judged(a));
  options("score", [...names, ...SCORES.filter((name) => !names.includes(name) && runs.some((run) => name in run.scores))], null);
  const name = byId("score").value, having = runs.filter((run) => typeof run.scores[name] === "number");
  options("score_data", [...new Set(having.map((run) => run.data))].filter(Boolean).sort(), "all");
  if (view.first) { // scores compare on the same data
    view.first = false;
    if (having.some((run) => run.data === chosenRuns()[0]?.data)) byId("score_data").value = chosenRuns()[0].data;
  }
  const data = byId("score_data").value, kept = having.filter((run) => !data || run.data === data);
  const costs = [["parameters", "parameters", short], ["multiply_adds", "multiply-adds", short], ["seconds", "time", duration]];
  byId("cost").querySelector(".panels").replaceChildren(...costs.map(([key, label, text]) => {
    const points = kept.map((run) => ({ key: `${key} ${run.number}`, x: run[key], y: run.scores[name], label: run.name, text: text === short ? count(run[key]) : text(run[key]), colour: view.chosen.includes(run.number) ? run.colour : null, pick: () => choose(run.number) }));
    return el("div", { class: "panel" }, el("h3", {}, `${name} · ${label}`), scatter(name, points, label, text));
  }));
}

// Sweeps ---------------------------------------------------------------------------------------------------------------

function drawSweeps() {
  byId("sweeps").hidden = byId("sweep_label").hidden = !DATA.sweeps.length;
  document.querySelector("nav a[href='#sweeps']").hidden = !DATA.sweeps.length;
  byId("sweeps").querySelector(".body").replaceChildren(...DATA.sweeps.map((sweep, number) => {
    const keys = [...new Set(sweep.rows.flatMap((row) => Object.keys(row.values)))];
    const rows = sweep.rows.map((row) => el("tr", {}, ...keys.map((key) => el("td", {}, row.values[key] ?? "–")), el("td", { class: "number" }, row.outcome), el("td", {}, row.numbers.join(", "))));
    return el("details", { class: "sweep", open: DATA.sweeps.length === 1 }, el("summary", {}, el("b", {}, sweep.name), ` · ${sweep.done} of ${sweep.total} runs done`),
      el("p", {}, el("code", {}, sweep.command)), ...sweep.notes.map((note) => el("p", { class: "note" }, note)),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `points of ${sweep.name}` }, el("table", {}, el("thead", {}, el("tr", {}, ...[...keys, sweep.monitor, "runs"].map((key) => el("th", { scope: "col" }, el("span", {}, key))))), el("tbody", {}, ...rows))),
      el("button", { type: "button", onclick: () => { byId("sweep").value = String(number); filter(); byId("runs").scrollIntoView(); } }, "Show its runs in the table"));
  }));
}

// One run --------------------------------------------------------------------------------------------------------------

function open(title, ...parts) {
  const dialog = byId("dialog");
  dialog.replaceChildren(el("h2", { id: "dialog_title" }, title), el("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close"), ...parts);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function showRun(run) {
  const list = (pairs) => el("dl", {}, ...pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  const facts = [["State", run.state], ["Folder", run.folder], ["Model", run.model], ["Data", run.data], ["Task", run.task], ["Seed", run.seed], ["Parameters", run.parameters && count(run.parameters)], ["Multiply-adds", run.multiply_adds && count(run.multiply_adds)],
    ["Time", run.seconds === null ? null : duration(run.seconds)], ["Steps", run.steps && `${count(run.steps)} in ${count(run.epochs)} ${run.epochs === 1 ? "epoch" : "epochs"}`], ["Started", run.started], ["Commit", run.commit], ...Object.entries(run.about).map(([name, value]) => [name[0].toUpperCase() + name.slice(1), value])];
  const again = run.command && el("p", {}, el("code", {}, run.command), " ", el("button", { type: "button", onclick: (event) => { navigator.clipboard?.writeText(run.command); event.target.textContent = "Copied"; } }, "Copy"));
  const settings = Object.keys(DATA.settings).map((key) => [key, setting(run, key)]);
  open(run.name, ...run.notes.map((note) => el("p", { class: "note" }, note)), list(facts), again || null,
    el("h3", {}, "Scores"), Object.keys(run.scores).length ? list(Object.entries(run.scores).map(([name, value]) => [name, String(value)])) : el("p", { class: "quiet" }, "None: it has no scores.json yet."),
    el("div", { class: "shots" }, ...run.pictures.map((picture) => el("figure", {}, shot(picture, run), el("figcaption", {}, `${last(picture.tag)}, ${picture.caption}`)))),
    el("details", {}, el("summary", {}, "All settings"), list(settings)));
}

// Beginning ------------------------------------------------------------------------------------------------------------

function options(id, values, all, text = (value) => value) {
  const select = byId(id), before = select.value;
  select.replaceChildren(...(all === null ? [] : [el("option", { value: "" }, all)]), ...values.map((value) => el("option", { value }, text(value))));
  select.value = values.map(String).includes(before) ? before : all === null ? values[0] ?? "" : "";
  if (select.id !== "score") select.parentElement.hidden = values.length < 2 && !before;
}

function filter() { view.rows = FIRST_ROWS; drawTable(); }

function checks(id, values, type, on, act) {
  byId(id).append(...values.map(([value, name]) => el("label", {}, el("input", { type, name: id, value, checked: on(value), onchange: act }), name)));
}

function begin() {
  const dark = (on) => { document.documentElement.dataset.theme = on ? "dark" : "light"; byId("theme").textContent = on ? "Light" : "Dark"; };
  dark(matchMedia("(prefers-color-scheme: dark)").matches);
  byId("theme").addEventListener("click", () => dark(document.documentElement.dataset.theme !== "dark"));
  const states = new Map();
  RUNS.forEach((run) => states.set(run.state, (states.get(run.state) ?? 0) + 1));
  byId("summary").textContent = [`${RUNS.length} ${RUNS.length === 1 ? "run" : "runs"}`, ...[...states].sort(([a], [b]) => (a !== "done") - (b !== "done")).map(([state, number]) => `${number} ${state}`), `read ${DATA.made}`].join(" · ");
  byId("footer").textContent = "Made by zoo report. Scores are those of scores.json, curves those of metrics.csv, counts those of model.txt; time is the clock of the TensorBoard events.";
  for (const [id, key] of FILTERS) {
    const values = [...new Set(RUNS.map((run) => run[key]).filter((value) => value !== null && value !== undefined))].sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
    options(id, values, "all", id === "sweep" ? (value) => DATA.sweeps[value].name : undefined);
    byId(id).addEventListener("change", filter);
  }
  byId("search").addEventListener("input", filter);
  byId("more").addEventListener("click", () => { view.rows = Infinity; drawTable(); });
  byId("reset").addEventListener("click", () => {
    byId("search").value = "";
    FILTERS.forEach(([id]) => { byId(id).value = ""; });
    view.columns = new Set(USUAL);
    drawMenu();
    filter();
  });
  checks("axis", [["step", "step"], ["epoch", "epoch"], ["seconds", "time"]], "radio", (value) => value === view.axis, (event) => { view.axis = event.target.value; drawCurves(); });
  checks("splits", [["train", "train (dashed)"], ["val", "validation"]], "checkbox", (value) => view.shown.has(value), (event) => { view.shown[event.target.checked ? "add" : "delete"](event.target.value); drawCurves(); });
  ["log", "all_metrics"].forEach((id) => byId(id).addEventListener("change", drawCurves));
  byId("same").addEventListener("change", drawDifferences);
  ["score", "score_data"].forEach((id) => byId(id).addEventListener("change", () => drawCost(filtered())));
  byId("dialog").addEventListener("click", (event) => { if (event.target === byId("dialog")) byId("dialog").close(); });
  byId("columns").addEventListener("toggle", () => { // its list stays within the window
    const list = byId("columns").querySelector("div"), right = byId("columns").getBoundingClientRect().left + list.offsetWidth;
    list.style.left = `${Math.min(0, innerWidth - right - 12)}px`;
  });
  document.addEventListener("click", (event) => { if (!byId("columns").contains(event.target)) byId("columns").open = false; });
  narrow.addEventListener("change", drawTable);
  addEventListener("scroll", untell, { passive: true });
  // to begin with: what the newest finished run did, and the newest of other models at the same task on the same data
  const drawn = RUNS.filter((run) => run.curves.length), finished = drawn.filter((run) => run.state === "done");
  const newest = sorted(finished.length ? finished : drawn), alike = newest.filter((run) => run.task === newest[0].task && run.data === newest[0].data);
  const models = alike.filter((run, i) => alike.findIndex((other) => other.model === run.model) === i);
  [...new Set([...models, ...alike])].slice(0, 4).forEach((run) => choose(run.number, false));
  drawMenu();
  drawSweeps();
  drawTable();
  drawChosen();
}

function drawMenu() {
  const groups = new Map();
  for (const one of COLUMNS.values()) groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
  byId("columns").querySelector("div").replaceChildren(...[...groups].flatMap(([group, own]) => [el("h3", {}, group),
    ...own.map(({ key, name }) => el("label", {}, el("input", { type: "checkbox", checked: view.columns.has(key), onchange: (event) => { view.columns[event.target.checked ? "add" : "delete"](key); drawTable(); } }), name))]));
}

begin();
