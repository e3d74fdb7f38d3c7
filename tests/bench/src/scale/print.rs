//! Tables as Markdown.

use crate::scale::figures::Table;
use crate::scale::subjects::OTHER;

/// One figure of each subject.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub figure: &'static str,
    pub heading: &'static str,
    pub decimals: usize,
}

/// A row for each point, and for each subject the figures of the columns.
pub fn rows(table: &Table, unit: &str, columns: &[Column]) {
    let subjects = table.subjects();
    let mut heading = format!("| {unit} |");
    for subject in &subjects {
        for column in columns {
            heading += &format!(" {subject}: {} |", column.heading);
        }
    }
    println!("{heading}\n|{}", "---|".repeat(1 + subjects.len() * columns.len()));
    for point in table.points() {
        let mut line = format!("| {} |", thousands(point));
        for subject in &subjects {
            for column in columns {
                let value = table.row(point, subject).and_then(|row| row.median(column.figure));
                line += &value.map_or(" |".into(), |value| format!(" {} |", number(value, column.decimals)));
            }
        }
        println!("{line}");
    }
    println!();
}

/// The ratios of a figure to that of the first row, and to the other build.
pub fn ratios(table: &Table, unit: &str, figure: &str, asked: &str) {
    let (subjects, points) = (table.subjects(), table.points());
    let first = points[0];
    let others: Vec<&str> =
        subjects.iter().copied().filter(|name| *name != OTHER && subjects.contains(&OTHER)).collect();
    let mut heading = format!("| {unit} |");
    for subject in &subjects {
        heading += &format!(" {subject}: / {} |", thousands(first));
    }
    for subject in &others {
        heading += &format!(" {subject} / {OTHER} |");
    }
    println!("{heading}\n|{}", "---|".repeat(1 + subjects.len() + others.len()));
    let ratio = |own: (f64, &str), to: (f64, &str)| {
        let ratio = table.row(own.0, own.1).and_then(|row| row.ratio(table.row(to.0, to.1)?, figure));
        ratio.map_or(" |".into(), |ratio| format!(" {ratio:.2} |"))
    };
    for point in points {
        let mut line = format!("| {} |", thousands(point));
        for subject in &subjects {
            line += &ratio((point, subject), (first, subject));
        }
        for subject in &others {
            line += &ratio((point, subject), (point, OTHER));
        }
        println!("{line}");
    }
    if !asked.is_empty() {
        println!("\nAsked: {asked}.");
    }
    println!();
}

/// A figure with so many decimals; without any its thousands are apart.
pub fn number(value: f64, decimals: usize) -> String {
    if decimals == 0 { thousands(value) } else { format!("{value:.decimals$}") }
}

/// A whole number with a comma between its thousands.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (value, text) in [(7.0, "7"), (254.4, "254"), (1_000.0, "1,000"), (417_300.0, "417,300")] {
            assert_eq!(thousands(value), text);
        }
        assert_eq!(number(4.256, 2), "4.26");
    }
}
