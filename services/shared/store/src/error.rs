//! What can go wrong, in terms of what the caller can do about it.

use sqlx::migrate::MigrateError;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why a call of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres is away, overloaded, or gave up on the statement: try again later. A write may
    /// or may not have happened.
    #[error("Postgres is unavailable")]
    Unavailable(#[source] Cause),
    /// It clashes with what is there.
    #[error("conflict: {0}")]
    Conflict(Conflict),
    /// What was named does not exist.
    #[error("not found")]
    NotFound,
    /// The caller may not do this.
    #[error("forbidden")]
    Forbidden,
    /// The caller takes no part in the chat.
    #[error("not a participant")]
    NotMember,
    /// Another owner has the shard, or its position is not the one expected.
    #[error("the shard has moved on without this owner")]
    Fenced,
    /// A value that Postgres does not take: the same call would fail again.
    #[error("Postgres refused a value")]
    Data(#[source] Cause),
    /// A fault of the schema, the statement or this program.
    #[error("database error")]
    Database(#[source] Cause),
    /// The database holds text in another encoding than UTF-8, which not everything can be said in.
    #[error(
        "the database's encoding is {0}, and has to be UTF8: make it anew with ENCODING 'UTF8'"
    )]
    Encoding(String),
    /// The schema could not be brought up to date.
    #[error("the schema cannot be migrated")]
    Migrate(#[source] MigrateError),
}

impl StoreError {
    /// No answer in time. The server may be frozen or gone, or only this slow.
    pub(crate) fn late() -> Self {
        let message = "no answer in time".to_owned();
        Self::Unavailable(Cause { code: None, constraint: None, message })
    }

    /// The process is about to end, and has no connections any more.
    pub(crate) fn closed() -> Self {
        let message = "closed".to_owned();
        Self::Unavailable(Cause { code: None, constraint: None, message })
    }

    /// Whether a value in the call is at fault: without it, the call would work.
    #[must_use]
    pub fn is_data_error(&self) -> bool {
        matches!(self, Self::Data(_))
    }

    /// Whether the same call may work later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// What a value clashes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Somebody has this phone number.
    #[error("the phone number is taken")]
    Phone,
    /// Somebody has this e-mail address; upper and lower case are the same.
    #[error("the e-mail address is taken")]
    Email,
    /// The device is another user's.
    #[error("the device belongs to another user")]
    Device,
    /// The user's id is taken.
    #[error("the user exists")]
    User,
    /// Another user is called so by the embedding product.
    #[error("the external id is taken")]
    ExternalId,
    /// Neither phone nor e-mail would be left to log in with.
    #[error("phone or e-mail must stay")]
    LastLogin,
    /// The group would have no owner.
    #[error("a group keeps an owner: make somebody else one first")]
    LastOwner,
    /// One does not remove oneself.
    #[error("one does not remove oneself, but leaves")]
    Oneself,
    /// Somebody among those named may not come back.
    #[error("one of them is banned from this chat")]
    Banned,
    /// Another endpoint of webhooks has this name.
    #[error("an endpoint has this name")]
    Endpoint,
    /// The chat has as many invites as there can be.
    #[error("too many invites of this chat are good: revoke some")]
    Invites,
}

/// What the database or its driver said. The server's detail line is left out on purpose: it
/// quotes values, and errors are logged.
#[derive(Debug, thiserror::Error)]
#[error("{}{message}", code.as_ref().map(|code| format!("{code}: ")).unwrap_or_default())]
pub struct Cause {
    code: Option<String>,
    constraint: Option<String>,
    message: String,
}

impl Cause {
    /// The SQLSTATE, when the server answered.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The constraint that was violated.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        self.constraint.as_deref()
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        let cause = match &error {
            Error::Database(answer) => Cause {
                code: answer.code().map(Into::into),
                constraint: answer.constraint().map(Into::into),
                message: answer.message().to_owned(),
            },
            other => Cause { code: None, constraint: None, message: other.to_string() },
        };
        match error {
            Error::RowNotFound => Self::NotFound,
            Error::Io(_)
            | Error::Tls(_)
            | Error::Protocol(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed => Self::Unavailable(cause),
            Error::Encode(_) => Self::Data(cause),
            Error::Database(_) => Self::of_server(cause),
            _ => Self::Database(cause),
        }
    }
}

impl StoreError {
    /// Sorts what the server answered by its SQLSTATE.
    fn of_server(cause: Cause) -> Self {
        match cause.constraint() {
            Some("users_phone_key") => return Self::Conflict(Conflict::Phone),
            Some("users_email_key") => return Self::Conflict(Conflict::Email),
            Some("users_external_id_key") => return Self::Conflict(Conflict::ExternalId),
            // Two devices at once, with one target: the later one has it.
            Some("push_targets_hash") => return Self::Unavailable(cause),
            Some("webhook_endpoints_name") => return Self::Conflict(Conflict::Endpoint),
            Some("users_pkey") => return Self::Conflict(Conflict::User),
            Some("devices_pkey") => return Self::Conflict(Conflict::Device),
            // A row for a user who does not exist.
            Some(
                "devices_user_id_fkey"
                | "chat_members_user_id_fkey"
                | "chats_created_by_fkey"
                | "chat_bans_user_id_fkey",
            ) => return Self::NotFound,
            _ => {}
        }
        let code = cause.code().unwrap_or_default();
        match (code.get(..2).unwrap_or_default(), code) {
            // Connection trouble, out of resources, shut down or cancelled.
            ("08" | "53" | "57" | "58", _)
            // Lost against another transaction: serialization, deadlock, lock timeout, and a
            // server that has just become a replica.
            | (_, "40001" | "40P01" | "55P03" | "25006" | "25P03") => Self::Unavailable(cause),
            // A value out of range or of a form not taken, a constraint, or too large for an
            // index or a row.
            ("22" | "23" | "54", _) => Self::Data(cause),
            _ => Self::Database(cause),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                match Self::from(error) {
                    Self::Data(cause) => Self::Database(cause),
                    other => other,
                }
            }
            other => Self::Migrate(other),
        }
    }
}
