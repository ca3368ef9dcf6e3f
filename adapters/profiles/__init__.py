"""What columns look like: counts, quantiles and drift of inputs and predictions."""
