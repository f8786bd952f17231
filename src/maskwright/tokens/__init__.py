"""Text to ids to shards to batches."""
