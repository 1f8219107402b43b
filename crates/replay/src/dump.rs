//! What a bridge says of its provider's dumps. The reading itself is the core's.

use std::borrow::Cow;

use audit_bridge_core::event::json::Raw;

/// The shapes of one provider's saved dumps.
///
/// JSON dumps are read by structure: an array, or objects one after the other, each either a
/// record or a *container* that holds records in an array (`events`, `records`, …). What is not
/// JSON is cut by a [`Splitter`] of the bridge's own.
pub trait Dump: Send + Sync {
    /// Names of the supported shapes, for `--shape` and for messages.
    fn shapes(&self) -> &'static [Shape];

    /// What a member's name says about the top-level object (or array element) that it stands in.
    /// Asked member by member, in order, until the answer is not [`Role::Neutral`].
    fn role(&self, key: &str) -> Role;

    /// The names of container members that [`Dump::record`] wants to know of the records inside.
    fn context_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// Brings one piece of a JSON dump into the provider's own form ([`audit_bridge_core::record::Record`]);
    /// what is in it already is returned as it is.
    ///
    /// Asked for pieces whose role is [`Role::Wrapped`], that are no objects, or that stand in a
    /// container with a context. `piece` is one valid JSON value.
    ///
    /// # Errors
    /// A shape that is recognised but damaged (base64 that is none).
    fn record<'a>(
        &self,
        piece: Raw<'a>,
        context: &PieceContext,
    ) -> Result<Cow<'a, str>, RecordError>;

    /// Whether a piece that is no object (a string, a row) is of this provider at all: used for
    /// the first pieces of a file, to tell a foreign file from one with a few foreign records.
    fn recognises(&self, piece: Raw<'_>) -> bool;

    /// The splitter of a shape that is no JSON, chosen by name (`--shape`) or by the first bytes
    /// of the file (at least 4 KiB of them, unless the file is shorter).
    fn text_split(&self, shape: Option<&str>, head: &str) -> Option<Box<dyn Splitter>>;
}

/// What is wrong with a piece whose shape is recognised, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(Cow<'static, str>);

impl From<&'static str> for RecordError {
    fn from(what: &'static str) -> RecordError {
        RecordError(Cow::Borrowed(what))
    }
}

impl From<String> for RecordError {
    fn from(what: String) -> RecordError {
        RecordError(Cow::Owned(what))
    }
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
    /// The object is one record in the provider's own form.
    Record,
    /// The object holds one record in another form: [`Dump::record`] brings it into its own.
    Wrapped,
    /// The object is a container, and this member, when it is an array, holds its records.
    Records,
}

/// The members of the containers around a piece that came before its records and that
/// [`Dump::context_names`] names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PieceContext {
    members: Vec<(&'static str, String)>,
}

impl PieceContext {
    /// A context with these members, each value as JSON text.
    pub fn new(members: impl IntoIterator<Item = (&'static str, String)>) -> PieceContext {
        PieceContext {
            members: members.into_iter().collect(),
        }
    }

    /// What a record outside of any container has.
    pub const fn empty() -> PieceContext {
        PieceContext {
            members: Vec::new(),
        }
    }

    /// Whether no container said anything.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A member's value; the innermost container wins.
    pub fn get(&self, name: &str) -> Option<Raw<'_>> {
        let (_, json) = self.members.iter().rev().find(|(key, _)| *key == name)?;
        Raw::parse(json).ok()
    }

    /// A member that is a string.
    pub fn str(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name)?.as_str()
    }
}

/// One piece that a splitter cut out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes, in the provider's own form.
    pub bytes: Cow<'a, [u8]>,
    /// It comes from a damaged place: see [`audit_bridge_core::record::Record::damaged`].
    pub damaged: bool,
    /// Whether it looks like something of this provider: the first pieces of a file decide
    /// whether its shape is known at all.
    pub recognised: bool,
}

impl Piece<'_> {
    /// Whether it cannot be the beginning of something longer: a JSON object as it stands in the
    /// content.
    pub(super) fn is_whole(&self) -> bool {
        !self.damaged
            && matches!(&self.bytes, Cow::Borrowed(bytes) if bytes.trim_ascii_start().starts_with(b"{"))
    }
}

/// Cuts a byte stream into pieces, front to back, whatever the chunks it arrives in.
pub trait Splitter: Send {
    /// Takes complete pieces off the front of `buffer` and returns how many bytes were taken.
    /// The rest is offered again with more behind it. With `last`, nothing more will come and
    /// everything must be taken.
    fn split(&mut self, buffer: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> usize;

    /// After the last bytes: what shows that the file was cut between two records.
    fn unfinished(&self) -> Option<&'static str> {
        None
    }

    /// `buffer` holds the largest record that is read, and its end is not in sight. Either the
    /// place is damaged and the splitter finds the next record in it (it returns how many bytes it
    /// took, as [`Splitter::split`] does), or the record is too large: then it returns `None`, the
    /// caller reports the record and offers no byte of `buffer` again, and the splitter drops what
    /// follows up to the record's end.
    fn overflow(&mut self, buffer: &[u8], piece: &mut dyn FnMut(Piece<'_>)) -> Option<usize>;
}
