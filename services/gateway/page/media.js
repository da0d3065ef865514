/**
 * What files are called, and what is said of them.
 */

/** Bytes of a video or a sound that is played here, from memory. */
export const PLAYED_BYTES = 32 * 1024 * 1024;
/** Bytes of a file that is fetched here at all: it passes through the browser's blobs. */
export const FETCHED_BYTES = 256 * 1024 * 1024;

/**
 * @typedef {{id: string, name: string, type: string, kind: 'image'|'video'|'audio'|'document',
 *   size: number, width?: number, height?: number, thumbnail?: boolean}} Media
 */

const KINDS = {
  image: { icon: '📷', noun: 'Photo' },
  video: { icon: '🎬', noun: 'Video' },
  audio: { icon: '🎵', noun: 'Audio' },
  document: { icon: '📎', noun: 'File' },
};

/** @param {{kind: string}} media those of a newer server too */
export const kindOf = ({ kind }) => KINDS[kind] ?? KINDS.document;

/** A message in one line, as lists show it. @param {import('./timeline.js').Entry} message */
export function summary({ media, content, contentType, deleted }) {
  if (deleted) return 'Message deleted';
  // A quote does not tell which file.
  if (!media) return content || (contentType === 'media' ? '📎 File' : '');
  const { icon, noun } = kindOf(media);
  const what = `${icon} ${noun === 'File' ? media.name : noun}`;
  return content ? `${what} · ${content}` : what;
}

const UNITS = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'];

/** @param {number} bytes */
export function sizeText(bytes) {
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const format = { style: 'unit', unit: UNITS[power], unitDisplay: 'short', maximumFractionDigits: 1 };
  return new Intl.NumberFormat(undefined, format).format(bytes / 1000 ** power);
}

/** What a file will probably be taken for; the server looks at its content. @param {File} file */
export function mediaOf(file) {
  const kind = file.type.split('/')[0];
  const { name, size, type } = file;
  return { name: name || 'file', size, type, kind: kind in KINDS ? kind : 'document' };
}

/** Why a file was not sent or fetched, in words. @param {Error} error */
export function problemText(error) {
  switch (error.code) {
    case 'too_large': {
      const most = /more than (\d+) bytes/.exec(error.message)?.[1];
      return most ? `It is too large: at most ${sizeText(Number(most))} are taken.` : 'It is too large.';
    }
    case 'unsupported_media':
      return 'Files of this kind are not taken.';
    case 'not_found':
      return 'The file is gone.';
    case 'not_member':
      return 'You are not in this chat.';
    default:
      return error.message;
  }
}
