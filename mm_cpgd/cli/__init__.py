"""``mm-cpgd``: the command line, one file per group of commands; ``main`` assembles them."""
