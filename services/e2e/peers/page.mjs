// What the page's own modules make of what a connection brings: reads {me, frames, shown} from its input,
// and tells the messages as the page has them after the frames (`live`), and after it has fetched
// `shown` (`later`), in one form. The page's files are in the folder that is named.

import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const load = (name) => import(pathToFileURL(`${process.argv[2]}/${name}`));
const { Timeline } = await load('timeline.js');
const { mentionsIn } = await load('mentions.js');
const { Receipts } = await load('receipts.js');

const { me, frames, shown } = JSON.parse(readFileSync(0, 'utf8'));
frames.sort((a, b) => a.data.seq - b.data.seq);

/** A timeline that has been loaded, and is empty. */
async function loaded(page = []) {
  const toSeq = page.at(-1)?.seq ?? frames[0].data.prevSeq;
  const timeline = new Timeline(async () => ({ messages: page, hasMore: false, fromSeq: 0, toSeq }));
  await timeline.catchUp();
  return timeline;
}

const WHAT = { message_edited: 'edited', message_deleted: 'deleted', reaction: 'reaction' };

function hear(timeline, { event, data }) {
  if (event === 'message') return timeline.accept(data).gap;
  return timeline.change({ ...data, what: WHAT[event], mine: data.userId === me }).gap;
}

const form = ({ entries }) =>
  entries.map(({ id, seq, content, deleted, editedAt, mentions, replyTo, quote, reactions }) => ({
    id,
    seq,
    content,
    deleted: deleted ?? false,
    editedAt: editedAt ?? null,
    mentions: mentions ?? [],
    replyTo: replyTo ?? null,
    quote: quote ? { id: quote.id, content: quote.content, deleted: quote.deleted ?? false } : null,
    reactions: reactions ?? [],
  }));

const timeline = await loaded();
let whole = false;
for (const frame of [...frames, ...frames]) whole = hear(timeline, frame) || whole; // twice is once
const holed = await loaded();
const gap = frames.filter((_, index) => index !== 1).some((frame) => hear(holed, frame));

const people = [{ id: '1', name: 'Ann' }, { id: '2', name: 'Anna' }, { id: '3', name: 'Ben' }];
const expected = [['@Anna', '2'], ['@Ann, @Anna', '1,2'], ['Ben', ''], ['to @Ben!', '3']];
for (const [text, ids] of expected) {
  const named = mentionsIn(text, people).join();
  if (named !== ids) throw new Error(`${text} names ${named}`);
}

const items = [{ userId: 'a', readSeq: 9, deliveredSeq: 9 }, { userId: 'b', readSeq: 3, deliveredSeq: 5 }];
const receipts = new Receipts({ rest: async () => ({ items }) }, () => {});
const asked = receipts.fetch('chat');
receipts.told({ chatId: 'chat', userId: 'b', seq: 7 }, 'delivered'); // before the answer, and beyond it
await asked;
const { read, delivered } = receipts.count({ chatId: 'chat', seq: 6, senderId: 'a' });
if (read !== 0 || delivered !== 1) throw new Error(`read by ${read}, delivered to ${delivered}`);

console.log(JSON.stringify({ live: form(timeline), later: form(await loaded(shown)), gap, whole }));
