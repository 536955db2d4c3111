"""Measure outputs against labels and teachers: losses and metrics, as sums and counts that can be added up."""

from coterie.objectives.classification import accuracy, cross_entropy

__all__ = ["accuracy", "cross_entropy"]
