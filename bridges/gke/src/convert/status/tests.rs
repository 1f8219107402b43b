use super::*;

const CREATE: (&str, &str) = ("io.k8s.core.v1.pods.create", "core/v1/namespaces/n/pods/p");
const GET: (&str, &str) = ("io.k8s.core.v1.pods.get", "core/v1/namespaces/n/pods/p");
const LIST: (&str, &str) = ("io.k8s.core.v1.pods.list", "core/v1/namespaces/n/pods");
const UPDATE: (&str, &str) = ("io.k8s.core.v1.pods.update", "core/v1/namespaces/n/pods/p");
const DELETE: (&str, &str) = ("io.k8s.core.v1.pods.delete", "core/v1/namespaces/n/pods/p");
const EVICT: (&str, &str) = (
    "io.k8s.core.v1.pods.eviction.create",
    "core/v1/namespaces/n/pods/p/eviction",
);
const EXEC: (&str, &str) = (
    "io.k8s.core.v1.pods.exec.create",
    "core/v1/namespaces/n/pods/p/exec",
);
const PROXY: (&str, &str) = (
    "io.k8s.core.v1.nodes.proxy.get",
    "core/v1/nodes/n/proxy/metrics",
);
const PATH: (&str, &str) = ("io.k8s.get", "readyz");

fn status(call: (&str, &str), code: i64, message: &str, body: &str, response: &str) -> String {
    let request = Request::parse(call.0, call.1).expect(call.0);
    let (body, response) = (Object::parse(body), Object::parse(response));
    let rpc = Rpc {
        code,
        message: Some(message).filter(|message| !message.is_empty()),
    };
    let mut out = String::new();
    ResponseStatus::of(&request, rpc, body.as_ref(), response.as_ref()).write(&mut out);
    out
}

#[test]
fn status_of_success_follows_the_verb() {
    for (call, body, want) in [
        (CREATE, "", 201),
        (EVICT, "", 201),
        (GET, "", 200),
        (LIST, "", 200),
        (UPDATE, "", 200),
        (DELETE, "", 200),
        (DELETE, "{\"orphanDependents\":false}", 202),
        (DELETE, "{\"orphanDependents\":true}", 200),
        (EXEC, "", 101),
        (PROXY, "", 200),
        (PATH, "", 200),
        (("io.k8s.post", "x"), "", 200),
    ] {
        let want = format!("{{\"metadata\":{{}},\"code\":{want}}}");
        assert_eq!(status(call, 0, "", body, ""), want, "{call:?}");
    }
    assert_eq!(
        status(
            DELETE,
            0,
            "",
            "{\"orphanDependents\":false}",
            "{\"kind\":\"Status\",\"status\":\"Success\"}"
        ),
        "{\"metadata\":{},\"status\":\"Success\",\"code\":200}"
    );
}

#[test]
fn status_of_google_code_is_mapped_back() {
    for (call, rpc, message, code, reason) in [
        (GET, 1, "", 499, ""),
        (CREATE, 3, "", 400, "BadRequest"),
        (
            CREATE,
            3,
            "admission webhook \"w\" denied the request: no",
            400,
            "",
        ),
        (GET, 4, "", 504, "Timeout"),
        (GET, 5, "", 404, "NotFound"),
        (CREATE, 6, "", 409, "AlreadyExists"),
        (GET, 7, "", 403, "Forbidden"),
        (GET, 8, "", 429, "TooManyRequests"),
        (CREATE, 9, "Pod \"p\" is invalid: x", 422, "Invalid"),
        (GET, 9, "too old resource version: 1 (2)", 410, "Expired"),
        (GET, 9, "the token has expired", 410, "Expired"),
        (LIST, 9, "", 410, "Expired"),
        (
            DELETE,
            9,
            "the method is not allowed",
            405,
            "MethodNotAllowed",
        ),
        (UPDATE, 9, "patch is not supported", 405, "MethodNotAllowed"),
        (
            UPDATE,
            9,
            "accepted media types include: json",
            415,
            "UnsupportedMediaType",
        ),
        (
            UPDATE,
            9,
            "request entity too large",
            413,
            "RequestEntityTooLarge",
        ),
        // In the API server's own words, whatever the verb.
        (
            GET,
            9,
            "only the following media types are accepted: application/json, application/yaml",
            406,
            "NotAcceptable",
        ),
        (
            LIST,
            9,
            "only the following media types are accepted when converting to meta.k8s.io/v1.Table: application/json",
            406,
            "NotAcceptable",
        ),
        (
            CREATE,
            9,
            "the body of the request was in an unknown format - accepted media types include: application/json",
            415,
            "UnsupportedMediaType",
        ),
        (
            UPDATE,
            9,
            "415: Unsupported Media Type",
            415,
            "UnsupportedMediaType",
        ),
        (
            LIST,
            9,
            "the server does not allow this method on the requested resource",
            405,
            "MethodNotAllowed",
        ),
        (
            UPDATE,
            9,
            "the server does not allow this method on the requested resource",
            405,
            "MethodNotAllowed",
        ),
        // A client that quotes them does not change the code.
        (
            CREATE,
            9,
            "Pod \"p\" is invalid: spec: Invalid value: \"only the following media types are accepted\"",
            422,
            "Invalid",
        ),
        (UPDATE, 9, "", 422, "Invalid"),
        (DELETE, 9, "", 405, "MethodNotAllowed"),
        (CREATE, 9, "NotAcceptable", 406, "NotAcceptable"),
        (
            UPDATE,
            10,
            "pods \"p\" already exists",
            409,
            "AlreadyExists",
        ),
        (CREATE, 10, "the object has been modified", 409, "Conflict"),
        (
            CREATE,
            10,
            "Operation cannot be fulfilled on pods",
            409,
            "Conflict",
        ),
        (CREATE, 10, "", 409, "AlreadyExists"),
        (EVICT, 10, "", 409, "Conflict"),
        (UPDATE, 10, "ABORTED", 409, "Conflict"),
        (GET, 11, "", 416, ""),
        (GET, 12, "", 501, ""),
        (GET, 13, "", 500, "InternalError"),
        (GET, 14, "", 503, "ServiceUnavailable"),
        (GET, 15, "", 500, "InternalError"),
        (GET, 16, "", 401, "Unauthorized"),
        // Messages: a bare reason, the code's own name, a text.
        (CREATE, 7, "Forbidden", 403, "Forbidden"),
        (CREATE, 10, "Conflict", 409, "Conflict"),
        (GET, 5, "NOT_FOUND", 404, "NotFound"),
        (GET, 5, "pods \"p\" not found", 404, "NotFound"),
    ] {
        let said = message.contains(' ');
        let escaped = message.replace('"', "\\\"");
        let want = [
            "{\"metadata\":{},\"status\":\"Failure\"".to_owned(),
            if said {
                format!(",\"message\":\"{escaped}\"")
            } else {
                String::new()
            },
            if reason.is_empty() {
                String::new()
            } else {
                format!(",\"reason\":\"{reason}\"")
            },
            format!(",\"code\":{code}}}"),
        ]
        .concat();
        assert_eq!(
            status(call, rpc, message, "", ""),
            want,
            "{call:?} {rpc} {message}"
        );
    }
    // No mapping: what it means depends on the request.
    assert_eq!(
        status(EXEC, 2, "UNKNOWN", "", ""),
        "{\"metadata\":{},\"code\":101}"
    );
    assert_eq!(
        status(PROXY, 2, "UNKNOWN", "", ""),
        "{\"metadata\":{},\"code\":101}"
    );
    assert_eq!(
        status(PATH, 2, "", "", ""),
        "{\"metadata\":{},\"code\":304}"
    );
    let unknown = "{\"metadata\":{},\"status\":\"Failure\"}";
    for code in [2, 17, -1, i64::MAX] {
        assert_eq!(status(GET, code, "", "", ""), unknown, "{code}");
    }
}

#[test]
fn status_in_the_response_wins() {
    let body = "{\"@type\":\"core.k8s.io/v1.Status\",\"metadata\":{},\"kind\":\"Status\",\"apiVersion\":\"v1\",\
                \"status\":\"Failure\",\"message\":\"m\",\"reason\":\"R\",\"details\":{\"retryAfterSeconds\":1e1},\"code\":4.29e2}";
    assert_eq!(
        status(GET, 7, "other", "", body),
        "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"m\",\"reason\":\"R\",\
         \"details\":{\"retryAfterSeconds\":10},\"code\":429}"
    );
    // A code that is missing.
    let failure = "{\"@type\":\"core.k8s.io/v1.Status\",\"status\":\"Failure\"}";
    assert_eq!(
        status(GET, 5, "", "", failure),
        "{\"metadata\":{},\"status\":\"Failure\",\"code\":404}"
    );
    assert_eq!(
        status(EXEC, 2, "", "", failure),
        "{\"metadata\":{},\"status\":\"Failure\"}"
    );
    assert_eq!(
        status(DELETE, 0, "", "", "{\"kind\":\"Status\"}"),
        "{\"metadata\":{},\"code\":200}"
    );
    // Members of a wrong type are left out.
    let wrong = "{\"kind\":\"Status\",\"status\":1,\"message\":{},\"reason\":null,\"details\":\"x\",\"code\":\"404\"}";
    assert_eq!(
        status(GET, 5, "", "", wrong),
        "{\"metadata\":{},\"code\":404}"
    );
    let huge = "{\"kind\":\"Status\",\"status\":\"Failure\",\"code\":99999999999}";
    assert_eq!(
        status(GET, 5, "", "", huge),
        "{\"metadata\":{},\"status\":\"Failure\",\"code\":404}"
    );
}

#[test]
fn status_details_of_wrong_type_are_left_out() {
    for (details, want) in [
        (
            r#"{"causes":[{"field":"f","message":"m","reason":"R"}],"group":"g","kind":"k","name":"n","retryAfterSeconds":1,"uid":"u"}"#,
            r#"{"name":"n","group":"g","kind":"k","uid":"u","causes":[{"reason":"R","message":"m","field":"f"}],"retryAfterSeconds":1}"#,
        ),
        (
            r#"{"name":7,"group":null,"kind":["x"],"uid":{"a":1}}"#,
            "{}",
        ),
        (
            r#"{"causes":[{"reason":"R","message":1,"field":"f","x":1},"no",null,7,[],{"message":"m"}],"x":"y"}"#,
            r#"{"causes":[{"reason":"R","field":"f"},{"message":"m"}]}"#,
        ),
        (r#"{"causes":{"reason":"R"}}"#, "{}"),
        (r#"{"causes":[]}"#, "{}"),
        (
            r#"{"retryAfterSeconds":1e1}"#,
            r#"{"retryAfterSeconds":10}"#,
        ),
        (r#"{"retryAfterSeconds":"5"}"#, "{}"),
        (r#"{"retryAfterSeconds":1.5}"#, "{}"),
        (r#"{"retryAfterSeconds":3000000000}"#, "{}"),
        (r#"{"name":"a","na\u006de":"b\n"}"#, r#"{"name":"b\n"}"#),
        (r#"{"name":"a","name":7}"#, "{}"),
        (r#"{"name":""}"#, "{}"),
    ] {
        let body = format!(
            "{{\"kind\":\"Status\",\"status\":\"Failure\",\"details\":{details},\"code\":409}}"
        );
        assert_eq!(
            status(GET, 10, "", "", &body),
            format!("{{\"metadata\":{{}},\"status\":\"Failure\",\"details\":{want},\"code\":409}}"),
            "{details}"
        );
    }
    for details in ["null", "[]", "\"x\"", "7", "true"] {
        let body = format!("{{\"kind\":\"Status\",\"details\":{details},\"code\":409}}");
        assert_eq!(
            status(GET, 10, "", "", &body),
            "{\"metadata\":{},\"code\":409}",
            "{details}"
        );
    }
}

#[test]
fn status_code_of_any_size_is_written() {
    for code in [i32::MIN, -150, -7, 7, 99, 100, 409, 999, 1000, i32::MAX] {
        let response = format!(r#"{{"kind":"Status","status":"Success","code":{code}}}"#);
        let want = format!(r#"{{"metadata":{{}},"status":"Success","code":{code}}}"#);
        assert_eq!(status(GET, 0, "", "", &response), want);
    }
}
