"""The HTML report: one page from a result, with its evidence."""
