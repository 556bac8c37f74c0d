let D, NAMES;
const COLOURS = [["#005fa8", "#6db7f2"], ["#b54708", "#f5a06a"], ["#0b6e4f", "#6fd3ab"], ["#7a3fa0", "#c9a2e6"], ["#8a6d00", "#e2c75a"], ["#a8327a", "#f093c8"], ["#3b4650", "#c3ccd6"]];
const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "star", "hexagon"], DASHES = ["solid", "dash", "dot", "dashdot"];
const colour = (i) => COLOURS[i % COLOURS.length][matchMedia("screen and (prefers-color-scheme: dark)").matches && !document.documentElement.classList.contains("light") ? 1 : 0];
const dash = (i) => DASHES[Math.floor(i / COLOURS.length) % DASHES.length];

start((data) => {
  D = data;
  NAMES = Object.keys(D.runs);
  $("title").textContent = NAMES.length === 1 ? NAMES[0] : `${NAMES.length} searches`;
  $("question").textContent = `Objectives: ${D.objectives.map(brief).join(", ")}. Hypervolumes are measured from ` + D.objectives.map((name, k) => `${brief(name)} ${short(D.reference[k])}`).join(", ") + ".";
  const differences = Object.entries(D.differences);
  $("differences").hidden = !differences.length;
  $("differences").append(...differences.map(([key, values]) => el("li", {}, `They differ in ${key}: ${values.map((value) => JSON.stringify(value)).join(" | ")}`)));
  $("runs").append(table(["run", "sampler", "candidates", "epochs", "hours", "front", "hypervolume", "measured again"], NAMES.map((name) => {
    const run = D.runs[name];
    return [name, run.sampler, exact(run.candidates), short(run.epochs.spent), run.hours.toFixed(2), exact(run.front), run.curve.at(-1)[1].toFixed(4), run.again == null ? "–" : run.again.toFixed(4)];
  })));
  $("when").append(table(["had the hypervolume at the end of", ...NAMES], NAMES.map((name) => [name, ...NAMES.map((other) => { const when = D.runs[name].seconds_to[other]; return when == null ? "never" : time(when); })])));
  const costs = Object.keys(D.runs[NAMES[0]].members[0]).filter((name) => name !== "id" && name !== "accuracy");
  const first = D.objectives.find((name) => name !== "accuracy") || "params";
  $("x").append(...costs.map((name) => el("option", { value: name, selected: name === first }, label(name))));
  $("x").addEventListener("change", () => redraw("fronts"));
  $("log").addEventListener("change", () => redraw("fronts"));
  chart("fronts", frontsChart);
  chart("growth", growthChart);
}, () => {});

function frontsChart() {
  const x = $("x").value, plane = D.objectives.length === 2 && D.objectives.includes(x);
  const traces = NAMES.map((name, i) => {
    const members = [...D.runs[name].members].sort((a, b) => a[x] - b[x]);
    return { name: plain(name), x: members.map((m) => m[x]), y: members.map((m) => m.accuracy), text: members.map((m) => plain(m.id)), type: "scatter", mode: plane ? "lines+markers" : "markers",
      line: { shape: "hv", color: colour(i), width: 1.6, dash: dash(i) }, marker: { color: colour(i), symbol: SYMBOLS[i % SYMBOLS.length], size: 9 }, hovertemplate: "<b>%{text}</b><br>accuracy %{y:.4f}<br>%{x:,} " + brief(x) + "<extra>%{fullData.name}</extra>" };
  });
  const log = $("log").checked ? logTicks(traces.flatMap((trace) => trace.x)) : {};
  return [traces, { xaxis: axis(label(x), log), yaxis: axis(label("accuracy")), showlegend: true, uirevision: x + $("log").checked }, `Scatter plot of the fronts of ${NAMES.length} runs: accuracy against ${label(x)}.`];
}
function growthChart() {
  const end = Math.max(...NAMES.map((name) => D.runs[name].hours * 3600)), unit = end < 5400 ? ["minutes", 60] : ["hours", 3600];
  const traces = NAMES.map((name, i) => {
    const curve = D.runs[name].curve;
    return { name: plain(name), x: [...curve.map((point) => point[0] / unit[1]), end / unit[1]], y: [...curve.map((point) => point[1]), curve.at(-1)[1]], type: "scatter", mode: "lines", line: { shape: "hv", color: colour(i), width: 2, dash: dash(i) }, hovertemplate: "%{y:.1%} after %{x:.4~g} " + unit[0] + "<extra>%{fullData.name}</extra>" };
  });
  return [traces, { xaxis: axis(`${unit[0]} of search`, { rangemode: "tozero" }), yaxis: axis("hypervolume, share of that of all", { tickformat: ".0%", rangemode: "tozero" }), showlegend: true }, "Line chart of hypervolume against time: " + NAMES.map((name) => `${name} ends at ${percent(D.runs[name].curve.at(-1)[1])}`).join(", ")];
}
