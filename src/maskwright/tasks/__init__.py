"""What a pretrained encoder is used for: each task with its data, head, metrics and predictor."""
