"""Training: ``run`` starts a run, ``trainer`` loops, ``collector`` and ``learner`` are the two half steps."""
