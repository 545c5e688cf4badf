//! Sessions over real TLS connections, with processes of this machine in the place of containers.

mod client;
mod exec;
mod fixture;
mod logs;
mod refusals;
