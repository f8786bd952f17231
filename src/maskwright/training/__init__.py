"""The loop, and the parts that are plugged into it."""
