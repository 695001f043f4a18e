"use strict";
const data = JSON.parse(document.getElementById("report-data").textContent);
const short = value => value === null || value === undefined ? "–" : typeof value === "string" ? value
  : Math.abs(value) >= 1e5 && Math.abs(value) < 1e9 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
const name = column => data.labels[column] || column;
const distinct = (rows, key) => [...new Set(rows.map(row => row[key]))];
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...children);
  return made;
};

// Tables come as columns, words as places in a list of them.
function unpack(table) {
  const columns = Object.entries(table).map(([key, held]) => [key, Array.isArray(held) ? held : held.at.map(i => held.words[i])]);
  return columns.length ? columns[0][1].map((_, i) => Object.fromEntries(columns.map(([key, values]) => [key, values[i]]))) : [];
}
const tables = Object.fromEntries(["runs", "energy", "time", "layers", "roofline", "map"].map(key => [key, unpack(data[key])]));

// Sorting by a heading: numbers by value, text by the reader's own collation; the state is spoken through aria-sort.
function sortable(table) {
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
  return table;
}

function tableOf(rows) {
  const columns = rows.length ? Object.keys(rows[0]).filter(key => key !== "scope") : [];
  const number = Object.fromEntries(columns.map(key => [key, rows.some(row => typeof row[key] === "number")]));
  const heads = columns.map(key => element("th", {scope: "col", class: number[key] ? "number" : ""},
    element("button", {type: "button"}, name(key))));
  const lines = rows.map(row => element("tr", {}, ...columns.map(key => element("td",
    {class: number[key] ? "number" : row[key]?.length > 28 ? "long" : "", "data-value": row[key] ?? "nan"}, short(row[key])))));
  return sortable(element("table", {}, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...lines)));
}

document.querySelectorAll("table[data-sortable]").forEach(sortable);
document.querySelectorAll("[data-table]").forEach(place => place.append(tableOf(tables[place.dataset.table])));

const symbols = ["circle", "square", "triangle", "diamond", "wye", "plus", "times", "star"];
const colour = index => data.palette[index % data.palette.length];
const symbol = index => symbols[index % symbols.length];
const ticks = value => value >= 1e12 ? value / 1e12 + "T" : value >= 1e9 ? value / 1e9 + "G" : value >= 1e6 ? value / 1e6 + "M"
  : value >= 1e3 ? value / 1e3 + "k" : String(value);
const wide = values => { const v = values.filter(x => x > 0); return v.length === values.length && Math.max(...v) / Math.min(...v) > 12; };
const log = {type: "log", tickFormat: ticks};
const axis = (rows, column, extra) => ({label: name(column), grid: true,
  ...(wide(rows.map(row => row[column])) ? log : {}), ...extra});
const frame = width => ({width, height: Math.round(Math.max(300, width * 0.62)), marginLeft: 56, marginRight: 24, marginBottom: 50,
  inset: 8, style: {fontSize: "12px"}, symbol: {type: "identity"}, color: {type: "identity"}});
const title = (row, columns) => columns.filter(c => row[c] !== undefined && row[c] !== null)
  .map(c => `${name(c)}: ${short(row[c])}`).join("\n");

function legend(names, mark) {
  return element("ul", {class: "legend"}, ...names.map((text, index) => element("li", {}, mark(index), text)));
}
function swatch(fill, shape) {
  return Plot.plot({width: 12, height: 12, margin: 0, axis: null, x: {domain: [0, 1]}, y: {domain: [0, 1]},
    symbol: {type: "identity"}, marks: [Plot.dot([0], {x: () => 0.5, y: () => 0.5, r: 4, fill, symbol: shape})]});
}

// Bars in rows under the name of their design: twenty names of tunings can be read along rows, not under columns.
function bars(rows, width, column, {parts = null, ends = [], labelled = false, columns, x = {}}) {
  const key = row => row.arch + "\u0000" + row.tuning;
  const archs = distinct(rows, "arch");
  const domain = archs.flatMap(arch => [arch + "\u0000", ...distinct(rows.filter(row => row.arch === arch).map(row => ({key: key(row)})), "key")]);
  const texts = distinct(rows, "tuning"), longest = Math.max(...texts.map(text => text.length));
  const room = Math.min(Math.round(width * 0.4), longest * 6.6 + 12), letters = Math.floor((room - 10) / 6.4);
  // names of one family differ at their ends
  const label = text => text.length > letters ? text.slice(0, Math.ceil(letters / 2) - 1) + "…" + text.slice(-Math.floor(letters / 2)) : text;
  const logarithmic = x.type === "log";
  const fill = parts ? row => colour(parts.indexOf(row.part)) : row => colour(texts.indexOf(row.tuning));
  const value = parts ? {x: column} : {x1: logarithmic ? 1 : 0, x2: column};
  return Plot.plot({
    ...frame(width), inset: 0, insetRight: labelled ? 40 : 12, height: domain.length * 19 + 60, marginLeft: room, marginTop: 4, marginBottom: 42,
    x: {label: name(column), grid: true, ...x},
    y: {domain, label: null, tickSize: 0, padding: 0.15, tickFormat: text => label(text.split("\u0000")[1])},
    marks: [
      Plot.barX(rows, {y: key, ...value, fill, title: row => title(row, columns), tip: true}),
      ...(labelled ? [Plot.text(rows, {y: key, x: column, dx: 4, textAnchor: "start", text: row => Number(row[column].toPrecision(3))})] : []),
      ...(ends.length ? [Plot.ruleY(ends, {y: key, x1: "energy_low", x2: "energy_high", stroke: "currentColor"})] : []),
      Plot.text(archs, {y: arch => arch + "\u0000", frameAnchor: "left", dx: 2, text: arch => arch, fontWeight: 600}),
    ],
  });
}

// What no other row beats in x and y at once, as steps.
const more = data.more;
function front(rows, x, y) {
  const sign = column => more.includes(column) ? -1 : 1;
  const sorted = [...rows].sort((a, b) => sign(x) * (a[x] - b[x]) || sign(y) * (a[y] - b[y]));
  let best = Infinity;
  return sorted.filter(row => sign(y) * row[y] < best && ((best = sign(y) * row[y]), true));
}

const charts = {
  speedup(choice, width) {
    const rows = tables.runs.filter(row => row.scope === choice.scope && row.speedup !== null);
    const x = wide(rows.map(row => row.speedup)) ? {...log, domain: [Math.min(1, ...rows.map(row => row.speedup)), Math.max(...rows.map(row => row.speedup))]} : {};
    const tunings = distinct(rows, "tuning");
    return {rows, drawn: [legend(tunings, i => swatch(colour(i), "square")),
      bars(rows, width, "speedup", {labelled: true, columns: ["arch", "tuning", "speedup", "density", "cycles"], x})]};
  },
  energy(choice, width) {
    const rows = tables.energy.filter(row => row.scope === choice.scope), parts = distinct(rows, "part");
    const ends = tables.runs.filter(row => row.scope === choice.scope);
    return {rows, drawn: [legend(parts, i => swatch(colour(i), "square")),
      bars(rows, width, "energy_per_token", {parts, ends, columns: ["arch", "tuning", "part", "energy_per_token"], x: {tickFormat: ticks}})]};
  },
  time(choice, width) {
    const rows = tables.time.filter(row => row.scope === choice.scope), parts = distinct(rows, "part");
    return {rows, drawn: [legend(parts, i => swatch(colour(i), "square")),
      bars(rows, width, "share", {parts, columns: ["arch", "tuning", "part", "share"], x: {domain: [0, 100]}})]};
  },
  tradeoff(choice, width) {
    const rows = tables.runs.filter(row => row.scope === choice.scope && row[choice.x] !== null && row[choice.y] !== null);
    const archs = distinct(rows, "arch"), tunings = distinct(rows, "tuning");
    const fill = row => colour(archs.indexOf(row.arch));
    const chart = Plot.plot({
      ...frame(width), x: axis(rows, choice.x), y: axis(rows, choice.y),
      marks: [
        ...(choice.x === choice.y ? [] : [Plot.line(front(rows, choice.x, choice.y), {x: choice.x, y: choice.y, curve: more.includes(choice.x) ? "step-before" : "step-after", stroke: "currentColor", strokeDasharray: "4 3"})]),
        ...archs.map((arch, i) => Plot.line(rows.filter(row => row.arch === arch), {
          x: choice.x, y: choice.y, sort: choice.x, stroke: colour(i), strokeOpacity: 0.45})),
        Plot.dot(rows, {x: choice.x, y: choice.y, r: 5, fill, symbol: row => symbol(tunings.indexOf(row.tuning)),
          title: row => title(row, ["arch", "tuning", "accuracy", "density", "speedup", "energy_per_token", "power_w", "cycles"]), tip: true}),
      ],
    });
    return {rows, drawn: [legend(archs, i => swatch(colour(i), "circle")), legend(tunings, i => swatch("currentColor", symbol(i))), chart]};
  },
  layers(choice, width) {
    const rows = tables.layers.filter(row => row.arch === choice.arch && row.op === choice.op && row[choice.y] !== null);
    const tunings = distinct(rows, "tuning"), fill = row => colour(tunings.indexOf(row.tuning));
    const chart = Plot.plot({
      ...frame(width), y: axis(rows, choice.y),
      x: {label: "layer", ticks: distinct(rows, "layer"), tickFormat: "d"},
      marks: [
        Plot.line(rows, {x: "layer", y: choice.y, z: "tuning", stroke: fill, strokeWidth: 2}),
        Plot.dot(rows, {x: "layer", y: choice.y, r: 5, fill, symbol: row => symbol(tunings.indexOf(row.tuning)),
          title: row => title(row, ["tuning", "layer", "op", "density", "speedup", "energy", "cycles", "stall_cycles"]), tip: true}),
      ],
    });
    return {rows, drawn: [legend(tunings, i => swatch(colour(i), symbol(i))), chart]};
  },
  roofline(choice, width) {
    const rows = tables.roofline.filter(row => row.arch === choice.arch), roof = data.roofs[choice.arch];
    if (!rows.length) return {rows, drawn: ["No op of this design moves a byte of DRAM."]};
    const tunings = distinct(rows, "tuning"), reach = rows.map(row => row.intensity);
    const ends = [Math.min(...reach) / 3, Math.max(...reach) * 3];
    const edge = roof ? roof.peak / roof.bandwidth : 0;
    const line = roof ? [ends[0], ...(edge > ends[0] && edge < ends[1] ? [edge] : []), ends[1]]
      .map(intensity => ({intensity, rate: Math.min(roof.peak, roof.bandwidth * intensity)})) : [];
    const chart = Plot.plot({
      ...frame(width), x: {label: name("intensity"), grid: true, ...log}, y: {label: name("rate"), grid: true, ...log},
      marks: [
        Plot.line(line, {x: "intensity", y: "rate", stroke: "currentColor", strokeWidth: 2}),
        Plot.dot(rows, {x: "intensity", y: "rate", r: 5, fill: row => colour(tunings.indexOf(row.tuning)),
          symbol: row => symbol(tunings.indexOf(row.tuning)), fillOpacity: 0.85,
          title: row => title(row, ["op", "tuning", "intensity", "rate"]), tip: true}),
      ],
    });
    return {rows, drawn: [legend(tunings, i => swatch(colour(i), symbol(i))), chart]};
  },
  map(choice, width) {
    const rows = tables.map.filter(row => row.tuning === choice.tuning), values = rows.map(row => row.nonzeros);
    const scale = {scheme: "viridis", label: name("nonzeros"), tickFormat: value => String(Number(value.toPrecision(2))), ...(wide(values) ? {type: "log"} : {domain: [0, Math.max(...values)]})};
    const low = Math.min(...values), high = Math.max(...values);
    const ends = scale.type === "log" ? [low, Math.sqrt(low * high), high] : [0, high / 2, high];
    const places = distinct(rows, "position"), layers = distinct(rows, "layer");
    const every = Math.ceil(places.length / Math.max(2, Math.floor(width / 60)));
    const chart = Plot.plot({
      ...frame(width), inset: 0, height: Math.max(180, layers.length * 26 + 60), color: scale, padding: 0,
      x: {label: name("position"), ticks: places.filter((_, i) => i % every === 0)}, y: {label: "layer"},
      marks: [Plot.cell(rows, {x: "position", y: "layer", fill: "nonzeros", inset: 0,
        title: row => title(row, ["layer", "position", "nonzeros"]), tip: true})],
    });
    return {rows, drawn: [chart.legend("color", {width: Math.min(240, width), marginLeft: 26, marginRight: 26, ticks: ends, tickFormat: scale.tickFormat}), chart]};
  },
};

for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const selects = [...figure.querySelectorAll("select")], details = figure.querySelector("details");
  const behind = details.querySelector("div"), canvas = figure.querySelector(".canvas");
  let rows = [], width = 0;
  const list = () => details.open && behind.replaceChildren(tableOf(rows));
  const draw = () => {
    const choice = Object.fromEntries(selects.map(select => [select.dataset.choice, select.value]));
    const made = charts[figure.dataset.chart](choice, Math.max(280, Math.min(720, canvas.clientWidth)));
    rows = made.rows;
    canvas.replaceChildren(...made.drawn);
    list();
  };
  details.addEventListener("toggle", list);
  selects.forEach(select => select.addEventListener("change", draw));
  new ResizeObserver(entries => {
    const now = Math.round(entries[0].contentRect.width);
    if (now !== width) { width = now; draw(); }
  }).observe(figure);
}
