"""The embedded tiny policy of the quickstart, and how it is built."""
