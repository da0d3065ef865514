/**
 * What a run ends with: a text, and with `NATTER_REPORT=some/prefix` also `prefix.json` for scripts
 * and `prefix.html` for people, who need nothing but a browser.
 */

import { ours, short } from './figures.js';
import { html } from './page.js';
import { KEEP } from './objectives.js';

/** k6 calls it, with everything that was measured. */
export function handleSummary(data) {
  const prefix = __ENV.NATTER_REPORT;
  const report = { name: prefix?.split('/').pop(), ...digest(data) };
  const files = { stdout: text(report) };
  if (prefix) {
    files[`${prefix}.json`] = `${JSON.stringify(report, null, 2)}\n`;
    files[`${prefix}.html`] = html(report);
  }
  return files;
}

/**
 * @typedef {object} Report
 * @property {string} [name] as its files are called
 * @property {boolean} ok whether all objectives were met
 * @property {number} seconds the run took, with setup's end and the last deliveries
 * @property {{metric: string, objective: string, value: number, ok: boolean}[]} objectives
 * @property {Object<string, number>} counts
 * @property {Object<string, object>} times by metric, in ms
 * @property {Object<string, object[]>} overTime by metric, slice by slice
 */

/** @returns {Report} */
function digest({ metrics, state }) {
  const report = {
    ok: true,
    seconds: state.testRunDurationMs / 1_000,
    objectives: [],
    counts: {},
    times: {},
    overTime: {},
  };
  for (const [name, { type, values, thresholds }] of Object.entries(metrics).sort()) {
    const [, metric, slice] = /^(\w+)\{slice:(\d+)\}$/.exec(name) || [];
    if (metric) {
      (report.overTime[metric] ??= [])[Number(slice)] = values;
      continue;
    }
    if (type === 'counter') report.counts[name] = values.count;
    if (type === 'rate') report.counts[name] = values.rate;
    if (type === 'trend') report.times[name] = values;
    for (const [objective, { ok }] of Object.entries(thresholds || {})) {
      if (objective === KEEP) continue;
      const stat = /^[a-z]+(\([\d.]+\))?/.exec(objective)[0];
      report.objectives.push({ metric: name, objective, value: values[stat] ?? 0, ok });
    }
  }
  report.ok = report.objectives.every(({ ok }) => ok);
  return report;
}

function text({ ok, seconds, objectives, counts, times }) {
  const lines = [`\n${ok ? 'All objectives were met' : 'NOT ALL OBJECTIVES WERE MET'} in ${short(seconds)} s\n`];
  for (const { metric, objective, value, ok: met } of objectives) {
    lines.push(`  ${met ? 'ok  ' : 'FAIL'}  ${metric.padEnd(32)} ${objective.padEnd(14)} ${short(value)}`);
  }
  lines.push('\n  ms                                  p50      p95      p99    p99.9      max    count');
  for (const [name, values] of ours(times)) {
    const columns = ['p(50)', 'p(95)', 'p(99)', 'p(99.9)', 'max', 'count'];
    lines.push(`  ${name.padEnd(30)}${columns.map((column) => short(values[column]).padStart(9)).join('')}`);
  }
  lines.push('');
  for (const [name, count] of ours(counts)) lines.push(`  ${name.padEnd(30)}${short(count).padStart(9)}`);
  return `${lines.join('\n')}\n\n`;
}
