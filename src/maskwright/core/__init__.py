"""What every other package stands on: configs, errors, files, keyed randomness, progress."""
