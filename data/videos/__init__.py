"""Videos of rows: references, reading of files and of lists of frames, choice and size of frames."""
