//! What a bridge declares about its provider's dumps. Reading them is this crate's.

use std::borrow::Cow;

use audit_bridge_core::event::json::Raw;

/// The shapes of one provider's saved dumps.
///
/// JSON dumps are read by structure: an array, or a sequence of objects, each either a record or a
/// *container* that holds records in an array (`events`, `records`, …). Other dumps are cut by the
/// bridge's own [`Splitter`].
pub trait Dump: Send + Sync {
    /// Names of the supported shapes, for `--shape` and for messages.
    fn shapes(&self) -> &'static [Shape];

    /// What a member's name implies for the top-level object (or array element) that contains it.
    /// Called for each member in order until the answer is not [`Role::Neutral`].
    fn role(&self, key: &str) -> Role;

    /// The container members that [`Dump::record`] needs for the records inside.
    fn context_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// Converts one piece of a JSON dump into the provider's own form
    /// ([`audit_bridge_core::record::Record`]); a piece already in that form is returned unchanged.
    ///
    /// Called for pieces whose role is [`Role::Wrapped`], that are no objects, or that are in a
    /// container with a context. `piece` is one valid JSON value.
    ///
    /// # Errors
    /// The shape is recognised but damaged (invalid base64).
    fn record<'a>(
        &self,
        piece: Raw<'a>,
        context: &PieceContext,
    ) -> Result<Cow<'a, str>, RecordError>;

    /// Whether a piece that is no object (a string, a row) belongs to this provider. Called for the
    /// first pieces of a file, to distinguish a foreign file from one with a few foreign records.
    fn recognises(&self, piece: Raw<'_>) -> bool;

    /// The splitter of a shape other than JSON, chosen by name (`--shape`) or by the first bytes of
    /// the file (at least 4 KiB of them, unless the file is shorter).
    fn text_split(&self, shape: Option<&str>, head: &str) -> Option<Box<dyn Splitter>>;
}

/// What is wrong with a piece whose shape is recognised, for people.
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
    /// What produces such a dump, for people.
    pub about: &'static str,
    /// Whether it is read by JSON structure.
    pub json: bool,
}

/// What a member's name implies for the object around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The name implies nothing.
    Neutral,
    /// The object is one record in the provider's own form.
    Record,
    /// The object holds one record in another form, which [`Dump::record`] converts.
    Wrapped,
    /// The object is a container, and this member, if it is an array, holds its records.
    Records,
}

/// The members named by [`Dump::context_names`] that came before a piece in the containers around
/// it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PieceContext {
    members: Vec<(&'static str, String)>,
}

impl PieceContext {
    /// A context with these members; each value is JSON text.
    pub fn new(members: impl IntoIterator<Item = (&'static str, String)>) -> PieceContext {
        PieceContext {
            members: members.into_iter().collect(),
        }
    }

    /// The context of a record outside of any container.
    pub const fn empty() -> PieceContext {
        PieceContext {
            members: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A member's value; the innermost container wins.
    pub fn get(&self, name: &str) -> Option<Raw<'_>> {
        let (_, json) = self.members.iter().rev().find(|(key, _)| *key == name)?;
        Raw::parse(json).ok()
    }

    /// The value of a member that is a string.
    pub fn str(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name)?.as_str()
    }
}

/// One piece cut out by a splitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its bytes, in the provider's own form.
    pub bytes: Cow<'a, [u8]>,
    /// The piece is from a damaged place: see [`audit_bridge_core::record::Record::damaged`].
    pub damaged: bool,
    /// Whether the piece seems to be of this provider: the first pieces of a file decide whether
    /// its shape is known.
    pub recognised: bool,
}

impl Piece<'_> {
    /// Whether the piece cannot be the beginning of a longer one: a JSON object exactly as in the
    /// content.
    pub(super) fn is_whole(&self) -> bool {
        !self.damaged
            && matches!(&self.bytes, Cow::Borrowed(bytes) if bytes.trim_ascii_start().starts_with(b"{"))
    }
}

/// Cuts a byte stream into pieces, in order, independent of the chunks in which it arrives.
pub trait Splitter: Send {
    /// Cuts complete pieces off the front of `buffer` and returns how many bytes it consumed. The
    /// rest is passed again with more behind it. With `last`, nothing more will come and everything
    /// must be consumed.
    fn split(&mut self, buffer: &[u8], last: bool, piece: &mut dyn FnMut(Piece<'_>)) -> usize;

    /// After the last bytes: where the file was cut, if it ends between two records ("inside …").
    fn unfinished(&self) -> Option<&'static str> {
        None
    }

    /// Called when `buffer` has the size of the largest record that is read, without a record's
    /// end. If the place is damaged, the splitter finds the next record in it and returns how many
    /// bytes it consumed, like [`Splitter::split`]. Otherwise the record is too large and it
    /// returns `None`: the caller reports the record and passes none of these bytes again, and the
    /// splitter drops what follows up to the record's end.
    fn overflow(&mut self, buffer: &[u8], piece: &mut dyn FnMut(Piece<'_>)) -> Option<usize>;
}
