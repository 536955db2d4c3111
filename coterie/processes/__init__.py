"""The processes of one run: how they start, how they find one another, and what they exchange."""
