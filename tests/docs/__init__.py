"""The manual is checked against the code that it describes."""
