"""Published tables, one YAML file per source in its layout; ``eval.reference.tables`` reads them."""
