"""A sweep: the runs of a grid of settings, several at once, into one folder with a table and a page."""
