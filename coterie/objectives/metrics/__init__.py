"""Metrics by name: what a model's outputs are judged by, from totals that can be added up over clients and silos."""

from coterie.objectives.metrics.names import METRICS, is_better, make_metric, metric_direction

__all__ = ["METRICS", "is_better", "make_metric", "metric_direction"]
