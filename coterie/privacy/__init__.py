"""Privacy that can be stated: clipping and noise with an accountant, and sums that nobody can open."""
