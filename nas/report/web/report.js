let D, T, FRONT, COSTS, CHOSEN = null;
const isFront = new Set();
let tested = new Map();
const BLOCKS = ["conv", "separable", "bottleneck", "fused_bottleneck", "cse", "shuffle", "maxpool", "identity", "classifier"];
const STAGE = { block: 0, channels: 1, resolution: 2, c: 3, n: 4, s: 5, t: 6, rest: 7, layers: 8 };
const MOST_DOTS = 600, MOST_LINES = 80, PAGE = 100;

start((data) => {
  D = data;
  T = D.table;
  FRONT = D.front;
  COSTS = D.costs.map((cost) => cost.name);
  FRONT.forEach((place) => isFront.add(place));
  D.retrained.forEach((each) => tested.set(each.id, Math.max(each.accuracy, tested.get(each.id) ?? 0)));
  drawHead();
  drawControls();
  const wanted = T.id.indexOf(location.hash.slice(1));
  chart("front", frontChart);
  $("front").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (step) { event.preventDefault(); walk(step); }
  });
  drawTable();
  chart("growth", growthChart);
  chart("curves", curvesChart);
  drawMatter();
  drawCourse();
  drawMeasured();
  drawTrust();
  drawOn();
  const first = wanted >= 0 ? wanted : D.knee ?? (T.id.length ? 0 : null);
  if (first != null) choose(first);
  else $("chosen").append(el("p", { class: "hint" }, "No candidate yet: the search has only begun."));
}, () => {
  $("front").on("plotly_click", ({ points: [point] }) => {
    if (point.customdata != null) typeof point.customdata === "string" ? chooseReference(point.customdata) : choose(point.customdata);
  });
});

const value = (name, i) => (name === "error" ? (T.accuracy[i] == null ? null : 1 - T.accuracy[i]) : T[name][i]);
const failed = (i) => T.outcome[i] === "failed";
const objectives = () => D.study.objectives;

// The head

function drawHead() {
  const study = D.study, status = D.status;
  $("title").textContent = study.name;
  const budget = Object.entries(study.budget).map(([name, most]) => `${brief(name)} ≤ ${short(most)}`).join(", ");
  const costs = objectives().filter((name) => name !== "accuracy").map(brief).join(" and ");
  $("question").textContent = `Networks of the space ${study.space} for ${study.data}: accuracy ${costs ? `against ${costs}` : "alone"}` +
    (budget ? `, within ${budget}` : "") + `. Proposed by ${study.sampler}, seed ${study.seed}.`;
  const ended = status.ended === "complete" ? "is complete" : `has stopped (${status.ended})`;
  $("state").append(el("b", {}, "The search " + (status.ended ? ended : status.running ? "is running" : "can go on")),
    `: ${exact(status.done)} of ${exact(status.wanted)} candidates as of ${D.made}.`);
  const best = FRONT.length ? FRONT.reduce((a, b) => (T.accuracy[b] > T.accuracy[a] ? b : a)) : null;
  const first = objectives().find((name) => name !== "accuracy") || "params";
  const tiles = [["On the front", exact(FRONT.length), `of ${exact(T.outcome.filter((x) => x === "trained").length)} trained to the top`]];
  if (best != null) {
    tiles.push(["Best accuracy", T.accuracy[best].toFixed(4), `${amount(first, T[first][best])} ${brief(first)}`]);
    tiles.push(["Knee", T.accuracy[D.knee].toFixed(4), `${amount(first, T[first][D.knee])} ${brief(first)}`]);
  }
  tiles.push(["Training so far", time(status.seconds), D.growth.seconds.length ? `in ${time(D.growth.seconds.at(-1))} of search` : "no candidate yet"]);
  if (tested.size) {
    const [id, accuracy] = [...tested].sort((a, b) => b[1] - a[1])[0];
    tiles.push(["Best on the test set", accuracy.toFixed(4), `${id}, trained fully`]);
  }
  $("tiles").append(...tiles.map(([name, number, note]) => el("div", {}, el("dt", {}, name), el("dd", {}, number, el("small", {}, note)))));
}

// The front

function drawControls() {
  const axes = ["accuracy", "error", ...COSTS, "seconds"];
  const first = objectives().find((name) => name !== "accuracy") || "params";
  for (const [id, chosen] of [["x", first], ["y", "accuracy"]]) {
    $(id).append(...axes.map((name) => el("option", { value: name, selected: name === chosen }, label(name))));
    $(id).addEventListener("change", () => redraw("front"));
  }
  $("log").addEventListener("change", () => redraw("front"));
  $("against").addEventListener("change", () => redraw("growth"));
}

// Dots that lie under others are left out: no two in one cell of a grid over the chart.
function thinned(places, x, y, most = MOST_DOTS) {
  if (places.length <= most) return places;
  const cell = (values) => {
    const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    return (v) => Math.round(((v - low) / (high - low || 1)) * 70);
  };
  const xs = places.map((i) => Math.log(value(x, i) + 1e-9)), ys = places.map((i) => (y ? value(y, i) : 0));
  const [across, up, seen] = [cell(xs), cell(ys), new Set()];
  return places.filter((_, k) => {
    const key = 1000 * across(xs[k]) + up(ys[k]);
    return !seen.has(key) && seen.add(key);
  });
}

function hover(i) {
  const narrow = $("front").clientWidth < 520; // plotly shows no label that is too wide
  const lines = [`<b>${plain(T.id[i])}</b>${narrow ? "<br>" : "  "}${plain(state(i))}`, `accuracy ${T.accuracy[i] == null ? "–" : T.accuracy[i].toFixed(4)}`,
    `${exact(T.params[i])} params`, `${exact(T.macs[i])} MACs`];
  if (narrow) return lines.join("<br>");
  const blocks = T.stages[i].map((k) => D.rows[k]).map((r) => `${r[STAGE.block]} ${r[STAGE.c]}${r[STAGE.n] > 1 ? " ×" + r[STAGE.n] : ""}${r[STAGE.s] > 1 ? " /" + r[STAGE.s] : ""}`);
  for (let k = 0; k < blocks.length; k += 3) lines.push(plain(blocks.slice(k, k + 3).join("  ·  ")));
  return lines.join("<br>");
}
function state(i) {
  if (isFront.has(i)) return i === D.knee ? "front, knee" : "front";
  return T.outcome[i] === "cut" ? `cut at rung ${T.rung[i]}` : T.outcome[i];
}

function frontChart() {
  const [x, y] = [$("x").value, $("y").value];
  const every = T.id.map((_, i) => i), drawn = (i) => value(x, i) != null && value(y, i) != null;
  const of = (outcome) => every.filter((i) => T.outcome[i] === outcome && !isFront.has(i) && drawn(i));
  const trace = (name, places, marker, more = {}) => ({
    name, x: places.map((i) => value(x, i)), y: places.map((i) => value(y, i)), customdata: places, text: places.map(hover),
    hovertemplate: "%{text}<extra></extra>", mode: "markers", type: "scatter", marker: { size: 8, ...marker }, ...more,
  });
  const trained = of("trained"), thin = thinned(trained, x, y), front = FRONT.filter(drawn);
  const traces = [trace(`trained (${exact(trained.length)})`, thin, { color: css("--grey"), opacity: 0.65, size: thin.length > 400 ? 6 : 8 })];
  const rungs = D.study.rungs.length;
  for (let rung = 1; rung <= rungs; rung++) {
    const cut = of("cut").filter((i) => T.rung[i] === rung);
    if (cut.length) traces.push(trace(`cut at rung ${rung} (${exact(cut.length)})`, thinned(cut, x, y), { color: "rgba(0,0,0,0)", line: { color: css("--grey"), width: 1.4 }, symbol: ["circle", "square", "triangle-up", "pentagon"][(rung - 1) % 4], size: 7 }));
  }
  const running = of("running");
  if (running.length) traces.push(trace(`in training (${running.length})`, running, { color: css("--good"), symbol: "hourglass", size: 10 }));
  const spans = new Set([x, y]), plane = objectives().length === 2 && objectives().every((name) => spans.has(name) || (name === "accuracy" && spans.has("error")));
  front.sort((a, b) => value(x, a) - value(x, b));
  traces.push(trace(`front (${front.length})`, front, { color: css("--blue"), symbol: "diamond", size: 11, line: { color: css("--card"), width: 1 } },
    plane ? { mode: "lines+markers", line: { color: css("--blue"), width: 1.6, shape: x === "accuracy" ? "vh" : "hv" } } : {}));
  if (D.knee != null && drawn(D.knee)) traces.push(trace("knee", [D.knee], { color: css("--red"), symbol: "star", size: 17, line: { color: css("--card"), width: 1 } }));
  const low = [], foot = (name, places, marker, texts, ids) => low.push({ name, x: places, y: places.map(() => 0.022), yaxis: "y2", type: "scatter", mode: "markers", marker, text: texts, customdata: ids, hovertemplate: "%{text}<extra></extra>" });
  if (COSTS.includes(x) && y !== x) {
    const lost = every.filter((i) => failed(i) && value(x, i) != null);
    if (lost.length) {
      const some = thinned(lost, x, null, 70);
      foot(`failed (${exact(lost.length)})`, some.map((i) => value(x, i)), { color: css("--red"), symbol: "x-thin", size: 9, line: { color: css("--red"), width: 2 } }, some.map((i) => `<b>${plain(T.id[i])}</b> failed<br>${plain(T.reason[i].slice(0, 160))}`), some);
    }
    const bases = D.references.filter((each) => each[x] != null); // latency is not known of them
    if (bases.length) foot(`published, cost alone (${bases.length})`, bases.map((r) => r[x]), { color: css("--ink"), symbol: "line-ns", size: 15, line: { color: css("--ink"), width: 2 } },
      bases.map((r) => `<b>${plain(r.name)}</b><br>${exact(r.params)} params, ${exact(r.macs)} MACs<br>its accuracy here is not known`), bases.map((r) => r.id));
  }
  traces.push(...low);
  if (CHOSEN != null && drawn(CHOSEN)) traces.push({ ...trace("chosen", [CHOSEN], { color: "rgba(0,0,0,0)", size: 24, line: { color: css("--ink"), width: 2.2 } }), hoverinfo: "skip", hovertemplate: null, showlegend: false });
  const ys = traces.filter((t) => !t.yaxis).flatMap((t) => t.y), most = D.study.budget;
  let xs = traces.filter((t) => !t.yaxis).flatMap((t) => t.x);
  if (!xs.length) xs = low.flatMap((t) => t.x);
  const furthest = xs.reduce((a, b) => Math.max(a, b), -Infinity), near = (own, times) => own <= times * furthest;
  xs.push(...low.flatMap((t) => t.x).filter((own) => near(own, 4)));
  const narrow = $("front").clientWidth < 520, log = (name, values) => ($("log").checked && name !== "accuracy" && values.length && values.every((v) => v > 0) ? logTicks(values) : {});
  const shapes = [], notes = [];
  for (const [name, way] of [[x, "x"], [y, "y"]]) if (most[name]) {
    if (way === "x" && !near(most[name], 3)) {
      notes.push({ text: `budget ${short(most[name])} →`, showarrow: false, font: { color: css("--red"), size: 12 }, x: 1, xref: "paper", y: 1, yref: "paper", xanchor: "right", yanchor: "top" });
      continue;
    }
    const at = { [way + "0"]: most[name], [way + "1"]: most[name], [way === "x" ? "yref" : "xref"]: "paper", [way === "x" ? "y0" : "x0"]: 0, [way === "x" ? "y1" : "x1"]: 1 };
    shapes.push({ type: "line", line: { color: css("--red"), width: 1.5, dash: "dash" }, ...at });
    const axis = way === "x" && $("log").checked ? Math.log10(most[name]) : way === "y" && log(y, ys).type ? Math.log10(most[name]) : most[name];
    notes.push({ text: `budget ${short(most[name])}`, showarrow: false, font: { color: css("--red"), size: 12 }, ...(way === "x" ? { x: axis, xref: "x", y: 1, yref: "paper", xanchor: "right", yanchor: "top", textangle: -90, xshift: -2 } : { y: axis, yref: "y", x: 1, xref: "paper", xanchor: "right", yanchor: "bottom" }) });
    (way === "x" ? xs : ys).push(most[name]);
  }
  const text = `Scatter plot of ${label(y)} against ${label(x)}: ${front.length} candidates on the front among ${T.id.length}. The table of candidates has the same values. Left and right arrows walk along the front.`;
  $("front-hint").textContent = (thin.length < trained.length ? `${exact(thin.length)} of ${exact(trained.length)} trained candidates are drawn: the others lie under them. ` : "") +
    "Click a point, or use the arrow keys, to choose a network." + (D.references.length ? " Marks at the foot are published networks with your classes: their cost is exact, their accuracy here is not known." : "");
  return [traces, {
    xaxis: axis(label(x), { ...log(x, xs), ...within(xs, $("log").checked && x !== "accuracy") }), yaxis: axis(label(y), { ...log(y, ys), domain: [0, 1] }), yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true }, shapes, annotations: notes,
    clickmode: "event", margin: { l: narrow ? 46 : 60, r: 12, t: 10, b: 44 }, legend: narrow ? { orientation: "h", y: -0.2, yanchor: "top", font: { size: 11 } } : { orientation: "h", y: 1.02, yanchor: "bottom", font: { size: 12 } },
    uirevision: x + y + $("log").checked,
  }, text];
}

// The range of what is to be seen at first: a double click shows all.
function within(values, log) {
  if (!values.length) return {};
  const scale = log && values.every((v) => v > 0) ? Math.log10 : (v) => v;
  const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]).map(scale);
  const room = 0.05 * (high - low || 0.2);
  return { range: [low - room, high + room] };
}

// The chosen network

function choose(i) {
  CHOSEN = i;
  history.replaceState(null, "", "#" + T.id[i]);
  drawChosen(i);
  drawNetwork(T.id[i], T.stages[i], COSTS.map((name) => T[name][i]));
  redraw("front");
  redraw("curves");
  drawCommands(T.outcome[i] === "trained" ? T.id[i] : "ID");
  document.querySelectorAll("#table tbody tr").forEach((row) => mark(row, +row.dataset.place === i));
}
function mark(row, on) {
  row.classList.toggle("on", on);
  row.querySelector("button").setAttribute("aria-pressed", on);
}
function chooseReference(id) {
  const found = D.references.find((each) => each.id === id);
  CHOSEN = null;
  $("chosen").replaceChildren(el("div", { class: "id" }, found.name), el("div", { class: "badges" }, el("span", { class: "badge" }, "published")),
    el("p", { class: "hint" }, "With the classes and channels of this study. It was not trained here, so that its accuracy is not known; put its architecture into the study's enqueue list to have it measured beside the others."),
    costList((name) => found[name]));
  drawNetwork(found.name, found.stages, COSTS.map((name) => found[name]));
  redraw("front");
}
function walk(step) {
  if (!FRONT.length) return;
  const at = FRONT.indexOf(CHOSEN);
  choose(FRONT[at < 0 ? FRONT.indexOf(D.knee) : Math.min(FRONT.length - 1, Math.max(0, at + step))]);
}
function costList(of) {
  return el("dl", { class: "costs" }, ...COSTS.map((name) => {
    const most = D.study.budget[name], own = of(name);
    const share = most && own != null ? own / most : null;
    return el("div", {}, el("dt", {}, brief(name)), el("dd", {}, amount(name, own) + (share == null ? "" : `, ${percent(share)} of budget`)),
      share == null ? null : el("dd", { class: "meter" + (share > 1 ? " over" : "") }, el("i", { style: { width: Math.min(100, 100 * share) + "%" } })));
  }));
}
function drawChosen(i) {
  const at = FRONT.indexOf(i), top = T.outcome[i] === "trained";
  const badges = [isFront.has(i) ? el("span", { class: "badge front" }, "front") : null, i === D.knee ? el("span", { class: "badge knee" }, "knee") : null,
    isFront.has(i) ? null : el("span", { class: "badge" }, state(i)), el("span", { class: "badge" }, `candidate ${T.number[i]}`)];
  const spread = T.std[i] != null ? `± ${T.std[i].toFixed(4)} over ${T.measurements[i]} trainings` : "one training";
  const small = T.accuracy[i] == null ? T.reason[i] || "not measured" : (top ? `validation accuracy of the short training, ${spread}` : `validation accuracy at rung ${T.rung[i]}` + (T.reason[i] ? `; ${T.reason[i]}` : ""));
  const test = tested.get(T.id[i]);
  $("chosen").replaceChildren(
    el("div", {}, el("div", { class: "hint", style: { margin: 0 } }, "Chosen"), el("div", { class: "id" }, T.id[i])),
    el("div", { class: "badges" }, ...badges.filter(Boolean)),
    el("div", { class: "big" }, T.accuracy[i] == null ? "–" : T.accuracy[i].toFixed(4), el("small", {}, small)),
    ...(test == null ? [] : [el("div", { class: "big" }, test.toFixed(4), el("small", {}, "test accuracy, trained fully"))]),
    costList((name) => T[name][i]),
    ...(D.measured[T.id[i]] ? [el("p", { class: "hint" }, ((own) => `Measured as a whole network: ${short(own[0])} ms (${short(own[1])} to ${short(own[2])})`)(D.measured[T.id[i]]))] : []),
    el("div", { class: "walk" },
      el("button", { type: "button", disabled: at === 0 || !FRONT.length, onclick: () => walk(-1), "aria-label": "The next cheaper on the front" }, "‹ cheaper"),
      el("button", { type: "button", disabled: at === FRONT.length - 1 || !FRONT.length, onclick: () => walk(1), "aria-label": "The next dearer on the front" }, "dearer ›")),
    ...(top ? [el("div", {}, el("div", { class: "what" }, "Train it fully"), command(D.commands["Train it fully"].replace(/ID$/, T.id[i])))] : []));
}

// What a stage puts out: the side of its square, and in words
const side = (row) => (row[STAGE.block] === "classifier" ? 1 : Math.ceil(row[STAGE.resolution] / row[STAGE.s]));
const output = (row) => (row[STAGE.block] === "classifier" ? `${row[STAGE.c]} classes` : `${side(row)}² × ${row[STAGE.c]}`);
const tint = (block) => `var(--b${Math.max(0, BLOCKS.indexOf(block)) % 9})`;

function drawNetwork(name, stages, totals) {
  const rows = stages.map((k) => D.rows[k]);
  $("drawing").replaceChildren(picture(name, rows));
  const of = (row, cost) => {
    const at = COSTS.indexOf(cost), shares = row[STAGE.layers].map(([layer, times]) => [D.layers[layer][at], times]);
    if (shares.some(([own]) => own == null)) return null; // a published network's, that the search does not predict
    return D.costs[at].combine === "sum" ? shares.reduce((sum, [own, times]) => sum + own * times, 0) : Math.max(0, ...shares.map(([own]) => own));
  };
  const bar = (row, cost) => {
    const whole = totals[COSTS.indexOf(cost)] || 1, own = of(row, cost), share = own / whole;
    if (own == null) return el("td", { class: "n" }, "–");
    return el("td", { class: "n" }, el("span", { class: "share", title: percent(share, 1) }, el("i", { style: { width: percent(Math.min(1, share), 1).replace(" ", "") } }), amount(cost, own)));
  };
  const costs = [...new Set(["params", "macs", "peak_memory_bytes", ...objectives(), ...Object.keys(D.study.budget)])].filter((name) => D.costs[COSTS.indexOf(name)]?.combine); // of which layers have their shares
  const options = rows.map((row) => row[STAGE.rest].split(" ").filter(Boolean)), having = options.filter((own) => own.some((word) => word.startsWith("activation=")));
  const shared = (having[0] || []).filter((word) => word.startsWith("activation=") && having.length > 1 && having.every((own) => own.includes(word)));
  const head = ["stage", "input", "output", "t", "c", "n", "s", "", ...costs.map((name) => brief(name).replace("peak memory", "memory"))];
  const body = rows.map((row, k) => {
    return el("tr", {}, el("th", { scope: "row" }, el("span", { class: "swatch", style: { background: tint(row[STAGE.block]) } }), row[STAGE.block]),
      el("td", {}, `${row[STAGE.resolution]}² × ${row[STAGE.channels]}`), el("td", {}, output(row)),
      ...[row[STAGE.t] ?? "–", row[STAGE.c], row[STAGE.n], row[STAGE.s]].map((x) => el("td", { class: "n" }, x)),
      el("td", { class: "mono options" }, options[k].filter((word) => !shared.includes(word)).join(" ")), ...costs.map((cost) => bar(row, cost)));
  });
  const numbers = new Set(["t", "c", "n", "s", ...head.slice(8)]);
  const foot = el("tr", {}, el("th", { scope: "row" }, "whole network"), el("td", { colspan: 7 }), ...costs.map((cost) => el("td", { class: "n" }, el("b", {}, amount(cost, totals[COSTS.indexOf(cost)])))));
  $("network-id").textContent = [name, ...shared.map((word) => word.replace("=", " "))].join(", ");
  $("stages").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...head.map((each) => el(each ? "th" : "td", each ? { scope: "col", class: numbers.has(each) ? "n" : null } : {}, each)))), el("tbody", {}, ...body, foot)));
}

function picture(name, rows) {
  const height = (side) => 22 + 21 * Math.log2(Math.max(1, side)), width = (c) => 8 + 5.2 * Math.log2(Math.max(1, c));
  const image = rows[0], tall = Math.max(height(image[STAGE.resolution]), ...rows.map((row) => height(side(row))));
  const middle = tall / 2 + 8, made = [];
  let at = 2;
  const box = (sides, channels, fill, label) => {
    const [w, h] = [width(channels), height(sides)];
    made.push(svg("rect", { x: at, y: middle - h / 2, width: w, height: h, rx: 3, fill, stroke: "var(--grey)", "stroke-width": 1 }, svg("title", {}, label)));
    at += w;
  };
  const words = (x, lines) => lines.forEach((line, k) => made.push(svg("text", { x, y: tall + 26 + 15 * k, "font-size": 12, fill: k ? "var(--soft)" : "var(--ink)", "font-weight": k ? 400 : 600 }, line)));
  words(at, ["image", `${image[STAGE.resolution]}² × ${image[STAGE.channels]}`]);
  box(image[STAGE.resolution], image[STAGE.channels], "none", "image");
  at = Math.max(at, 76) + 14;
  for (const row of rows) {
    const begin = at;
    for (let k = 0; k < row[STAGE.n]; k++) { box(side(row), row[STAGE.c], tint(row[STAGE.block]), `${row[STAGE.block]}: ${output(row)}`); at += 3; }
    const text = [row[STAGE.block] + (row[STAGE.n] > 1 ? ` ×${row[STAGE.n]}` : ""), output(row),
      [row[STAGE.t] != null ? `t ${row[STAGE.t]}` : "", (/\bk=(\d+)/.exec(row[STAGE.rest]) || ["", ""])[1].replace(/^(.+)$/, "k $1"), (/groups=(\d+)/.exec(row[STAGE.rest]) || ["", ""])[1].replace(/^(.+)$/, "g $1")].filter(Boolean).join("  ")];
    words(begin, text);
    at = Math.max(at, begin + Math.max(...text.map((line) => line.length)) * 7.4) + 18;
  }
  const title = `Network ${name}: ` + rows.map((row) => `${row[STAGE.n]} ${row[STAGE.block]} of ${row[STAGE.c]} channels`).join(", then ");
  const scale = Math.min(1.4, Math.max(1, $("drawing").clientWidth / at));
  return svg("svg", { width: at * scale, height: (tall + 64) * scale, viewBox: `0 0 ${at} ${tall + 64}`, role: "img", "aria-label": title }, ...made);
}

// The table

const more = () => ["measured_ms", "accuracy_int8", "latency_int8_ms"].filter((name) => T[name]);
let sorted = { by: null, down: false }, shown = PAGE, test = () => true;

function columns() {
  const rungs = D.study.rungs.length > 1;
  const named = ["params", "macs", "peak_memory_bytes", ...objectives(), ...Object.keys(D.study.budget)];
  return ["id", "outcome", "accuracy", ...COSTS.filter((name) => $("every").checked || named.includes(name)), ...more(), ...(rungs ? ["rung"] : []), "seconds", ...(tested.size ? ["test accuracy"] : []), "stages"];
}
const cellValue = (name, i) => (name === "test accuracy" ? tested.get(T.id[i]) ?? null : name === "outcome" ? state(i) : T[name][i]);

function drawTable() {
  const counts = [["front", "the front", FRONT.length], ["trained", "all that were trained to the top", T.outcome.filter((x) => x === "trained").length], ["all", "all candidates", T.id.length]];
  const begin = ["all", "trained"][FRONT.length] || "front";
  $("which").append(...counts.map(([name, text, count]) => el("option", { value: name, selected: name === begin }, `${text} (${exact(count)})`)));
  $("which").addEventListener("change", () => { shown = PAGE; drawRows(); });
  $("where").addEventListener("input", () => { shown = PAGE; filter(); });
  $("more").addEventListener("click", () => { shown += 5 * PAGE; drawRows(); });
  $("every").addEventListener("change", () => { drawColumns(); drawRows(); });
  drawColumns();
  drawRows();
}
function drawColumns() {
  $("table").querySelector("thead").replaceChildren(el("tr", {}, ...columns().map((name) => {
    if (name === "stages") return el("th", { scope: "col" }, "stages");
    return el("th", { scope: "col", class: name === "id" || name === "outcome" ? null : "n", "data-name": name, "aria-sort": "none" }, el("button", { type: "button", onclick: () => sort(name) }, brief(name), el("span", { "aria-hidden": "true" }, "")));
  })));
  markSorted();
}
function sort(name) {
  sorted = { by: name, down: sorted.by === name ? !sorted.down : /accuracy/.test(name) };
  markSorted();
  drawRows();
}
function markSorted() {
  document.querySelectorAll("#table th[data-name]").forEach((head) => {
    const own = head.dataset.name === sorted.by;
    head.setAttribute("aria-sort", own ? (sorted.down ? "descending" : "ascending") : "none");
    head.querySelector("span").textContent = own ? (sorted.down ? " ↓" : " ↑") : "";
  });
}
function filter() {
  const text = $("where").value.trim();
  try {
    test = text ? condition(text, ["id", "outcome", "accuracy", "rung", "seconds", "number", "measurements", ...COSTS, ...more()]) : () => true;
    $("where").removeAttribute("aria-invalid");
    drawRows();
  } catch (error) {
    $("where").setAttribute("aria-invalid", "true");
    $("count").textContent = error.message;
  }
}
function drawRows() {
  const which = $("which").value;
  let places = which === "front" ? [...FRONT] : T.id.map((_, i) => i).filter((i) => which === "all" || T.outcome[i] === "trained");
  places = places.filter((i) => test((name) => T[name][i]));
  if (sorted.by) {
    const keys = new Map(places.map((i) => [i, cellValue(sorted.by, i)])), sign = sorted.down ? -1 : 1;
    places.sort((a, b) => { const [u, v] = [keys.get(a), keys.get(b)]; return u == null ? (v == null ? a - b : 1) : v == null ? -1 : u < v ? -sign : u > v ? sign : a - b; });
  }
  const names = columns();
  $("table").querySelector("tbody").replaceChildren(...places.slice(0, shown).map((i) => {
    const row = el("tr", { "data-place": i }, ...names.map((name) => {
      if (name === "id") return el("td", {}, el("button", { type: "button", class: "pick", "aria-pressed": "false", onclick: () => choose(i) }, T.id[i]));
      if (name === "outcome") return el("td", {}, state(i));
      if (name === "stages") return el("td", { class: "wrap" }, T.stages[i].map((k) => `${D.rows[k][STAGE.block]} ${D.rows[k][STAGE.c]}${D.rows[k][STAGE.n] > 1 ? " ×" + D.rows[k][STAGE.n] : ""}`).join(" · "));
      const own = cellValue(name, i);
      const text = own == null ? "–" : /accuracy/.test(name) ? own.toFixed(4) + (name === "accuracy" && T.std[i] != null ? ` ± ${T.std[i].toFixed(4)}` : "") : name === "seconds" ? time(own) : amount(name, own);
      return el("td", { class: "n" }, text);
    }));
    if (i === CHOSEN) mark(row, true);
    return row;
  }));
  $("count").textContent = `${exact(places.length)} ${places.length === 1 ? "candidate" : "candidates"}` + (places.length > shown ? `, the first ${exact(shown)} shown` : "") + ". Choose one by its id; sort by a heading.";
  $("more").hidden = places.length <= shown;
}

// What matters, and how it went

function drawMatter() {
  const most = D.importance.slice(0, 12).reverse(), used = exact(D.importance_of);
  if (!most.length) {
    $("importance").remove();
    $("importance-hint").textContent = `Too few candidates to say (${used}).`;
  } else {
    $("importance").style.height = 70 + 27 * most.length + "px";
    chart("importance", () => [[
      { type: "bar", orientation: "h", name: "importance", x: most.map((m) => m.share), y: most.map((m) => plain(m.choice)), marker: { color: css("--bar"), line: { color: css("--blue"), width: 1 } },
        error_x: { type: "data", symmetric: false, array: most.map((m) => Math.max(0, m.high - m.share)), arrayminus: most.map((m) => Math.max(0, m.share - m.low)), color: css("--ink"), thickness: 1.3, width: 4 },
        hovertemplate: "%{y}: %{x:.1%}<extra></extra>" },
      { type: "scatter", mode: "markers", name: "chance", x: most.map((m) => m.chance), y: most.map((m) => plain(m.choice)), marker: { symbol: "line-ns", size: 14, color: css("--red"), line: { color: css("--red"), width: 2.4 } }, hovertemplate: "chance alone stays below %{x:.1%}<extra></extra>" },
    ], { xaxis: axis("share of the importance of all choices", { tickformat: ".0%", rangemode: "tozero" }), yaxis: axis("", { automargin: true }), margin: { l: 10, r: 14, t: 8, b: 46 }, bargap: 0.35, legend: { orientation: "h", y: 1.01, yanchor: "bottom", x: 0, font: { size: 12 } } },
    "Bar chart of the importance of choices: " + [...most].reverse().map((m) => `${m.choice} ${percent(m.share)}`).join(", ")]);
    const clear = D.importance.filter((m) => m.low > m.chance).length;
    $("importance-hint").textContent = `Conditional PED-ANOVA of ${used} trained candidates; bars span nine tenths of random halves, red marks what chance alone stays below. ` +
      (clear ? `${clear} ${clear === 1 ? "choice is" : "choices are"} clearly above chance.` : "None is clearly above chance: there are too few candidates for so many choices.");
  }
  if (FRONT.length === 1) $("common-hint").textContent = "The front has one member.";
  else if (!D.common.length) $("common-hint").textContent = "No value is more frequent on the front than among all candidates.";
  else {
    $("common").append(table(["choice", "value", "on the front", "of all", "by chance"], D.common.map((c) => [el("code", {}, c.choice), String(c.value), `${c.with_it} of ${c.asked}`, percent(c.share), c.probability < 0.0001 ? "< 0.0001" : c.probability.toFixed(4).replace(/0+$/, "").replace(/\.$/, "")])));
    $("common-hint").textContent = "Values more frequent on the front than among all trained candidates, the least likely first. By chance: how often a random choice of as many would have so many with it. Many are looked at, so that a small number is no proof.";
  }
}
function growthChart() {
  const by = $("against").value, g = D.growth, end = g.seconds.at(-1) ?? 0, unit = end < 5400 ? ["minutes", 60] : ["hours", 3600];
  const xs = by === "seconds" ? g.seconds.map((s) => s / unit[1]) : g.trained;
  $("growth-hint").textContent = "The part of objective space that the candidates so far dominate, as a share of that at the end, measured from a little beyond the worst candidate. Confirmations do not count.";
  return [[{ x: xs, y: g.share, type: "scatter", mode: xs.length < 60 ? "lines+markers" : "lines", line: { shape: "hv", color: css("--blue"), width: 2 }, marker: { size: 5 }, hovertemplate: "%{y:.1%} after %{x:.4~g}<extra></extra>" }],
    { xaxis: axis(by === "seconds" ? `${unit[0]} of search` : "trained candidates", { rangemode: "tozero" }), yaxis: axis("share of the last", { tickformat: ".0%", rangemode: "tozero" }), showlegend: false },
    `Line chart: hypervolume as a share of the last, against ${by === "seconds" ? "time" : "candidates"}.` + (xs.length ? ` Half was reached after ${short(xs[g.share.findIndex((s) => s >= 0.5)])}.` : "")];
}
function curvesChart() {
  const several = D.study.rungs.length > 1, lines = (places, name, line, more = {}) => {
    const x = [], y = [], text = [];
    for (const i of places) { for (const [epoch, accuracy] of T.curve[i]) { x.push(epoch); y.push(accuracy); text.push(plain(T.id[i])); } x.push(null); y.push(null); text.push(""); }
    return { name, x, y, text, type: "scatter", mode: "lines+markers", line, marker: { size: several ? 4 : 6, color: line.color }, hovertemplate: "%{text}: %{y:.4f} after %{x} epochs<extra></extra>", ...more };
  };
  const rest = T.id.map((_, i) => i).filter((i) => !isFront.has(i) && T.curve[i].length), step = Math.ceil(rest.length / MOST_LINES), some = rest.filter((_, k) => k % step === 0);
  const traces = [lines(some, step > 1 ? `one in ${step} of the others` : "others", { color: css("--grey"), width: 0.8 }, { opacity: 0.45, ...(several ? { mode: "lines" } : {}) }), lines(FRONT, "front", { color: css("--blue"), width: 1.6 })];
  if (CHOSEN != null) {
    traces.push(lines([CHOSEN], "chosen", { color: css("--red"), width: 2.6 }));
    const epochs = T.epochs[CHOSEN];
    if (epochs.length) traces.push({ name: "chosen, on training images", x: epochs.map((e) => e[0]), y: epochs.map((e) => e[1]), type: "scatter", mode: "lines", line: { color: css("--red"), width: 1.5, dash: "dot" }, hovertemplate: "training %{y:.4f} after %{x} epochs<extra></extra>" });
  }
  $("curves-hint").textContent = several ? "Validation accuracy at the end of each rung; a line that stops early was cut there." : "The study has one rung: a point is the validation accuracy at its end. The dotted line is what the chosen network reached on its training images.";
  return [traces, { xaxis: axis("epochs"), yaxis: axis("accuracy") }, "Learning curves: validation accuracy against epochs, for the front, the chosen network and others."];
}
function drawCourse() {
  const names = { trained: "trained to the top", cut: "cut at a rung", failed: "failed", running: "in training", "over budget": "over the budget, not trained", impossible: "impossible combinations, not trained", repeated: "repetitions, not trained", confirmation: "measured again", interrupted: "interrupted", waiting: "waiting" };
  $("outcomes").append(table(["outcome", "proposals"], Object.entries(D.status.outcomes).map(([name, count]) => [names[name] || name, exact(count)])));
  const r = D.receipt, all = r.epochs.spent + r.epochs.saved;
  const rows = Object.entries(r.reached).map(([rung, count]) => {
    const about = D.study.rungs[rung - 1];
    return [`rung ${rung}: ${about.epochs} epochs` + (about.share < 1 ? `, ${percent(about.share)} of the images` : "") + (about.resolution < 1 ? `, ${percent(about.resolution)} of the resolution` : ""), exact(count)];
  });
  const audit = r.audit;
  $("receipt").append(table(["reached", "candidates"], rows), el("p", { class: "hint" }, `${short(r.epochs.spent)} passes over the training images` +
    (r.epochs.saved ? `, ${percent(r.epochs.saved / all)} less than the ${short(all)} that all to the top would have taken` : "; nothing was saved") + (r.epochs.confirming ? `; ${short(r.epochs.confirming)} more to measure the front again` : "") + "."),
    audit.lost ? el("p", { class: "hint" }, `Audit: ${audit.trained} of ${audit.candidates} that were to be cut were trained on, ${audit.on_front} of them are on the front (95 % interval of what cutting loses: ${percent(audit.lost[0])} to ${percent(audit.lost[1])}).`)
      : el("p", { class: "hint" }, audit.candidates ? "None of those cut was trained on as an audit." : "No candidate was cut."));
}
function drawMeasured() {
  const places = T.id.map((_, i) => i).filter((i) => D.measured[T.id[i]] && T.latency_ms?.[i] != null);
  if (!places.length) return;
  $("measured").hidden = false;
  const own = (k) => places.map((i) => D.measured[T.id[i]][k]), said = places.map((i) => T.latency_ms[i]), [ms, low, high] = [own(0), own(1), own(2)];
  const ends = [Math.min(...ms, ...said), Math.max(...ms, ...said)], off = ms.map((x, k) => Math.abs(said[k] / x - 1)), mean = off.reduce((a, b) => a + b, 0) / off.length;
  chart("measured-chart", () => [[
    { x: ends, y: ends, type: "scatter", mode: "lines", name: "as predicted", line: { color: css("--soft"), dash: "dash", width: 1.3 }, hoverinfo: "skip" },
    { x: said, y: ms, text: places.map((i) => plain(T.id[i])), customdata: places, type: "scatter", mode: "markers", name: "front", marker: { color: css("--blue"), symbol: "diamond", size: 10 },
      error_y: { type: "data", symmetric: false, array: high.map((x, k) => Math.max(0, x - ms[k])), arrayminus: low.map((x, k) => Math.max(0, ms[k] - x)), color: css("--blue"), thickness: 1.2, width: 4 }, hovertemplate: "%{text}: %{y:.3~g} ms, predicted %{x:.3~g}<extra></extra>" },
  ], { xaxis: axis("predicted (ms)"), yaxis: axis("measured (ms)"), showlegend: false }, `Scatter plot of measured against predicted latency of ${places.length} networks`]);
  $("measured-hint").textContent = `Whole networks of the front, measured where they will run, with the interval around each. The prediction from their layers is off by ${percent(mean, 1)} in the mean.`;
}
function drawTrust() {
  const trust = D.trust;
  if (!trust) return;
  $("trust").hidden = false;
  const trace = (rows, name, color, symbol, mode) => { const has = rows.filter((r) => r.tau != null); return { name, x: has.map((r) => r.seconds), y: has.map((r) => r.tau), text: has.map((r) => plain(r.name)), textposition: "top right", type: "scatter", mode, marker: { color, symbol, size: 9 }, line: { color }, textfont: { size: 11 },
    error_y: { type: "data", symmetric: false, array: has.map((r) => Math.max(0, r.high - r.tau)), arrayminus: has.map((r) => Math.max(0, r.tau - r.low)), color, thickness: 1.2, width: 4 }, hovertemplate: "%{text}: tau %{y:.2f}, %{x:.3g} s a candidate<extra></extra>" }; };
  chart("trust-chart", () => [[trace(trust.rungs, "epochs of the short training", css("--blue"), "circle", "lines+markers+text"), trace(trust.scores, "scores without training", css("--red"), "diamond", "markers+text")],
    { xaxis: axis("seconds a candidate", { type: "log" }), yaxis: axis(`Kendall's tau with ${trust.long_epochs} epochs`), shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: trust.required_tau, y1: trust.required_tau, line: { color: css("--soft"), dash: "dash", width: 1.3 } }] },
    "Rank correlation with the long training: " + [...trust.rungs, ...trust.scores].map((r) => `${r.name} ${r.tau == null ? "unknown" : r.tau.toFixed(2)}`).join(", ")]);
  $("trust-hint").textContent = `${trust.candidates} candidates trained short and long (nas trust); 95 % intervals. ` + (trust.trusted ? `Epoch ${trust.trusted} is the first that can be trusted.` : `No epoch can be trusted yet: no interval lies above ${trust.required_tau}.`);
}
function drawCommands(id) {
  const made = Object.entries(D.commands).flatMap(([what, text]) => [el("div", { class: "what" }, what), command(text.replace(/\bID$/, id))]);
  $("commands").replaceChildren(...made);
}
function drawOn() {
  drawCommands("ID");
  facts($("environment"), Object.entries(D.environment).map(([name, value]) => [name.replace(/_/g, " "), name === "memory_bytes" ? amount(name, value) : value]));
  $("study").textContent = D.study.yaml;
}
