/** Figures as people read them. */

/** At most three digits behind the point. */
export function short(value) {
  return value === undefined ? '-' : String(Number(value.toFixed(value >= 100 ? 0 : 3)));
}

/** Ours, and what k6 says of REST, that were measured at all; of counts those that are 0 too. */
export function ours(metrics) {
  const wanted = (name) => name.startsWith('natter_') || name === 'http_req_duration' || name === 'iterations';
  return Object.entries(metrics).filter(([name, values]) => wanted(name) && values.count !== 0);
}
