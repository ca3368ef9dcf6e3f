"""One short file per ML library; the only place where ML libraries are imported."""
