"""Experiments: read a TOML file, build the federation that it describes, and run it into a folder."""
