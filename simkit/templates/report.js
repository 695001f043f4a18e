"use strict";
// Sorting by a heading: numbers by value, text by the reader's own collation; the state is spoken through aria-sort.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = head.classList.contains("number");
    const key = row => row.cells[column].dataset.value;
    const order = (a, b) => numeric ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b), undefined, {numeric: true});
    // a dash (no value) stays at the end whichever way the rest is sorted
    const rows = [...table.tBodies[0].rows];
    const known = rows.filter(row => key(row) !== "nan"), unknown = rows.filter(row => key(row) === "nan");
    known.sort((a, b) => order(a, b) * (down ? -1 : 1));
    table.tBodies[0].append(...known, ...unknown);
  }));
}

const data = JSON.parse(document.getElementById("report-data").textContent);
const symbols = ["circle", "square", "triangle", "diamond", "wye", "plus", "times", "star"];
const distinct = (rows, key) => [...new Set(rows.map(row => row[key]))];
const short = value => value === null ? "–" : Math.abs(value) >= 1e5 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
const ticks = value => value >= 1e6 ? value / 1e6 + "M" : value >= 1e3 ? value / 1e3 + "k" : String(value);
const wide = values => { const v = values.filter(x => x > 0); return v.length === values.length && Math.max(...v) / Math.min(...v) > 12; };
const axis = (rows, column, extra) => ({
  label: data.labels[column] || column, grid: true,
  ...(wide(rows.map(row => row[column])) ? {type: "log", tickFormat: ticks} : {}), ...extra,
});

const frame = width => ({width, height: Math.round(Math.max(300, width * 0.62)), marginLeft: 56, marginRight: 24, marginBottom: 50,
  inset: 8, style: {fontSize: "12px"}});

function legend(names, mark) {
  const list = document.createElement("ul");
  list.className = "legend";
  names.forEach((name, index) => {
    const item = document.createElement("li");
    item.append(mark(index), document.createTextNode(name));
    list.append(item);
  });
  return list;
}

function swatch(color, symbol) {
  return Plot.plot({width: 12, height: 12, margin: 0, axis: null, x: {domain: [0, 1]}, y: {domain: [0, 1]},
    marks: [Plot.dot([0], {x: () => 0.5, y: () => 0.5, r: 4, fill: color, symbol})]});
}

const title = (row, columns) => columns.filter(c => row[c] !== undefined && row[c] !== null)
  .map(c => `${data.labels[c] || c}: ${typeof row[c] === "number" ? short(row[c]) : row[c]}`).join("\n");

const charts = {
  tradeoff(choice, width) {
    const rows = data.runs.filter(row => row.scope === choice.scope && row[choice.x] !== null && row[choice.y] !== null);
    const archs = distinct(rows, "arch"), tunings = distinct(rows, "tuning");
    const color = row => data.palette[archs.indexOf(row.arch) % data.palette.length];
    const chart = Plot.plot({
      ...frame(width), x: axis(rows, choice.x), y: axis(rows, choice.y),
      marks: [
        ...archs.map(arch => Plot.line(rows.filter(row => row.arch === arch), {
          x: choice.x, y: choice.y, sort: choice.x, stroke: data.palette[archs.indexOf(arch) % data.palette.length], strokeOpacity: 0.45})),
        Plot.dot(rows, {x: choice.x, y: choice.y, r: 5, fill: color, symbol: row => symbols[tunings.indexOf(row.tuning) % symbols.length],
          title: row => title(row, ["arch", "tuning", "accuracy", "density", "speedup", "energy_per_token", "power_w", "cycles"]), tip: true}),
      ],
      symbol: {type: "identity"}, color: {type: "identity"},
    });
    return [legend(archs, i => swatch(data.palette[i % data.palette.length], "circle")),
            legend(tunings, i => swatch("currentColor", symbols[i % symbols.length])), chart];
  },
  layers(choice, width) {
    const rows = data.layers.filter(row => row.arch === choice.arch && row.op === choice.op && row[choice.y] !== null);
    const tunings = distinct(rows, "tuning");
    const color = row => data.palette[tunings.indexOf(row.tuning) % data.palette.length];
    const chart = Plot.plot({
      ...frame(width), y: axis(rows, choice.y),
      x: {label: "layer", ticks: distinct(rows, "layer"), tickFormat: "d"},
      marks: [
        Plot.line(rows, {x: "layer", y: choice.y, z: "tuning", stroke: color, strokeWidth: 2}),
        Plot.dot(rows, {x: "layer", y: choice.y, r: 5, fill: color, symbol: row => symbols[tunings.indexOf(row.tuning) % symbols.length],
          title: row => title(row, ["tuning", "layer", "op", "density", "speedup", "energy", "cycles", "stall_cycles"]), tip: true}),
      ],
      symbol: {type: "identity"}, color: {type: "identity"},
    });
    return [legend(tunings, i => swatch(data.palette[i % data.palette.length], symbols[i % symbols.length])), chart];
  },
};

for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const selects = [...figure.querySelectorAll("select")];
  const draw = () => {
    const choice = Object.fromEntries(selects.map(select => [select.dataset.choice, select.value]));
    const canvas = figure.querySelector(".canvas");
    canvas.replaceChildren(...charts[figure.dataset.chart](choice, Math.max(280, Math.min(720, canvas.clientWidth))));
  };
  selects.forEach(select => select.addEventListener("change", draw));
  let width = 0;
  new ResizeObserver(entries => {
    const now = Math.round(entries[0].contentRect.width);
    if (now !== width) { width = now; draw(); }
  }).observe(figure);
}
