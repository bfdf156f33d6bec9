"""The propagation methods, one a file: a function of `Matrices` decorated with `lep.propagation.method.method`."""
