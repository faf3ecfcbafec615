//! Settings that are written as one text with commas, or as a list of texts.

use serde::{Deserialize, Serialize};

/// A list as people and programs write it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Listed {
    /// `a,b`
    Line(String),
    /// `["a", "b"]`
    List(Vec<String>),
}

impl Listed {
    /// The texts in it, without white space around them and without empty ones.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let (line, list): (&str, &[String]) = match self {
            Self::Line(line) => (line, &[]),
            Self::List(list) => ("", list),
        };
        let listed = list.iter().flat_map(|text| text.split(','));
        line.split(',').chain(listed).map(str::trim).filter(|text| !text.is_empty())
    }
}
