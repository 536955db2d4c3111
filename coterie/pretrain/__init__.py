"""Where a federation starts from, made without anyone's data: encoders trained on pairs of fractals."""
