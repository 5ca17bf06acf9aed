"""Embedded tiny policy of the quickstart (``assets``) and its construction (``build``)."""
