"""Generation of responses: by a model on this machine or behind a server, cached."""
