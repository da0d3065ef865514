/** The REST calls that the scripts make. Each has a name of its own in the metrics. */

import http from 'k6/http';
import { sleep } from 'k6';

import { urls } from './settings.js';

/** Calls under way at once, in setup: passwords are hashed, which costs the gateways CPU. */
const AT_ONCE = 16;
/** A gateway that limits how often somebody may register says when to come again. */
const TRIES = 60;

function params(name, token) {
  const headers = { 'content-type': 'application/json' };
  if (token) headers.authorization = `Bearer ${token}`;
  return { headers, tags: { name }, timeout: '30s' };
}

function again(response) {
  return response.status === 0 || response.status === 429 || response.status >= 500;
}

/**
 * Makes many calls, in setup; those that a limit or a busy gateway puts off are repeated.
 * @param {string} name in the metrics
 * @param {{path: string, body?: object, token?: string}[]} calls all may be repeated
 * @returns {object[]} the answers, in order
 */
export function all(name, calls) {
  const answers = new Array(calls.length);
  let left = calls.map((_, index) => index);
  for (let tried = 0; left.length > 0; tried += 1) {
    const put = [];
    let pause = 0;
    for (let at = 0; at < left.length; at += AT_ONCE) {
      const some = left.slice(at, at + AT_ONCE);
      http.batch(some.map((index) => request(name, calls[index], index + tried))).forEach((response, n) => {
        if (!again(response)) {
          answers[some[n]] = read(name, response);
          return;
        }
        if (tried >= TRIES) throw new Error(`${name}: ${response.status} ${response.body}`);
        pause = Math.max(pause, Number(response.headers['Retry-After']) || 1);
        put.push(some[n]);
      });
      // What comes next would be put off as well.
      if (pause > 0) {
        put.push(...left.slice(at + AT_ONCE));
        break;
      }
    }
    left = put;
    if (pause > 0) sleep(pause);
  }
  return answers;
}

function request(name, { path, body, token }, turn) {
  const url = `${urls[turn % urls.length]}/v1${path}`;
  const method = body === undefined ? 'GET' : 'POST';
  return { method, url, body: body && JSON.stringify(body), params: params(name, token) };
}

function read(name, response) {
  if (response.status >= 400) throw new Error(`${name}: ${response.status} ${response.body}`);
  return response.json();
}

/** One call without holding up what the VU does beside. @returns {Promise<object>} k6's response */
export function call(name, base, path, { token, body } = {}) {
  const method = body === undefined ? 'GET' : 'POST';
  const text = body && JSON.stringify(body);
  return http.asyncRequest(method, `${base}/v1${path}`, text, params(name, token));
}
