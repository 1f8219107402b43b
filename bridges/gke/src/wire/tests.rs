use super::*;

fn read(text: &str) -> (Entry<'_>, Result<(), Error>) {
    let mut entry = Entry::default();
    let read = entry.read(text);
    (entry, read)
}

#[test]
fn entry_member_of_wrong_type_is_absent() {
    let (entry, result) = read(
        r#"{"logName":1,"insertId":null,"timestamp":{},"receiveTimestamp":[],"resource":"x","labels":[1],
            "operation":7,"split":"y","protoPayload":{"@type":1,"serviceName":[],"methodName":{},"resourceName":2,
            "authenticationInfo":"a","requestMetadata":0,"status":"b","request":"c","response":[{}]}}"#,
    );
    assert_eq!(result, Ok(()));
    assert!(entry.log_name.is_none() && entry.insert_id.is_none() && entry.timestamp.is_none());
    assert!(entry.labels.is_empty() && entry.split.is_none() && !entry.operation.first);
    let payload = entry.payload.expect("a payload");
    assert!(payload.type_url.is_none() && payload.request.is_none() && payload.response.is_none());
    assert_eq!(payload.status_code, 0);
    assert!(read(r#"{"protoPayload":"x"}"#).0.payload.is_none());
}

#[test]
fn entry_number_or_flag_as_string_is_read() {
    let (entry, _) = read(
        r#"{"operation":{"first":"true","last":false},"split":{"uid":"u","index":"1","totalSplits":3},
            "protoPayload":{"status":{"code":"7"}}}"#,
    );
    assert!(entry.operation.first && !entry.operation.last);
    let split = entry.split.expect("a split");
    assert_eq!((split.index, split.total), (1, 3));
    assert_eq!(entry.payload.expect("a payload").status_code, 7);
}

#[test]
fn entry_duplicate_member_keeps_the_last() {
    let (entry, _) = read(
        r#"{"insertId":"a","labels":{"x":"1","y":"1","x":"2"},"protoPayload":{"methodName":"a"},"insertId":"b",
            "resource":{"labels":{"cluster_name":"a","location":"l"},"labels":{"cluster_name":"b"}},
            "protoPayload":{"methodName":"b","status":{"code":7},"status":{}}}"#,
    );
    assert_eq!(entry.insert_id.as_deref(), Some("b"));
    assert_eq!(entry.label("x").as_deref(), Some("2"));
    assert_eq!(entry.labels.len(), 2);
    assert_eq!(entry.resource.cluster_name.as_deref(), Some("b"));
    assert_eq!(entry.resource.location, None);
    let payload = entry.payload.expect("a payload");
    assert_eq!(payload.method_name.as_deref(), Some("b"));
    assert_eq!(payload.status_code, 0);
    let many: Vec<String> = (0..200)
        .map(|at| format!("\"k{}\":\"{at}\"", at % 100))
        .collect();
    let text = format!("{{\"labels\":{{{}}}}}", many.join(","));
    let (entry, _) = read(&text);
    assert_eq!(entry.labels.len(), 100);
    assert_eq!(entry.label("k3").as_deref(), Some("103"));
}

#[test]
fn entry_lone_surrogate_is_noticed() {
    for (text, replaced) in [
        (r#"{"logName":"\ud83d\ude00"}"#, false),
        (r#"{"logName":"\ud83d"}"#, true),
    ] {
        assert_eq!(read(text).0.replaced, replaced, "{text}");
    }
}

#[test]
fn entry_with_error_keeps_what_was_read_before() {
    let (entry, result) =
        read(r#"{"logName":"l","protoPayload":{"methodName":"m","request":{"a":"#);
    assert!(result.is_err());
    assert_eq!(entry.log_name.as_deref(), Some("l"));
    assert!(entry.payload.is_some());
    assert!(read("[]").1.is_err());
    assert!(read("{} x").1.is_err());
}
