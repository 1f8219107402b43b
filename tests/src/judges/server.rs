//! The judge process, which answers one question at a time.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A judge that starts on the first question. It ends with the test process, which closes its
/// standard input.
#[derive(Debug)]
pub(super) struct Server {
    program: PathBuf,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    pub(super) fn new(program: PathBuf) -> Server {
        Server {
            program,
            running: Mutex::new(None),
        }
    }

    /// Asks a question, and returns the line of the answer.
    ///
    /// # Panics
    /// The judge fails; the next question starts a new one.
    pub(super) fn ask(&self, question: &str, body: &[u8]) -> String {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = self.exchange(&mut running, question, body);
        if answer.is_err()
            && let Some(mut failed) = running.take()
        {
            let _ = failed.child.kill();
            let _ = failed.child.wait();
        }
        drop(running);
        match answer {
            Ok(answer) => answer,
            Err(error) => {
                let program = self.program.display();
                unreachable!("{program} failed at {question} of {}: {error}", body.len())
            }
        }
    }

    fn exchange(
        &self,
        running: &mut Option<Running>,
        question: &str,
        body: &[u8],
    ) -> io::Result<String> {
        let judge = match running {
            Some(judge) => judge,
            None => running.insert(self.start()?),
        };
        writeln!(judge.questions, "{question} {}", body.len())?;
        judge.questions.write_all(body)?;
        judge.questions.flush()?;
        let mut answer = String::new();
        if judge.answers.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }

    fn start(&self) -> io::Result<Running> {
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Running {
            child,
            questions,
            answers: BufReader::new(answers),
        })
    }
}
