"""Configuration of a run: schema, YAML loading, error messages, recipes."""
