"""Worker processes in which sympy runs under a time and memory limit."""
