"""Published tables, one YAML file per source, in the layout of the source; ``eval.reference.tables`` reads them."""
