//! Takes CloudWatch's time from the `Date` header of its answers, which the SDK does not give out.

use std::sync::Arc;

use audit_bridge_tail::ServerClock;
use aws_sdk_cloudwatchlogs::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_cloudwatchlogs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_cloudwatchlogs::error::BoxError;

/// Tells the clock each answer's time.
#[derive(Debug)]
pub(super) struct AnswerClock(pub(super) Arc<ServerClock>);

impl Intercept for AnswerClock {
    fn name(&self) -> &'static str {
        "AnswerClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let date = response.headers().get("date");
        // An error may come from a proxy, whose clock is not the API's.
        if let Some(date) = date.filter(|_| response.status().is_success()) {
            self.0.told_by_header(date);
        }
        Ok(())
    }
}
