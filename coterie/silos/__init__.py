"""Real silos: a coordinator without data asks silos, each with clients of its own, for the work of every round."""
