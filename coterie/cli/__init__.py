"""The command `coterie`: it reads arguments and prints; `coterie.experiment` and `coterie.report` do the work."""
