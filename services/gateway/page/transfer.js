/**
 * Files on their way: up from a form, down into a blob, with progress and an end to waiting.
 *
 * A transfer may take as long as it needs, as long as it goes on.
 */

import { NatterError, failure } from './session.js';

/** Without a byte for this long, a transfer is given up. */
const STALLED_MS = 60_000;

/**
 * @typedef {{signal?: AbortSignal, onProgress?: (part: number, bytes: number) => void}} Transfer
 *   `part` is from 0 to 1; `bytes` have gone, or come
 */

const cancelled = () => new NatterError('cancelled', 'Cancelled.');
const stalled = () => new NatterError('timeout', 'Nothing has moved for a minute.', { outcome: 'unknown' });
const broken = () => new NatterError('offline', 'The connection broke off.', { outcome: 'unknown' });

/**
 * Posts a form. By XMLHttpRequest: `fetch` does not tell how much has gone.
 * @param {string} url @param {string} token @param {FormData} form @param {Transfer} [transfer]
 * @returns {Promise<any>} the answer
 */
export function upload(url, token, form, { signal, onProgress } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const watch = watchdog(() => end(stalled()));
    const onAbort = () => end(cancelled());
    const end = (error, answer) => {
      watch.stop();
      signal?.removeEventListener('abort', onAbort);
      if (error) reject(error);
      else resolve(answer);
      request.abort(); // nothing, if it is over
    };
    if (signal?.aborted) return end(cancelled());
    signal?.addEventListener('abort', onAbort);
    request.upload.addEventListener('progress', ({ loaded, total }) => {
      watch.goesOn();
      if (total) onProgress?.(loaded / total, loaded);
    });
    request.addEventListener('error', () => end(broken()));
    request.addEventListener('load', () => {
      const { status, response } = request;
      if (status >= 200 && status < 300 && response) return end(null, response);
      end(failure(status, request.getResponseHeader('retry-after'), response));
    });
    request.open('POST', url);
    request.responseType = 'json';
    request.setRequestHeader('accept', 'application/json');
    request.setRequestHeader('authorization', `Bearer ${token}`);
    request.send(form);
  });
}

/**
 * Fetches a file. It goes through a stream into the blob, which the browser may keep on disk.
 * @param {string} url @param {string} token
 * @param {Transfer & {most: number, cache?: RequestCache}} transfer `most` bytes are taken
 * @returns {Promise<Blob>}
 */
export async function download(url, token, { signal, onProgress, most, cache = 'no-store' }) {
  const ended = new AbortController();
  const onAbort = () => ended.abort(cancelled());
  const watch = watchdog(() => ended.abort(stalled()));
  if (signal?.aborted) onAbort();
  signal?.addEventListener('abort', onAbort);
  try {
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${token}` },
      signal: ended.signal,
      cache,
      credentials: 'omit',
      redirect: 'manual',
    });
    // The store gives large files out itself, where the server is set up so: from another origin,
    // which this page may not reach.
    if (response.type === 'opaqueredirect') throw new NatterError('elsewhere', 'It needs another client.');
    if (!response.ok) {
      const answer = await response.json().catch(() => null);
      throw failure(response.status, response.headers.get('retry-after'), answer);
    }
    const total = Number(response.headers.get('content-length')) || most;
    let came = 0;
    const count = (chunk, stream) => {
      watch.goesOn();
      came += chunk.byteLength;
      if (came > most) throw new NatterError('too_large', 'It is larger than was told.');
      onProgress?.(Math.min(1, came / total), came);
      stream.enqueue(chunk);
    };
    const counted = response.body.pipeThrough(new TransformStream({ transform: count }));
    const headers = { 'content-type': response.headers.get('content-type') ?? '' };
    return await new Response(counted, { headers }).blob();
  } catch (error) {
    if (error instanceof NatterError) throw error;
    throw ended.signal.aborted ? ended.signal.reason : broken();
  } finally {
    watch.stop();
    signal?.removeEventListener('abort', onAbort);
  }
}

/** @param {() => void} onStalled called when `goesOn` was not called for too long */
function watchdog(onStalled) {
  let timer = setTimeout(onStalled, STALLED_MS);
  const stop = () => clearTimeout(timer);
  const goesOn = () => {
    stop();
    timer = setTimeout(onStalled, STALLED_MS);
  };
  return { goesOn, stop };
}
