//! Implements `FilterLogEvents`.

use std::time::Instant;

use serde_json::{Value, json};

use super::{LogEvent, State};

/// Limit of a page.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Where the next page begins.
#[derive(Debug, Clone)]
pub(super) struct PagePosition {
    /// After this event.
    after: Option<(i64, String)>,
    /// How many more pages are empty.
    empty: usize,
}

/// The answer, or the code and message of an error.
pub(super) fn filter(
    state: &mut State,
    body: &Value,
) -> Result<Value, (&'static str, &'static str)> {
    // Exactly one of the two (CloudWatch Logs API Reference).
    let group = match (&body["logGroupName"], &body["logGroupIdentifier"]) {
        (Value::String(name), Value::Null) => name,
        (Value::Null, Value::String(arn)) => arn.rsplit(':').next().unwrap_or_default(),
        _ => "",
    };
    if !state.groups.contains_key(group) {
        return Err((
            "ResourceNotFoundException",
            "The specified log group does not exist.",
        ));
    }
    if state.infrequent_access.contains(group) {
        return Err((
            "InvalidOperationException",
            "This operation is not supported for log groups of the class INFREQUENT_ACCESS.",
        ));
    }
    let place = match body["nextToken"].as_str() {
        Some(token) => state.tokens.get(token).cloned().ok_or((
            "InvalidParameterException",
            "The specified nextToken is invalid.",
        ))?,
        None => PagePosition {
            after: None,
            empty: state.empty_pages,
        },
    };
    let start = body["startTime"].as_i64().unwrap_or(0);
    let end = body["endTime"].as_i64().unwrap_or(i64::MAX);
    if end < start {
        return Err(("InvalidParameterException", "endTime is before startTime"));
    }
    let prefix = body["logStreamNamePrefix"].as_str().unwrap_or_default();
    if place.empty > 0 {
        let next = PagePosition {
            empty: place.empty - 1,
            ..place
        };
        return Ok(answer(&[], Some(token(state, next))));
    }
    let now = Instant::now();
    let mut found: Vec<LogEvent> = state.groups[group]
        .iter()
        .filter(|event| event.visible <= now && event.stream.starts_with(prefix))
        .filter(|event| (start..=end).contains(&event.timestamp))
        .filter(|event| match &place.after {
            Some((timestamp, id)) => (event.timestamp, &event.id) > (*timestamp, id),
            None => true,
        })
        .cloned()
        .collect();
    found.sort_by(|a, b| (a.timestamp, &a.id).cmp(&(b.timestamp, &b.id)));
    let mut bytes = 0;
    let fits = found
        .iter()
        .take_while(|event| {
            bytes += event.message.len() + 200;
            bytes <= PAGE_BYTES_MAX
        })
        .count();
    let limit = body["limit"].as_u64().map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let count = fits.max(1).min(state.page_events_max).min(limit);
    let more = found.len() > count;
    found.truncate(count);
    let next = found.last().filter(|_| more).map(|last| PagePosition {
        after: Some((last.timestamp, last.id.clone())),
        empty: state.empty_pages,
    });
    let next = next.map(|place| token(state, place));
    if let Some(sensitive) = &state.sensitive
        && body["unmask"] != true
    {
        for event in &mut found {
            let mask = "*".repeat(sensitive.len());
            event.message = event.message.replace(sensitive, &mask);
        }
    }
    Ok(answer(&found, next))
}

fn token(state: &mut State, place: PagePosition) -> String {
    let token = format!("token/{:08}", state.tokens.len());
    state.tokens.insert(token.clone(), place);
    token
}

fn answer(events: &[LogEvent], next: Option<String>) -> Value {
    let events: Vec<Value> = events
        .iter()
        .map(|event| {
            json!({
                "logStreamName": event.stream,
                "timestamp": event.timestamp,
                "message": event.message,
                "ingestionTime": event.ingestion,
                "eventId": event.id,
            })
        })
        .collect();
    let mut answer = json!({"events": events, "searchedLogStreams": []});
    if let Some(next) = next {
        answer["nextToken"] = next.into();
    }
    answer
}
