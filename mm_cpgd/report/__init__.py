"""Training report ``report.html``: a run on one page that opens from disk, without network."""
