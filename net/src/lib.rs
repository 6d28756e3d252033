//! What two processes must agree on: identities, messages, frames, RESP, and the connections that carry them.
//!
//! The rule: nothing that comes from outside is believed before its length and its shape were checked.
//!
//! Not here: what a message leads to (`node`), versions, rings.

pub mod bounds;
pub mod client;
pub mod frame;
pub mod id;
pub mod key;
pub mod message;
pub mod resp;
pub mod slot;
pub mod transport;
