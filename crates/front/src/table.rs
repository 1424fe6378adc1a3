//! Tables of text, laid out as kubectl lays them out.

/// Between two columns.
const GAP: usize = 3;

#[derive(Clone, Debug, Default)]
pub struct TextTable {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns are at least this wide, so that rows which come later stay in line.
    widths: Vec<usize>,
}

impl TextTable {
    pub fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        // A cell with a line break would tear the table apart.
        let one_line = |cell: T| cell.into().replace(['\n', '\r'], " ");
        self.rows.push(cells.into_iter().map(one_line).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lays out all rows below the header.
    pub fn render(&mut self) -> String {
        let mut text = String::new();
        let rows = std::mem::take(&mut self.rows);
        self.widen(std::iter::once(&self.header.clone()).chain(&rows));
        self.write(&mut text, &self.header);
        rows.iter().for_each(|row| self.write(&mut text, row));
        text
    }

    /// Lays out the rows since the last time, without the header.
    pub fn render_more(&mut self) -> String {
        let mut text = String::new();
        let rows = std::mem::take(&mut self.rows);
        self.widen(rows.iter());
        rows.iter().for_each(|row| self.write(&mut text, row));
        text
    }

    fn widen<'a>(&mut self, rows: impl Iterator<Item = &'a Vec<String>>) {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }

    fn write(&self, text: &mut String, row: &[String]) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&self.widths) {
            line += cell;
            line.extend(std::iter::repeat_n(' ', width + GAP - cell.chars().count().min(*width)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_in_line() {
        let mut table = TextTable::new(["NAME", "READY", "STATUS"]);
        table.row(["web-1", "1/1", "Running"]);
        table.row(["a-longer-name", "0/1", ""]);
        expect_test::expect![[r#"
            NAME            READY   STATUS
            web-1           1/1     Running
            a-longer-name   0/1
        "#]]
        .assert_eq(&table.render());
        table.row(["web-2", "0/1", "Crash\nLoop"]);
        expect_test::expect![[r#"
            web-2           0/1     Crash Loop
        "#]]
        .assert_eq(&table.render_more());
    }
}
