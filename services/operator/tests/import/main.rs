//! Moving over: an old backend's database, rebuilt as Prisma would have made it, and a real cluster.

mod command;
mod living;
mod moved;
mod old;
mod troubles;
