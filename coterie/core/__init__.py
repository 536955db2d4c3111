"""The contract between algorithms, engines and the loop, and the arithmetic that they share.

Nothing here knows an algorithm, a data set, an engine or the files of a run.
"""
