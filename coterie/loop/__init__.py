"""The loop: rounds one after another, from drawing the cohort to the record of the round."""
