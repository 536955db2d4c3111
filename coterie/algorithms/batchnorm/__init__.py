"""Algorithms that change BatchNorm, one file each, and what they share.

`fbn`, `hbn`, `fixbn` and `fedbn` each hold one algorithm. `gradients` holds FBN's normalisers, and `slopes` what one of
them needs. `tasks` makes a task whose BatchNorm layers call a normaliser, `statistics` carries statistics from the
clients to the server and back, and `measuring_round` makes a round that measures statistics and trains nothing.
"""
