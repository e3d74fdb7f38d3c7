//! The lines of a message that one version makes and another does not.

use std::collections::HashSet;

/// The lines that go and come if one version takes the place of another, each in its order. Both empty: the lines are the
/// same, or the same in another order or another number of times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineChanges<'a> {
    pub removed: Vec<&'a str>,
    pub added: Vec<&'a str>,
}

impl<'a> LineChanges<'a> {
    pub fn between(was: &'a [String], is: &'a [String]) -> Self {
        let missing_in = |others: &[String], lines: &'a [String]| -> Vec<&'a str> {
            let others: HashSet<&str> = others.iter().map(String::as_str).collect();
            lines.iter().map(String::as_str).filter(|line| !others.contains(line)).collect()
        };
        Self { removed: missing_in(is, was), added: missing_in(was, is) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_the_lines_that_go_and_those_that_come() {
        let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (was, is) = (lines(&["a f=1 1", "b f=1 1"]), lines(&["b f=2 1", "a f=1 1", "c f=1 1"]));
        let changes = LineChanges::between(&was, &is);
        assert_eq!((changes.removed, changes.added), (vec!["b f=1 1"], vec!["b f=2 1", "c f=1 1"]));
        let (was, is) = (lines(&["a", "b"]), lines(&["b", "a"]));
        assert_eq!(LineChanges::between(&was, &is), LineChanges { removed: vec![], added: vec![] });
    }
}
