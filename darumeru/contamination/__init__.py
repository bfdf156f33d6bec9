"""Documents of the benchmark in training texts: which, how much of them, and scores without them."""
