//! Which series a query of Prometheus' asks for.

/// Words that are neither series nor functions.
const WORDS: [&str; 7] = ["and", "or", "unless", "offset", "bool", "group_left", "group_right"];

/// Words before parentheses that hold labels.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The series in a query.
pub fn series(query: &str) -> Vec<String> {
    let text = without(query, '{', '}');
    let text = without(&text, '[', ']');
    let mut series = Vec::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(is_word) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        let next = after.trim_start();
        let opens = next.starts_with('(');
        // An aggregation names its labels before its parentheses, or after.
        let calls = opens || next.starts_with("by (") || next.starts_with("without (");
        if opens && BEFORE_LABELS.contains(&word) {
            rest = after.split_once(')').map_or("", |(_, beyond)| beyond);
        } else if !calls
            && !WORDS.contains(&word)
            && !word.starts_with(|c: char| c.is_ascii_digit())
        {
            series.push(word.to_owned());
        }
    }
    series
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// The text without what is between two brackets, which strings in it may hold as well.
fn without(text: &str, open: char, close: char) -> String {
    let (mut kept, mut within, mut quoted) = (String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            _ if c == open => within = true,
            _ if c == close => within = false,
            _ if !within => kept.push(c),
            _ => {}
        }
    }
    kept
}

#[test]
fn series_are_told_from_labels_functions_and_numbers() {
    let query = r#"histogram_quantile(0.99, sum by (le, shard) (rate(a_bucket{route!~".*{x}.*"}[5m])))
        > 1e3 and on (job) b_total offset 10m unless (absent(up{job="x"} == 1))"#;
    assert_eq!(series(query), ["a_bucket", "b_total", "up"]);
}
