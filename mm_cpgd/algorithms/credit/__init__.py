"""Credit within and beyond a group: by step of a completion, by bundle of prompts, by agreement, by rule."""
