"""Built-in reward rules, one file a kind."""
