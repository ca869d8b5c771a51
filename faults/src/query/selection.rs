//! Which points a query means.

use std::fmt;

use crate::point::{FaultPoint, PointKind};
use crate::spelling::closest;
use crate::words::{self, LanguageError, Word, look_up, names, set_once};

/// The words that select points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Class,
    File,
    Line,
    Func,
    Module,
    Kind,
    Index,
    Within,
}

impl Match {
    /// Selects requests and not points, so a selection alone can't hold it.
    pub(super) const WITHIN: &'static str = "within";
}

pub(crate) const MATCHES: &[Word<Match>] = &[
    Word {
        name: "class",
        value: "A:B",
        help: "points of that class, or of one that begins with those words",
        id: Match::Class,
    },
    Word {
        name: "file",
        value: "NAME",
        help: "a source file, or the end of its path",
        id: Match::File,
    },
    Word {
        name: "line",
        value: "A or A-B",
        help: "lines of the file",
        id: Match::Line,
    },
    Word {
        name: "func",
        value: "NAME",
        help: "the function around the point, or the end of its path (Type::name)",
        id: Match::Func,
    },
    Word {
        name: "module",
        value: "PATH",
        help: "the module, or one above it",
        id: Match::Module,
    },
    Word {
        name: "kind",
        value: "fault, race or function",
        help: "the kind of point",
        id: Match::Kind,
    },
    Word {
        name: "index",
        value: "N",
        help: "only the Nth of those matched, by file and line, from 1",
        id: Match::Index,
    },
    Word {
        name: Match::WITHIN,
        value: "KIND",
        help: "only under work of that kind (a comma list)",
        id: Match::Within,
    },
];

/// Matches, all of which must hold. Without any, every point is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    class: Option<String>,
    file: Option<String>,
    lines: Option<(u32, u32)>,
    function: Option<String>,
    module: Option<String>,
    kind: Option<PointKind>,
    index: Option<u64>,
}

impl Selection {
    /// Reads matches, and nothing but matches.
    ///
    /// # Errors
    /// [`LanguageError`] names the word at fault and what was expected.
    pub fn parse(text: &str) -> Result<Self, LanguageError> {
        let mut selection = Self::default();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let entry = look_up(MATCHES, word)
                .filter(|entry| entry.id != Match::Within)
                .ok_or_else(|| {
                    LanguageError::unexpected(
                        word,
                        format!("one of {}", names(&MATCHES[..MATCHES.len() - 1])),
                    )
                })?;
            selection.take(entry, &mut words)?;
        }
        Ok(selection)
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn take<'a>(
        &mut self,
        entry: &Word<Match>,
        words: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), LanguageError> {
        let name = entry.name;
        let value = words
            .next()
            .ok_or_else(|| LanguageError::missing(name, entry.value))?;
        match entry.id {
            Match::Class => set_once(&mut self.class, value.to_owned(), name),
            Match::File => set_once(&mut self.file, value.to_owned(), name),
            Match::Line => set_once(&mut self.lines, lines(value)?, name),
            Match::Func => set_once(&mut self.function, value.to_owned(), name),
            Match::Module => set_once(&mut self.module, value.to_owned(), name),
            Match::Kind => set_once(&mut self.kind, point_kind(value)?, name),
            Match::Index => set_once(&mut self.index, words::count(value)?, name),
            Match::Within => Err(LanguageError::refused(name, "selects requests, not points")),
        }
    }

    /// The points selected, by file and line.
    ///
    /// # Errors
    /// [`LanguageError::NoMatch`] if there are none.
    pub fn points(&self) -> Result<Vec<&'static FaultPoint>, LanguageError> {
        let matched = FaultPoint::all().filter(|point| self.matches(point));
        let points: Vec<_> = match self.index {
            // An index larger than memory selects nothing.
            Some(index) => matched
                .skip(usize::try_from(index - 1).unwrap_or(usize::MAX))
                .take(1)
                .collect(),
            None => matched.collect(),
        };
        if points.is_empty() && !self.is_empty() {
            return Err(LanguageError::NoMatch {
                words: self.to_string(),
                what: "point",
                hint: self.hint(),
            });
        }
        Ok(points)
    }

    /// The function or class that may have been meant.
    fn hint(&self) -> String {
        let last = |name: &'static str| name.rsplit("::").next().unwrap_or(name);
        let function = self.function.as_deref().and_then(|word| {
            let word = word.rsplit("::").next().unwrap_or(word);
            closest(word, FaultPoint::all().map(|point| last(point.function())))
        });
        let class = || {
            let word = self.class.as_deref()?;
            closest(word, FaultPoint::all().map(|point| point.class))
        };
        match function.or_else(class) {
            Some(near) => format!("did you mean {near}? `weir point list` shows all"),
            None => "`weir point list` shows all".to_owned(),
        }
    }

    fn matches(&self, point: &FaultPoint) -> bool {
        let Self {
            class,
            file,
            lines,
            function,
            module,
            kind,
            index: _,
        } = self;
        class
            .as_ref()
            .is_none_or(|class| begins(point.class, class, ":"))
            && file.as_ref().is_none_or(|file| ends(point.file, file, "/"))
            && lines.is_none_or(|(first, last)| (first..=last).contains(&point.line))
            && function.as_ref().is_none_or(|name| {
                point.function() == name
                    || point.qualified() == *name
                    || ends(point.path(), name, "::")
            })
            && module
                .as_ref()
                .is_none_or(|module| begins(point.module, module, "::"))
            && kind.is_none_or(|kind| point.kind == kind)
    }
}

/// Whether `whole` is `part`, or goes on after it with `separator`.
fn begins(whole: &str, part: &str, separator: &str) -> bool {
    whole
        .strip_prefix(part)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

/// Whether `whole` is `part`, or `separator` stands before it.
fn ends(whole: &str, part: &str, separator: &str) -> bool {
    whole
        .strip_suffix(part)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with(separator))
}

fn lines(value: &str) -> Result<(u32, u32), LanguageError> {
    let line = |word: &str| {
        words::count(word)
            .ok()
            .and_then(|line| u32::try_from(line).ok())
    };
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    line(first)
        .zip(line(last))
        .filter(|(first, last)| first <= last)
        .ok_or_else(|| {
            LanguageError::unexpected(value, "a line or a range of lines, such as 40 or 40-80")
        })
}

fn point_kind(value: &str) -> Result<PointKind, LanguageError> {
    let found = PointKind::NAMED
        .iter()
        .find(|(name, _)| *name == value)
        .map(|(_, kind)| *kind);
    found.ok_or_else(|| LanguageError::unexpected(value, "one of fault, race, function"))
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            class,
            file,
            lines,
            function,
            module,
            kind,
            index,
        } = self;
        let mut parts = Vec::new();
        parts.extend(class.as_ref().map(|class| format!("class {class}")));
        parts.extend(file.as_ref().map(|file| format!("file {file}")));
        parts.extend(lines.map(|(first, last)| {
            if first == last {
                format!("line {first}")
            } else {
                format!("line {first}-{last}")
            }
        }));
        parts.extend(function.as_ref().map(|function| format!("func {function}")));
        parts.extend(module.as_ref().map(|module| format!("module {module}")));
        parts.extend(kind.map(|kind| format!("kind {kind}")));
        parts.extend(index.map(|index| format!("index {index}")));
        f.write_str(&parts.join(" "))
    }
}
