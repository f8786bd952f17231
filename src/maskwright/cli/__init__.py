"""The command line: one file a command, imported without torch."""
