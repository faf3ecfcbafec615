//! Checks as lines, and as an exit code.

use std::process::ExitCode;

use super::failure;
use crate::model::{Check, CheckVerdict, Class};

/// One line for each, and what to do below it.
pub(super) fn lines(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let Check { advice, class: _, detail, id, subject, verdict } = check;
        let subject = subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default();
        let advice = advice.as_ref().map(|advice| format!("{:10}{advice}\n", "")).unwrap_or_default();
        format!("{:<10}{id}: {subject}{detail}\n{advice}", word(*verdict))
    };
    checks.iter().map(line).collect()
}

fn word(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::Failed => "FAILED",
        CheckVerdict::Ok => "ok",
        CheckVerdict::Unknown => "unknown",
        CheckVerdict::Warning => "warning",
    }
}

/// The code of the worst failure: what stays until somebody does something goes before what passes.
pub(super) fn code(checks: &[Check]) -> ExitCode {
    let worst = checks.iter().filter_map(|check| check.class).max_by_key(|class| weight(*class));
    worst.map_or(ExitCode::SUCCESS, failure::exit)
}

fn weight(class: Class) -> u8 {
    match class {
        Class::Partial | Class::Waiting => 0,
        Class::Clock | Class::Temporary => 1,
        Class::NotEnrolled => 2,
        Class::Other => 3,
        Class::Denied => 4,
        Class::Foreign => 5,
        Class::Held => 6,
        Class::Refused => 7,
        Class::Usage => 8,
        Class::Configuration => 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_it_is_and_what_to_do() {
        let checks = [Check::ok("tun", "there"), Check::warning("clock", "10 min ahead", "set it").of("a.example")];

        assert_eq!(
            lines(&checks),
            "ok        tun: there\nwarning   clock: a.example: 10 min ahead\n          set it\n"
        );
    }

    #[test]
    fn what_stays_goes_before_what_passes() {
        let failed = |class| Check::failed("x", class, "", "");
        let same =
            |checks: &[Check], class: Class| format!("{:?}", code(checks)) == format!("{:?}", failure::exit(class));

        assert!(same(&[failed(Class::Temporary), failed(Class::Refused), failed(Class::Other)], Class::Refused));
        assert!(same(&[failed(Class::Temporary)], Class::Temporary));
        assert_eq!(format!("{:?}", code(&[Check::warning("x", "", "")])), format!("{:?}", ExitCode::SUCCESS));
    }
}
