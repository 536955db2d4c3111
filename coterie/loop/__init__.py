"""The loop: rounds one after another, from asking the cohort to the record of the round."""
