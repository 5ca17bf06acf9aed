"""Judge protocols: ways to score a response with an LLM, each named by whose rule and wording it is."""
