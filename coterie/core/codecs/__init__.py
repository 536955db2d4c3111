"""Codecs that make updates small: a byte for each number, and the largest entries with error feedback."""
