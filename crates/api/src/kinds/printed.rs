//! The columns of the built-in kinds: names, types, formats, priorities and descriptions, as facts in one file, because
//! clients see them and nobody edits them. The cells are each kind's own `row`, in the same order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::columns::Column;

/// A line a column: group, kind, name, type, format, priority, description; before them the descriptions that several
/// share, each behind its mark.
const FACTS: &str = include_str!("columns.tsv");

type Table = HashMap<(&'static str, &'static str), Vec<Column>>;

pub fn columns(group: &str, kind: &str) -> Vec<Column> {
    static TABLE: LazyLock<Table> = LazyLock::new(read);
    TABLE.get(&(group, kind)).cloned().unwrap_or_default()
}

fn read() -> Table {
    let (mut table, mut shared) = (Table::new(), HashMap::new());
    for line in FACTS.lines().filter(|l| !l.starts_with('#')) {
        let parts: Vec<&'static str> = line.split('\t').collect();
        match *parts.as_slice() {
            [mark, text] => drop(shared.insert(mark, text)),
            [group, kind, name, of, format, priority, description] => {
                let text = shared.get(description).copied().unwrap_or(description);
                let column = Column {
                    name: Cow::Borrowed(name),
                    kind: Cow::Borrowed(of),
                    format: Cow::Borrowed(format),
                    description: Cow::Owned(text.replace("\\n", "\n")),
                    priority: priority.parse().unwrap_or(0),
                };
                table.entry((group, kind)).or_default().push(column);
            }
            _ => {}
        }
    }
    table
}
