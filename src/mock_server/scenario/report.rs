//! What a scenario observed, for people and for continuous integration.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// Every expectation held.
    pub passed: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Each expectation, in the file's order.
    pub verdicts: Vec<Verdict>,
    /// Every request, in order, without secrets.
    pub requests: Vec<Request>,
    /// Uses spent of each key that counts them, by name.
    pub uses_spent: BTreeMap<String, i64>,
    /// Secrets where they should not be.
    pub leaks: Vec<Leak>,
    /// Steps that never happened, counted from 1.
    pub steps_left: Vec<usize>,
}

/// What came of one expectation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The expectation's name.
    pub name: String,
    /// What was seen instead; `None` if it held.
    pub failure: Option<String>,
}

/// A request as the report shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// As `POST`.
    pub method: String,
    /// Path and query; secrets in it are `…`.
    pub path: String,
    /// Length of the body.
    pub bytes: usize,
}

/// A secret where it should not be; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Leak {
    /// What was seen.
    pub what: String,
    /// In which request.
    pub request: String,
}

impl Report {
    /// The report as XML for `JUnit` readers, one test case for each expectation.
    pub fn to_junit(&self) -> String {
        let failures = self.verdicts.iter().filter(|verdict| verdict.failure.is_some()).count();
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{}\" tests=\"{}\" \
             failures=\"{failures}\" time=\"{:.3}\">\n",
            escaped(&self.scenario),
            self.verdicts.len(),
            self.seconds
        );
        for Verdict { name, failure } in &self.verdicts {
            let name = escaped(name);
            let suite = escaped(&self.scenario);
            let line = match failure {
                Some(failure) => format!(
                    "    <testcase classname=\"{suite}\" name=\"{name}\"><failure message=\"{}\"/></testcase>",
                    escaped(failure)
                ),
                None => format!("    <testcase classname=\"{suite}\" name=\"{name}\"/>"),
            };
            writeln!(text, "{line}").expect("writing to memory does not fail");
        }
        text.push_str("  </testsuite>\n</testsuites>\n");
        text
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_has_a_case_for_each_expectation() {
        let verdicts = vec![
            Verdict { name: "one use".into(), failure: None },
            Verdict { name: "a < b".into(), failure: Some("saw \"3\"".into()) },
        ];
        let report = Report {
            scenario: "a&b".into(),
            passed: false,
            seconds: 1.5,
            verdicts,
            requests: vec![],
            uses_spent: BTreeMap::new(),
            leaks: vec![],
            steps_left: vec![],
        };

        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites>
  <testsuite name=\"a&amp;b\" tests=\"2\" failures=\"1\" time=\"1.500\">
    <testcase classname=\"a&amp;b\" name=\"one use\"/>
    <testcase classname=\"a&amp;b\" name=\"a &lt; b\"><failure message=\"saw &quot;3&quot;\"/></testcase>
  </testsuite>
</testsuites>
";
        assert_eq!(report.to_junit(), expected);
    }
}
