"""Participants without a server: each runs a process of its own, and they exchange messages through a mailbox."""
