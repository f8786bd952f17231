"""Text classification, one text or a pair: data, metrics, and the parts that train and predict."""
