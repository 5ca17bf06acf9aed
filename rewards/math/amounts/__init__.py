"""Amounts: numbers in words, units and quantities, money, times of day, dates."""
