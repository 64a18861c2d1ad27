//! The proxy as a whole, over sockets. Names of tests that begin with `bypass_` have the number of the row in the list
//! of known ways around such proxies.

mod bypass;
mod drain;
mod explicit;
mod plain;
mod world;
