"""Tables of predictions, and the view that readers use."""
