//! The answers of a scripted receiver.

use std::time::Duration;

/// What to do with one request.
#[derive(Debug, Clone)]
pub struct WebhookAnswer {
    pub(super) kind: AnswerKind,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) delay: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerKind {
    Status(u16),
    ResetBeforeReading,
    ResetAfterReading,
    EarlyStatus(u16),
    Half,
    HalfBody(u16),
    Never,
}

impl WebhookAnswer {
    fn of(kind: AnswerKind) -> WebhookAnswer {
        WebhookAnswer {
            kind,
            headers: Vec::new(),
            body: Vec::new(),
            delay: Duration::ZERO,
        }
    }

    /// An answer with this status. 2xx accepts the events.
    pub fn status(status: u16) -> WebhookAnswer {
        WebhookAnswer::of(AnswerKind::Status(status))
    }

    /// Resets the connection before the body is read; nothing was accepted.
    pub fn reset_before_reading() -> WebhookAnswer {
        WebhookAnswer::of(AnswerKind::ResetBeforeReading)
    }

    /// Accepts the events, but resets the connection instead of answering.
    pub fn reset_after_reading() -> WebhookAnswer {
        WebhookAnswer::of(AnswerKind::ResetAfterReading)
    }

    /// Sends a status without reading the body, and ends the connection.
    pub fn early(status: u16) -> WebhookAnswer {
        WebhookAnswer::of(AnswerKind::EarlyStatus(status))
    }

    /// Accepts the events, but sends half a status line and ends the connection.
    pub fn half() -> WebhookAnswer {
        WebhookAnswer::of(AnswerKind::Half)
    }

    /// Sends a whole status and headers, but less body than announced.
    pub fn half_body(status: u16) -> WebhookAnswer {
        WebhookAnswer::of(AnswerKind::HalfBody(status))
    }

    /// Accepts the events, but never answers.
    pub fn never() -> WebhookAnswer {
        WebhookAnswer::of(AnswerKind::Never)
    }

    /// Redirects to another address.
    pub fn redirect(status: u16, location: &str) -> WebhookAnswer {
        WebhookAnswer::status(status).header("location", location)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> WebhookAnswer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> WebhookAnswer {
        self.body = body.into();
        self
    }

    /// Delays the answer.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> WebhookAnswer {
        self.delay = delay;
        self
    }
}
