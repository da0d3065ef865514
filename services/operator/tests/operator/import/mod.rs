//! Moving over: an old backend's database, rebuilt as Prisma would have made it, and a real cluster.

mod again;
mod command;
mod living;
mod moved;
mod mysql;
mod old;
mod troubles;
