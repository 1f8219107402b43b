//! The part of the Logging query language that readers of audit logs use: comparisons of fields,
//! `AND`, `OR`, `NOT` (also `-`), parentheses, groups of values (`logName=("a" OR "b")`), and the
//! function `log_id("a/b")`, which takes the ID unescaped, unlike log names.
//!
//! Unknown syntax is refused, as by the real service: a test must not pass because a condition was
//! ignored.

use jiff::Timestamp;
use serde_json::Value;

/// A parsed filter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    LogId(String),
    Compare {
        path: Vec<String>,
        operator: Operator,
        value: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Has,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Filter {
    /// Parses a filter; an empty one matches everything.
    pub(super) fn parse(text: &str) -> Result<Filter, String> {
        let mut parser = Parser {
            tokens: tokens(text)?,
            at: 0,
        };
        if parser.tokens.is_empty() {
            return Ok(Filter::All(Vec::new()));
        }
        let filter = parser.any()?;
        match parser.tokens.get(parser.at) {
            None => Ok(filter),
            Some(token) => Err(format!("unexpected {token:?}")),
        }
    }

    /// Whether an entry that the log stores under `time` matches.
    pub(super) fn matches(&self, entry: &Value, time: Timestamp) -> bool {
        match self {
            Filter::All(all) => all.iter().all(|filter| filter.matches(entry, time)),
            Filter::Any(any) => any.iter().any(|filter| filter.matches(entry, time)),
            Filter::Not(filter) => !filter.matches(entry, time),
            Filter::LogId(id) => {
                let name = entry["logName"].as_str().unwrap_or_default();
                name.split_once("/logs/")
                    .is_some_and(|(_, log)| log_id(log) == *id)
            }
            Filter::Compare {
                path,
                operator,
                value,
            } if is_time(path) => {
                let received = || entry["receiveTimestamp"].as_str()?.parse().ok();
                let found = match path[0] == "timestamp" {
                    true => Some(time),
                    false => received(),
                };
                let value: Option<Timestamp> = value.parse().ok();
                let order = found.zip(value).map(|(found, value)| found.cmp(&value));
                order.is_some_and(|order| match operator {
                    Operator::Equal | Operator::Has => order.is_eq(),
                    Operator::NotEqual => order.is_ne(),
                    Operator::Less => order.is_lt(),
                    Operator::LessOrEqual => order.is_le(),
                    Operator::Greater => order.is_gt(),
                    Operator::GreaterOrEqual => order.is_ge(),
                })
            }
            Filter::Compare {
                path,
                operator,
                value,
            } => {
                let found = path
                    .iter()
                    .try_fold(entry, |value, name| value.get(name))
                    .map(|found| match found {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    });
                let found = found.unwrap_or_default().to_lowercase();
                let value = value.to_lowercase();
                match operator {
                    Operator::Equal => found == value,
                    Operator::NotEqual => found != value,
                    Operator::Has => found.contains(&value),
                    // The parser allows these for times only.
                    _ => false,
                }
            }
        }
    }
}

/// Whether a field is a time, which is compared by order.
fn is_time(path: &[String]) -> bool {
    matches!(path, [field] if field == "timestamp" || field == "receiveTimestamp")
}

/// A log's ID, from its spelling in the log's name.
pub(super) fn log_id(spelt: &str) -> String {
    spelt.replace("%2F", "/")
}

impl Filter {
    /// Whether a condition concerns this field.
    pub(super) fn is_about(&self, field: &str) -> bool {
        match self {
            Filter::All(parts) | Filter::Any(parts) => parts.iter().any(|it| it.is_about(field)),
            Filter::Not(filter) => filter.is_about(field),
            Filter::LogId(_) => false,
            Filter::Compare { path, .. } => *path == [field],
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Open,
    Close,
    Minus,
    Operator(Operator),
    Word(String),
    Quoted(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&first) = chars.peek() {
        let mut followed_by = |next: char| {
            chars.next();
            chars.next_if_eq(&next).is_some()
        };
        let token = match first {
            _ if first.is_whitespace() => {
                chars.next();
                continue;
            }
            '(' | ')' | '-' | '=' | ':' => {
                chars.next();
                match first {
                    '(' => Token::Open,
                    ')' => Token::Close,
                    '-' => Token::Minus,
                    '=' => Token::Operator(Operator::Equal),
                    _ => Token::Operator(Operator::Has),
                }
            }
            '<' if followed_by('=') => Token::Operator(Operator::LessOrEqual),
            '<' => Token::Operator(Operator::Less),
            '>' if followed_by('=') => Token::Operator(Operator::GreaterOrEqual),
            '>' => Token::Operator(Operator::Greater),
            '!' if followed_by('=') => Token::Operator(Operator::NotEqual),
            '"' => {
                chars.next();
                let mut quoted = String::new();
                loop {
                    match chars.next() {
                        Some('"') => break Token::Quoted(quoted),
                        Some('\\') => quoted.extend(chars.next()),
                        Some(other) => quoted.push(other),
                        None => return Err("a quote is not closed".to_owned()),
                    }
                }
            }
            _ => {
                let mut word = String::new();
                let ends = |c: &char| c.is_whitespace() || "()=<>!:~\"".contains(*c);
                while let Some(next) = chars.next_if(|c| !ends(c)) {
                    word.push(next);
                }
                if word.is_empty() {
                    return Err(format!("unexpected {first:?}"));
                }
                Token::Word(word)
            }
        };
        tokens.push(token);
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, token: &Token) -> bool {
        let is = self.tokens.get(self.at) == Some(token);
        self.at += usize::from(is);
        is
    }

    fn takes_word(&mut self, word: &str) -> bool {
        self.takes(&Token::Word(word.to_owned()))
    }

    /// `OR` binds tighter than `AND` in this language: `a AND b OR c` is `a AND (b OR c)`.
    fn any(&mut self) -> Result<Filter, String> {
        let mut all = Vec::new();
        loop {
            let mut any = vec![self.one()?];
            while self.takes_word("OR") {
                any.push(self.one()?);
            }
            all.push(match any.len() {
                1 => any.remove(0),
                _ => Filter::Any(any),
            });
            let more = self.takes_word("AND")
                || !matches!(self.tokens.get(self.at), None | Some(Token::Close));
            if !more {
                return Ok(Filter::All(all));
            }
        }
    }

    fn one(&mut self) -> Result<Filter, String> {
        if self.takes_word("NOT") || self.takes(&Token::Minus) {
            return Ok(Filter::Not(Box::new(self.one()?)));
        }
        match self.next() {
            Some(Token::Open) => {
                let inner = self.any()?;
                match self.takes(&Token::Close) {
                    true => Ok(inner),
                    false => Err("a parenthesis is not closed".to_owned()),
                }
            }
            Some(Token::Word(name)) if name == "log_id" => {
                match [self.next(), self.next(), self.next()] {
                    [
                        Some(Token::Open),
                        Some(Token::Quoted(id)),
                        Some(Token::Close),
                    ] => Ok(Filter::LogId(id)),
                    other => Err(format!("log_id takes one quoted id, not {other:?}")),
                }
            }
            Some(Token::Word(path)) => self.comparison(&path),
            Some(other) => Err(format!("unexpected {other:?}")),
            None => Err("a condition is missing".to_owned()),
        }
    }

    fn comparison(&mut self, path: &str) -> Result<Filter, String> {
        let Some(Token::Operator(operator)) = self.next() else {
            return Err(format!("{path:?} stands alone: global search is not known"));
        };
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let is_time = is_time(&path);
        let ordered = !matches!(
            operator,
            Operator::Equal | Operator::NotEqual | Operator::Has
        );
        if ordered && !is_time {
            return Err(format!("{operator:?} is known for times only"));
        }
        let compare = |value: String| match value.parse::<Timestamp>() {
            Err(error) if is_time => Err(format!("{value:?} is no time: {error}")),
            _ => Ok(Filter::Compare {
                path: path.clone(),
                operator,
                value,
            }),
        };
        match self.next() {
            Some(Token::Word(value) | Token::Quoted(value)) => compare(value),
            Some(Token::Open) => {
                let mut any = Vec::new();
                loop {
                    match self.next() {
                        Some(Token::Word(value) | Token::Quoted(value)) => {
                            any.push(compare(value)?);
                        }
                        other => return Err(format!("{other:?} in a group of values")),
                    }
                    if self.takes(&Token::Close) {
                        return Ok(Filter::Any(any));
                    }
                    if !self.takes_word("OR") {
                        return Err("a group of values needs OR".to_owned());
                    }
                }
            }
            other => Err(format!("{other:?} is no value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(filter: &str, want: bool) {
        let entry = json!({
            "logName": "projects/p/logs/cloudaudit.googleapis.com%2Factivity",
            "resource": {"type": "k8s_cluster", "labels": {"cluster_name": "c", "location": "l"}},
        });
        let time = "2026-11-21T10:00:00.000000001Z".parse().unwrap();
        let parsed = Filter::parse(filter).unwrap();
        assert_eq!(parsed.matches(&entry, time), want, "{filter}");
    }

    #[test]
    fn filter_conditions_are_joined_and_compared() {
        check("", true);
        check(r#"resource.type="k8s_cluster""#, true);
        check(
            "resource.type=k8s_cluster resource.labels.cluster_name=d",
            false,
        );
        check(
            r#"resource.labels.cluster_name!="d" AND resource.type:"k8s""#,
            true,
        );
        check(
            r#"logName=("x" OR "projects/p/logs/cloudaudit.googleapis.com%2Factivity")"#,
            true,
        );
        check(r#"logName=("x" OR "y")"#, false);
        check(
            r#"resource.type="x" OR resource.type="k8s_cluster" AND logName:"activity""#,
            true,
        );
        check(r#"log_id("cloudaudit.googleapis.com/activity")"#, true);
        check(r#"log_id("cloudaudit.googleapis.com%2Factivity")"#, false);
        check(
            r#"(log_id("cloudaudit.googleapis.com/data_access") OR log_id("x")) AND logName:"p""#,
            false,
        );
        check("NOT resource.type=k8s_cluster", false);
        check("-(resource.type=x)", true);
    }

    #[test]
    fn filter_times_are_compared_to_the_nanosecond() {
        check(r#"timestamp>="2026-11-21T10:00:00.000000001Z""#, true);
        check(r#"timestamp>"2026-11-21T10:00:00.000000001Z""#, false);
        check(r#"timestamp<"2026-11-21T10:00:00.000000001Z""#, false);
        check(r#"timestamp<"2026-11-21T12:00:00.000000002+02:00""#, true);
    }

    #[test]
    fn filter_times_of_receipt_are_the_entrys_own() {
        let entry = json!({"receiveTimestamp": "2026-11-21T11:00:00Z"});
        let time = "2026-11-21T10:00:00Z".parse().unwrap();
        let late =
            r#"(receiveTimestamp>="2026-11-21T10:59:00Z" AND timestamp<"2026-11-21T10:30:00Z")"#;
        for (filter, want) in [
            (late.to_owned(), true),
            (
                format!("(receiveTimestamp<\"2026-11-21T10:30:00Z\" AND a=b) OR {late}"),
                true,
            ),
            (
                r#"receiveTimestamp<"2026-11-21T10:59:00Z""#.to_owned(),
                false,
            ),
        ] {
            let parsed = Filter::parse(&filter).unwrap();
            assert_eq!(parsed.matches(&entry, time), want, "{filter}");
            assert!(parsed.is_about("receiveTimestamp"), "{filter}");
        }
    }

    #[test]
    fn filter_unknown_syntax_is_refused() {
        for filter in [
            "error",
            "severity>=ERROR",
            "a=",
            "(a=b",
            "a=b)",
            "a=\"b",
            r#"timestamp>="yesterday""#,
            "a=(b c)",
            "a=~b",
            "log_id(a)",
            "log_id=\"a\"",
        ] {
            assert!(Filter::parse(filter).is_err(), "{filter}");
        }
    }
}
