"""What happens, in what order. Knows no ML library and no SQL dialect."""
