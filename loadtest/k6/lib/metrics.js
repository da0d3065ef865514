/** Every metric of ours, in one place. What is measured in time is in milliseconds. */

import { Counter, Rate, Trend } from 'k6/metrics';

/** From when a message was due to its reply: stored durably. */
export const ack = new Trend('natter_ack_ms', true);
/** From when a message was due to each of its deliveries. */
export const delivery = new Trend('natter_delivery_ms', true);
/** From when a typing start or stop was due to each member who was shown it. */
export const typing = new Trend('natter_typing_ms', true);
/** Dialling to `ready`, the first time. */
export const connect = new Trend('natter_connect_ms', true);
/** Dialling to `resume_done`, coming back. */
export const resume = new Trend('natter_resume_ms', true);
/** From when a read was due to its answer. */
export const read = new Trend('natter_read_ms', true);
/** How late the load generator itself was: past some ms it measures itself, and not the cluster. */
export const lag = new Trend('natter_generator_lag_ms', true);

/** Messages that were acknowledged. */
export const sent = new Counter('natter_sent');
/** Messages that were due and not acknowledged to the end, however often they were tried. */
export const unacked = new Counter('natter_unacked');
/** Messages that a member was delivered, each counted once for each member. */
export const deliveries = new Counter('natter_deliveries');
/** Deliveries that never came, though the message was acknowledged. */
export const lost = new Counter('natter_lost');
/** Deliveries that came again. */
export const duplicates = new Counter('natter_duplicates');
/** Deliveries that came out of the feed's order, or out of their sender's. */
export const reordered = new Counter('natter_reordered');
/** Whatever was refused or failed, by `what`. */
export const errors = new Counter('natter_errors');
/** Connections that ended without our doing. */
export const cuts = new Counter('natter_cuts');
/** Connections that came back and were resumed. */
export const resumed = new Counter('natter_resumed');
/** Connections that came back and were not: what they missed is lost to them. */
export const unresumed = new Counter('natter_unresumed');
/** Whether a typing start or stop was shown to a member who was connected all along. */
export const typingSeen = new Rate('natter_typing_seen');
/** Chats, or pages of history, whose messages were counted to the end. */
export const checked = new Counter('natter_checked');

/** Errors that a VU tells of: the first ones say enough. */
const TOLD = 10;
let told = 0;

/** Counts an error. @param {string} what @param {object} [tags] */
export function failed(what, tags = {}) {
  errors.add(1, { ...tags, what });
  told += 1;
  if (told <= TOLD) console.warn(`error: ${what} ${JSON.stringify(tags)}`);
}
