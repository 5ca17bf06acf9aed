"""Mathematical answer checker: clean, tokenize, parse, read, compare."""
