"""New vocabularies: extended, optimized, swapped or trained; checked and compared."""
