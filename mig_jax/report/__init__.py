"""A run told to people: a summary for the terminal and a self-contained page, both from a run's files alone."""
