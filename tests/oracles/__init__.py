"""NumPy float64 references, written from the papers and independent of the code."""
