"""The processes of one run: how they start, how they meet, and what they exchange.

A function is collective if every process must call it, in the same order. Its docstring then says "Collective: every
process calls it"; a test checks that every caller says so too.
"""
