"""Parts that single methods of the literature brought; each file is one idea that several of them share."""
