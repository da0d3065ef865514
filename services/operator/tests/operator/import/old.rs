//! The old backend's schema, as Prisma would have made it: ids are UUIDs, cuids and whole numbers.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// The password of everybody there.
pub const PASSWORD: &str = "an old password";

/// Prisma's DDL for PostgreSQL; `migration.sql` of a model with these fields.
const SCHEMA: &str = r#"
CREATE TYPE "Role" AS ENUM ('OWNER', 'ADMIN', 'MEMBER');
CREATE TYPE "MessageType" AS ENUM ('TEXT', 'IMAGE', 'VIDEO', 'FILE', 'SYSTEM', 'POLL');
CREATE TABLE "User" (
    "id" TEXT NOT NULL, "name" TEXT NOT NULL, "phone" TEXT, "email" TEXT, "password" TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" TIMESTAMP(3) NOT NULL,
    "deletedAt" TIMESTAMP(3),
    CONSTRAINT "User_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "Device" (
    "id" TEXT NOT NULL, "userId" TEXT NOT NULL, "name" TEXT, "platform" TEXT,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "lastSeenAt" TIMESTAMP(3),
    CONSTRAINT "Device_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "Chat" (
    "id" TEXT NOT NULL, "isGroup" BOOLEAN NOT NULL DEFAULT false, "name" TEXT, "createdById" TEXT,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "Chat_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "ChatParticipant" (
    "id" SERIAL NOT NULL, "chatId" TEXT NOT NULL, "userId" TEXT NOT NULL,
    "role" "Role" NOT NULL DEFAULT 'MEMBER',
    "joinedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "ChatParticipant_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "Message" (
    "id" SERIAL NOT NULL, "chatId" TEXT NOT NULL, "senderId" TEXT, "deviceId" TEXT,
    "type" "MessageType" NOT NULL DEFAULT 'TEXT', "content" TEXT, "replyToId" INTEGER,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "editedAt" TIMESTAMP(3),
    "deletedAt" TIMESTAMP(3),
    CONSTRAINT "Message_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "MediaFile" (
    "id" TEXT NOT NULL, "messageId" INTEGER NOT NULL, "url" TEXT NOT NULL, "fileName" TEXT,
    "mimeType" TEXT, "size" INTEGER, "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "MediaFile_pkey" PRIMARY KEY ("id")
);
CREATE TABLE "MediaDownload" (
    "id" SERIAL NOT NULL, "mediaId" TEXT NOT NULL, "userId" TEXT NOT NULL, "deviceId" TEXT,
    "downloadedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "MediaDownload_pkey" PRIMARY KEY ("id")
);
CREATE UNIQUE INDEX "User_phone_key" ON "User"("phone");
CREATE UNIQUE INDEX "ChatParticipant_chatId_userId_key" ON "ChatParticipant"("chatId", "userId");
CREATE INDEX "Message_chatId_createdAt_idx" ON "Message"("chatId", "createdAt");
"#;

/// As Prisma adds them, where a test does not want rows that break them.
const FOREIGN_KEYS: &str = r#"
ALTER TABLE "Device" ADD CONSTRAINT "Device_userId_fkey"
    FOREIGN KEY ("userId") REFERENCES "User"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "Chat" ADD CONSTRAINT "Chat_createdById_fkey"
    FOREIGN KEY ("createdById") REFERENCES "User"("id") ON DELETE SET NULL ON UPDATE CASCADE;
ALTER TABLE "ChatParticipant" ADD CONSTRAINT "ChatParticipant_chatId_fkey"
    FOREIGN KEY ("chatId") REFERENCES "Chat"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "ChatParticipant" ADD CONSTRAINT "ChatParticipant_userId_fkey"
    FOREIGN KEY ("userId") REFERENCES "User"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "Message" ADD CONSTRAINT "Message_chatId_fkey"
    FOREIGN KEY ("chatId") REFERENCES "Chat"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "Message" ADD CONSTRAINT "Message_senderId_fkey"
    FOREIGN KEY ("senderId") REFERENCES "User"("id") ON DELETE SET NULL ON UPDATE CASCADE;
ALTER TABLE "Message" ADD CONSTRAINT "Message_replyToId_fkey"
    FOREIGN KEY ("replyToId") REFERENCES "Message"("id") ON DELETE SET NULL ON UPDATE CASCADE;
"#;

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub messages: u32,
    pub chats: u32,
    pub users: u32,
}

/// An old database.
pub struct Old {
    pub url: String,
    pub db: PgConnection,
}

impl Old {
    /// An empty one, where rows may break foreign keys.
    pub async fn loose() -> Result<Self> {
        let url = natter_cluster::testing::postgres().await?;
        let mut db = PgConnection::connect(&url).await?;
        db.execute(SCHEMA).await?;
        Ok(Self { url, db })
    }

    /// One that has been in use for long.
    pub async fn filled(size: Size) -> Result<Self> {
        let mut old = Self::loose().await?;
        old.fill(size).await?;
        old.db.execute(FOREIGN_KEYS).await?;
        Ok(old)
    }

    /// Has something done there.
    pub async fn run(&mut self, sql: impl Into<String>) -> Result<()> {
        self.db.execute(AssertSqlSafe(sql.into())).await?;
        Ok(())
    }

    /// Users with UUIDs; chats with cuids, every third a group of eight, the others each of another two;
    /// messages with numbers, whose order is not that of their times, of which some are the same.
    async fn fill(&mut self, size: Size) -> Result<()> {
        let Size { messages, chats, users } = size;
        let hash = bcrypt::hash(PASSWORD, 4)?;
        self.run(format!(
            r#"
            CREATE FUNCTION user_no(n bigint) RETURNS text IMMUTABLE LANGUAGE sql
                AS $$ SELECT md5('user ' || (n % {users}))::uuid::text $$;
            INSERT INTO "User" ("id", "name", "phone", "email", "password", "updatedAt")
                SELECT user_no(n), 'User ' || n, '+1555' || lpad(n::text, 8, '0'),
                       'user' || n || '@Old.example', '{hash}', now()
                FROM generate_series(0, {users} - 1) n;
            INSERT INTO "Device" ("id", "userId", "name", "platform", "lastSeenAt")
                SELECT md5('device ' || n)::uuid::text, user_no(n), 'Phone ' || n, 'ANDROID', now()
                FROM generate_series(0, {users} - 1) n;
            CREATE TABLE numbered AS
                SELECT n, 'c' || substr(md5('chat ' || n), 1, 24) AS id, n % 3 = 0 AS is_group
                FROM generate_series(0, {chats} - 1) n;
            INSERT INTO "Chat" ("id", "isGroup", "name", "createdById", "createdAt")
                SELECT id, is_group, CASE WHEN is_group THEN 'Group ' || n END, user_no(n),
                       '2022-01-01'::timestamp + n * interval '1 minute' FROM numbered;
            INSERT INTO "ChatParticipant" ("chatId", "userId", "role", "joinedAt")
                SELECT id, user_no(n + k * (1 + n / {users})),
                       (CASE k WHEN 0 THEN 'OWNER' WHEN 1 THEN 'ADMIN' ELSE 'MEMBER' END)::"Role",
                       '2022-01-01'::timestamp + n * interval '1 minute' + k * interval '1 second'
                FROM numbered CROSS JOIN generate_series(0, 7) k WHERE is_group OR k < 2;
            INSERT INTO "Message" ("chatId", "senderId", "type", "content", "createdAt", "editedAt",
                                   "deletedAt")
                SELECT c.id, user_no(c.n + (m / 7 % CASE WHEN is_group THEN 8 ELSE 2 END) * (1 + c.n / {users})),
                       'TEXT', 'Message ' || m || E' – "quoted", \n' || md5(m::text),
                       '2023-01-01'::timestamp + (m::bigint * 7919 % {messages}) / 300 * interval '150 seconds',
                       CASE WHEN m % 89 = 0 THEN '2024-01-01'::timestamp END,
                       CASE WHEN m % 97 = 0 THEN '2024-01-02'::timestamp END
                FROM generate_series(1::bigint, {messages}) m
                JOIN numbered c ON c.n = m * 2654435761 % 4294967296 % {chats};
            UPDATE "Message" m SET "replyToId" = p.before
                FROM (SELECT id, lag(id) OVER (PARTITION BY "chatId" ORDER BY "createdAt", id) AS before
                      FROM "Message") p
                WHERE p.id = m.id AND m.id % 50 = 0 AND m."deletedAt" IS NULL;
            INSERT INTO "MediaFile" ("id", "messageId", "url", "fileName", "mimeType", "size")
                SELECT 'f' || substr(md5('file ' || id), 1, 24), id, '/uploads/' || id || '.png',
                       id || '.png', 'image/png', 100
                FROM "Message" WHERE id % 1000 = 1 AND "deletedAt" IS NULL;
            INSERT INTO "MediaDownload" ("mediaId", "userId", "downloadedAt")
                SELECT f.id, p."userId", '2024-02-01'::timestamp + p.id * interval '1 second'
                FROM "MediaFile" f JOIN "Message" m ON m.id = f."messageId"
                JOIN "ChatParticipant" p ON p."chatId" = m."chatId";
            ANALYZE;
            "#
        ))
        .await
    }
}
