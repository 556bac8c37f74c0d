// What all pages share. Nothing that comes from the data is ever read as markup: text goes in as text.

async function unpacked(id) {
  const text = atob(document.getElementById(id).textContent), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i); // half a second sooner, of 10,000 trials, than by a call for each
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// Text and tables first; the charts as soon as their library, most of the page, is read.
async function start(draw, drawn) {
  try {
    draw(JSON.parse(await unpacked("data")));
    document.body.dataset.shown = Math.round(performance.now());
    await new Promise((done) => setTimeout(done, 20)); // a frame is painted
    const script = document.createElement("script");
    script.textContent = await unpacked("plotly");
    document.head.append(script);
    for (const id of charts.keys()) {
      redraw(id);
      if (!document.body.dataset.ready) drawn(); // the first is what people came for
      document.body.dataset.ready ??= Math.round(performance.now()); // milliseconds since the page was asked for
      await new Promise((done) => setTimeout(done));
    }
    document.body.dataset.drawn = Math.round(performance.now());
  } catch (error) {
    document.querySelector("main").prepend(el("p", { class: "note" }, "This page could not be drawn: " + error.message));
    throw error;
  }
}

const $ = (id) => document.getElementById(id);

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(made.style, value);
    else if (value !== false && value != null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null).map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Plotly reads some tags in its texts.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// Numbers

const exact = (value) => (value == null ? "–" : value.toLocaleString("en-US", { maximumFractionDigits: 4 }));
function short(value) {
  if (value == null) return "–";
  for (const [size, suffix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(value) >= size) return +(value / size).toPrecision(3) + suffix;
  return String(+value.toPrecision(4));
}
const percent = (share, digits = 0) => (100 * share).toFixed(digits) + " %";
function time(seconds) {
  if (seconds < 90) return seconds.toFixed(0) + " s";
  return seconds < 5400 ? (seconds / 60).toFixed(0) + " min" : (seconds / 3600).toFixed(1) + " h";
}
const bytes = (name) => name.endsWith("_bytes");
function amount(name, value) {
  if (value == null) return "–";
  return bytes(name) ? (value / 1024 < 10000 ? +(value / 1024).toPrecision(4) + " KiB" : +(value / 2 ** 20).toPrecision(4) + " MiB") : exact(value);
}
const LABELS = {
  accuracy: "validation accuracy", error: "validation error", params: "parameters", macs: "MACs", flops: "FLOPs",
  peak_memory_bytes: "peak memory, float32 (bytes)", peak_memory_int8_bytes: "peak memory, int8 (bytes)",
  block_memory_bytes: "memory, block by block (bytes)", seconds: "seconds of training", latency_ms: "latency (ms)",
  measured_ms: "measured (ms)", accuracy_int8: "accuracy, int8", latency_int8_ms: "latency, int8 (ms)",
};
const BRIEF = { ...LABELS, accuracy: "accuracy", params: "params", peak_memory_bytes: "peak memory", peak_memory_int8_bytes: "peak, int8",
  block_memory_bytes: "block memory", seconds: "trained for" };
const label = (name) => LABELS[name] || name;
const brief = (name) => BRIEF[name] || name;

// Charts: plotly with the colours of the page, drawn anew when these change

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const charts = new Map();
const CONFIG = { responsive: true, displayModeBar: innerWidth > 600 ? "hover" : false, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

function axis(title, more = {}) {
  return {
    title: { text: plain(title), standoff: 8, font: { size: 13 } }, gridcolor: css("--line"), linecolor: css("--line"), zeroline: false,
    tickfont: { size: 12 }, automargin: true, ...more,
  };
}
function layout(more) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: getComputedStyle(document.body).fontFamily, color: css("--ink"), size: 13 },
    margin: { l: 56, r: 14, t: 12, b: 46 }, hovermode: "closest", dragmode: "zoom", uirevision: "keep", modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--grey"), activecolor: css("--blue") },
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--grey"), font: { color: css("--ink"), size: 13 }, align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 12 } }, ...more,
  };
}
function chart(id, make) {
  charts.set(id, make);
  redraw(id);
}
function redraw(id) {
  if (!globalThis.Plotly) return;
  const [traces, more, text] = charts.get(id)();
  const place = $(id);
  Plotly.react(place, traces, layout(more), CONFIG);
  place.setAttribute("role", place.getAttribute("role") || "figure");
  place.setAttribute("aria-label", text);
  place.querySelectorAll(".modebar-btn").forEach((button) => button.setAttribute("tabindex", "-1"));
}
const redrawAll = () => charts.forEach((_, id) => redraw(id));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
function onPaper(is) {
  document.documentElement.classList.toggle("light", is);
  redrawAll();
}
addEventListener("beforeprint", () => onPaper(true));
addEventListener("afterprint", () => onPaper(false));

// Round numbers on a log axis, without exponents
function logTicks(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const steps = high / low < 4 ? [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8] : high / low < 40 ? [1, 2, 3, 5] : high / low < 3000 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) for (const step of steps) ticks.push(step * 10 ** power);
  return { type: "log", tickvals: ticks, ticktext: ticks.map(short) };
}

// `params < 0.3M and accuracy > 0.9 or ...`: a test of a row, or an Error. Comparisons as those of nas front --where, but of
// the columns that a page has, among them words such as outcomes; AND, 3m and numbers below 0 are taken, too.

function condition(text, names) {
  const any = text.split(/\s+or\s+/i).map((part) => part.split(/\s+and\s+/i).map((each) => comparison(each, names)));
  return (value) => any.some((all) => all.every((test) => test(value)));
}
function comparison(text, names) {
  const found = /^\s*([A-Za-z_]\w*)\s*(<=|>=|==|!=|=|<|>)\s*(.+?)\s*$/.exec(text);
  if (!found) throw new Error(`“${text.trim()}” is no comparison: write name < number, with and, or between`);
  const [, name, sign, right] = found;
  if (!names.includes(name)) throw new Error(`${name} is not known; the names are: ${names.join(", ")}`);
  const number = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)([kMG]?)$/i.exec(right);
  const words = name === "id" || name === "outcome";
  if (!words && !number) throw new Error(`${right} is no number: write 30000, 30k or 0.3M`);
  const scale = number ? { "": 1, k: 1e3, m: 1e6, g: 1e9 }[number[2].toLowerCase()] : 1;
  const limit = words ? right.replace(/^(["'])(.*)\1$/, "$2") : Number(number[1]) * scale;
  const tests = { "<": (a) => a < limit, "<=": (a) => a <= limit, ">": (a) => a > limit, ">=": (a) => a >= limit, "=": (a) => a === limit, "==": (a) => a === limit, "!=": (a) => a !== limit };
  return (value) => { const own = value(name); return own != null && tests[sign](own); };
}

function command(text) {
  const status = el("span", { class: "hint", role: "status" }); // what a screen reader says
  const copy = el("button", { type: "button", "aria-label": "Copy: " + text }, "Copy");
  copy.addEventListener("click", async () => {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    let done = false;
    try { await navigator.clipboard.writeText(text); done = true; } catch { done = document.execCommand("copy"); }
    status.textContent = done ? "Copied" : "Selected";
    setTimeout(() => (status.textContent = ""), 1500);
  });
  const code = el("code", { tabindex: 0 }, text);
  return el("div", { class: "copy" }, code, copy, status);
}

function facts(place, pairs) {
  place.replaceChildren(...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}
// Columns of numbers stand to the right.
function table(head, rows) {
  const text = (cell) => (cell instanceof Node ? cell.textContent : String(cell));
  const kinds = head.map((_, k) => (k && rows.every((row) => /^[<≈]? ?[\d.,–]+( %| of \d+)?$/.test(text(row[k]))) ? "n" : null));
  return el("table", { class: "words" }, el("thead", {}, el("tr", {}, ...head.map((name, k) => el("th", { scope: "col", class: kinds[k] }, name)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, k) => el("td", { class: kinds[k] }, cell))))));
}
