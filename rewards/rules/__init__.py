"""Built-in reward rules, one file per kind."""
