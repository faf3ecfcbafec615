//! What a look at one thing came to, for `agent doctor` and `agent join --dry-run`.

use std::fmt::Display;

use serde::Serialize;

use super::Class;

/// A named check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What to do about it; `None` if nothing has to be done.
    pub advice: Option<String>,
    /// The kind of failure; `None` unless the verdict is [`CheckVerdict::Failed`].
    pub class: Option<Class>,
    /// What was found, in words.
    pub detail: String,
    /// Which check; the same in every version.
    pub id: &'static str,
    /// What of several things was looked at, as a peer or an interface; `None` where there is only one.
    pub subject: Option<String>,
    /// How it looks.
    pub verdict: CheckVerdict,
}

/// How a checked thing looks; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    /// As it should be.
    Ok,
    /// It could not be seen.
    Unknown,
    /// It works, and somebody should look.
    Warning,
    /// It does not work.
    Failed,
}

impl Check {
    /// As it should be.
    pub fn ok(id: &'static str, detail: impl Into<String>) -> Self {
        Self::new(id, CheckVerdict::Ok, None, detail, None)
    }

    /// It could not be seen, and what would help.
    pub fn unknown(id: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(id, CheckVerdict::Unknown, None, detail, Some(advice.into()))
    }

    /// It works, and somebody should look.
    pub fn warning(id: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(id, CheckVerdict::Warning, None, detail, Some(advice.into()))
    }

    /// It does not work: a failure of `class`.
    pub fn failed(id: &'static str, class: Class, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(id, CheckVerdict::Failed, Some(class), detail, Some(advice.into()))
    }

    /// Says what of several things was looked at.
    #[must_use]
    pub fn of(self, subject: impl Display) -> Self {
        Self { subject: Some(format!("{subject}")), ..self }
    }

    fn new(
        id: &'static str,
        verdict: CheckVerdict,
        class: Option<Class>,
        detail: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        Self { advice, class, detail: detail.into(), id, subject: None, verdict }
    }
}
