// What clients of Natter send and get. Generated from the server's own types; a gateway serves its
// own at /v1/natter.d.ts.

/** `{chatId, userIds}` */
export interface AddParticipants {
  /** The chat. */
  chatId: ChatId;
  /** Whom; at most 100. Those who take part already stay so. */
  userIds: UserId[];
}

/** `POST /v1/chats/{id}/participants`. */
export interface AddUsers {
  /** Whom; at most 100. Those who take part already stay so. */
  userIds: UserId[];
}

/** A device token of Apple's Push Notification service. */
export interface AppleToken {
  /** It is one of Apple's sandbox, as apps under development get. */
  sandbox?: boolean;
  /** Hexadecimal; at most 400 bytes. */
  token: string;
}

/** `{token, cursor?}` */
export interface Authenticate {
  /** In a first frame: resume from here. */
  cursor?: string | null;
  /** A JWT. */
  token: string;
}

/** The answer to `authenticate`. */
export interface Authenticated {
  /** When the token expires and the connection closes. */
  expiresAt: string;
}

/** Somebody who may not come back to a group. */
export interface Ban {
  /** When. */
  bannedAt: string;
  /** Who said so. */
  bannedBy: UserId;
  /** Who. */
  user: UserCard;
}

/** A page of those who may not come back, in the order in which they were banned. */
export interface BanPage {
  /** Oldest first. */
  items: Ban[];
  /** Ask for the next page with it; null at the end. */
  nextCursor: string | null;
}

/** Somebody whom the caller has blocked. */
export interface Block {
  /** Since when. */
  blockedAt: string;
  /** Who. */
  user: UserCard;
}

/** The user has blocked somebody, or does so no more. */
export interface BlockChange {
  /** Whether from now on, or no more. */
  blocked: boolean;
  /** Their one-to-one, if there is one. */
  chatId?: ChatId;
  /** Whom. */
  userId: UserId;
}

/** A page of those whom the caller has blocked, in the order in which they were. */
export interface BlockPage {
  /** Oldest first. */
  items: Block[];
  /** Ask for the next page with it; null at the end. */
  nextCursor: string | null;
}

/**
 * `PATCH /v1/chats/{id}`: what is missing stays; `null` takes the description away, or the chat's own
 * time after which messages are removed.
 */
export interface ChangeChat {
  /** 1 to 500 characters. */
  description?: string | null;
  /** Whether anybody may join. */
  open?: boolean | null;
  /**
   * Seconds after which messages are removed, for everybody: an hour to ten years, unless the
   * deployment says otherwise. Also of one-to-ones.
   */
  retentionSecs?: number | null;
  /** 1 to 100 characters. */
  title?: string | null;
}

/** `PATCH /v1/users/me/notifications`: what is missing stays as it is. */
export interface ChangeNotifications {
  /** Whether a message that mentions the user is notified of though its chat is muted. */
  mentionsThroughMute?: boolean | null;
  /** How much of a message is shown. */
  preview?: Preview | null;
  /** When nothing is notified of; `null` for never. */
  quietHours?: QuietHours | null;
}

/** `POST /v1/auth/password`. */
export interface ChangePassword {
  /** The password until now. */
  current: string;
  /** 8 to 256 bytes. */
  new: string;
}

/** `PATCH /v1/chats/{id}/participants/{userId}`. */
export interface ChangeRole {
  /** From now on. */
  role: Role;
  /** With `owner`: the caller becomes an admin in the same change. */
  transfer?: boolean;
}

/** `PATCH /v1/server/users/{id}`: what is missing stays; `null` takes phone, e-mail or external id away. */
export interface ChangeUser {
  /** An e-mail address. */
  email?: string | null;
  /** What the product calls the user: 1 to 255 bytes. */
  externalId?: string | null;
  /** Shown to others: 1 to 100 characters. */
  name?: string | null;
  /** E.164: `+` and 6 to 15 digits. */
  phone?: string | null;
}

/** The answer to `edit_message`, `delete_message` and `react`. */
export interface Changed {
  /** The entry of the chat's feed that made it so; where nothing had to change, the message's own. */
  seq: Seq;
}

/** A chat as one participant sees it. */
export interface Chat {
  /** When. */
  createdAt: string;
  /** Who made it. */
  createdBy: UserId;
  /** What a group is about. */
  description?: string;
  /** The chat. */
  id: ChatId;
  /** A group, or a one-to-one. */
  isGroup: boolean;
  /** The newest message. */
  lastMessage: Message | null;
  /** The last entry of its feed that Postgres knows. */
  lastSeq: Seq;
  /** What depends on the viewer; missing only inside the system, where one view serves many. */
  me?: Me;
  /** Whether anybody may join. */
  open: boolean;
  /** How many take part. */
  participantCount: number;
  /** The first 50 of them. */
  participants: Participant[];
  /** Seconds after which messages are removed, where the chat says so itself. */
  retentionSecs?: number;
  /** A group's title; none for a one-to-one. */
  title: string | null;
}

/** A conversation. */
export type ChatId = string;

/** A chat, with what it is called. */
export interface ChatName {
  /** The chat. */
  id: ChatId;
  /** As in its `me.name`. */
  name: string;
}

/** A page of chats, newest activity first. */
export interface ChatPage {
  /** Newest activity first. */
  items: Chat[];
  /** Ask for the next page with it; null at the end. */
  nextCursor: string | null;
}

/** Names a chat. */
export interface ChatRef {
  /** The chat. */
  id: ChatId;
}

/** `{chatId}` */
export interface ChatTarget {
  /** The chat. */
  chatId: ChatId;
}

/** Asks whether everything up to the cursor has been dealt with. */
export interface Checkpoint {
  /** Where a client that acknowledges may go on, even when it is started anew. */
  cursor: string;
}

/** Why the connection is about to end: Socket.IO has no close codes. */
export interface Closing {
  /** A close code. */
  code: number;
  /** The same in words. */
  reason: string;
}

/** What a completed upload may be sent with. */
export interface CompleteRequest {
  /** Send it at once, with this text. */
  caption?: string | null;
  /** As in `send_message`. */
  clientMsgId?: string | null;
  /** As in `send_message`. */
  replyTo?: MessageId | null;
  /** Send it at once. */
  send?: boolean;
}

/** One socket of a device, unique over all nodes. */
export type ConnectionId = string;

/**
 * What a message carries.
 *
 * - `text`: Text.
 * - `media`: A media file.
 * - `system`: No message: a `system` entry, as history shows it.
 */
export type ContentType = "text" | "media" | "system";

/** `POST /v1/chats` and `create_chat`. */
export interface CreateChat {
  /** A group, or a one-to-one with the one participant named. */
  isGroup: boolean;
  /** Whether anybody may join; groups only. */
  open?: boolean;
  /** Who takes part besides the caller; at most 1000. */
  participantIds?: UserId[];
  /** A group's title: 1 to 100 characters. */
  title?: string | null;
}

/** `POST /v1/chats/{id}/invites`. */
export interface CreateInvite {
  /** Seconds for which it is good: up to a year; a week by default. */
  expiresIn?: number | null;
  /** How many people may come by it; any number by default. */
  maxUses?: number | null;
}

/** `POST /v1/server/chats`: a group with its owner, or the one-to-one of the two participants. */
export interface CreateServerChat {
  /** A group, or a one-to-one. */
  isGroup: boolean;
  /** Whether anybody may join; groups only. */
  open?: boolean;
  /** A group's owner, who needs not be named among the participants. */
  ownerId?: UserId | null;
  /** Who takes part; at most 1000; of a one-to-one exactly two. */
  participantIds?: UserId[];
  /** A group's title: 1 to 100 characters. */
  title?: string | null;
}

/** `POST /v1/server/users`. */
export interface CreateUser {
  /** A program, and no person. */
  bot?: boolean;
  /** An e-mail address. */
  email?: string | null;
  /**
   * What the product calls the user: 1 to 255 bytes, one user's only. Making the user again answers
   * the one that is there, unchanged.
   */
  externalId?: string | null;
  /** Shown to others: 1 to 100 characters. */
  name: string;
  /** E.164: `+` and 6 to 15 digits. */
  phone?: string | null;
}

/** `DELETE /v1/users/me`. */
export interface DeleteAccount {
  /** The password; none for an account of an outside issuer. */
  password?: string | null;
}

/** What became of a message for a recipient, or for one of their devices. */
export interface Delivery {
  /** What the push service said, in a line. */
  answer?: string;
  /** When it was last tried. */
  attemptedAt?: string;
  /** How often it was tried. */
  attempts: number;
  /** When that was decided. */
  decidedAt: string;
  /** One of their devices; missing where none was chosen. */
  deviceId?: DeviceId;
  /** When it came to its end. */
  endedAt?: string;
  /** When it is tried again. */
  nextAt?: string;
  /** Who carries the notification. */
  provider?: Provider;
  /** Why they are not notified. */
  reason?: PushReason;
  /** What became of it. */
  state: PushState;
  /** The recipient. */
  user: UserCard;
}

/** A page of what became of a message, in the order of the recipients' ids. */
export interface DeliveryPage {
  /** Whether it has been decided about all recipients. Before that some are missing, or all. */
  decided: boolean;
  /** In the order of the recipients' ids, and of their devices'. */
  items: Delivery[];
  /** The message. */
  messageId: MessageId;
  /** Where the next page begins. */
  nextCursor: string | null;
  /** Nobody was looked at, for this reason. */
  reason?: PushReason;
}

/** One of the caller's devices. */
export interface Device {
  /** When it first logged in. */
  createdAt: string;
  /** Whether it is the caller's own. */
  current: boolean;
  /** The device. */
  id: DeviceId;
  /** When it was last connected or logged in. */
  lastSeenAt: string | null;
  /** As it called itself. */
  name: string | null;
  /** Whether it is connected now. */
  online: boolean;
  /** As it called itself. */
  platform: string | null;
}

/** One installation of a user's app. */
export type DeviceId = string;

/** A list without pages. */
export interface DeviceList {
  /** The caller's devices, those not revoked. */
  items: Device[];
}

/** The device that logs in. */
export interface DeviceSpec {
  /** Given by a device that has logged in before; made otherwise. */
  id?: DeviceId | null;
  /** Shown in the list of devices. */
  name?: string | null;
  /** `web`, `ios`, `android`, … */
  platform?: string | null;
}

/** Somebody has fetched a file, or a part of it. */
export interface Download {
  /** When it began. */
  at: string;
  /** How many bytes were written; missing when the store was to send them. */
  bytes?: number;
  /** Whether that was the whole file; missing where `bytes` is. */
  complete?: boolean;
  /** On which device. */
  deviceId: DeviceId;
  /** Where in the file. */
  firstByte: number;
  /** Who. */
  user: UserCard;
}

/** A page of downloads, the newest first. */
export interface DownloadPage {
  /** The newest first. */
  items: Download[];
  /** Where the next page begins. */
  nextCursor: string | null;
}

/** What of a message its sender decides. */
export interface Draft {
  /**
   * At most 64 characters, best a UUIDv7; the server makes one when it is missing, and then
   * a retry is another message.
   */
  clientMsgId?: string | null;
  /** The text: 1 byte to 16384; beside media it may be missing. */
  content?: string;
  /** A file that the sender has uploaded to the chat, and has not sent yet. */
  mediaId?: MediaId | null;
  /**
   * Participants that it names besides those in the text (`@` and a user's id): at most
   * 50. Whoever does not take part is left out.
   */
  mentions?: UserId[];
  /** The message that it answers. */
  replyTo?: MessageId | null;
}

/** What a message says from now on. */
export interface Edit {
  /** The text, bounded as when it is sent. */
  content: string;
  /** Participants that it names besides those in the text; at most 50. */
  mentions?: UserId[];
}

/** `{chatId, messageId, content, mentions?}` */
export type EditMessage = Edit & { chatId: ChatId; messageId: MessageId };

/** An answer with nothing to say: `{}`. */
export type Empty = Record<string, never>;

/**
 * The stable code of an error, the same on every transport.
 *
 * - `bad_request`: The request does not have the documented form. HTTP 400.
 * - `unauthenticated`: No valid token, or its device is revoked. HTTP 401.
 * - `forbidden`: The caller may not do this. HTTP 403.
 * - `account_disabled`: The account is disabled: no log-in helps until it is enabled again. HTTP 403.
 * - `not_member`: The caller is no participant of the chat (or the chat does not exist: the two look alike). HTTP 403.
 * - `not_found`: What was asked for does not exist, for this caller. HTTP 404.
 * - `conflict`: It clashes with what is there already. HTTP 409.
 * - `too_large`: Over a limit of size. HTTP 413.
 * - `unsupported_media`: The media type is not taken. HTTP 415.
 * - `refused`: The deployment's own check does not let the message through: see `reason`, if it gives one. The same again is refused again. HTTP 422.
 * - `rate_limited`: Too many requests: see `retryAfterMs`. HTTP 429.
 * - `unavailable`: A dependency is down; retry with the same `clientMsgId`. See `outcome`. HTTP 503.
 * - `internal`: A fault of the server. HTTP 500.
 */
export type ErrorCode = "bad_request" | "unauthenticated" | "forbidden" | "account_disabled" | "not_member" | "not_found" | "conflict" | "too_large" | "unsupported_media" | "refused" | "rate_limited" | "unavailable" | "internal";

/** A request that asked for no ack has failed. */
export type Exception = WireError & { status: string };

/** A message that was found. */
export interface FoundMessage {
  /** In which chat. */
  chat: ChatName;
  /** Where its `content` has the words that were searched for, in order. */
  highlights: Highlight[];
  /** As it is now. */
  message: Message;
}

/** A part of a text, in UTF-16 code units: as JavaScript, Java and Swift's `NSString` count. */
export interface Highlight {
  /** The one after its last. */
  end: number;
  /** Its first. */
  start: number;
}

/** `{chatId, before?, after?, around?, limit}` */
export interface History {
  /** Messages after this `seq`, the oldest of them; not together with `before`. */
  after?: Seq | null;
  /** The message with this `seq`, and as many before it as after; alone. */
  around?: Seq | null;
  /** Messages before this `seq`, the newest of them. */
  before?: Seq | null;
  /** The chat. */
  chatId: ChatId;
  /** At most 200. */
  limit?: number | null;
}

/** A page of a chat's history, oldest first. */
export interface HistoryPage {
  /** The page holds everything of the feed after this place, up to `toSeq`. */
  fromSeq: Seq;
  /** Whether there are more in the direction that was asked for; with `around`, in either. */
  hasMore: boolean;
  /** With `around`: whether there are newer ones. */
  hasMoreAfter?: boolean;
  /** With `around`: whether there are older ones. */
  hasMoreBefore?: boolean;
  /** Oldest first. */
  messages: Message[];
  /** Not all of it could be reached: only the log's tail, or only what Postgres holds. */
  partial?: boolean;
  /** Where the page ends; see `fromSeq`. */
  toSeq: Seq;
}

/** `GET /v1/imported/{kind}/{oldId}`: what is here in its place. */
export interface Imported {
  /** Of a message or a file: the chat that it is in. */
  chatId?: ChatId;
  /** As it is called here. */
  id: string;
  /** What it is. */
  kind: ImportedKind;
  /** Of a file: the message that it was sent with. */
  messageId?: string;
  /** As it was called there. */
  oldId: string;
  /** Of a message or a file: its place, for a page of history around it. */
  seq?: Seq;
  /** Of a file that was not copied: where the other system had it. */
  url?: string;
}

/**
 * What an old id names.
 *
 * - `user`: A user.
 * - `device`: A device.
 * - `chat`: A chat.
 * - `message`: A message.
 * - `media`: A file.
 */
export type ImportedKind = "user" | "device" | "chat" | "message" | "media";

/** What an invite leads to. */
export interface Invitation {
  /** The group. */
  chatId: ChatId;
  /** What it is about. */
  description?: string;
  /** Until when the invite is good. */
  expiresAt: string;
  /** How many take part. */
  participantCount: number;
  /** Its title. */
  title: string | null;
}

/** A link into a group. */
export interface Invite {
  /** When. */
  createdAt: string;
  /** Who made it. */
  createdBy: UserId;
  /** Until when it is good. */
  expiresAt: string;
  /** To revoke it by. */
  id: InviteId;
  /** How many people may come by it; missing for any number. */
  maxUses?: number;
  /** How many have. */
  uses: number;
}

/** One link into a group; not what is shared, which is its code. */
export type InviteId = string;

/** A list without pages. */
export interface InviteList {
  /** Those that are good, oldest first. */
  items: Invite[];
}

/** `{code, history?: {limit}}` */
export interface JoinByInvite {
  /** As it was shared. */
  code: string;
  /** How much of the chat's history to answer with. */
  history?: JoinHistory | null;
}

/** `{chatId, history?: {limit}}` */
export interface JoinChat {
  /** The chat. */
  chatId: ChatId;
  /** How much of its history to answer with. */
  history?: JoinHistory | null;
}

/** `{limit}` */
export interface JoinHistory {
  /** Messages, at most 200. */
  limit?: number | null;
}

/** How much of the history a join answers with. */
export interface JoinRequest {
  /** Of the history. */
  history?: JoinWindow | null;
}

export interface JoinWindow {
  /** 1 to 200; 50 by default. */
  limit?: number | null;
}

/** The answer to `join_chat`. */
export interface Joined {
  /** The chat. */
  chat: Chat;
  /** Whether there are older ones. */
  hasMore: boolean;
  /** Its newest messages, oldest first. */
  messages: Message[];
  /** Who types just now. */
  typing: UserId[];
}

/** What the last attempt to notify a device came to. */
export interface LastPush {
  /** What the push service said. */
  answer?: string;
  /** When. */
  at: string;
  /** What became of the notification. */
  state: PushState;
}

/** What a client may send. */
export interface Limits {
  /** Bytes of a message's content. */
  contentBytes: number;
  /** Sustained events a second; more is answered by `rate_limited`. */
  eventsPerSecond: number;
  /** Bytes of a frame. */
  frameBytes: number;
  /** Messages in a page of history. */
  page: number;
}

/** `POST /v1/server/users/{id}/devices`. */
export interface LogDeviceIn {
  /**
   * The device. With the id of one that the user has, that is logged in anew, and its tokens from
   * before are void.
   */
  device?: DeviceSpec | null;
}

/** `POST /v1/auth/login`, with `phone` or `email`. */
export interface Login {
  /** The device that logs in. */
  device?: DeviceSpec | null;
  /** As registered. */
  email?: string | null;
  /** The password. */
  password: string;
  /** As registered. */
  phone?: string | null;
}

/** A link that was just made: the only time that its code is told. */
export interface MadeInvite {
  /** What is shared: whoever knows it may join. */
  code: string;
  /** Until when it is good. */
  expiresAt: string;
  /** To revoke it by. */
  id: InviteId;
  /** How many people may come by it; missing for any number. */
  maxUses?: number;
  /** Where the gateway tells what it leads to. */
  path: string;
}

/** `{chatId, seq}` */
export interface Mark {
  /** The chat. */
  chatId: ChatId;
  /** A place of its feed: everything up to there. At most the feed's last entry. */
  seq: Seq;
}

/** What of a chat depends on the viewer. */
export interface Me {
  /** It is not listed until its next message. */
  hidden: boolean;
  /** The viewer wants no notifications of it. */
  muted: boolean;
  /** Until when, if not for ever. */
  mutedUntil?: string;
  /** A group's title; the other one's name in a one-to-one. */
  name: string;
  /** The viewer has read everything up to this place of the chat's feed, on whichever device. */
  readSeq: Seq;
  /** The viewer's role. */
  role: Role;
  /** Messages beyond `readSeq` that are not deleted, of those that `lastSeq` covers. */
  unreadCount: number;
}

/** A media file. */
export interface Media {
  /** In pixels, where it was easily told. */
  height?: number;
  /** Names it in `send_message`. */
  id: MediaId;
  /** What it is, roughly. */
  kind: MediaKind;
  /** As it was called, made safe. */
  name: string;
  /** In hexadecimal; missing for what went to the store directly. */
  sha256?: string;
  /** Bytes. */
  size: number;
  /** There is, or will shortly be, a thumbnail. */
  thumbnail?: boolean;
  /** The media type, by its content. */
  type: string;
  /** In pixels, where it was easily told. */
  width?: number;
}

/** One media file. */
export type MediaId = string;

/**
 * What a file is, by its content: the old backend's clients know no more of it.
 *
 * - `image`: A picture.
 * - `video`: Moving pictures.
 * - `audio`: Sound.
 * - `document`: Anything else.
 */
export type MediaKind = "image" | "video" | "audio" | "document";

/** A message, live or in history. */
export interface Message {
  /** In which chat. */
  chatId: ChatId;
  /** The sender's own id for it; empty for a system entry. */
  clientMsgId: string;
  /** The text; may be empty beside media. */
  content: string;
  /** What it carries. */
  contentType: ContentType;
  /** When the broker stored it. */
  createdAt: string;
  /** It was taken back: content and media are gone. */
  deleted?: boolean;
  /** From which device. */
  deviceId?: DeviceId;
  /** When it was last edited. */
  editedAt?: string;
  /** The same for ever. */
  id: MessageId;
  /** For `contentType: "media"`: the file. */
  media?: Media;
  /** As `media.kind`, for clients of the old backend. */
  mediaType?: MediaKind;
  /** Where the file is fetched: a path of REST. */
  mediaUrl?: string;
  /** The participants that it names. */
  mentions?: UserId[];
  /** The entry before it on the feed, as this server saw it; 0 when it is not known. */
  prevSeq: Seq;
  /** Of the message that it answers: in history as that is now, live as it was then. */
  quote?: Quote;
  /** In history: how people have reacted, what most have chosen first. */
  reactions?: ReactionCount[];
  /** The message that it answers. */
  replyTo?: MessageId;
  /** Who sent it, with the name. */
  sender: UserCard;
  /** Who sent it. */
  senderId: UserId;
  /** Its place in the chat's feed. */
  seq: Seq;
  /** In history, for `contentType: "system"`. */
  system?: SystemDetail;
}

/** A message was taken back: its content, its media and its reactions are gone. */
export interface MessageDeleted {
  /** Who did it: its sender, or somebody who manages the chat. */
  actorId: UserId;
  /** In which chat. */
  chatId: ChatId;
  /** When the broker stored the change. */
  deletedAt: string;
  /** The message. */
  messageId: MessageId;
  /** The message's place. */
  messageSeq: Seq;
  /** The entry before it on the feed, as this server saw it; 0 when it is not known. */
  prevSeq: Seq;
  /** This entry's place in the chat's feed. */
  seq: Seq;
}

/** A message has another content. */
export interface MessageEdited {
  /** Who did it: its sender. */
  actorId: UserId;
  /** In which chat. */
  chatId: ChatId;
  /** The text from now on. */
  content: string;
  /** When the broker stored the change. */
  editedAt: string;
  /** The participants that it names from now on. */
  mentions?: UserId[];
  /** The message. */
  messageId: MessageId;
  /** The message's place. */
  messageSeq: Seq;
  /** The entry before it on the feed, as this server saw it; 0 when it is not known. */
  prevSeq: Seq;
  /** This entry's place in the chat's feed. */
  seq: Seq;
}

/** One message of a chat; derived from its chat, its sender and its `clientMsgId`. */
export type MessageId = string;

/** `{chatId, messageId}` */
export interface MessageTarget {
  /** The chat. */
  chatId: ChatId;
  /** The message. */
  messageId: MessageId;
}

/** Messages of a chat are not kept any longer. */
export interface MessagesExpired {
  /** In which chat. */
  chatId: ChatId;
  /** When the broker stored it. */
  createdAt: string;
  /** The entry before it on the feed, as this server saw it; 0 when it is not known. */
  prevSeq: Seq;
  /** This entry's place in the chat's feed. */
  seq: Seq;
  /**
   * Everything up to this place, itself included, is gone: messages, quotes of them, what has become
   * of them.
   */
  upTo: Seq;
}

/** `PUT /v1/chats/{id}/mute` and `mute_chat`: either a time, or for ever. */
export interface Mute {
  /** For ever. */
  forever?: boolean;
  /** Until when; in the future. */
  until?: string | null;
}

/** `{chatId, until? | forever}` */
export type MuteChat = Mute & { chatId: ChatId };

/** What a user wants to be notified of. */
export interface NotificationSettings {
  /** A message that mentions the user is notified of though its chat is muted. */
  mentionsThroughMute: boolean;
  /** How much of a message is shown. */
  preview: Preview;
  /** When nothing is notified of; `null` for never. */
  quietHours: QuietHours | null;
}

/**
 * Whether a send that was refused as `unavailable` may have happened.
 *
 * - `not_sent`: It did not happen.
 * - `unknown`: It may have happened: only a retry with the same `clientMsgId` tells.
 */
export type Outcome = "not_sent" | "unknown";

/** A participant of a chat. */
export interface Participant {
  /** A program, and no person. */
  bot?: boolean;
  /** The user. */
  id: UserId;
  /** The name shown. */
  name: string;
  /** What they may do. */
  role: Role;
}

/** A page of participants, by the time they joined. */
export interface ParticipantPage {
  /** Oldest first. */
  items: Participant[];
  /** Ask for the next page with it; null at the end. */
  nextCursor: string | null;
}

/** How far one participant is. */
export interface ParticipantReceipt {
  /** A device of theirs has got everything up to here. */
  deliveredSeq: Seq;
  /** They have read everything up to this place of the chat's feed. */
  readSeq: Seq;
  /** Who. */
  userId: UserId;
}

/** A user's presence. */
export interface Presence {
  /** When a device was last connected; none when it is not known. */
  lastSeenAt: string | null;
  /** Whether any device is connected. */
  online: boolean;
  /** Whose. */
  userId: UserId;
}

/** The answer to `presence_subscribe`. */
export interface PresenceList {
  /** Of those asked for, the ones that the caller shares a chat with. */
  items: Presence[];
}

/** `{userIds}` */
export interface PresenceSubscribe {
  /** Replaces the connection's earlier list; at most 500. */
  userIds: UserId[];
}

/**
 * How much of a message a notification shows.
 *
 * - `full`: Who wrote, where, and what.
 * - `sender`: Who wrote, and where.
 * - `none`: That there is a message.
 */
export type Preview = "full" | "sender" | "none";

/** What every call answers when it fails. */
export interface Problem {
  /** Stable: what to act on. */
  code: ErrorCode;
  /** For the developer who reads it. */
  detail: string;
  /** Whether a send that was refused may have happened. */
  outcome?: Outcome;
  /** With `refused`: the deployment's own word for why. */
  reason?: string;
  /** Milliseconds after which a retry makes sense; also in `Retry-After`, in whole seconds. */
  retryAfterMs?: number;
  /** The HTTP status. */
  status: number;
  /** The status in words. */
  title: string;
  /** `about:blank`: `code` tells the kind. */
  type: string;
}

/**
 * Who carries notifications to devices.
 *
 * - `webpush`: The push service of the user's browser (RFC 8030).
 * - `fcm`: Firebase Cloud Messaging.
 * - `apns`: Apple's Push Notification service.
 * - `webhook`: The one URL that the operator has set.
 */
export type Provider = "webpush" | "fcm" | "apns" | "webhook";

/** What devices register with. */
export interface PushKey {
  /** What is set up. */
  providers: Provider[];
  /**
   * What a browser subscribes with (`applicationServerKey`), in base64url; missing where Web Push is
   * not set up.
   */
  publicKey?: string;
}

/**
 * Why somebody is not notified.
 *
 * - `sender`: They sent it.
 * - `online`: They were connected, and got it live.
 * - `read`: They have read it on another device.
 * - `muted`: They want no notifications of the chat, or of its sender.
 * - `blocked`: They have blocked the sender: told to operators alone.
 * - `quiet`: It came in their quiet hours.
 * - `no_target`: No device of theirs has registered for it.
 * - `too_old`: It was too old by then.
 * - `collapsed`: A newer message of the chat was notified of in its place.
 * - `deleted`: The message was taken back.
 * - `left`: They take no part in the chat any more.
 * - `unregistered`: The device has logged out, or registered anew.
 * - `attempts`: The push service has failed too often.
 */
export type PushReason = "sender" | "online" | "read" | "muted" | "blocked" | "quiet" | "no_target" | "too_old" | "collapsed" | "deleted" | "left" | "unregistered" | "attempts";

/**
 * What became of a message for a recipient, or for one of their devices.
 *
 * - `skipped`: The recipient is not notified: see the reason.
 * - `queued`: It waits to be sent.
 * - `sending`: It is being sent.
 * - `retrying`: It has failed, and is sent again.
 * - `delivered`: The push service has it. Whether the device has shown it nobody tells.
 * - `gone`: The push service does not know the device any more.
 * - `refused`: The push service does not take it.
 * - `given_up`: It has failed too often, or for too long.
 * - `cancelled`: It was not wanted any more before it was sent: see the reason.
 */
export type PushState = "skipped" | "queued" | "sending" | "retrying" | "delivered" | "gone" | "refused" | "given_up" | "cancelled";

/** Where a device is notified, without what would let others notify it. */
export interface PushTarget {
  /** When it expires, as far as the device knows. */
  expiresAt?: string;
  /** The push service says that it is no more: the device has to register anew. */
  gone: boolean;
  /** What the last attempt came to. */
  last?: LastPush;
  /** Who carries notifications there. */
  provider: Provider;
  /** When the device last said so. */
  setAt: string;
}

/** When a user does not want to be disturbed, every day. */
export interface QuietHours {
  /** `HH:MM` where the user lives. */
  from: string;
  /** Of the IANA database: `Europe/Berlin`. */
  timeZone: string;
  /** `HH:MM`; before `from` it is on the next day. Equal to `from`: never. */
  until: string;
}

/** Of a message that is answered. */
export interface Quote {
  /** The first 100 characters. */
  content: string;
  /** What it carries. */
  contentType: ContentType;
  /** It was taken back, and nothing of it is shown. */
  deleted?: boolean;
  /** Its id. */
  id: MessageId;
  /** Who sent it. */
  senderId: UserId;
  /** The sender's name. */
  senderName: string;
}

/** `{chatId, messageId, emoji, on?}` */
export interface React {
  /** The chat. */
  chatId: ChatId;
  /** One emoji. */
  emoji: string;
  /** The message. */
  messageId: MessageId;
  /** `false` takes it back. */
  on?: boolean;
}

/** Somebody reacts to a message, or does not any more. */
export interface Reaction {
  /** In which chat. */
  chatId: ChatId;
  /** When the broker stored the change. */
  createdAt: string;
  /** How. */
  emoji: string;
  /** The message. */
  messageId: MessageId;
  /** The message's place. */
  messageSeq: Seq;
  /** Whether it is so from now on. */
  on: boolean;
  /** The entry before it on the feed, as this server saw it; 0 when it is not known. */
  prevSeq: Seq;
  /** This entry's place in the chat's feed. */
  seq: Seq;
  /** Who. */
  userId: UserId;
}

/** How many have chosen an emoji. */
export interface ReactionCount {
  /** How many. */
  count: number;
  /** Which. */
  emoji: string;
  /** Whether the viewer is among them. */
  mine: boolean;
}

/** The first event of a connection. */
export interface Ready {
  /** The connection's own id. */
  connectionId: ConnectionId;
  /** Where the connection begins, or resumes from; opaque. */
  cursor: string;
  /** Which device's. */
  deviceId: DeviceId;
  /** The server pings this often; silence for twice as long means that it is gone. */
  heartbeatMs: number;
  /** What a client may send. */
  limits: Limits;
  /** Why not, when it was asked for: fetch afresh. */
  resumeReason?: ResumeRefusal;
  /** Everything missed follows, up to `resume_done`. */
  resumed: boolean;
  /** Whose connection it is. */
  userId: UserId;
}

/** How far a participant is in a chat. */
export interface Receipt {
  /** The chat. */
  chatId: ChatId;
  /** A place of the chat's feed: everything up to there. */
  seq: Seq;
  /** The participant. */
  userId: UserId;
}

/** How far the participants of a chat are. */
export interface ReceiptList {
  /** By the time they joined. */
  items: ParticipantReceipt[];
}

/** `POST /v1/auth/refresh`. */
export interface Refresh {
  /** The newest one; it is good for one use. */
  refreshToken: string;
}

/** `POST /v1/auth/register`. At least one of `phone` and `email`. */
export interface Register {
  /** The device that registers; it is logged in at once. */
  device?: DeviceSpec | null;
  /** An e-mail address. */
  email?: string | null;
  /** Shown to others: 1 to 100 characters. */
  name: string;
  /** 8 to 256 bytes. */
  password: string;
  /** E.164: `+` and 6 to 15 digits. */
  phone?: string | null;
}

/** A token that a provider gave to an app, or that the operator's webhook knows a device by. */
export interface Registration {
  /** 1 to 4,096 bytes of visible ASCII. */
  token: string;
}

/** `{chatId, participantId, ban?}` */
export interface RemoveParticipant {
  /** They may not come back. */
  ban?: boolean;
  /** The chat. */
  chatId: ChatId;
  /** Whom. (Not `userId`, which names the sender.) */
  participantId: UserId;
}

/** `{cursor}` */
export interface Resume {
  /** The last one received. */
  cursor: string;
}

/**
 * Why a cursor cannot be resumed from: what was missed has to be fetched afresh.
 *
 * - `malformed`: It is no cursor.
 * - `foreign`: It is another user's.
 * - `too_much`: More was missed than is replayed.
 * - `too_old`: What was missed is no longer kept as it happened.
 * - `ahead`: It lies beyond what the log holds: the log has lost its end since.
 */
export type ResumeRefusal = "malformed" | "foreign" | "too_much" | "too_old" | "ahead";

/** The reply to `resume`. */
export interface Resumed {
  /** Why not. */
  reason?: ResumeRefusal;
  /** Everything missed follows, up to `resume_done`. */
  resumed: boolean;
}

/**
 * A participant's role.
 *
 * - `owner`: May do everything: who made the group, and whom an owner makes one.
 * - `admin`: Adds and removes members, renames and describes the group, invites.
 * - `member`: Takes part.
 */
export type Role = "owner" | "admin" | "member";

/**
 * What messages are found by: `q`, or at least one of `senderId`, `hasMedia`, `mediaType` and
 * `mentionsMe`.
 */
export interface SearchMessages {
  /** Sent after this time. */
  after?: string | null;
  /** Sent before this time. */
  before?: string | null;
  /** In this chat only. */
  chatId?: ChatId | null;
  /** `nextCursor` of the page before, with all else as it was. */
  cursor?: string | null;
  /** Words of 4 letters and more may be mistyped. */
  fuzzy?: boolean | null;
  /** With a file, or without one. */
  hasMedia?: boolean | null;
  /** 1 to 100; 20 by default. */
  limit?: number | null;
  /** With a file of this kind. */
  mediaType?: MediaKind | null;
  /** Only what mentions the caller. */
  mentionsMe?: boolean | null;
  /**
   * Words that a message has, all of them: at most 16, of at most 256 characters. Case and
   * accents do not count, nothing is an operator, an emoji is a word. A message is found by the
   * beginning of a word of 4 characters and more, of the last word by 2.
   */
  q?: string | null;
  /** From this sender only. */
  senderId?: UserId | null;
  /** `newest` by default. */
  sort?: SearchSort | null;
}

/** The answer to `GET /v1/search/messages` and `search_messages`. */
export interface SearchPage {
  /** The newest first, or the best. */
  items: FoundMessage[];
  /** Ask for the next page with it; null at the end. */
  nextCursor: string | null;
}

/**
 * In which order messages are found.
 *
 * - `newest`: The newest first.
 * - `rank`: Of the newest 500, those first in which the words stand most often, for their length.
 */
export type SearchSort = "newest" | "rank";

/** `{chatId, content?, mediaId?, replyTo?, clientMsgId?, mentions?}` */
export type SendMessage = Draft & { chatId: ChatId };

/** The answer to `send_message`. */
export interface Sent {
  /** In which chat. */
  chatId: ChatId;
  /** The sender's own id, or the one that the server made. */
  clientMsgId: string;
  /** What the message says, where the deployment's own check has replaced what was sent. */
  content?: string;
  /** When the broker stored it. */
  createdAt: string;
  /** The message was there already: this is a retry. */
  duplicate: boolean;
  /** The message's id. */
  id: MessageId;
  /** The entry before it on the feed; 0 when it is not known. */
  prevSeq: Seq;
  /** Its place in the chat's feed. */
  seq: Seq;
}

/** A place in a feed's order; it grows, not by one. Starts at 1. */
export type Seq = number;

/** `POST /v1/server/chats/{id}/messages`. */
export type ServerDraft = Draft & { sendAs: string };

/** `PATCH /v1/server/chats/{id}/participants/{userId}`. */
export interface ServerRole {
  /** From now on. */
  role: Role;
}

/** A user, as the embedding product sees them. */
export interface ServerUser {
  /** A program, and no person. */
  bot: boolean;
  /** Nobody is let in as this user. */
  disabled: boolean;
  /** An e-mail address. */
  email: string | null;
  /** What the product calls the user. */
  externalId: string | null;
  /** The user. */
  id: UserId;
  /** Shown to others. */
  name: string;
  /** A phone number. */
  phone: string | null;
}

/** The answer to `GET /v1/server/users`. */
export interface ServerUserList {
  /** The one that is called so, if there is one. */
  items: ServerUser[];
}

/** The answer to register, login and refresh. */
export interface Session {
  /** A JWT. */
  accessToken: string;
  /** On which device. */
  device: Device;
  /** When the access token expires. */
  expiresAt: string;
  /** For one use, at `/auth/refresh`. */
  refreshToken: string;
  /** Who is logged in. */
  user: User;
}

/** `{chatId, participantId, role, transfer?}` */
export interface SetRole {
  /** The chat. */
  chatId: ChatId;
  /** Whose. (Not `userId`, which names the sender.) */
  participantId: UserId;
  /** From now on. */
  role: Role;
  /** With `owner`: the caller becomes an admin in the same change. */
  transfer?: boolean;
}

/** What a client shows in its `CONNECT`. */
export interface SocketIoAuth {
  /** It is asked now and then whether it has dealt with what it was sent. */
  checkpoints?: boolean;
  /**
   * Where it stood when it ran before: what it kept. Of no account when it comes back, with the
   * two below.
   */
  cursor?: string | null;
  /** Its own messages come as events too. */
  echo?: boolean;
  /** The cursor of the last event that it has. */
  offset?: string | null;
  /** Of the connection that it had before: as it was told at its beginning. */
  pid?: string | null;
  /** A JWT; it may be in the handshake's `Authorization` instead. */
  token?: string | null;
}

/** A token that is refused: the `data` of `connect_error`. */
export interface SocketIoRefused {
  /** What went wrong. */
  data: WireError;
  /** For the developer who reads it. */
  message: string;
}

/** What a client asks for at connect, in the query; never a token. */
export interface SocketQuery {
  /** Where it stood before: what it has missed is replayed. */
  cursor?: string;
  /** Its own messages come as events too. */
  echo?: boolean;
}

/** A browser's subscription. */
export interface Subscription {
  /**
   * An `https` URL at one of the push services that the deployment knows; at most
   * 2,048 bytes.
   */
  endpoint: string;
  /** When the browser lets it expire, in milliseconds since 1970. */
  expirationTime?: number | null;
  /** What messages to it are encrypted with. */
  keys: SubscriptionKeys;
}

/** What messages to a subscription are encrypted with (RFC 8291). */
export interface SubscriptionKeys {
  /** 16 bytes in base64url. */
  auth: string;
  /** A point of P-256, uncompressed, in base64url. */
  p256dh: string;
}

/** A live system entry. */
export interface System {
  /** Who did it. */
  actorId: UserId;
  /** For `removed`: who was removed may not come back. */
  banned?: boolean;
  /** In which chat. */
  chatId: ChatId;
  /** When the broker stored it. */
  createdAt: string;
  /** For `described`: the description from now on; missing when it was taken away. */
  description?: string;
  /** What happened. */
  kind: SystemKind;
  /** In English, for clients that do not know `kind`. */
  msg: string;
  /** The entry before it on the feed. */
  prevSeq: Seq;
  /**
   * For `retention`: seconds after which messages are removed from now on; missing when the chat has
   * no time of its own any more.
   */
  retentionSecs?: number;
  /** For `role`: the role from now on. */
  role?: Role;
  /** Its place in the chat's feed. */
  seq: Seq;
  /** For `renamed`: the title from now on. */
  title?: string;
  /** Whom it happened to. */
  userId?: UserId;
}

/** What a system entry says, for clients that render it themselves. */
export interface SystemDetail {
  /** Who did it. */
  actorId: UserId;
  /** For `removed`: who was removed may not come back. */
  banned?: boolean;
  /** For `described`: the description from then on; missing when it was taken away. */
  description?: string;
  /** What happened. */
  kind: SystemKind;
  /**
   * For `retention`: seconds after which messages are removed from then on; missing when the chat has
   * no time of its own any more.
   */
  retentionSecs?: number;
  /** For `role`: the role from then on. */
  role?: Role;
  /** For `renamed`: the title from then on. */
  title?: string;
  /** Whom it happened to. */
  userId?: UserId;
}

/**
 * What kind of thing happened to a chat.
 *
 * - `created`: The chat was made.
 * - `joined`: A user joined.
 * - `left`: A user left.
 * - `added`: A user was added by another.
 * - `removed`: A user was removed by another.
 * - `renamed`: The title changed.
 * - `role`: A role changed.
 * - `described`: The description changed, or was taken away.
 * - `opened`: Anybody may join from here on.
 * - `closed`: Nobody may join by themselves any more.
 * - `deleted`: The group was deleted: nobody takes part in it any more.
 * - `retention`: Messages are kept for another time from here on.
 */
export type SystemKind = "created" | "joined" | "left" | "added" | "removed" | "renamed" | "role" | "described" | "opened" | "closed" | "deleted" | "retention";

/** Where a device is notified. `Debug` shows the provider and nothing that would let others notify it. */
export type Target = Subscription & { provider: "webpush" } | Registration & { provider: "fcm" } | AppleToken & { provider: "apns" } | Registration & { provider: "webhook" };

/** What is unread in all chats of a user that are listed. */
export interface UnreadTotal {
  /** Chats that have any. */
  chats: number;
  /** Messages. */
  total: number;
}

/** `POST /v1/chats/{id}/read` and `POST /v1/chats/{id}/delivered`. */
export interface UpTo {
  /** A place of the chat's feed: everything up to there. At most the feed's last entry. */
  seq: Seq;
}

/** `{chatId, title?, description?, open?}` */
export type UpdateChat = ChangeChat & { chatId: ChatId };

/** `PATCH /v1/users/me`: what is missing stays; `null` takes phone or e-mail away. */
export interface UpdateUser {
  /** An e-mail address. */
  email?: string | null;
  /** Shown to others: 1 to 100 characters. */
  name?: string | null;
  /** E.164: `+` and 6 to 15 digits. */
  phone?: string | null;
}

/** What is to be uploaded to the store directly. */
export interface UploadDraft {
  /** What the file is called. */
  name: string;
  /** Its bytes. */
  size: number;
}

/** What a form may say beside its file. */
export interface UploadForm {
  /** Send it at once, with this text. */
  caption?: string | null;
  /** As in `send_message`. */
  clientMsgId?: string | null;
  /** The file. */
  file: Blob;
  /** As in `send_message`. */
  replyTo?: MessageId | null;
  /** `true`: send it at once, without a text. */
  send?: boolean | null;
}

/** Where a file is to be uploaded. */
export interface UploadTicket {
  /** For so long. */
  expiresAt: string;
  /** What the request has to say besides, by name. */
  headers: Record<string, string>;
  /** Names it when it is complete. */
  mediaId: MediaId;
  /** Takes the file by `PUT`, without a token. */
  url: string;
}

/** The answer to an upload. */
export interface Uploaded {
  /** The file. */
  media: Media;
  /** The message that it was sent with, if that was asked for. */
  message?: Sent;
}

/** Oneself. */
export interface User {
  /** A program, and no person. */
  bot?: boolean;
  /** Seen by oneself only. */
  email: string | null;
  /** The user. */
  id: UserId;
  /** Shown to others. */
  name: string;
  /** Seen by oneself only. */
  phone: string | null;
}

/** What others see of a user. */
export interface UserCard {
  /** A program, and no person. */
  bot?: boolean;
  /** The user. */
  id: UserId;
  /** The name shown. */
  name: string;
}

/** A person with an account. */
export type UserId = string;

/** The answer to `GET /v1/users`. */
export interface UserList {
  /** Those found. */
  items: UserCard[];
}

/** Somebody types, or has stopped. */
export interface UserTyping {
  /** In which chat. */
  chatId: ChatId;
  /** Whether it goes on. */
  typing: boolean;
  /** Who. */
  userId: UserId;
}

/** An error as a client sees it. */
export interface WireError {
  /** What kind of error. */
  code: ErrorCode;
  /** For the developer who reads it; never a secret, never a message body. */
  message: string;
  /** For a send refused as `unavailable`. */
  outcome?: Outcome;
  /** With `refused`: the deployment's own word for why. */
  reason?: string;
  /** Milliseconds after which a retry makes sense. */
  retryAfterMs?: number;
}

/** What clients send, and what it is answered with. */
export interface ClientEvents {
  /** First frame, or renewal of an expiring token. */
  authenticate: { data: Authenticate; reply: Authenticated };
  /** Send a message. */
  send_message: { data: SendMessage; reply: Sent };
  /** As `POST /v1/chats`. */
  create_chat: { data: CreateChat; reply: Chat };
  /** Become a participant, where the chat allows it, and get its newest messages. */
  join_chat: { data: JoinChat; reply: Joined };
  /** Stop being a participant. */
  leave_chat: { data: ChatTarget; reply: Empty };
  /** Read a page of messages. */
  history: { data: History; reply: HistoryPage };
  /** As `GET /v1/search/messages`. */
  search_messages: { data: SearchMessages; reply: SearchPage };
  /** The user types; ends by itself 5 s after the last one. `typing_ping` is the same. */
  typing_start: { data: ChatTarget; reply: Empty };
  /** The user types; ends by itself 5 s after the last one. `typing_ping` is the same. */
  typing_ping: { data: ChatTarget; reply: Empty };
  /** The user has stopped. */
  typing_stop: { data: ChatTarget; reply: Empty };
  /** Hear of the presence of these users. */
  presence_subscribe: { data: PresenceSubscribe; reply: PresenceList };
  /** Add users to a group, all or none: its owners and admins. */
  add_participants: { data: AddParticipants; reply: Chat };
  /** End somebody's participation in a group: owners, and admins for members. */
  remove_participant: { data: RemoveParticipant; reply: Empty };
  /** Change a role: owners, and anybody who steps down. */
  set_role: { data: SetRole; reply: Empty };
  /** Rename, describe, open or close a group: owners, and admins all but the last two. */
  update_chat: { data: UpdateChat; reply: Chat };
  /** Delete a group: its owners. */
  delete_chat: { data: ChatTarget; reply: Empty };
  /** Become a participant by an invite's code, and get the newest messages. */
  join_by_invite: { data: JoinByInvite; reply: Joined };
  /** Replay everything missed since a cursor. */
  resume: { data: Resume; reply: Resumed };
  /** Give a message of one's own another content. */
  edit_message: { data: EditMessage; reply: Changed };
  /** Take a message back. */
  delete_message: { data: MessageTarget; reply: Changed };
  /** React to a message, or take that back. */
  react: { data: React; reply: Changed };
  /** The chat is read up to this place of its feed. It only goes up. */
  read: { data: Mark; reply: Empty };
  /** This device has got the chat up to this place of its feed. It only goes up. */
  delivered: { data: Mark; reply: Empty };
  /** No notifications of the chat, for the user alone. */
  mute_chat: { data: MuteChat; reply: Chat };
  /** The opposite. */
  unmute_chat: { data: ChatTarget; reply: Chat };
  /** A one-to-one is not listed until its next message, for the user alone. */
  hide_chat: { data: ChatTarget; reply: Chat };
}

/** What the server sends, over `/v1/ws`. */
export interface ServerEvents {
  /** The handshake is done. */
  ready: Ready;
  /** A message. */
  message: Message;
  /** Something about a chat. */
  system: System;
  /** For the one who joined, oldest first. */
  chat_history: Message[];
  /** Somebody types, or has stopped. */
  user_typing: UserTyping;
  /** The user is a participant of another chat. */
  chat_added: Chat;
  /** The user is no participant any more. */
  chat_removed: ChatRef;
  /** A subscribed user's presence. */
  presence: Presence;
  /** This device was revoked; the connection closes. */
  device_revoked: { deviceId: DeviceId };
  /** The node drains: come back elsewhere after this time. */
  reconnect: { afterMs: number };
  /** Everything missed has been replayed. */
  resume_done: { cursor: string };
  /** An event without an id has failed, or a frame could not be read. */
  exception: WireError;
  /** A message has another content. */
  message_edited: MessageEdited;
  /** A message was taken back. */
  message_deleted: MessageDeleted;
  /** Somebody reacts to a message, or does not any more. */
  reaction: Reaction;
  /** A participant has read a chat up to a place. */
  read: Receipt;
  /** A participant's device has got a chat up to a place. */
  delivered: Receipt;
  /** What the user wants of a chat has changed. */
  chat_updated: Chat;
  /** The user has blocked somebody, or does so no more. */
  blocking: BlockChange;
  /** Messages of a chat are not kept any longer: all up to a place. */
  messages_expired: MessagesExpired;
}

/** An event of the server, by its name. */
export type ServerEvent = keyof ServerEvents;
/** A request of a client, by its name. */
export type ClientEvent = keyof ClientEvents;

/** A frame to send over `/v1/ws`. */
export type ClientFrame<E extends ClientEvent = ClientEvent> = {
  [K in E]: { event: K; id?: number; data: ClientEvents[K]["data"] };
}[E];
/** An event that comes over `/v1/ws`; `cursor` with what is on feeds. */
export type EventFrame<E extends ServerEvent = ServerEvent> = {
  [K in E]: { event: K; data: ServerEvents[K]; cursor?: string };
}[E];
/** The answer to the request with this `id`; `cursor` with that of `send_message`. */
export type ReplyFrame<E extends ClientEvent = ClientEvent> =
  | { reply: number; data: ClientEvents[E]["reply"]; cursor?: string; error?: undefined }
  | { reply: number; error: WireError; data?: undefined; cursor?: undefined };
/** Whatever comes over `/v1/ws`. */
export type ServerFrame = EventFrame | ReplyFrame;

/** What Socket.IO's acks are called with. */
export type Ack<T> = { ok: true; data: T; cursor?: string } | { ok: false; error: WireError };
/**
 * For `Socket<ServerToClientEvents, ClientToServerEvents>` of `socket.io-client`. To `emit` without
 * an interest in the answer, give it `() => {}`: an ack that may be missing would have no type in
 * `emitWithAck`.
 */
export type ClientToServerEvents = {
  [E in ClientEvent]: (
    data: ClientEvents[E]["data"],
    ack: (answer: Ack<ClientEvents[E]["reply"]>) => void,
  ) => void;
};
/** The other half. What is on feeds ends with a cursor. */
export interface ServerToClientEvents {
  /** The handshake is done. */
  ready: (data: Ready, cursor: string) => void;
  /** A message. */
  message: (data: Message, cursor: string) => void;
  /** Something about a chat. */
  system: (data: System, cursor: string) => void;
  /** For the one who joined, oldest first. */
  chat_history: (data: Message[]) => void;
  /** Somebody types, or has stopped. */
  user_typing: (data: UserTyping) => void;
  /** The user is a participant of another chat. */
  chat_added: (data: Chat, cursor: string) => void;
  /** The user is no participant any more. */
  chat_removed: (data: ChatRef, cursor: string) => void;
  /** A subscribed user's presence. */
  presence: (data: Presence) => void;
  /** This device was revoked; the connection closes. */
  device_revoked: (data: { deviceId: DeviceId }) => void;
  /** The node drains: come back elsewhere after this time. */
  reconnect: (data: { afterMs: number }) => void;
  /** Everything missed has been replayed. */
  resume_done: (data: { cursor: string }, cursor: string) => void;
  /** An event without an id has failed, or a frame could not be read. */
  exception: (data: Exception) => void;
  /** A message has another content. */
  message_edited: (data: MessageEdited, cursor: string) => void;
  /** A message was taken back. */
  message_deleted: (data: MessageDeleted, cursor: string) => void;
  /** Somebody reacts to a message, or does not any more. */
  reaction: (data: Reaction, cursor: string) => void;
  /** A participant has read a chat up to a place. */
  read: (data: Receipt, cursor?: string) => void;
  /** A participant's device has got a chat up to a place. */
  delivered: (data: Receipt) => void;
  /** What the user wants of a chat has changed. */
  chat_updated: (data: Chat, cursor: string) => void;
  /** The user has blocked somebody, or does so no more. */
  blocking: (data: BlockChange, cursor: string) => void;
  /** Messages of a chat are not kept any longer: all up to a place. */
  messages_expired: (data: MessagesExpired, cursor: string) => void;
  /** Where the connection stands after one's own message, which is replied to and is no event. A stock client keeps it by itself. */
  cursor: (data: string) => void;
  /** With `checkpoints` when connecting: acknowledge it once everything up to here has been dealt with. Four may be open; then what is on feeds waits. */
  checkpoint: (data: Checkpoint, ack: () => void) => void;
  /** The close code, before the server disconnects. */
  closing: (data: Closing) => void;
}

/** The calls of REST. They fail with `Problem`. */
export interface RestCalls {
  /** Log a device in with phone or e-mail and password. */
  "POST /v1/auth/login": {
    body: Login;
    answer: Session;
  };
  /** End this device's login. Its sockets close. */
  "POST /v1/auth/logout": {
    answer: undefined;
  };
  /** Change the password. All other devices are signed out. */
  "POST /v1/auth/password": {
    body: ChangePassword;
    answer: undefined;
  };
  /** Exchange a refresh token for a new access token and a new refresh token. */
  "POST /v1/auth/refresh": {
    body: Refresh;
    answer: Session;
  };
  /** Make an account, and log its first device in. */
  "POST /v1/auth/register": {
    body: Register;
    answer: Session;
  };
  /** Whom the caller has blocked. */
  "GET /v1/blocks": {
    query?: { cursor?: string; limit?: number };
    answer: BlockPage;
  };
  /** The caller's chats, newest activity first over the whole list. */
  "GET /v1/chats": {
    query?: { cursor?: string; limit?: number; search?: string };
    answer: ChatPage;
  };
  /** Make a group, or open the one-to-one with a user: the same two always get the same chat. */
  "POST /v1/chats": {
    body: CreateChat;
    answer: Chat;
  };
  /** What is unread in all chats that are listed: each chat tells its own in `me.unreadCount`. */
  "GET /v1/chats/unread": {
    answer: UnreadTotal;
  };
  /** Delete a group, for everybody. Owners. */
  "DELETE /v1/chats/{id}": {
    path: { id: ChatId };
    answer: undefined;
  };
  /** One chat. */
  "GET /v1/chats/{id}": {
    path: { id: ChatId };
    answer: Chat;
  };
  /**
   * Rename, describe, open or close a group, or have messages removed after a time: what is missing
   * stays, `null` takes the description away, or the chat's own time. Owners and admins; `open` is for
   * owners. `retentionSecs` is also for both of a one-to-one.
   */
  "PATCH /v1/chats/{id}": {
    path: { id: ChatId };
    body: ChangeChat;
    answer: Chat;
  };
  /** Who may not come back to a group. Owners and admins. */
  "GET /v1/chats/{id}/bans": {
    path: { id: ChatId };
    query?: { cursor?: string; limit?: number };
    answer: BanPage;
  };
  /** Let somebody come back. Owners and admins. */
  "DELETE /v1/chats/{id}/bans/{userId}": {
    path: { id: ChatId; userId: UserId };
    answer: undefined;
  };
  /** This device has got the chat up to this place of its feed. It only goes up. */
  "POST /v1/chats/{id}/delivered": {
    path: { id: ChatId };
    body: UpTo;
    answer: Empty;
  };
  /** All of a chat, as a ZIP archive that is made while it is sent. */
  "GET /v1/chats/{id}/export": {
    path: { id: ChatId };
    query?: { media?: boolean };
    answer: Blob;
  };
  /** The one-to-one is not listed until its next message, for the caller alone. */
  "POST /v1/chats/{id}/hide": {
    path: { id: ChatId };
    answer: Chat;
  };
  /** The links into a group that are good, without their codes. Owners and admins. */
  "GET /v1/chats/{id}/invites": {
    path: { id: ChatId };
    answer: InviteList;
  };
  /** Make a link into a group. Owners and admins. */
  "POST /v1/chats/{id}/invites": {
    path: { id: ChatId };
    body?: CreateInvite | null;
    answer: MadeInvite;
  };
  /** Revoke a link: nobody comes by it any more. Owners and admins. */
  "DELETE /v1/chats/{id}/invites/{inviteId}": {
    path: { id: ChatId; inviteId: InviteId };
    answer: undefined;
  };
  /** Become a participant of an open chat, and get its newest messages. */
  "POST /v1/chats/{id}/join": {
    path: { id: ChatId };
    body?: JoinRequest | null;
    answer: Joined;
  };
  /** Stop being a participant of a group. */
  "POST /v1/chats/{id}/leave": {
    path: { id: ChatId };
    answer: Empty;
  };
  /**
   * Upload a file to a chat, to be sent by `send_message {mediaId}`; or send it in one step. Within a
   * day it has to be sent.
   */
  "POST /v1/chats/{id}/media": {
    path: { id: ChatId };
    body: UploadForm;
    answer: Uploaded;
  };
  /**
   * Where a large file can be put directly, past the gateways: only with a store that has URLs for
   * that, where it is switched on.
   */
  "POST /v1/chats/{id}/media/uploads": {
    path: { id: ChatId };
    body: UploadDraft;
    answer: UploadTicket;
  };
  /** The file has been put where it was to be. */
  "POST /v1/chats/{id}/media/{mediaId}/complete": {
    path: { id: ChatId; mediaId: MediaId };
    body?: CompleteRequest | null;
    answer: Uploaded;
  };
  /** A page of a chat's messages, oldest first; without bounds the newest ones. */
  "GET /v1/chats/{id}/messages": {
    path: { id: ChatId };
    query?: { before?: Seq; after?: Seq; around?: Seq; limit?: number };
    answer: HistoryPage;
  };
  /** Send a message. A repeated `clientMsgId` is the same message, told as a duplicate. */
  "POST /v1/chats/{id}/messages": {
    path: { id: ChatId };
    body: Draft;
    answer: Sent;
  };
  /**
   * Take a message back: one of one's own, or anybody's where one manages the chat. Its content, its
   * file and its reactions go; that it was there stays.
   */
  "DELETE /v1/chats/{id}/messages/{messageId}": {
    path: { id: ChatId; messageId: MessageId };
    answer: Changed;
  };
  /** Give a message of one's own another content. */
  "PATCH /v1/chats/{id}/messages/{messageId}": {
    path: { id: ChatId; messageId: MessageId };
    body: Edit;
    answer: Changed;
  };
  /**
   * Who has fetched the file of a message, the newest first: for its sender, and for those who
   * manage the chat.
   */
  "GET /v1/chats/{id}/messages/{messageId}/downloads": {
    path: { id: ChatId; messageId: MessageId };
    query?: { cursor?: string; limit?: number };
    answer: DownloadPage;
  };
  /** The file of a message, or a part of it (`Range`). Who fetches it is recorded. */
  "GET /v1/chats/{id}/messages/{messageId}/media": {
    path: { id: ChatId; messageId: MessageId };
    query?: { download?: boolean };
    answer: Blob;
  };
  /** A small picture of an image, once it has been made: shortly after it was uploaded. */
  "GET /v1/chats/{id}/messages/{messageId}/media/thumbnail": {
    path: { id: ChatId; messageId: MessageId };
    answer: Blob;
  };
  /** Take a reaction back. */
  "DELETE /v1/chats/{id}/messages/{messageId}/reactions/{emoji}": {
    path: { id: ChatId; messageId: MessageId; emoji: string };
    answer: Changed;
  };
  /** React to a message. */
  "PUT /v1/chats/{id}/messages/{messageId}/reactions/{emoji}": {
    path: { id: ChatId; messageId: MessageId; emoji: string };
    answer: Changed;
  };
  /** Notifications of the chat again. */
  "DELETE /v1/chats/{id}/mute": {
    path: { id: ChatId };
    answer: Chat;
  };
  /** No notifications of the chat, for the caller alone: until a time, or for ever. */
  "PUT /v1/chats/{id}/mute": {
    path: { id: ChatId };
    body: Mute;
    answer: Chat;
  };
  /** The participants of a chat, by the time they joined. */
  "GET /v1/chats/{id}/participants": {
    path: { id: ChatId };
    query?: { cursor?: string; limit?: number };
    answer: ParticipantPage;
  };
  /** Add users to a group, all or none. Owners and admins. */
  "POST /v1/chats/{id}/participants": {
    path: { id: ChatId };
    body: AddUsers;
    answer: Chat;
  };
  /** Remove somebody from a group. Owners, and admins where it is a member. */
  "DELETE /v1/chats/{id}/participants/{userId}": {
    path: { id: ChatId; userId: UserId };
    query?: { ban?: boolean };
    answer: undefined;
  };
  /** Give a participant a role. Owners; everybody may step down themselves. */
  "PATCH /v1/chats/{id}/participants/{userId}": {
    path: { id: ChatId; userId: UserId };
    body: ChangeRole;
    answer: Empty;
  };
  /** The chat is read up to this place of its feed. It only goes up, on all devices. */
  "POST /v1/chats/{id}/read": {
    path: { id: ChatId };
    body: UpTo;
    answer: Empty;
  };
  /**
   * How far the participants of a chat have read it, and their devices have got it. Changes come as
   * `read` and `delivered` over the socket.
   */
  "GET /v1/chats/{id}/receipts": {
    path: { id: ChatId };
    answer: ReceiptList;
  };
  /** The caller's devices, but those revoked, last seen first. */
  "GET /v1/devices": {
    answer: DeviceList;
  };
  /** Revoke a device: its tokens are void and its sockets close, on every node. */
  "DELETE /v1/devices/{id}": {
    path: { id: DeviceId };
    answer: undefined;
  };
  /** A device of the caller is notified no more. */
  "DELETE /v1/devices/{id}/push": {
    path: { id: DeviceId };
    answer: undefined;
  };
  /** Where a device of the caller is notified, and what the last attempt came to. */
  "GET /v1/devices/{id}/push": {
    path: { id: DeviceId };
    answer: PushTarget;
  };
  /**
   * This device is notified there from now on, while it is offline; also to renew that. The device is the
   * one that calls. It ends with the device's login.
   */
  "PUT /v1/devices/{id}/push": {
    path: { id: DeviceId };
    body: Target;
    answer: PushTarget;
  };
  /**
   * Notify a device of the caller of nothing, to see whether that works: what came of it shows in
   * `GET /v1/devices/{id}/push`.
   */
  "POST /v1/devices/{id}/push/test": {
    path: { id: DeviceId };
    body?: Empty | null;
    answer: Empty;
  };
  /**
   * What an id of the system that the deployment has moved over from is called here. For clients that
   * still hold such ids; a UUID has stayed what it was.
   */
  "GET /v1/imported/{kind}/{oldId}": {
    path: { kind: ImportedKind; oldId: string };
    answer: Imported;
  };
  /** What a link leads to. */
  "GET /v1/invites/{code}": {
    path: { code: string };
    answer: Invitation;
  };
  /** Become a participant of the group that a link leads to, and get its newest messages. */
  "POST /v1/invites/{code}/join": {
    path: { code: string };
    body?: JoinRequest | null;
    answer: Joined;
  };
  /**
   * Why each recipient of a message was or was not notified, when, and what the push services said: for
   * its sender, and for those who manage the chat. It is kept for a time.
   */
  "GET /v1/messages/{id}/delivery": {
    path: { id: MessageId };
    query?: { cursor?: string; limit?: number };
    answer: DeliveryPage;
  };
  /** What devices register with: the key that browsers subscribe with, and what is set up. */
  "GET /v1/push/key": {
    answer: PushKey;
  };
  /** Messages of the caller's chats by their words, sender, time, file and mentions. */
  "GET /v1/search/messages": {
    query?: { q?: string; chatId?: ChatId; senderId?: UserId; after?: string; before?: string; hasMedia?: boolean; mediaType?: MediaKind; mentionsMe?: boolean; fuzzy?: boolean; sort?: SearchSort; limit?: number; cursor?: string };
    answer: SearchPage;
  };
  /**
   * Make a group with its owner, or open the one-to-one of two users: the same two always get the same
   * chat. Scope `chats`.
   */
  "POST /v1/server/chats": {
    body: CreateServerChat;
    answer: Chat;
  };
  /** A chat, as nobody in particular sees it. Scope `chats`. */
  "GET /v1/server/chats/{id}": {
    path: { id: ChatId };
    answer: Chat;
  };
  /** A page of any chat's messages, oldest first; without bounds the newest ones. Scope `history`. */
  "GET /v1/server/chats/{id}/messages": {
    path: { id: ChatId };
    query?: { before?: Seq; after?: Seq; around?: Seq; limit?: number };
    answer: HistoryPage;
  };
  /**
   * Send a message as a bot or as `system` (scope `send`), or as anybody (scope `impersonate`), with the
   * same order, delivery and `clientMsgId` as anybody's. Users send only where they take part.
   */
  "POST /v1/server/chats/{id}/messages": {
    path: { id: ChatId };
    body: ServerDraft;
    answer: Sent;
  };
  /** Take anybody's message back. Scope `moderate`. */
  "DELETE /v1/server/chats/{id}/messages/{messageId}": {
    path: { id: ChatId; messageId: MessageId };
    answer: Changed;
  };
  /** The participants of a chat, by the time they joined. Scope `chats`. */
  "GET /v1/server/chats/{id}/participants": {
    path: { id: ChatId };
    query?: { cursor?: string; limit?: number };
    answer: ParticipantPage;
  };
  /** Add users to a group, all or none. Scope `chats`. */
  "POST /v1/server/chats/{id}/participants": {
    path: { id: ChatId };
    body: AddUsers;
    answer: Chat;
  };
  /** Remove somebody from a group. When its last owner goes, somebody else becomes one. Scope `chats`. */
  "DELETE /v1/server/chats/{id}/participants/{userId}": {
    path: { id: ChatId; userId: UserId };
    answer: undefined;
  };
  /** Give a participant of a group a role. Scope `chats`. */
  "PATCH /v1/server/chats/{id}/participants/{userId}": {
    path: { id: ChatId; userId: UserId };
    body: ServerRole;
    answer: Empty;
  };
  /** Look a user up by what the product calls them. Scope `users`. */
  "GET /v1/server/users": {
    query: { externalId: string };
    answer: ServerUserList;
  };
  /**
   * Make a user without a password, or find the one with this `externalId`, who stays as they are. Scope
   * `users`.
   */
  "POST /v1/server/users": {
    body: CreateUser;
    answer: ServerUser;
  };
  /** A user. Scope `users`. */
  "GET /v1/server/users/{id}": {
    path: { id: UserId };
    answer: ServerUser;
  };
  /** Change a user: what is missing stays, `null` takes away. Scope `users`. */
  "PATCH /v1/server/users/{id}": {
    path: { id: UserId };
    body: ChangeUser;
    answer: ServerUser;
  };
  /** Log a device of a user in, without a password: the answer is for that device. Scope `devices`. */
  "POST /v1/server/users/{id}/devices": {
    path: { id: UserId };
    body?: LogDeviceIn | null;
    answer: Session;
  };
  /** Revoke a device of a user: its tokens are void and its sockets close, on every node. Scope `devices`. */
  "DELETE /v1/server/users/{id}/devices/{deviceId}": {
    path: { id: UserId; deviceId: DeviceId };
    answer: undefined;
  };
  /**
   * Let nobody in as this user any more. Connections close on every node (4423); log-in, refresh and
   * tokens are refused (403, `account_disabled`), an outside issuer's too. Scope `users`.
   */
  "POST /v1/server/users/{id}/disable": {
    path: { id: UserId };
    answer: ServerUser;
  };
  /** Let a disabled user in again: what their devices have is as good as before. Scope `users`. */
  "POST /v1/server/users/{id}/enable": {
    path: { id: UserId };
    answer: ServerUser;
  };
  /** Look users up. A deployment may switch each of the three ways off. */
  "GET /v1/users": {
    query: { search: string; limit?: number };
    answer: UserList;
  };
  /** Delete the caller's account, for good. */
  "DELETE /v1/users/me": {
    body?: DeleteAccount | null;
    answer: undefined;
  };
  /** Oneself. */
  "GET /v1/users/me": {
    answer: User;
  };
  /** Change one's name, phone or e-mail: what is missing stays, `null` takes phone or e-mail away. */
  "PATCH /v1/users/me": {
    body: UpdateUser;
    answer: User;
  };
  /** All that the caller has, as a ZIP archive that is made while it is sent. */
  "GET /v1/users/me/export": {
    query?: { media?: boolean };
    answer: Blob;
  };
  /** What the caller wants to be notified of, on all devices. */
  "GET /v1/users/me/notifications": {
    answer: NotificationSettings;
  };
  /** Change what the caller wants to be notified of: what is missing stays, `null` ends quiet hours. */
  "PATCH /v1/users/me/notifications": {
    body: ChangeNotifications;
    answer: NotificationSettings;
  };
  /** Block a user no more. */
  "DELETE /v1/users/{id}/block": {
    path: { id: UserId };
    answer: undefined;
  };
  /**
   * Block a user: a one-to-one of the two takes no messages, and they do not see whether the caller is
   * online. They are not told.
   */
  "PUT /v1/users/{id}/block": {
    path: { id: UserId };
    answer: undefined;
  };
}
