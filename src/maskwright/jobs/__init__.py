"""The verbs: each turns a config into a folder, and returns its numbers."""
