//! The old system's database: PostgreSQL, or MySQL and MariaDB.
//!
//! Its SQL is here and not in the store, which holds Natter's: it is made of names that were found there,
//! in two dialects, and nothing else ever asks it. All that is read comes as text, and times as
//! milliseconds, so that one reader does for both.
//!
//! A table is read as one stream in the order of its key, and never written to. The server sends no
//! faster than rows are taken, so this is bounded whatever the table's size; and where an index has the
//! order nothing is sorted.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, Connection, MySql, MySqlConnection, PgConnection, Postgres, Row as _,
    mysql::{MySqlConnectOptions, MySqlRow},
    postgres::{PgConnectOptions, PgRow},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::tables::{Column, Form, Table};
use crate::outcome::Failure;

/// How long the server may take to let us in.
const CONNECT: Duration = Duration::from_secs(10);
/// Chunks that are read ahead while one is written.
const AHEAD: usize = 2;

/// Where it is.
#[derive(Clone)]
pub(crate) enum Source {
    Postgres {
        /// The server and the database.
        options: Box<PgConnectOptions>,
        /// The schema, as Prisma's URLs name it.
        schema: String,
    },
    MySql(Box<MySqlConnectOptions>),
}

/// What the server, or the way to it, says.
#[derive(Debug, thiserror::Error)]
#[error("the old system's database")]
pub(crate) struct SourceError(#[from] sqlx::Error);

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Server {
            server: "the old system's database (NATTER_IMPORT_SOURCE)",
            cause: error.0.into(),
        }
    }
}

/// A row of a table, by its fields.
pub(crate) type Cells = Vec<Option<String>>;

/// What is read of a table.
pub(crate) struct Reader {
    chunks: mpsc::Receiver<Result<Vec<Cells>, SourceError>>,
    reading: JoinHandle<()>,
}

impl Reader {
    /// The next rows; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Cells>>, SourceError> {
        self.chunks.recv().await.transpose()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Source {
    /// By a URL: `postgres://…`, `postgresql://…` or `mysql://…`, with whatever Prisma has in its own.
    ///
    /// # Errors
    /// `Refused` for any other.
    pub(crate) fn parse(url: &SecretString) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::settings("NATTER_IMPORT_SOURCE", why);
        let text = url.expose_secret();
        let (bare, query) = text.split_once('?').unwrap_or((text, ""));
        // Prisma's own, of which the drivers know nothing.
        let own =
            ["schema", "connection_limit", "pool_timeout", "pgbouncer", "sslidentity", "sslaccept"];
        let named = |pair: &&str| !own.contains(&pair.split('=').next().unwrap_or_default());
        let rest: Vec<&str> =
            query.split('&').filter(|pair| !pair.is_empty()).filter(named).collect();
        let url =
            if rest.is_empty() { bare.to_owned() } else { format!("{bare}?{}", rest.join("&")) };
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options =
                PgConnectOptions::from_str(&url).map_err(|error| wrong(error.to_string()))?;
            let schema = query.split('&').find_map(|pair| pair.strip_prefix("schema="));
            let schema = schema.unwrap_or("public").to_owned();
            return Ok(Self::Postgres { options: Box::new(options), schema });
        }
        if url.starts_with("mysql://") {
            let options =
                MySqlConnectOptions::from_str(&url).map_err(|error| wrong(error.to_string()))?;
            // Dates of Prisma's are in UTC, which the driver asks for as well.
            return Ok(Self::MySql(Box::new(options.timezone(Some("+00:00".to_owned())))));
        }
        Err(wrong("is not postgres://… or mysql://…".to_owned()))
    }

    async fn connect(&self) -> Result<Link, SourceError> {
        let opening = async {
            Ok::<_, sqlx::Error>(match self {
                Self::Postgres { options, schema } => {
                    let mut link = PgConnection::connect_with(options).await?;
                    sqlx::query("SELECT set_config('search_path', quote_ident($1), false)")
                        .bind(schema)
                        .execute(&mut link)
                        .await?;
                    // Whatever the mapping says, nothing is changed there.
                    sqlx::query("SET default_transaction_read_only = on")
                        .execute(&mut link)
                        .await?;
                    Link::Postgres(Box::new(link))
                }
                Self::MySql(options) => {
                    let mut link = MySqlConnection::connect_with(options).await?;
                    sqlx::query("SET SESSION TRANSACTION READ ONLY").execute(&mut link).await?;
                    // While a batch is written, nothing is taken.
                    sqlx::query("SET SESSION net_write_timeout = 600").execute(&mut link).await?;
                    Link::MySql(Box::new(link))
                }
            })
        };
        let late = |_| sqlx::Error::PoolTimedOut;
        Ok(timeout(CONNECT, opening).await.map_err(late).and_then(|opened| opened)?)
    }

    /// Its tables, and their columns.
    pub(crate) async fn schema(&self) -> Result<BTreeMap<String, Vec<Column>>, SourceError> {
        let mut link = self.connect().await?;
        let (own, of_type) = match self {
            Self::Postgres { .. } => ("current_schema()", "udt_name"),
            Self::MySql(_) => ("database()", "column_type"),
        };
        let sql = format!(
            "SELECT {}, {}, {} FROM information_schema.columns
             WHERE table_schema = {own} ORDER BY table_name, ordinal_position",
            self.text_of("table_name"),
            self.text_of("column_name"),
            self.text_of(of_type),
        );
        let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
        let mut rows = link.rows(sql, None, 3);
        while let Some(row) = rows.try_next().await? {
            if let [Some(table), Some(name), Some(of_type)] = row.as_slice() {
                let column = Column { name: name.clone(), of_type: of_type.clone() };
                tables.entry(table.clone()).or_default().push(column);
            }
        }
        Ok(tables)
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &Table) -> Result<u64, SourceError> {
        self.number(format!("SELECT count(*) AS n FROM {}", self.quoted(&table.name))).await
    }

    /// The most messages of a chat.
    pub(crate) async fn longest(&self, messages: &Table) -> Result<u64, SourceError> {
        let Some(chat) = messages.column("chatId") else { return Ok(0) };
        let (table, chat) = (self.quoted(&messages.name), self.quoted(&chat.name));
        self.number(format!(
            "SELECT COALESCE(max(n), 0) AS n FROM (SELECT count(*) AS n FROM {table} GROUP BY {chat}) chats"
        ))
        .await
    }

    /// How many rows of a table name a row of another that is not there.
    pub(crate) async fn dangling(
        &self,
        (from, field): (&Table, &str),
        to: &Table,
    ) -> Result<u64, SourceError> {
        let (Some(names), Some(id)) = (from.column(field), to.column("id")) else { return Ok(0) };
        let (names, id) = (self.quoted(&names.name), self.quoted(&id.name));
        self.number(format!(
            "SELECT count(*) AS n FROM {} f WHERE f.{names} IS NOT NULL AND NOT EXISTS
             (SELECT 1 FROM {} t WHERE t.{id} = f.{names})",
            self.quoted(&from.name),
            self.quoted(&to.name),
        ))
        .await
    }

    /// How many rows have a value that another one has too: all but one of each.
    pub(crate) async fn repeated(&self, table: &Table, field: &str) -> Result<u64, SourceError> {
        let Some(column) = table.column(field) else { return Ok(0) };
        let column = self.quoted(&column.name);
        self.number(format!(
            "SELECT count({column}) - count(DISTINCT {column}) AS n FROM {}",
            self.quoted(&table.name)
        ))
        .await
    }

    async fn number(&self, sql: String) -> Result<u64, SourceError> {
        let mut link = self.connect().await?;
        let sql = format!("SELECT {} FROM ({sql}) counted", self.text_of("n"));
        let row = link.rows(sql, None, 1).try_next().await?;
        let number = row.and_then(|mut row| row.pop().flatten());
        Ok(number.and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    /// Reads a table in chunks of so many rows, in its order: behind this value of what it is gone
    /// through by, or `from` it on.
    pub(crate) fn read(
        &self,
        table: &Table,
        after: Option<&str>,
        from: bool,
        chunk: usize,
    ) -> Reader {
        let (source, sql) = (self.clone(), self.select(table, after.is_some(), from));
        let (after, width) = (after.map(str::to_owned), table.fields().count());
        let (sender, chunks) = mpsc::channel(AHEAD);
        let reading = tokio::spawn(async move {
            let done = source.send(sql, after, width, chunk, &sender).await;
            if let Err(error) = done {
                // Nobody is there to be told when nobody reads any more.
                let _ = sender.send(Err(error)).await;
            }
        });
        Reader { chunks, reading }
    }

    async fn send(
        &self,
        sql: String,
        after: Option<String>,
        width: usize,
        chunk: usize,
        sender: &mpsc::Sender<Result<Vec<Cells>, SourceError>>,
    ) -> Result<(), SourceError> {
        let mut link = self.connect().await?;
        let mut rows = link.rows(sql, after, width);
        let mut cells = Vec::with_capacity(chunk);
        while let Some(row) = rows.try_next().await? {
            cells.push(row);
            if cells.len() >= chunk {
                let full = std::mem::replace(&mut cells, Vec::with_capacity(chunk));
                if sender.send(Ok(full)).await.is_err() {
                    return Ok(());
                }
            }
        }
        if !cells.is_empty() {
            let _ = sender.send(Ok(cells)).await;
        }
        Ok(())
    }

    fn select(&self, table: &Table, after: bool, from: bool) -> String {
        let fields = table.fields().map(|(field, column)| match column {
            Some(column) => self.read_as(column, field.form),
            None => "NULL".to_owned(),
        });
        let fields: Vec<String> = fields.collect();
        let order: Vec<&Column> = table.order().collect();
        // By what stands in the table: without `t` a name could be that of what is made of it here.
        let names = order.iter().map(|column| format!("t.{}", self.quoted(&column.name)));
        let names: Vec<String> = names.collect();
        let (fields, name) = (fields.join(", "), self.quoted(&table.name));
        let behind = match (order.first().filter(|_| after), names.first()) {
            (Some(first), Some(name)) => {
                let than = if from { ">=" } else { ">" };
                format!("WHERE {name} {than} {}", self.given(first))
            }
            _ => String::new(),
        };
        format!("SELECT {fields} FROM {name} t {behind} ORDER BY {}", names.join(", "))
    }

    fn quoted(&self, name: &str) -> String {
        match self {
            Self::Postgres { .. } => format!("\"{}\"", name.replace('"', "\"\"")),
            Self::MySql(_) => format!("`{}`", name.replace('`', "``")),
        }
    }

    fn text_of(&self, expression: &str) -> String {
        match self {
            Self::Postgres { .. } => format!("({expression})::text"),
            Self::MySql(_) => format!("CAST({expression} AS CHAR)"),
        }
    }

    fn read_as(&self, column: &Column, form: Form) -> String {
        let (name, of_type) = (self.quoted(&column.name), column.of_type.as_str());
        match (self, form) {
            // Truncated before it is multiplied: before PostgreSQL 14 this is a floating-point number.
            (Self::Postgres { .. }, Form::Time) if of_type.starts_with("timestamp") => self
                .text_of(&format!(
                    "round(extract(epoch FROM date_trunc('milliseconds', {name})) * 1000)::bigint"
                )),
            (Self::MySql(_), Form::Time)
                if of_type.starts_with("datetime") || of_type.starts_with("timestamp") =>
            {
                self.text_of(&format!(
                    "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', {name}) DIV 1000"
                ))
            }
            _ => self.text_of(&name),
        }
    }

    /// A parameter that is compared with this column, as what the column is.
    fn given(&self, column: &Column) -> String {
        match self {
            Self::Postgres { .. } => format!("CAST($1::text AS {})", self.quoted(&column.of_type)),
            Self::MySql(_) if column.of_type.contains("int") => {
                "CAST(? AS DECIMAL(20, 0))".to_owned()
            }
            Self::MySql(_) => "?".to_owned(),
        }
    }
}

/// A connection.
enum Link {
    Postgres(Box<PgConnection>),
    MySql(Box<MySqlConnection>),
}

impl Link {
    /// What a statement gives, of so many columns, all of them text.
    fn rows(
        &mut self,
        sql: String,
        given: Option<String>,
        width: usize,
    ) -> BoxStream<'_, Result<Cells, SourceError>> {
        // Made of names that the server itself has told, quoted; values are bound.
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Postgres(link) => {
                let mut query = sqlx::query::<Postgres>(sql);
                if let Some(given) = given {
                    query = query.bind(given);
                }
                let cell = |row: &PgRow, nth: usize| row.try_get_unchecked(nth);
                let rows = query.fetch(&mut **link);
                rows.map(move |row| {
                    let row = row?;
                    Ok((0..width).map(|nth| cell(&row, nth)).collect::<Result<_, _>>()?)
                })
                .boxed()
            }
            Self::MySql(link) => {
                let mut query = sqlx::query::<MySql>(sql);
                if let Some(given) = given {
                    query = query.bind(given);
                }
                let cell = |row: &MySqlRow, nth: usize| row.try_get_unchecked(nth);
                let rows = query.fetch(&mut **link);
                rows.map(move |row| {
                    let row = row?;
                    Ok((0..width).map(|nth| cell(&row, nth)).collect::<Result<_, _>>()?)
                })
                .boxed()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prismas_urls_are_understood() -> Result<(), Failure> {
        let url = |text: &str| SecretString::from(text);
        let source = Source::parse(&url(
            "postgresql://me:pw@db:5432/chat?schema=old&connection_limit=5&sslmode=require",
        ))?;
        let Source::Postgres { options, schema } = source else { panic!("not PostgreSQL") };
        assert_eq!((options.get_host(), schema.as_str()), ("db", "old"));
        assert!(matches!(
            Source::parse(&url("mysql://me:pw@db/chat?connection_limit=5"))?,
            Source::MySql(_)
        ));
        assert!(Source::parse(&url("sqlite://chat.db")).is_err());
        Ok(())
    }
}
