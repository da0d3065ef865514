/** The report as one HTML page with its plots drawn in it. */

import { ours, short } from './figures.js';

const WIDTH = 860;
const HEIGHT = 220;
const LEFT = 64;
const BOTTOM = 28;

const STYLE = `
:root { color-scheme: light dark; --ink: #1c2430; --faint: #69758a; --line: #d9dfe8; --back: #fff;
  --a: #2f6fde; --b: #d9822b; --c: #c23b4b; --good: #1f8a4c; --bad: #c23b4b; --bar: #cfdcf5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9f1; --faint: #93a0b5; --line: #323b4a;
  --back: #141a23; --bar: #2a3c5e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 900px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p { color: var(--faint); margin: .2rem 0 .6rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .22rem .5rem; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
td.ok { color: var(--good); } td.no { color: var(--bad); font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--faint); }
.grid { stroke: var(--line); } .bar { fill: var(--bar); }
.l0 { stroke: var(--a); } .l1 { stroke: var(--b); } .l2 { stroke: var(--c); }
path { fill: none; stroke-width: 2; } .k0 { fill: var(--a) !important; }
.k1 { fill: var(--b) !important; } .k2 { fill: var(--c) !important; }
`;

/** @param {import('./report.js').Report} report */
export function html(report) {
  const { name, ok, seconds, objectives, counts, times, overTime } = report;
  const plots = Object.entries(overTime).map(([metric, slices]) => overTimeOf(metric, slices));
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Natter under load</title><style>${STYLE}</style></head><body>
<h1>${ok ? 'All objectives were met' : 'Not all objectives were met'}</h1>
<p>${escape(name)}, ${short(seconds)} s. Times are in ms, from when a thing was due.</p>
<h2>Objectives</h2>
${table(['metric', 'objective', 'measured', ''], objectives.map((o) => [
    o.metric, o.objective, short(o.value), o.ok ? ['ok', 'met'] : ['no', 'missed'],
  ]))}
${plots.join('\n')}
<h2>Percentiles</h2>
${percentiles(ours(times))}
${table(['ms', 'p50', 'p90', 'p95', 'p99', 'p99.9', 'max', 'count'], ours(times).map(([name, v]) => [
    name, ...['p(50)', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'max', 'count'].map((stat) => short(v[stat])),
  ]))}
<h2>Counts</h2>
${table(['', 'count'], ours(counts).map(([name, count]) => [name, short(count)]))}
</body></html>
`;
}

function escape(text) {
  return String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

function table(heads, rows) {
  const cell = (value) =>
    Array.isArray(value) ? `<td class="${value[0]}">${escape(value[1])}</td>` : `<td>${escape(value)}</td>`;
  const body = rows.map((row) => `<tr>${row.map(cell).join('')}</tr>`).join('\n');
  return `<table><tr>${heads.map((head) => `<th>${escape(head)}</th>`).join('')}</tr>\n${body}</table>`;
}

/** A round number at or above it, for an axis to end with. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 0.001)));
  return power * [1, 2, 2.5, 5, 10].find((step) => power * step >= value * 0.9999);
}

/** Percentiles as lines, and how many there were as bars behind them. */
function overTimeOf(metric, slices) {
  const stats = ['p(50)', 'p(95)', 'p(99)'];
  const top = roundUp(Math.max(...slices.map((slice) => slice['p(99)'] || 0), 0.1));
  const most = Math.max(...slices.map((slice) => slice.count || 0), 1);
  const step = (WIDTH - LEFT) / slices.length;
  const y = (share) => HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - 10);
  const bars = slices.map(({ count }, n) => {
    const from = y((count || 0) / most);
    return `<rect class="bar" x="${LEFT + n * step}" y="${from}" width="${step - 1}" height="${y(0) - from}"/>`;
  });
  const lines = stats.map((stat, k) => {
    const points = slices.map((slice, n) => [LEFT + (n + 0.5) * step, slice]).filter(([, slice]) => slice.count);
    const path = points.map(([x, slice], n) => `${n ? 'L' : 'M'}${x.toFixed(1)} ${y(slice[stat] / top).toFixed(1)}`);
    return `<path class="l${k}" d="${path.join('')}"/>
<text class="k${k}" x="${LEFT + 8 + k * 60}" y="12">${stat}</text>`;
  });
  const grid = [0, 0.25, 0.5, 0.75, 1].map(
    (share) => `<line class="grid" x1="${LEFT}" x2="${WIDTH}" y1="${y(share)}" y2="${y(share)}"/>
<text x="${LEFT - 6}" y="${y(share) + 4}" text-anchor="end">${short(share * top)}</text>`,
  );
  return `<h2>${escape(metric)} over time</h2>
<p>From the first thing due to the last, in ${slices.length} parts; bars: how many, at most ${short(most)} in one part.</p>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escape(metric)} over time">
${bars.join('')}${grid.join('')}${lines.join('')}
<text x="${LEFT}" y="${HEIGHT - 8}">begin</text><text x="${WIDTH}" y="${HEIGHT - 8}" text-anchor="end">end</text></svg>`;
}

/** From p50 to p99, on a logarithmic axis. */
function percentiles(times) {
  const row = 24;
  const left = 200;
  const least = 0.1;
  const top = Math.max(1, ...times.map(([, v]) => v.max || 0));
  const x = (value) => left + ((WIDTH - left - 10) * Math.log(Math.max(value, least) / least)) / Math.log(top / least);
  const height = times.length * row + BOTTOM;
  const rows = times.map(([name, v], n) => {
    const middle = n * row + row / 2;
    const dot = (stat, k) => `<circle class="k${k}" cx="${x(v[stat]).toFixed(1)}" cy="${middle}" r="4"/>`;
    return `<text x="${left - 8}" y="${middle + 4}" text-anchor="end">${escape(name)}</text>
<line class="grid" x1="${x(v.min || 0).toFixed(1)}" x2="${x(v.max).toFixed(1)}" y1="${middle}" y2="${middle}" stroke-width="3"/>
${dot('p(50)', 0)}${dot('p(95)', 1)}${dot('p(99)', 2)}`;
  });
  const ticks = [0.1, 1, 10, 100, 1_000, 10_000, 100_000].filter((value) => value <= top);
  const axis = ticks.map(
    (value) => `<line class="grid" x1="${x(value)}" x2="${x(value)}" y1="0" y2="${height - BOTTOM}"/>
<text x="${x(value)}" y="${height - 10}" text-anchor="middle">${value} ms</text>`,
  );
  const legend = ['p(50)', 'p(95)', 'p(99)']
    .map((stat, k) => `<text class="k${k}" x="${8 + k * 46}" y="${height - 10}">${stat}</text>`)
    .join('');
  return `<p>Lines: from the least to the most.</p>
<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="percentiles">${axis.join('')}${rows.join('')}${legend}</svg>`;
}
