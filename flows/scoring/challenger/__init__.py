"""A second model, scored alongside the champion over the same rows and never published."""
