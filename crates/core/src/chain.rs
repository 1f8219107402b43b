//! What an error says, with its causes.

use std::error::Error;

/// An error with its causes, in one line. A cause that the text before has already is left out:
/// many libraries repeat theirs.
pub fn chain(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = error.source();
    }
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Step {
        said: &'static str,
        source: Option<Box<Step>>,
    }

    #[test]
    fn causes_follow_once_and_on_one_line() {
        let mut error = None;
        for said in [
            "reset\nby peer",
            "cannot connect: refused",
            "refused",
            "cannot connect: refused",
        ] {
            error = Some(Box::new(Step {
                said,
                source: error,
            }));
        }
        let text = chain(&*error.unwrap());
        assert_eq!(text, "cannot connect: refused: reset by peer");
    }
}
