//! The same from MySQL, as Prisma makes it there: on MariaDB.

use anyhow::{Context, Result, ensure};
use natter_cluster::{Cluster, testing};
use natter_e2e::Person;
use natter_protocol::{ids::ChatId, imported::ImportedKind};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use uuid::Uuid;

use super::command::{Import, counted, noted};

const SCHEMA: &str = "
CREATE DATABASE old_chat CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
USE old_chat;
CREATE TABLE `User` (
    `id` INTEGER NOT NULL AUTO_INCREMENT, `username` VARCHAR(191) NOT NULL, `phone` VARCHAR(191) NULL,
    `passwordHash` VARCHAR(191) NOT NULL, `createdAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    UNIQUE INDEX `User_phone_key`(`phone`), PRIMARY KEY (`id`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `Device` (
    `id` VARCHAR(191) NOT NULL, `userId` INTEGER NOT NULL, `name` VARCHAR(191) NULL, PRIMARY KEY (`id`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `Chat` (
    `id` VARCHAR(191) NOT NULL, `type` ENUM('DIRECT', 'GROUP') NOT NULL, `title` VARCHAR(191) NULL,
    `createdAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), PRIMARY KEY (`id`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `ChatParticipant` (
    `chatId` VARCHAR(191) NOT NULL, `userId` INTEGER NOT NULL,
    `role` ENUM('OWNER', 'ADMIN', 'MEMBER') NOT NULL DEFAULT 'MEMBER',
    `joinedAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), PRIMARY KEY (`chatId`, `userId`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `Message` (
    `id` BIGINT NOT NULL AUTO_INCREMENT, `chatId` VARCHAR(191) NOT NULL, `senderId` INTEGER NULL,
    `type` ENUM('TEXT', 'IMAGE', 'SYSTEM') NOT NULL DEFAULT 'TEXT', `content` LONGTEXT NULL,
    `isDeleted` BOOLEAN NOT NULL DEFAULT false, `mediaUrl` VARCHAR(191) NULL,
    `createdAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    INDEX `Message_chatId_fkey`(`chatId`), PRIMARY KEY (`id`)
) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
INSERT INTO `Chat` VALUES ('c1', 'GROUP', 'Segeln ⛵', '2023-05-01 12:00:00.123'),
                          ('c2', 'DIRECT', NULL, '2023-05-01 12:00:00.123');
INSERT INTO `ChatParticipant` (`chatId`, `userId`, `role`) VALUES
    ('c1', 1, 'OWNER'), ('c1', 2, 'MEMBER'), ('c2', 1, 'MEMBER'), ('c2', 2, 'MEMBER');
INSERT INTO `Device` VALUES ('d1', 1, 'Phone');
INSERT INTO `Message` (`chatId`, `senderId`, `content`, `createdAt`) SELECT
    IF(seq % 2 = 0, 'c1', 'c2'), 1 + seq % 3 % 2, CONCAT('Nachricht ', seq, ' 👋 \\'ü\\''),
    TIMESTAMPADD(MICROSECOND, (seq * 7919 % 2000) * 1000, '2023-06-01 00:00:00')
    FROM seq_1_to_2000;
UPDATE `Message` SET `isDeleted` = true WHERE `id` % 100 = 0;
INSERT INTO `Message` (`chatId`, `senderId`, `type`, `content`, `mediaUrl`, `createdAt`) VALUES
    ('c1', 2, 'IMAGE', '', 'https://old.example/a.png', '2024-01-01 00:00:00.5'),
    ('c1', NULL, 'SYSTEM', 'Ben left', NULL, '2024-01-01 00:00:01'),
    ('c1', 2, 'TEXT', 'with a \\0 in it', NULL, '2024-01-01 00:00:02');
";

async fn filled(url: &str) -> Result<MySqlConnection> {
    let mut db = MySqlConnection::connect(url).await?;
    for statement in SCHEMA.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        db.execute(AssertSqlSafe(statement.to_owned()))
            .await
            .with_context(|| statement.to_owned())?;
    }
    let hash = bcrypt::hash("an old password", 4)?.replacen("$2b$", "$2a$", 1);
    for (name, phone) in [("Änne", "+15550000001"), ("Ben", "+15550000002")] {
        sqlx::query("INSERT INTO `User` (`username`, `phone`, `passwordHash`) VALUES (?, ?, ?)")
            .bind(name)
            .bind(phone)
            .bind(&hash)
            .execute(&mut db)
            .await?;
    }
    Ok(db)
}

#[tokio::test]
async fn mysql_is_moved_over_likewise() -> Result<()> {
    let mariadb = testing::mariadb_fresh().await?;
    let mut old = filled(mariadb.url()).await?;
    let cluster = Cluster::builder().start().await?;
    let source = format!("{}/old_chat?connection_limit=5", mariadb.url());
    let import = Import { cluster: &cluster, source: &source };
    let dry = import.report(&["--dry-run"]).await?;
    ensure!(counted(&dry, "messages", "read") == 2_003, "{dry:#}");
    // Small batches, so that many begin where the one before ended.
    let report = import.report(&["--batch", "97"]).await?;
    ensure!(counted(&report, "messages", "written") == 2_002, "{report:#}");
    ensure!(noted(&report, "messages", "wrote itself") == 1, "{report:#}");
    let again = import.report(&[]).await?;
    ensure!(counted(&again, "messages", "there") == 2_002, "{again:#}");
    let mut new = PgConnection::connect(&cluster.database_url()).await?;
    for chat in ["c1", "c2"] {
        let there: Vec<(i64, i64, String, i64)> = sqlx::query_as(
            "SELECT id, senderId,
                    CASE WHEN isDeleted THEN '' WHEN content = '' THEN mediaUrl ELSE content END,
                    TIMESTAMPDIFF(MICROSECOND, '1970-01-01', createdAt) DIV 1000
             FROM old_chat.Message WHERE chatId = ? AND type <> 'SYSTEM' ORDER BY createdAt, id",
        )
        .bind(chat)
        .fetch_all(&mut old)
        .await?;
        let here: Vec<(i64, Uuid, Uuid, String, i64)> = sqlx::query_as(
            "SELECT seq, id, sender_id, content, (extract(epoch FROM created_at) * 1000)::bigint
             FROM messages WHERE chat_id = $1 ORDER BY seq",
        )
        .bind(ImportedKind::Chat.id("old", chat))
        .fetch_all(&mut new)
        .await?;
        ensure!(there.len() == here.len() && there.len() > 900, "{} {}", there.len(), here.len());
        for (nth, (old, new)) in there.iter().zip(&here).enumerate() {
            let expected = (
                nth as i64 + 1,
                ImportedKind::Message.id("old", &old.0.to_string()),
                ImportedKind::User.id("old", &old.1.to_string()),
                old.2.replace('\0', ""),
                old.3,
            );
            ensure!(*new == expected, "{new:?} and not {expected:?}");
        }
    }
    // A name that is not ASCII, a group and a pair, and a password of another version of bcrypt.
    let anne = Person::log_in(&cluster, "+15550000001", "an old password").await?;
    ensure!(anne.name == "Änne", "{}", anne.name);
    let chats = anne.api(0).chats("limit=9").await?.items;
    let of = |old: &str| {
        let id = ChatId(ImportedKind::Chat.id("old", old));
        chats.iter().find(|chat| chat.id == id).context("not in the list")
    };
    ensure!(of("c1")?.is_group && of("c1")?.title.as_deref() == Some("Segeln ⛵"), "{chats:?}");
    ensure!(
        !of("c2")?.is_group && of("c2")?.me.as_ref().is_some_and(|me| me.name == "Ben"),
        "{chats:?}"
    );
    Ok(())
}
