/**
 * Spoils what one member of a run's first chat hears, so that the counting is seen to work: the run
 * must then fail. Nothing of it reaches the cluster.
 */

import exec from 'k6/execution';

/** Which of the messages that it hears. */
const WHICH = 3;

/** @param {string} fault `none`, `drop`, `duplicate` or `swap` @param {number} chat of the VU */
export function spoiler(fault, chat) {
  if (!fault || fault === 'none' || chat > 0 || exec.scenario.iterationInTest > 0) return (hear) => hear;
  let heard = 0;
  let held = null;
  return (hear) => (data) => {
    heard += 1;
    if (heard === WHICH && fault === 'drop') return;
    if (heard === WHICH && fault === 'swap') {
      held = data;
      return;
    }
    hear(data);
    if (heard === WHICH && fault === 'duplicate') hear(data);
    if (held) hear(held);
    held = null;
  };
}
