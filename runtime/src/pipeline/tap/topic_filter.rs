//! An MQTT topic filter, as a viewer gives it.

/// A topic filter: `+` stands for one level, `#` at the end for the rest (MQTT 5, 4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFilter(String);

impl TopicFilter {
    /// Reads a filter; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let is_whole = level == "+" || level == "#" && levels.peek().is_none();
            if !is_whole && level.contains(['+', '#', '\0']) {
                return None;
            }
        }
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub fn takes(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let (mut filter, mut levels) = (self.0.split('/'), topic.split('/'));
        loop {
            match (filter.next(), levels.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(wanted), Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_levels_and_the_rest() {
        let takes = |filter: &str, topic: &str| TopicFilter::parse(filter).unwrap().takes(topic);
        assert!(takes("a/+/c", "a/b/c") && takes("a/+/c", "a//c") && takes("a/#", "a") && takes("#", "a/b"));
        assert!(takes("a/#", "a/b/c") && takes("$SYS/#", "$SYS/x"));
        assert!(!takes("a/+", "a/b/c") && !takes("a/b", "a") && !takes("a", "a/b") && !takes("#", "$SYS/x"));
        assert!(!takes("a/+/c", "a/b/d"));
        for bad in ["", "a+/b", "a/#/b", "#a", "a/b#"] {
            assert_eq!(TopicFilter::parse(bad), None, "{bad}");
        }
    }
}
