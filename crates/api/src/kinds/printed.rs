//! The columns of the built-in kinds: names, types, formats and priorities, as facts in one file, because clients see
//! them and nobody edits them. The cells are each kind's own `row`, in the same order. The original describes each column
//! at length; no client shows that, and here it is left out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::columns::Column;

/// A line a column: group, kind, name, type, format, priority.
const FACTS: &str = include_str!("columns.tsv");

type Table = HashMap<(&'static str, &'static str), Vec<Column>>;

pub fn columns(group: &str, kind: &str) -> Vec<Column> {
    static TABLE: LazyLock<Table> = LazyLock::new(read);
    TABLE.get(&(group, kind)).cloned().unwrap_or_default()
}

fn read() -> Table {
    let mut table = Table::new();
    for line in FACTS.lines().filter(|l| !l.starts_with('#')) {
        let parts: Vec<&'static str> = line.split('\t').collect();
        let [group, kind, name, of, format, priority] = *parts.as_slice() else { continue };
        let column = Column {
            name: Cow::Borrowed(name),
            kind: Cow::Borrowed(of),
            format: Cow::Borrowed(format),
            description: Cow::Borrowed(""),
            priority: priority.parse().unwrap_or(0),
        };
        table.entry((group, kind)).or_default().push(column);
    }
    table
}
