"""Generation of answers: by a model on this machine or behind a server, cached."""
