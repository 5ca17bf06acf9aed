"""``mm-cpgd``: the command line, one file a group of commands; ``main`` assembles them."""
