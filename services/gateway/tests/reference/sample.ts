// What app developers write: it has to be accepted as it is, and refused where `@ts-expect-error`
// says so.
import { io, type Socket } from 'socket.io-client';

import type {
  Ack,
  ClientEvent,
  ClientEvents,
  ClientFrame,
  ClientToServerEvents,
  EventFrame,
  Message,
  ReplyFrame,
  RestCalls,
  Sent,
  ServerEvent,
  ServerEvents,
  ServerFrame,
  ServerToClientEvents,
  SocketIoAuth,
} from './natter';

const auth: SocketIoAuth = { token: 'a token', checkpoints: true };
const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io('http://localhost', { auth });
const shown: Message[] = [];

socket.on('message', (message, cursor) => {
  shown.push(message);
  const kept: string = cursor;
  const file: string | undefined = message.media?.name;
  // @ts-expect-error: it is missing, never null.
  const none: null = message.media;
  console.log(kept, file, none);
});
socket.on('checkpoint', ({ cursor }, acknowledge) => {
  console.log(cursor);
  acknowledge();
});
socket.on('exception', ({ code, retryAfterMs }) => {
  if (code === 'rate_limited') console.log(retryAfterMs);
  // @ts-expect-error: no such code.
  if (code === 'tired') console.log();
});
// @ts-expect-error: no such event.
socket.on('massage', () => {});

async function send(chatId: string) {
  const answer: Ack<Sent> = await socket.emitWithAck('send_message', { chatId, content: 'Hello' });
  if (answer.ok) console.log(answer.data.seq);
  else if (answer.error.code === 'unavailable') console.log(answer.error.outcome);
  socket.emit('typing_stop', { chatId }, () => {});
  // @ts-expect-error: it is answered by another event's answer.
  const other: Ack<Sent> = await socket.emitWithAck('history', { chatId });
  console.log(other);
  // @ts-expect-error: `chatId` is missing.
  socket.emit('send_message', { content: 'Hello' }, () => {});
}

let kept: string | undefined;

function hear(frame: ServerFrame) {
  kept = frame.cursor ?? kept;
  if ('reply' in frame) {
    if (frame.error) console.log(frame.reply, frame.error.message);
    return;
  }
  switch (frame.event) {
    case 'ready':
    case 'resume_done':
      kept = frame.data.cursor;
      break;
    case 'user_typing':
      console.log(frame.data.userId, frame.data.typing);
      break;
    case 'chat_history':
      for (const { seq } of frame.data) console.log(seq + 1);
      break;
    case 'chat_added': {
      const title: string | null = frame.data.title;
      console.log(title, frame.cursor);
      break;
    }
  }
}

// A client of one's own: handlers by the names of events, and requests with their answers.
type Handlers = { [E in ServerEvent]?: (data: ServerEvents[E], cursor: string | undefined) => void };
const handlers: Handlers = {
  system: ({ kind }) => console.log(kind === 'joined'),
  // @ts-expect-error: the payload of another event.
  presence: ({ chatId }) => console.log(chatId),
};
declare function request<E extends ClientEvent>(
  event: E,
  data: ClientEvents[E]['data'],
): Promise<ClientEvents[E]['reply']>;

async function read(chatId: string) {
  const { messages, toSeq } = await request('history', { chatId, limit: 50 });
  const newest: number = messages.at(-1)?.seq ?? toSeq;
  console.log(newest);
}

const frame: ClientFrame<'history'> = { event: 'history', id: 7, data: { chatId: 'a chat', limit: 50 } };
const answer: ReplyFrame<'history'> = { reply: 7, error: { code: 'not_member', message: 'no' } };
const event: EventFrame<'presence'> = {
  event: 'presence',
  data: { userId: 'somebody', online: true, lastSeenAt: null },
};
// @ts-expect-error: the payload of another event.
const other: EventFrame<'presence'> = { event: 'presence', data: { chatId: 'a chat' } };

type Call<C extends keyof RestCalls> = RestCalls[C];
const body: Call<'POST /v1/auth/register'>['body'] = { name: 'Ada', phone: '+15550101', password: 'a secret' };
const draft: Call<'POST /v1/chats/{id}/messages'>['body'] = { content: 'Hello', replyTo: null };
const query: Call<'GET /v1/chats/{id}/messages'>['query'] = { before: 12 };
const nobody: Call<'POST /v1/auth/logout'>['answer'] = undefined;
// @ts-expect-error: a form has a file.
const form: Call<'POST /v1/chats/{id}/media'>['body'] = { caption: 'See this' };

console.log(send, hear, handlers, read, frame, answer, event, other, body, draft, query, nobody, form);
