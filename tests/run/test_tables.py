"""Rows become columns that line up, and Markdown."""

from rest.run import tables


def test_columns_of_a_table_line_up():
  text = tables.as_text(
    [{'a': '1', 'long name': 'x'}, {'a': '22', 'long name': ''}]
  )
  assert len({len(line) for line in text.split('\n')}) == 1


def test_a_row_lacks_what_it_has_no_value_for():
  rows = [{'a': '1'}, {'a': '2', 'b': '3'}]
  assert tables.as_text(rows) == 'a  b\n1   \n2  3'
  expected = '| a | b |\n| --- | --- |\n| 1 | - |\n| 2 | 3 |'
  assert tables.as_markdown(rows) == expected
