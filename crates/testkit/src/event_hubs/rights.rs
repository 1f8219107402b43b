//! The tokens that were put on a connection.

use std::collections::HashMap;
use std::sync::Mutex;

use fe2o3_amqp_types::definitions::{AmqpError, Error};
use tokio::time::Instant;

/// Shared by the links of one connection: the namespace that it reached, and its tokens.
#[derive(Debug)]
pub(super) struct Rights {
    /// See [`GroupPartition::namespace`](super::broker::GroupPartition::namespace).
    pub(super) namespace: usize,
    /// By audience, when the token was put.
    put: Mutex<HashMap<String, Instant>>,
}

impl Rights {
    pub(super) fn new(namespace: usize) -> Rights {
        Rights {
            namespace,
            put: Mutex::default(),
        }
    }

    pub(super) fn put(&self, audience: &str) {
        let mut put = self.put.lock().unwrap();
        put.insert(audience.to_owned(), Instant::now());
    }

    /// When a token for this hub was last put.
    pub(super) fn since(&self, hub: &str) -> Option<Instant> {
        let put = self.put.lock().unwrap();
        put.iter()
            .filter(|(audience, _)| audience.contains(&format!("/{hub}")))
            .map(|(_, at)| *at)
            .max()
    }
}

/// The error of a link whose token expired.
pub(super) fn expired() -> Error {
    let why = "The token has expired. Unauthorized access. 'Listen' claim(s) are required.";
    Error::new(AmqpError::UnauthorizedAccess, why.to_owned(), None)
}
