"""Make and load the weights that a federation starts from: an encoder trained on pairs of fractals, or a file's."""
