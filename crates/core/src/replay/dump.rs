//! What a bridge says of its provider's dumps. The reading itself is the core's.

use std::borrow::Cow;

use crate::event::json::Raw;

/// The shapes of one provider's saved dumps.
///
/// JSON dumps are read by structure: an array, or objects one after the other, each either a
/// record or a *container* that holds records in an array (`events`, `records`, …). What is not
/// JSON is cut by a [`Split`] of the bridge's own.
pub trait Dump: Send {
    /// Names of the supported shapes, for `--shape` and for messages.
    fn shapes(&self) -> &'static [Shape];

    /// What a member's name says about the top-level object (or array element) that it stands in.
    /// Asked member by member, in order, until the answer is not [`Role::Neutral`].
    fn role(&self, key: &str) -> Role;

    /// Brings one piece of a JSON dump into the provider's own form ([`crate::record::Record`]).
    ///
    /// `piece` is one valid JSON value; `context` holds the members of the containers around it
    /// that came before it, innermost first. Whatever is in its form already is returned as it is.
    ///
    /// # Errors
    /// A shape that is recognised but damaged (base64 that is none): what is wrong, for a person.
    fn record<'a>(&self, piece: Raw<'a>, context: &Context<'_>) -> Result<Cow<'a, str>, String>;

    /// Whether a piece, as [`Dump::record`] returned it, is of this provider at all: used for the
    /// first pieces of a file, to tell a foreign file from one with a few foreign records.
    fn recognises(&self, record: Raw<'_>) -> bool;

    /// The splitter of a shape that is no JSON, chosen by name (`--shape`) or by the first bytes
    /// of the file (at least 4 KiB of them, unless the file is shorter).
    fn text_split(&self, shape: Option<&str>, head: &str) -> Option<Box<dyn Split>>;
}

/// One shape that a user can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Its name on the command line.
    pub name: &'static str,
    /// What makes such a dump, for a person.
    pub about: &'static str,
    /// Whether it is read by JSON structure.
    pub json: bool,
}

/// What the name of a member says about the object around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing yet.
    Neutral,
    /// The object is one record.
    Record,
    /// The object is a container, and this member, when it is an array, holds its records.
    Records,
}

/// The members of a container that came before its records: `(name, value)`.
#[derive(Debug, Default)]
pub struct Context<'a> {
    /// In the order of the text.
    pub members: Vec<(Cow<'a, str>, Raw<'a>)>,
}

impl Context<'_> {
    /// A member that is a string.
    pub fn str(&self, name: &str) -> Option<Cow<'_, str>> {
        self.members
            .iter()
            .rev()
            .find(|(key, _)| key == name)?
            .1
            .as_str()
    }
}

/// One piece that a splitter cut out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes, in the provider's own form.
    pub bytes: Cow<'a, [u8]>,
    /// It comes from a damaged place: see [`crate::record::Record::damaged`].
    pub damaged: bool,
}

/// Cuts a byte stream into pieces, front to back, whatever the chunks it arrives in.
pub trait Split: Send {
    /// Takes complete pieces off the front of `buffer` and returns how many bytes were taken.
    /// The rest is offered again with more behind it. With `last`, nothing more will come and
    /// everything must be taken.
    fn split(&mut self, buffer: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> usize;

    /// `buffer` holds the largest record that is read, and its end is not in sight: take all of
    /// it, and in later calls drop what follows up to the next record. The caller reports it.
    fn overflow(&mut self, buffer: &[u8]);
}
