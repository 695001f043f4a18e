"""The long table of counted rows, and every table made from it."""
